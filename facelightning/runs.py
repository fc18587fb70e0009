"""The run folder: paths of a run's configuration, checkpoints, results, figures and predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lightning as L


@dataclass(frozen=True)
class RunFolder:
    """The paths of what a run writes.

    Args:
        path: The folder.

    Example:
        >>> RunFolder(Path("runs/avg/version_0")).best.as_posix()
        'runs/avg/version_0/checkpoints/best.ckpt'
    """

    path: Path

    @classmethod
    def of_checkpoint(cls, checkpoint: str | Path) -> "RunFolder | None":
        """The folder of the run that wrote a checkpoint; ``None`` if the file was moved out of it."""
        folder = Path(checkpoint).absolute().parent
        return cls(folder.parent) if folder.name == "checkpoints" else None

    @classmethod
    def of(cls, trainer: "L.Trainer") -> "RunFolder | None":
        """The folder a trainer writes to; ``None`` without a logger. Call it on every process: they communicate."""
        folder = trainer.log_dir
        return cls(Path(folder)) if trainer.logger and folder else None

    @property
    def config(self) -> Path:
        """The complete configuration."""
        return self.path / "config.yaml"

    @property
    def best(self) -> Path:
        """The checkpoint that was best on the validation data."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def results(self) -> Path:
        """The scores on the test data."""
        return self.path / "test_results.json"

    @property
    def attribution(self) -> Path:
        """The attribution scores."""
        return self.path / "attribution.json"

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.path / "figures"

    @property
    def predictions(self) -> Path:
        """The folder of predictions."""
        return self.path / "predictions"
