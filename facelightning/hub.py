"""A trained task as a folder that others can load, on a disk or on the Hugging Face Hub.

The folder holds ``config.json``, ``model.safetensors`` and ``README.md``, by the Hub's conventions. It is as complete
as a checkpoint, without the state of a training and without the paths of the data.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facelightning.errors import CheckpointError, ConfigurationError, quoted

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"

HUB = "hub:"
"""How the name of a folder on the Hub begins, as in ``hub:owner/name``."""

MISSING = "pip install 'facelightning[hub]'"


def is_folder(path: str | Path) -> bool:
    """Whether a path is such a folder."""
    return Path(path, CONFIG).is_file() or Path(path, WEIGHTS).is_file()


def write_folder(folder: str | Path, content: Mapping[str, Any], card: str) -> None:
    """Write a folder.

    Args:
        folder: Created if there is none; the three files in it are replaced.
        content: What a checkpoint holds: ``"facelightning"``, ``"state_dict"``, perhaps ``"facelightning_config"``.
        card: The text of ``README.md``.

    Raises:
        ConfigurationError: If safetensors is not installed, or the folder has such files of something else.
    """
    try:
        from safetensors.torch import save_file  # here, because only sharing needs it
    except ImportError:
        raise ConfigurationError(f"a folder to share needs safetensors, which is not installed: {MISSING}") from None
    path = Path(folder)
    _refuse_strangers(path)
    path.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in content["state_dict"].items()}, path / WEIGHTS)
    about = {
        "facelightning": content["facelightning"],
        "data": _kind_of_data(content.get("facelightning_config")),
        "sha256": _digest(path / WEIGHTS),  # safetensors itself has no checksum
    }
    (path / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (path / CARD).write_text(card, encoding="utf-8")


def read_folder(folder: str | Path) -> dict[str, Any]:
    """What a checkpoint would hold, from a folder; nothing in it is executed.

    Raises:
        CheckpointError: If a file is missing, or a byte of the weights has changed.
        ConfigurationError: If safetensors is not installed.
    """
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ConfigurationError(f"{folder} needs safetensors, which is not installed: {MISSING}") from None
    path = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise CheckpointError(f"{folder} has no {name}: copy the whole folder again")
    try:
        about = json.loads((path / CONFIG).read_text("utf-8"))
        if about["sha256"] != _digest(path / WEIGHTS):
            raise ValueError(f"{WEIGHTS} is not the one that {CONFIG} was written with")
        weights = load_file(path / WEIGHTS)
        config = {"data": about["data"]} if about.get("data") else None
        return {"facelightning": about["facelightning"], "state_dict": weights, "facelightning_config": config}
    except Exception as error:  # a broken file may raise anything
        reason = quoted(f"{type(error).__name__}: {error}", 100)
        raise CheckpointError(
            f"{folder} cannot be read ({reason}): it is damaged or no model of facelightning"
        ) from None


def download(name: str) -> Path:
    """The folder ``owner/name`` of the Hub, on this disk; downloaded once.

    Raises:
        ConfigurationError: If huggingface_hub is not installed.
        CheckpointError: If there is no such folder, or it cannot be reached.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigurationError(f"{HUB}{name} needs huggingface_hub, which is not installed: {MISSING}") from None
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # of the network, of the name, of the account
        reason = quoted(f"{type(error).__name__}: {' '.join(str(error).split())}", 150)
        raise CheckpointError(f"{HUB}{name} cannot be loaded ({reason}): see its name, and your connection") from None


def upload(folder: str | Path, name: str, private: bool = False) -> str:
    """Put a folder on the Hub as ``owner/name``; returns its address.

    Raises:
        ConfigurationError: If huggingface_hub is not installed, or the Hub refuses.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise ConfigurationError(f"the Hub needs huggingface_hub, which is not installed: {MISSING}") from None
    try:
        address = str(HfApi().create_repo(name, private=private, exist_ok=True))
        HfApi().upload_folder(repo_id=name, folder_path=folder, allow_patterns=[CONFIG, WEIGHTS, CARD])
    except Exception as error:  # of the network, of the name, of the account
        reason = quoted(f"{type(error).__name__}: {' '.join(str(error).split())}", 150)
        raise ConfigurationError(
            f"cannot put {folder} on the Hub as {name} ({reason}): log in with `hf auth login`"
        ) from None
    return address


def _refuse_strangers(folder: Path) -> None:
    """Refuse a folder whose files of these names were not written here: they would be lost."""
    there = [name for name in (CONFIG, WEIGHTS, CARD) if (folder / name).exists()]
    try:
        ours = "facelightning" in json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        ours = False
    if there and not ours:
        raise ConfigurationError(f"{folder} has a {there[0]} of something else: name another folder")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crop_margin(data: Any) -> float | None:
    """The margin of the cuts around faces in a data module's configuration; ``None`` if there is none in it.

    Example:
        >>> crop_margin({"init_args": {"attributes": {"init_args": {"crop": {"margin": 2.5}}}}})
        2.5
    """
    waiting: list[Any] = [data]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            crop = found.get("crop")
            if isinstance(crop, dict) and isinstance(crop.get("margin"), int | float):
                return float(crop["margin"])
            waiting += found.values()
    return None


def _kind_of_data(config: Any) -> dict[str, Any] | None:
    """The class of the training data, and how faces were cut out of it; without paths, which are nobody else's."""
    data = (config or {}).get("data")
    if not data:
        return None
    margin = crop_margin(data)
    kept = {} if margin is None else {"crop": {"margin": margin}}
    return {"class_path": data.get("class_path"), "init_args": kept}
