"""Self-contained checkpoints: task, settings, image size, label space, attribute names, weights.

A file may come from an untrusted source: nothing in it is executed.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor, nn

from facelightning.errors import CheckpointError, ConfigurationError, DataNotFoundError, quoted
from facelightning.hub import HUB, crop_margin, download, is_folder, read_folder

FORMAT = 2
"""Format of a checkpoint's "facelightning" entry; incremented whenever older versions cannot read it."""

OURS = "facelightning."
"""How the class paths of the library's own parts begin."""

SOURCES = ("checkpoint", "describer", "frozen", "members", "network", "stages", "tuned")
"""Arguments of our tasks and parts that take other checkpoints, or their descriptions."""

MISFIT = "the weights in {} do not fit its settings: it is damaged or of another version of facelightning"


@dataclass(frozen=True)
class Checkpoint:
    """A trained task on disk.

    Args:
        path: The file.
        task: Name of the task's class.
        settings: The task's arguments as plain values; see :func:`plain`.
        facts: The data it was built for; see :meth:`facelightning.facts.DataFacts.plain`.
        weights: The task's state.
        config: The configuration of the run that wrote it; ``None`` if it was not run from the command line.
    """

    path: str
    task: str
    settings: dict[str, Any]
    facts: dict[str, Any]
    weights: dict[str, Tensor]
    config: dict[str, Any] | None

    @classmethod
    def read(cls, path: str | Path) -> "Checkpoint":
        """Read a file, a folder that :mod:`~facelightning.hub` describes, or ``hub:owner/name``.

        Raises:
            CheckpointError: If there is no such file, it is broken, or it was not written by this library.
            ConfigurationError: If a folder needs a library that is not installed.
        """
        return cls.of(read_content(path), path)

    @classmethod
    def of(cls, content: Any, path: str | Path = "the checkpoint") -> "Checkpoint":
        """The same for content that was read already; raises the same errors."""
        if isinstance(content, dict) and "facelightning_task" in content:
            raise CheckpointError(
                f"{path} was written by an older version of facelightning, whose networks had other parts: "
                "train it again, or use it with that version"
            )
        about = content.get("facelightning") if isinstance(content, dict) else None
        keys = {"format", "task", "settings", "facts"}
        if not isinstance(about, dict) or not keys <= about.keys() or "state_dict" not in content:
            raise CheckpointError(f"{path} is not a checkpoint of a facelightning task")
        if not isinstance(about["format"], int) or about["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {quoted(str(about['format']))}, but this version of facelightning reads {FORMAT}"
            )
        parameters = content.get("hyper_parameters", {})
        # from these Lightning would import and call whatever class they name
        if not isinstance(parameters, dict) or parameters:
            raise CheckpointError(f"{path} holds hyper_parameters, which no task of facelightning writes")
        task, settings, config = about["task"], about["settings"], content.get("facelightning_config")
        if not (isinstance(task, str) and isinstance(settings, dict) and isinstance(config, dict | None)):
            raise CheckpointError(
                f"{path} is damaged: its task must be a name, its settings and configuration keys and values"
            )
        if config and not all(isinstance(config.get(key), dict | None) for key in ("model", "data", "trainer")):
            raise CheckpointError(f"{path} is damaged: its configuration must hold keys and values")
        if _names_weights(settings):
            raise CheckpointError(f"{path} names initial weights, which a checkpoint does not need")
        if _names_checkpoints(settings):
            raise CheckpointError(f"{path} names other checkpoints, which one that holds all its parts does not need")
        weights = content["state_dict"]
        if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise CheckpointError(f"{path} is damaged: its weights must be tensors by name")
        floats = {key: value for key, value in weights.items() if value.is_floating_point()}
        bad = next((key for key, value in floats.items() if not value.isfinite().all()), "")
        if bad:
            raise CheckpointError(f"{path} holds weights that are not finite ({quoted(bad)}): it has diverged")
        return cls(str(path), task, settings, about["facts"], weights, config)

    @property
    def description(self) -> dict[str, Any]:
        """Everything but the weights: enough to rebuild the task."""
        return {"format": FORMAT, "task": self.task, "settings": self.settings, "facts": self.facts}

    @property
    def crop_margin(self) -> float | None:
        """The margin of the cuts around faces in its training data; ``None`` if there were none, or it does not say."""
        return crop_margin((self.config or {}).get("data"))

    def check_shapes(self, module: nn.Module) -> None:
        """Refuse a module whose weights have other names or shapes; it may be on the meta device.

        Raises:
            CheckpointError: If they do not fit the module.
        """
        shapes = {key: value.shape for key, value in module.state_dict().items()}
        if shapes != {key: value.shape for key, value in self.weights.items()}:
            raise CheckpointError(MISFIT.format(self.path))

    def load_into(self, module: nn.Module, prefix: str = "") -> None:
        """Load the weights whose names begin with ``prefix`` into a module.

        Raises:
            CheckpointError: If they do not fit the module.
        """
        try:
            weights = {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}
            module.load_state_dict(weights)
        except Exception:  # values that are no weights may raise anything
            raise CheckpointError(MISFIT.format(self.path)) from None


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """What tells weights from all others, wherever they are stored.

    Example:
        >>> weights_digest({"bias": torch.zeros(2)}) == weights_digest({"bias": torch.ones(2)})
        False
    """
    digest = blake2b(digest_size=16)
    for name, value in weights.items():
        numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode() + numbers.tobytes())
    return digest.hexdigest()


