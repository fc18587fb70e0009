"""Checkpoints that know themselves: task, settings, image size, label space, attribute names, weights.

A file may come from anywhere: nothing in it is executed.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facelightning.errors import CheckpointError

FORMAT = 2
"""Of what a task writes under "facelightning"; raised whenever an older version could not read it."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained task on disk.

    Args:
        path: The file.
        task: Name of the task's class.
        settings: Its arguments, plain; see :func:`plain`.
        facts: What it was built for; see :meth:`facelightning.facts.DataFacts.plain`.
        weights: The task's state.
        config: The configuration of the run that wrote it; ``None`` if that was not the command line.
    """

    path: str
    task: str
    settings: dict[str, Any]
    facts: dict[str, Any]
    weights: dict[str, Tensor]
    config: dict[str, Any] | None

    @classmethod
    def read(cls, path: str | Path) -> "Checkpoint":
        """Read a file.

        Raises:
            CheckpointError: If there is no such file, it is broken, or it was not written by this library.
        """
        if not Path(path).is_file():
            raise CheckpointError(f"checkpoint {path} does not exist")
        try:
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a broken or malicious file provokes
            # torch's own message advises to switch weights_only off
            raise CheckpointError(
                f"checkpoint {path} cannot be read ({type(error).__name__}): it is damaged or not a checkpoint"
            ) from None
        return cls.of(content, path)

    @classmethod
    def of(cls, content: Any, path: str | Path = "the checkpoint") -> "Checkpoint":
        """The same of what was read already; raises likewise."""
        if isinstance(content, dict) and "facelightning_task" in content:
            raise CheckpointError(
                f"{path} was written by an older version of facelightning, whose networks had other parts: "
                "train it again, or use it with that version"
            )
        about = content.get("facelightning") if isinstance(content, dict) else None
        keys = {"format", "task", "settings", "facts"}
        if not isinstance(about, dict) or not keys <= about.keys() or "state_dict" not in content:
            raise CheckpointError(f"{path} is not a checkpoint of a facelightning task")
        if about["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {about['format']}, but this version of facelightning reads format {FORMAT}"
            )
        config = content.get("facelightning_config")
        if not (isinstance(about["settings"], dict) and isinstance(config, dict | None)):
            raise CheckpointError(f"{path} is damaged: its settings and configuration must hold keys and values")
        return cls(str(path), about["task"], about["settings"], about["facts"], content["state_dict"], config)

    @property
    def description(self) -> dict[str, Any]:
        """All but the weights: enough to build the task anew."""
        return {"format": FORMAT, "task": self.task, "settings": self.settings, "facts": self.facts}

    def load_into(self, module: nn.Module, prefix: str = "") -> None:
        """Give a module the weights whose names begin with ``prefix``.

        Raises:
            CheckpointError: If they are not those of such a module.
        """
        try:
            module.load_state_dict(
                {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}
            )
        except Exception:  # whatever weights that are none provoke
            raise CheckpointError(
                f"the weights in {self.path} do not fit its settings: it is damaged or of another version of "
                "facelightning"
            ) from None


def describe(source: str, task: str, purpose: str) -> tuple[dict[str, Any], Checkpoint | None]:
    """What a trained task that another is made of says of itself, and its file, if that is at hand.

    Args:
        source: A file; or a description as JSON, as checkpoints keep it of the tasks that they are made of.
        task: Name of the class it must have.
        purpose: Who asks, for messages.

    Raises:
        CheckpointError: If the file is missing, broken, or of another task.
    """
    remedy = f"train one with: facelightning fit --config {'segnet' if task == 'SegNet' else 'avg'}.yaml"
    is_file = not source.startswith("{")
    try:
        about = None if is_file else {"facelightning": json.loads(source), "state_dict": {}}
        found = Checkpoint.read(source) if about is None else Checkpoint.of(about)
    except CheckpointError as error:
        raise CheckpointError(f"{purpose}: {error}; {remedy}") from None
    if found.task != task:
        raise CheckpointError(f"{purpose}: {found.path} holds a {found.task}, not a {task}; {remedy}")
    return found.description, found if is_file else None


@contextmanager
def built_from(path: str | Path) -> Iterator[None]:
    """Turn whatever settings provoke that are not of this version, or were changed, into one sentence on their file."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        if isinstance(error, CheckpointError) and str(path) in reason:
            raise
        raise CheckpointError(
            f"the settings in {path} are not those of this version of facelightning: {reason or type(error).__name__}"
        ) from None


def part_class(value: Any) -> type | None:
    """The class of a part of a network, given as it is or as a partial; of the command line's own it is an argument."""
    candidates = (value.func, *value.args) if isinstance(value, partial) else (value,)
    return next((found for found in candidates if isinstance(found, type)), None)


def plain(value: Any) -> Any:
    """A setting as a checkpoint keeps it: numbers, texts, lists, dictionaries.

    A part of a network, given as a class or as a partial of one, becomes its class path and arguments, as in YAML.
    Weights to begin with are left out, for a checkpoint has its own.

    Example:
        >>> plain({"part": partial(nn.Linear, out_features=4), "sizes": (1, 2)})
        {'part': {'class_path': 'torch.nn.modules.linear.Linear', 'init_args': {'out_features': 4}}, 'sizes': [1, 2]}
    """
    part = part_class(value)
    if isinstance(value, partial) and part is not None:
        defaults = {name: argument.default for name, argument in signature(part).parameters.items()}
        arguments = dict(zip(defaults, value.args if value.func is part else (), strict=False)) | value.keywords
        given = {name: plain(item) for name, item in arguments.items() if name != "weights" and item != defaults[name]}
        return plain(part) | {"init_args": given}
    if part is not None:
        return {"class_path": f"{part.__module__}.{part.__qualname__}", "init_args": {}}
    if isinstance(value, Mapping):
        return {key: None if key == "weights" else plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def restore_part(value: Any) -> Any:
    """The inverse of :func:`plain` for one setting: a part becomes a partial of its class.

    Raises:
        CheckpointError: If that class is neither in facelightning nor in a module that is imported already.
    """
    if not isinstance(value, dict) or value.keys() != {"class_path", "init_args"}:
        return value
    module, _, name = value["class_path"].rpartition(".")
    try:
        if module.split(".")[0] == "facelightning":
            import_module(module)
        part = getattr(sys.modules[module], name)
    except (ImportError, KeyError, AttributeError):
        part = None
    if not (isinstance(part, type) and issubclass(part, nn.Module)):
        raise CheckpointError(f"the checkpoint has a part {value['class_path']}, which is not known: import it first")
    return partial(part, **{key: restore_part(item) for key, item in value["init_args"].items()})
