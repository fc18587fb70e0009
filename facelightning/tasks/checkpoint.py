"""Reading checkpoint files that may come from anywhere."""

from pathlib import Path
from typing import Any

import torch

from facelightning.errors import CheckpointError


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file of this library; nothing in the file is ever executed.

    Raises:
        CheckpointError: If there is no such file, it is broken, or it was not written by this library.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or malicious file provokes
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"checkpoint {path} cannot be read ({type(error).__name__}: {reason})") from None
    if not isinstance(checkpoint, dict) or "facelightning_task" not in checkpoint:
        raise CheckpointError(f"{path} is not a checkpoint of a facelightning task")
    return checkpoint
