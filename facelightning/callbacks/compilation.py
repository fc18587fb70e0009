"""Compiled training."""

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from facelightning.errors import ConfigurationError
from facelightning.tasks import FaceTask


class Compile(Callback):
    """Compiles the network for training with :func:`torch.compile`: a slow start, then faster steps.

    Evaluation is never compiled, so scores do not depend on this; names of weights in checkpoints do not change.

    Raises:
        ConfigurationError: If this machine cannot compile: a CPU needs a C++ compiler, a GPU needs Triton.

    Example:
        In a configuration: ``trainer: {callbacks+: [{class_path: facelightning.callbacks.compilation.Compile}]}``.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare compiling, which itself happens in the first step."""
        if not isinstance(pl_module, FaceTask):
            return
        if (reason := trial(pl_module.device)) is not None:
            raise ConfigurationError(
                f"torch.compile does not work on this machine ({reason}): it needs a C++ compiler, and Triton for a "
                "GPU; install them, or train with --speed=plain and without the callback Compile"
            )
        network, eager = pl_module.network, pl_module.network.forward
        # static shapes: else a smaller last batch would change the code of all later batches, but not those of a
        # resumed run, and the two would round differently
        compiled = torch.compile(eager, dynamic=False)
        network.forward = lambda *args, **kwargs: (compiled if network.training else eager)(*args, **kwargs)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the network's own ``forward``."""
        if isinstance(pl_module, FaceTask):
            vars(pl_module.network).pop("forward", None)


def trial(device: torch.device) -> str | None:
    """Compile next to nothing: ``None`` if that works, else why not."""
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except Exception as error:  # a missing compiler may raise anything
        return " ".join(str(error).split("\n")[:2]).strip()  # the cause is in the first two lines
    return None
