"""What a command line names before it is parsed: configurations, a recipe, a checkpoint."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from facelightning.checkpoint import Checkpoint
from facelightning.configs import chain, find_config, find_recipe
from facelightning.errors import CheckpointError, ConfigurationError, quoted
from facelightning.facts import shown
from facelightning.runs import RunFolder
from facelightning.tasks import TASKS
from facelightning.tasks.base import TRAINING

LOGGERS = "lightning.pytorch.loggers."
CALLBACKS = tuple(
    f"lightning.pytorch.callbacks.{name}"
    for name in ("EMAWeightAveraging", "EarlyStopping", "LearningRateMonitor", "ModelCheckpoint")
)
TRAINED_WITH = ("model", "data", "trainer", "figures", "seed_everything", "test_after_fit", "speed")
"""What a resumed training takes of the configuration of the one before."""

NESTED = re.compile(r"--(model|data)(\.init_args)?\.(?!init_args)\w+\.\w")
"""An option of a part of the model or of the data."""

TRUSTED = ("facelightning.", LOGGERS, *CALLBACKS, "albumentations.")
"""Prefixes of the classes that a checkpoint may name."""


def options(words: Sequence[str], *names: str) -> list[tuple[int, int, str]]:
    """The values of an option, given as ``--name value`` or ``--name=value``, each with its start and end index.

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
    """The command line with ``--recipe`` replaced by its configuration, right after the one that it changes."""
    recipes = options(words, "--recipe")
    if not recipes:
        return list(words)
    if len(recipes) > 1:
        raise ConfigurationError("--recipe is given more than once: choose one")
    start, end, recipe = recipes[0]
    words = [*words[:start], *words[end:]]
    named = options(words, "--config", "-c")
    if not named:
        raise ConfigurationError(f"--recipe={recipe} changes a configuration: name one with --config before it")
    for _, behind, name in named:
        if path := find_recipe(recipe, find_config(name, Path.cwd())):
            return [*words[:behind], f"--config={path}", *words[behind:]]
    raise ConfigurationError(f"recipe {recipe} has nothing for {' and '.join(name for *_, name in named)}")


def nulls(words: Sequence[str]) -> list[str]:
    """The command line with each ``--model.PART.ARGUMENT=null`` as a configuration: jsonargparse would read "None".

    Example:
        >>> nulls(["fit", "--model.encoder.store=null"])
        ['fit', '--config={"model": {"init_args": {"encoder": {"init_args": {"store": null}}}}}']
    """
    words = list(words)
    names = {word.partition("=")[0] for word in words if NESTED.match(word)}
    for start, end, value in reversed(options(words, *names)):
        if value == "null":
            task, *keys = [key for key in words[start].partition("=")[0][2:].split(".") if key != "init_args"]
            content: Any = None
            for key in reversed(keys):
                content = {"init_args": {key: content}}
            words[start:end] = [f"--config={json.dumps({task: content})}"]
    return words


def merge(words: Sequence[str]) -> dict[str, Any]:
    """All configurations of a command line, merged; later ones win."""
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

    A training that goes on takes the configuration of the one before, if none is given. Other commands take the task
    from the checkpoint, and the data module unless another is named.
    """
    path, task, known = checkpoint.path, checkpoint.task, checkpoint.config or {}
    if task not in TASKS:
        raise CheckpointError(f"{path} holds {task}, which this version does not know")
    if training and TASKS[task].made_of is not None:
        raise ConfigurationError(f"{task} has nothing to learn: score {path} with `facelightning test`")
    used = (
        ("model", "data", "trainer", "figures", "seed_everything", "test_after_fit", "speed") if training else ("data",)
    )
    base = {} if training and configs.get("model") else {key: known[key] for key in used if known.get(key) is not None}
    named: list[Any] = [name for *_, name in options(words, "--data")]
    named = named or [(configs.get("data") or {}).get("class_path")]
    if named[-1] is not None and class_name(named[-1]) != class_name((base.get("data") or {}).get("class_path")):
        base.pop("data", None)  # another kind of data, whose folder would be taken for the other's
    elif not (base.get("data") or configs.get("data")):
        what = (
            "name the configuration" if training else "name its data, such as --data=CelebADataModule --data.root=..."
        )
        raise ConfigurationError(f"{path} was trained without the command line: {what}")
    _refuse_strangers(path, [base, checkpoint.settings], set(texts([configs, list(words)])))
    if training:
        if "model" in base:  # a parser's own file is not needed again
            base["model"]["init_args"] |= checkpoint.settings
        return [*words[:1], *([f"--config={json.dumps(base)}"] if base else []), *words[1:]]
    flag = next((word for word in words if re.match(r"--model\b(?!\.help)", word)), None)
    if flag is not None:
        raise ConfigurationError(f"the model is that of {path}: leave out {flag}")
    _refuse_other_model(checkpoint, configs.get("model") or {})
    folder = RunFolder.of_checkpoint(path)
    place = {"save_dir": "runs", "name": Path(path).stem}
    if folder is not None:  # a new version beside the run that wrote it
        place = {"save_dir": str(folder.path.parents[1]), "name": folder.path.parent.name}
    base["trainer"] = {"logger": {"class_path": "facelightning.runs.RunLogger", "init_args": place}}
    model = {"model": {"class_path": f"facelightning.{task}", "init_args": checkpoint.settings}}
    command = [word for word in words[:1] if not word.startswith("-")]
    # first, so that configurations may change its training options; and last, so that they cannot change the network
    first, last = (f"--config={json.dumps(content)}" for content in (base | model, model))
    return [*command, first, *words[len(command) :], last]


def own_data(words: Sequence[str], checkpoint: Checkpoint) -> list[str]:
    """A command line with the data that a checkpoint was trained on, unless it names a class of data itself."""
    data = (checkpoint.config or {}).get("data")
    if data is None or options(words, "--data", "--config", "-c"):
        return list(words)
    _refuse_strangers(checkpoint.path, data, set(texts(list(words))))
    return [f"--data={json.dumps(_without_sizes(data))}", *words]


def _without_sizes(data: Any) -> Any:
    """A data module's configuration without ``image_size``, which follows the checkpoint."""
    if not isinstance(data, dict):
        return data
    return {key: _without_sizes(value) for key, value in data.items() if key != "image_size"}


