"""What a command line says, before it is parsed: configurations, a recipe, a checkpoint."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from facelightning.checkpoint import Checkpoint
from facelightning.configs import chain, find_config, find_recipe
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.runs import RunFolder
from facelightning.tasks import TASKS
from facelightning.tasks.base import TRAINING

TRUSTED = ("facelightning", "lightning", "albumentations")
"""Whose classes a checkpoint, which may come from anywhere, may name."""


def options(words: Sequence[str], *names: str) -> list[tuple[int, int, str]]:
    """The values of an option, given as ``--name value`` or ``--name=value``, each with where it starts and ends.

    Example:
        >>> options(["fit", "--config", "avg.yaml", "--config=overlays/cpu.yaml"], "--config", "-c")
        [(1, 3, 'avg.yaml'), (3, 4, 'overlays/cpu.yaml')]
    """
    found = []
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names and (equals or place + 1 < len(words)):
            found.append((place, place + 1, value) if equals else (place, place + 2, words[place + 1]))
    return found


def with_recipe(words: Sequence[str]) -> list[str]:
    """A command line whose ``--recipe`` has become a configuration behind the first one, which it is for."""
    recipes = options(words, "--recipe")
    if not recipes:
        return list(words)
    start, end, recipe = recipes[-1]
    words = [*words[:start], *words[end:]]
    named = options(words, "--config", "-c")
    if not named:
        raise ConfigurationError(f"--recipe={recipe} changes a configuration: name one with --config before it")
    _, behind, name = named[0]
    path = find_recipe(recipe, find_config(name, Path.cwd()))
    if path is None:
        raise ConfigurationError(f"recipe {recipe} has nothing for {name}")
    return [*words[:behind], f"--config={path}", *words[behind:]]


def merge(words: Sequence[str]) -> dict[str, Any]:
    """All configurations that a command line names as one; later ones win."""
    merged: dict[str, Any] = {}
    for _, _, name in options(words, "--config", "-c"):
        for _, content in chain(find_config(name, Path.cwd())):
            merged = _merged(merged, content)
    return merged


def _merged(base: Any, top: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    return base | {key: _merged(base.get(key), value) for key, value in top.items()}


def beside_checkpoint(
    words: Sequence[str], checkpoint: Checkpoint, configs: Mapping[str, Any], training: bool
) -> list[str]:
    """A command line completed by what a checkpoint knows; or a clear sentence where the two contradict each other.

    A training that goes on takes the whole configuration of the one before, if none is given. Other commands take the
    task from the checkpoint, and the data module unless another is named.
    """
    known = checkpoint.config or {}
    for path in _class_paths([known, checkpoint.settings]):
        if path.split(".")[0] not in TRUSTED and path.rpartition(".")[0] not in sys.modules:
            raise CheckpointError(f"{checkpoint.path} names a class {path}, which is not known here: pass --config")
    if checkpoint.task not in TASKS:
        raise CheckpointError(f"{checkpoint.path} holds a {checkpoint.task}, which this version does not know")
    if training:
        return [*words[:1], *([] if configs else [f"--config={json.dumps(known)}"]), *words[1:]]
    flag = next((word for word in words if re.match(r"--model\b(?!\.help)", word)), None)
    if flag is not None:
        raise ConfigurationError(f"the model is that of {checkpoint.path}: leave out {flag}")
    _refuse_other_model(checkpoint, configs.get("model") or {})
    folder = RunFolder.of_checkpoint(checkpoint.path)
    place = {"save_dir": "runs", "name": Path(checkpoint.path).stem}
    if folder is not None:  # a new version beside the run that wrote it
        place = {"save_dir": str(folder.path.parents[1]), "name": folder.path.parent.name}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": place}
    base: dict[str, Any] = {"trainer": {"logger": logger}}
    if known.get("data"):
        base["data"] = known["data"]
    model = {"class_path": f"facelightning.{checkpoint.task}", "init_args": checkpoint.settings}
    command = words[:1] if words[:1] and not words[0].startswith("-") else []
    rest = words[len(command) :]
    return [*command, f"--config={json.dumps(base)}", *rest, f"--config={json.dumps({'model': model})}"]


def _class_paths(value: Any) -> list[str]:
    """Every class that a configuration names, however deep."""
    if isinstance(value, list):
        return [path for item in value for path in _class_paths(item)]
    if not isinstance(value, dict):
        return []
    own = [value["class_path"]] if isinstance(value.get("class_path"), str) else []
    return own + _class_paths(list(value.values()))


def _refuse_other_model(checkpoint: Checkpoint, model: Mapping[str, Any]) -> None:
    def name(value: Any) -> Any:
        """Parts by their class alone."""
        found = value.get("class_path") if isinstance(value, dict) else value
        return found.rpartition(".")[2] if isinstance(found, str) else found

    if model and name(model) not in (None, checkpoint.task):
        raise CheckpointError(
            f"{checkpoint.path} holds a {checkpoint.task}, but the configuration is of a {name(model)}; leave it out"
        )
    for key, value in (model.get("init_args") or {}).items():
        if key not in TRAINING and name(value) != name(checkpoint.settings.get(key)):
            raise CheckpointError(
                f"{checkpoint.path} was trained with {key} {name(checkpoint.settings.get(key))}, but the configuration "
                f"says {name(value)}: leave out --config, the checkpoint knows its model"
            )


def sizes(data: Any) -> list[Sequence[int]]:
    """Every ``image_size`` in the configuration of a data module, of parts of it too."""
    if not isinstance(data, dict):
        return []
    return [size for key, value in data.items() for size in ([value] if key == "image_size" else sizes(value))]


def set_sizes(data: Namespace, size: tuple[int, ...]) -> None:
    for key, value in vars(data.init_args).items():
        if key == "image_size":
            data.init_args[key] = size
        elif isinstance(value, Namespace) and "init_args" in value:
            set_sizes(value, size)