def _names_weights(settings: Any) -> bool:
    """Whether a task or a part of ours names initial weights in plain settings; torchvision would download them."""
    if isinstance(settings, list):
        return any(map(_names_weights, settings))
    if not isinstance(settings, dict):
        return False
    arguments = settings.get("init_args")
    if isinstance(arguments, dict) and not str(settings.get("class_path")).startswith(OURS):
        parts = (item for item in arguments.values() if isinstance(item, dict) and "class_path" in item)
        return any(map(_names_weights, parts))
    return isinstance(settings.get("weights"), str) or any(map(_names_weights, settings.values()))


def _names_checkpoints(settings: Any) -> bool:
    """Whether a task or a part of ours is to be made of other files, instead of what it says of them itself."""
    if isinstance(settings, list):
        return any(map(_names_checkpoints, settings))
    if not isinstance(settings, dict) or not str(settings.get("class_path", OURS)).startswith(OURS):
        return False
    sources = [source for key in SOURCES for source in _listed(settings.get(key))]
    named = any(isinstance(source, str) and not source.startswith("{") for source in sources)
    return named or any(map(_names_checkpoints, settings.values()))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def read_content(path: str | Path) -> Any:
    """All that a file holds, or a folder that :mod:`~facelightning.hub` describes, or ``hub:owner/name``.

    Raises:
        CheckpointError: As :func:`read_file`.
        ConfigurationError: If a folder needs a library that is not installed.
    """
    if str(path).startswith(HUB):
        return read_folder(download(str(path).removeprefix(HUB)))
    return read_folder(path) if is_folder(path) else read_file(path)


def read_file(path: str | Path) -> Any:
    """Load what :func:`torch.save` wrote, onto the CPU; nothing in it is executed.

    Raises:
        CheckpointError: If there is no such file, a byte of it has changed, or it holds more than tensors and plain
            values.
    """
    if Path(path).is_dir():
        within = next((file for file in sorted(Path(path).rglob("*.ckpt"))), Path(path, "best.ckpt"))
        raise CheckpointError(f"checkpoint {path} is a folder: give a file in it, such as {within}")
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        with ZipFile(path) as archive:
            # torch does not compress; a small compressed file may fill the memory
            # and marks nothing as a folder, which it would read as memory that nobody wrote
            items = archive.infolist()
            foreign = [item.filename for item in items if item.compress_type != ZIP_STORED or item.external_attr]
            damaged = foreign[0] if foreign else archive.testzip()  # torch itself checks no checksums
        if damaged is None:
            return torch.load(path, map_location="cpu", weights_only=True)
        reason = f"{quoted(damaged)} in it is not as it was written"
    except Exception as error:  # a broken or malicious file may raise anything
        # torch's own message recommends weights_only=False
        reason = f"{type(error).__name__}: it is damaged or not a checkpoint"
    raise CheckpointError(f"checkpoint {path} cannot be read ({reason})")


