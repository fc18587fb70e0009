"""What a user reads: Lightning's own lines above the progress bar, without those that concern nobody."""

import logging
import re
import warnings

from tqdm import tqdm

WARNINGS = (
    # a test and a resumed training write to folders of their own
    r"The dirpath has changed from",
    # a test needs no callback that chose checkpoints
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    # the frozen parser of an attribute network is in evaluation mode on purpose
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # a laptop has few cores; workers are set in the configuration
    r"The '\w+' does not have many workers",
    # steps are counted over all epochs: a short epoch is logged like any other
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # a training resumed at the end of an epoch has no scores yet; a wrong key is an error after the validation
    r"`ModelCheckpoint\(monitor=.*could not find the monitored key in the returned metrics: \['epoch', 'step'\]",
    # augmentations take lists for tuples
    r"\s*Dump of a value that does not round-trip: a tuple is serialized as list",
    # ours shards for one strategy alone, which refuses averaged weights
    r"You're using the WeightAveraging callback with a model that overrides the configure_model",
    # a deprecation inside Lightning, which its users cannot fix
    r".*isinstance\(treespec, LeafSpec\).* is deprecated",
)
"""Warnings that are never shown."""

LINES = (
    # products that Lightning advertises
    r".*Tip:",
    # what the configuration says
    r"(\[rank: \d+\] )?Seed set to",
    r"`Trainer\(val_check_interval=1\.0\)` was configured",
    r"Using (bfloat16|16bit) Automatic Mixed Precision",
    # what the machine has
    r"\w+ available: ",
    r"Initializing distributed: ",
    r"-+\ndistributed_backend=",
    # the first of two lines about one file, and of two about one wait
    r"Restoring states from the checkpoint path",
    r"Loading `train_dataloader` to estimate number of stepping batches",
)
"""Beginnings of log lines that are never shown."""


class AboveProgressBar(logging.StreamHandler):  # type: ignore[type-arg]  # of any stream
    """Writes log lines above a progress bar, not into it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one, unless it concerns nobody."""
        if not re.match("|".join(LINES), record.getMessage()):
            with tqdm.external_write_mode(self.stream):
                super().emit(record)


def quiet() -> None:
    """Let Lightning say only what concerns a user.

    Example:
        >>> quiet()
        >>> logging.getLogger("lightning.pytorch").info("Tip: buy something")
    """
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.")  # as above
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers = [
            AboveProgressBar(handler.stream) if type(handler) is logging.StreamHandler else handler
            for handler in logger.handlers
        ]
