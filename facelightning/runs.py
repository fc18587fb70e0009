"""The run folder: paths of a run's configuration, checkpoints, results, figures and predictions."""

import csv
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only


@dataclass
class RunFolder:
    """The paths of what a run writes.

    Args:
        path: The folder.

    Example:
        >>> RunFolder(Path("runs/avg/version_0")).best.as_posix()
        'runs/avg/version_0/checkpoints/best.ckpt'
    """

    path: Path

    def __post_init__(self) -> None:
        self.config = self.path / "config.yaml"
        """The complete configuration."""
        self.best = self.path / "checkpoints" / "best.ckpt"
        """The checkpoint that was best on the validation data."""
        self.last = self.path / "checkpoints" / "last.ckpt"
        """The checkpoint to resume from."""
        self.training = self.path / "training.json"
        """What has trained the checkpoints."""
        self.results = self.path / "test_results.json"
        """The scores on the test data."""
        self.bench = self.path / "bench.json"
        """How fast it would train."""
        self.attribution = self.path / "attribution.json"
        """The attribution scores."""
        self.figures = self.path / "figures"
        """The folder of figures."""
        self.predictions = self.path / "predictions"
        """The folder of predictions."""

    @classmethod
    def of_checkpoint(cls, checkpoint: str | Path) -> "RunFolder | None":
        """The folder of the run that wrote a checkpoint; ``None`` if the file was moved out of it."""
        folder = Path(checkpoint).absolute().parent
        return cls(folder.parent) if folder.name == "checkpoints" else None

    @classmethod
    def of(cls, trainer: L.Trainer) -> "RunFolder | None":
        """The folder a trainer writes to; ``None`` without a logger. Call it on every process: they communicate."""
        folder = trainer.log_dir
        return cls(Path(folder)) if trainer.logger and folder else None


class RunLogger(CSVLogger):
    """Lightning's CSV logger in a run folder of its own: runs that start at the same moment never share one.

    A run that goes on in its folder goes on with its metrics, too, of which Lightning's would delete the earlier ones.

    Args:
        save_dir: Parent of the folders of all runs.
        name: Name of the run.
        version: Name of the folder; ``version_N`` with the next free N if not given, claimed when first asked for.
        flush_logs_every_n_steps: How often metrics are written.

    Example:
        >>> RunLogger("runs", "avg", version="trial").log_dir
        'runs/avg/trial'
    """

    def __init__(
        self,
        save_dir: str | Path = "runs",
        name: str = "run",
        version: int | str | None = None,
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        super().__init__(save_dir, name, version, flush_logs_every_n_steps=flush_logs_every_n_steps)
        self._claimed = version
        self._earlier: list[dict[str, Any]] = []

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes the metrics and settings."""
        if self._experiment is None:
            self._earlier = _rows(Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE)
            with warnings.catch_warnings(action="ignore"):  # it says that it deletes them
                self._write(super().experiment, self._earlier)
        writer: ExperimentWriter = super().experiment
        return writer

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write the scores of a step; of a resumed run, in place of those from this step on."""
        writer, earlier = self.experiment, self._earlier
        self._earlier = []
        if step is not None and any(row["step"] >= step for row in earlier):
            Path(writer.metrics_file_path).unlink()
            self._write(writer, [row for row in earlier if row["step"] < step])
        super().log_metrics(dict(metrics), step)

    def _write(self, writer: ExperimentWriter, rows: list[dict[str, Any]]) -> None:
        writer.metrics = list(rows)
        writer.save()

    @property
    def version(self) -> int | str:
        """Name of the folder, or N of ``version_N``."""
        if self._claimed is None:
            first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it
            self._claimed = self._claim(int(super().version)) if first else super().version
        return self._claimed

    def _claim(self, number: int) -> int:
        """Create the first ``version_N`` from a number on that no other process creates."""
        root = Path(self.root_dir)
        root.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(FileExistsError):
                (root / f"version_{number}").mkdir()
                return number
            number += 1


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a file of metrics: a kill may have cut the last one."""
    rows: list[dict[str, Any]] = []
    with suppress(FileNotFoundError, ValueError), path.open(newline="") as file:
        for row in csv.DictReader(file):
            if None in row or None in row.values():
                break
            rows.append({**{key: value for key, value in row.items() if value}, "step": int(row["step"])})
    return rows
