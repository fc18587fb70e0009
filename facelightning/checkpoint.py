"""Reading checkpoint files that may come from anywhere."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
        # torch's own message advises to switch weights_only off
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): it is damaged or not a checkpoint"
        ) from None
    parts = {"facelightning_task", "hyper_parameters", "state_dict"}
    if not isinstance(checkpoint, dict) or not parts <= checkpoint.keys():
        raise CheckpointError(f"{path} is not a checkpoint of a facelightning task")
    return checkpoint


def restore(module: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Give a module the weights of a checkpoint.

    Raises:
        CheckpointError: If they are not those of such a module.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError:
        raise CheckpointError(
            f"the weights in {path} do not fit its settings: it is damaged or of another version of facelightning"
        ) from None
