"""The argument parser of every command: finds configurations, and suggests a correction for a mistake."""

import difflib
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # not marked as exported
from jsonargparse import Path as ConfigPath  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser

import facelightning.data.face_table  # imported so that configurations can name data modules without a path
import facelightning.data.joint
import facelightning.data.objects
import facelightning.data.person_folders
import facelightning.data.photographs
import facelightning.data.scenes
import facelightning.data.shards
import facelightning.data.utkface
import facelightning.models  # and parts of networks
import facelightning.objectives  # and of losses
from facelightning.configs import chain, find_config
from facelightning.tasks import TASKS


class ConfigFile(ActionConfigFile):
    """``--config``: finds bundled files by name, and lets a file say ``extends: base.yaml``."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        if values.startswith("{"):  # JSON from a checkpoint
            super().__call__(parser, cfg, values)  # type: ignore[no-untyped-call]  # not typed
            return
        for path, content in chain(find_config(values, Path.cwd())):
            _forget_lists(cfg, content)
            with ConfigPath(str(path), mode="fr").relative_path_context():
                super().__call__(parser, cfg, yaml.safe_dump(content))  # type: ignore[no-untyped-call]  # not typed


def _forget_lists(known: Any, content: dict[str, Any], place: str = "") -> None:
    """Forget the lists that a file replaces: their items would keep arguments of the former items of their class."""
    for name, value in content.items():
        if isinstance(value, dict):
            _forget_lists(known, value, f"{place}{name}.")
        elif isinstance(value, list) and known.get(f"{place}{name}") is not None:
            known[f"{place}{name}"] = None


class FaceParser(LightningArgumentParser):
    """An argument parser that takes no abbreviations and reports an error in a few lines, with a suggestion."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False  # else --trainer.max_epoch silently means max_epochs
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Exit with status 2 and the message."""
        unknown = re.findall(r"ption '([\w.+-]+)' is not accepted|accept option '([\w.+-]+)'|: --([\w.+-]+)", message)
        classes = re.findall(
            r"(?:path string: |Given value: |got: |class_path ')([A-Za-z_][\w.]*)(?=$|')", message, re.M
        )
        classes = classes if re.search(r"class.path|path string|subclass", message) and not unknown else []
        key, values = re.search(r'Parser key "([\w.]+)"', message), re.findall(r"(?:Given|Got) value: (.*)", message)
        hint = ""
        if re.search(r"are required: (\w+\.)?(data|model)\b", message):
            message = "there is no model or no data: give --config NAME.yaml, such as quickstart.yaml, before overlays"
        elif classes and key and classes[-1] in (known := _classes()):
            kind = re.search(r"facelightning[\w.]*\.(\w+)[\]']", message)
            given = next(base.__name__ for base in known[classes[-1]].__mro__[1:] if not base.__name__.startswith("_"))
            takes = f"a {kind[1]}, not {classes[-1]}" if kind else f"another class: {classes[-1]} is a kind of {given}"
            message, classes = f"{key[1]} takes {takes}", []
        elif classes:
            message = f"no class is named {classes[-1]}"
        elif key and values:
            found = re.findall(r"Expected an? (?:<class '|typing\.Literal\[)([\w.', -]+?)(?:'>|\])", message)
            choices = ", ".join("true, false" if each == "bool" else each for each in found).split(", ")
            expected = ", ".join(dict.fromkeys(word for word in choices if word not in ("NoneType", "")))
            message = f"{key[1]} takes {expected or 'something else'}, not {values[-1][:80]}"
        if unknown or classes:
            name = next(group for group in unknown[-1] if group).rsplit(".", 1)[-1] if unknown else classes[-1]
            close = difflib.get_close_matches(name, self._known_names(message) if unknown else sorted(_classes()), 1)
            hint = f"\n  did you mean {close[0]}?" if close else ""
        self.exit(2, f"facelightning: error: {message}{hint}\n")

    def _known_names(self, message: str) -> list[str]:
        parsers: list[Any] = [self]
        for action in self._actions:
            parsers += getattr(action, "_name_parser_map", {}).values()
        names = {action.dest.rsplit(".", 1)[-1] for parser in parsers for action in parser._actions}
        for path in re.findall(r"class_path '([\w.]+)'", message):
            module, _, name = path.rpartition(".")
            found = getattr(import_module(module), name, None)
            bases = inspect.getmro(found)[:-1] if found else ()  # the last is object
            names |= {name for base in bases for name in inspect.signature(base).parameters}
        return sorted(names)


def _classes() -> dict[str, type]:
    """All classes of facelightning that a configuration may name."""
    homes = (facelightning.data, facelightning.models, facelightning.objectives)
    found = {name: getattr(home, name) for home in homes for name in home.__all__} | TASKS
    return {name: item for name, item in found.items() if isinstance(item, type)}
