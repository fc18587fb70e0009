"""The run folder: where a run writes."""

from pathlib import Path

import lightning as L


def run_folder(trainer: L.Trainer) -> Path | None:
    """Where the run writes; ``None`` without a logger. Asks all processes: call it on every one."""
    folder = trainer.log_dir
    return Path(folder) if trainer.logger and folder else None