def describe(source: str, task: str | None, purpose: str, config: str) -> tuple[dict[str, Any], Checkpoint | None]:
    """The description of a trained task that is part of another, and its checkpoint if ``source`` is a file.

    Args:
        source: A checkpoint file, or a description as JSON, which checkpoints store for the tasks they contain.
        task: Name of the expected task class; several are joined by "or"; any if not given.
        purpose: What it is for, for error messages.
        config: Name of a configuration that trains one, for error messages.

    Raises:
        CheckpointError: If the file is missing, broken, or of another task.
    """
    remedy = f"train one with: facelightning fit --config {config}.yaml"
    is_file = not source.startswith("{")
    try:
        about = None if is_file else {"facelightning": json.loads(source), "state_dict": {}}
        found = Checkpoint.read(source) if about is None else Checkpoint.of(about)
    except CheckpointError as error:
        raise CheckpointError(f"{purpose}: {error}; {remedy}") from None
    if task is not None and found.task not in task.split(" or "):
        raise CheckpointError(f"{purpose}: {found.path} holds {found.task}, not {task}; {remedy}")
    return found.description, found if is_file else None


@contextmanager
def built_from(path: str | Path) -> Iterator[None]:
    """Turn any error from settings that are edited or of another version into one sentence that names their file."""
    try:
        yield
    except Exception as error:
        names_it = isinstance(error, CheckpointError) and str(path) in str(error)
        if names_it or isinstance(error, DataNotFoundError):  # a file that a detector needs
            raise
        reason = quoted(" ".join(str(error).split()), 150)
        raise CheckpointError(
            f"the settings in {path} are not those of this version of facelightning: {reason or type(error).__name__}"
        ) from None


def part_class(value: Any) -> type | None:
    """The class of a network's part, given as a class or a partial; the command line's partials hold it as argument."""
    candidates = (value.func, *value.args) if isinstance(value, partial) else (value,)
    return next((found for found in candidates if isinstance(found, type)), None)


def plain(value: Any) -> Any:
    """A setting as a checkpoint stores it: numbers, strings, lists, dictionaries.

    A part of a network, given as a class or as a partial of one, becomes its class path and arguments, as in YAML.
    The initial weights of a part of ours are left out, because a checkpoint has its own.

    Raises:
        ConfigurationError: If there is anything else, such as a member of an enumeration.

    Example:
        >>> plain({"part": partial(nn.Linear, out_features=4), "sizes": (1, 2)})
        {'part': {'class_path': 'torch.nn.modules.linear.Linear', 'init_args': {'out_features': 4}}, 'sizes': [1, 2]}
    """
    part = part_class(value)
    if isinstance(value, partial) and part is not None:
        defaults = {name: argument.default for name, argument in signature(part).parameters.items()}
        arguments = dict(zip(defaults, value.args if value.func is part else (), strict=False)) | value.keywords
        given = {name: plain(item) for name, item in arguments.items() if item != defaults.get(name, Parameter.empty)}
        if part.__module__.startswith(OURS):
            given.pop("weights", None)
        return plain(part) | {"init_args": given}
    if part is not None:
        return {"class_path": f"{part.__module__}.{part.__qualname__}", "init_args": {}}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if type(value) not in (bool, int, float, str, type(None)):
        raise ConfigurationError(f"no checkpoint can hold the setting {quoted(repr(value))}: give numbers or text")
    return value


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
