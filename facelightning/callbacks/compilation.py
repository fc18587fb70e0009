"""Training that is compiled."""

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from facelightning.errors import ConfigurationError
from facelightning.tasks import FaceTask


class Compile(Callback):
    """Compiles the network for training with :func:`torch.compile`: slower to begin, then faster.

    Evaluation is never compiled, so that scores do not depend on this; a checkpoint has the same names with and
    without.

    Raises:
        ConfigurationError: If this machine cannot compile: a CPU needs a C++ compiler, a GPU needs Triton.

    Example:
        In a configuration: ``trainer: {callbacks+: [{class_path: facelightning.callbacks.compilation.Compile}]}``.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compiling itself happens in the first step."""
        if not isinstance(pl_module, FaceTask):
            return
        try:
            torch.compile(torch.neg)(torch.zeros(2, device=pl_module.device))
        except Exception as error:  # whatever a missing compiler provokes
            reason = " ".join(str(error).split("\n")[:2]).strip()  # the cause is in the second, if not the first
            raise ConfigurationError(
                f"torch.compile does not work on this machine ({reason}): it needs a C++ compiler, and Triton for a "
                "GPU; install them, or train without the callback Compile"
            ) from None
        network, eager = pl_module.network, pl_module.network.forward
        # static shapes: else what is compiled for a last, smaller batch would serve all later ones, but none that
        # follows an interruption, and rounding would tell the two apart
        compiled = torch.compile(eager, dynamic=False)
        network.forward = lambda *args, **kwargs: (compiled if network.training else eager)(*args, **kwargs)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the network as it was."""
        if isinstance(pl_module, FaceTask):
            vars(pl_module.network).pop("forward", None)
