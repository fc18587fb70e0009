"""How a trainer writes and reads checkpoints: atomically, and never more than tensors and plain values."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from facelightning.checkpoint import read_content


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its target and then renames it, so that a kill or a full disk spares the old file.

    For a moment both exist: the disk needs room for one more checkpoint. Reading checks every byte and executes
    nothing, wherever the file comes from; URLs are not read.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a file and create its folder."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{target.name}.*.part"):  # left by a process that was killed while writing
            left.unlink()
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a file or folder; raises :class:`~facelightning.errors.CheckpointError` if it is missing or damaged."""
        content: dict[str, Any] = read_content(path)
        # a folder that is shared has none; Lightning converts older ones
        content.setdefault("pytorch-lightning_version", L.__version__)
        return content