def class_name(path: Any) -> str:
    """The class name without its module."""
    return str(path).rpartition(".")[2]


def texts(value: Any) -> Iterator[str]:
    """All texts in a configuration, and what the options of a command line are set to."""
    if isinstance(value, str):
        yield value.partition("=")[2] if value.startswith("-") else value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)


def _refuse_strangers(path: str, value: Any, named: Collection[str]) -> None:
    """Refuse classes that a checkpoint, which may be untrusted, must not create, unless the user has named them.

    Likewise addresses that it must not fetch from.
    """
    if isinstance(value, list):
        for item in value:
            _refuse_strangers(path, item, named)
    if isinstance(value, dict):
        name = str(value.get("class_path", TRUSTED[0]))
        strange = not name.startswith(TRUSTED) or name.endswith("Lambda") or value.get("dirpath") is not None
        if strange and not any(_leads_to(text, name) for text in named):
            what = f"a class {name}" if "class_path" in value else "a folder to write to"
            raise CheckpointError(f"{path} names {what}, which a checkpoint may not: pass the --config that does")
        address = str(value.get("root"))
        if "://" in address and address not in named:
            what = f"an address to fetch from, {quoted(address, 100)}"
            raise CheckpointError(f"{path} names {what}, which a checkpoint may not: pass it yourself as --data.root")
        _refuse_strangers(path, list(value.values()), named)


def _leads_to(text: str, path: str) -> bool:
    """Whether what the user has named is the class of a path, perhaps by the path of a module that imports it."""
    module, _, name = text.rpartition(".")
    if not module or name != class_name(path):
        return False
    found = getattr(import_module(module), name, None)
    return text == path or f"{getattr(found, '__module__', None)}.{name}" == path


def _refuse_other_model(checkpoint: Checkpoint, model: Mapping[str, Any]) -> None:
    path, found = checkpoint.path, class_name(model.get("class_path", checkpoint.task))
    if found != checkpoint.task:
        raise CheckpointError(
            f"{path} holds {checkpoint.task}, but the configuration is of {found}: leave out --config"
        )
    for key, value in (model.get("init_args") or {}).items():
        theirs, ours = shown(checkpoint.settings.get(key)), shown(value)
        if key in (*TRAINING, TASKS[checkpoint.task].made_of) or class_name(theirs) == class_name(ours):
            continue
        raise CheckpointError(
            f"{path} was trained with {key} {theirs}, but the configuration says {ours}: leave out --config, the "
            "checkpoint knows its model"
        )


def sizes(data: Any) -> list[Sequence[int]]:
    """Every ``image_size`` in a data module's configuration, including its parts."""
    if not isinstance(data, dict):
        return []
    return [size for key, value in data.items() for size in ([value] if key == "image_size" else sizes(value))]


def set_sizes(data: Namespace, size: tuple[int, ...]) -> None:
    for key, value in vars(data.init_args).items():
        if key == "image_size":
            data.init_args[key] = size
        elif isinstance(value, Namespace) and "init_args" in value:
            set_sizes(value, size)
