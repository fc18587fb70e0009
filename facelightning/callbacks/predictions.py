"""Predictions as files."""

import csv
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTES
from facelightning.runs import run_folder


def file_name(name: str) -> str:
    """A picture's name as one file name: what no file name may hold is written as in a URL.

    Example:
        >>> file_name("friends/a?.jpg")
        'friends%2Fa%3F.jpg'
    """
    return re.sub(r'[%<>:"/\\|?*\x00-\x1f]', lambda found: f"%{ord(found[0]):02X}", name)


class PredictionWriter(BasePredictionWriter):
    """Writes predictions into ``predictions/`` of the run folder.

    - ``attributes.csv``: a row for each picture, of its ``name`` and 40 probabilities, in no particular order.
    - ``parsing/NAME.png``: class indices as grey values. NAME is the picture's whole name, with its suffix if it has
      one, so that ``1.jpg`` and ``1.png`` do not meet: ``1.jpg.png``. What a file name cannot hold everywhere is
      written as in a URL: ``a/b`` becomes ``a%2Fb.png``.

    Raises:
        ConfigurationError: If there is no logger, and so no run folder; if there are predictions already; or if two
            pictures have one name, which would have to share a file. Nothing is overwritten.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._folder = Path()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the folder."""
        if stage != "predict":
            return
        folder = run_folder(trainer)
        if folder is None:
            raise ConfigurationError("predictions are written into the run folder; configure a trainer.logger")
        self._folder = folder / "predictions"
        exists = self._folder.exists()
        trainer.strategy.barrier()  # no process makes the folder before all have looked
        if exists:
            raise ConfigurationError(f"{self._folder} holds predictions already; delete it, or write to another run")
        self._folder.mkdir(parents=True, exist_ok=True)

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one batch; each process has a table of its own."""
        if "attributes" in prediction:
            with self._table(trainer.global_rank).open(
                "a", newline="", encoding="utf-8", errors="surrogateescape"
            ) as file:
                for name, row in zip(prediction["name"], prediction["attributes"].cpu().numpy(), strict=True):
                    csv.writer(file).writerow([name, *row])  # as many digits as tell float32 numbers apart
        if "parsing" in prediction:
            (self._folder / "parsing").mkdir(exist_ok=True)
            for name, mask in zip(prediction["name"], prediction["parsing"].byte().cpu().numpy(), strict=True):
                path = self._folder / "parsing" / f"{file_name(name)}.png"
                try:
                    with path.open("xb") as image:
                        image.write(cv2.imencode(".png", mask)[1].tobytes())
                except FileExistsError:
                    raise ConfigurationError(
                        f"two pictures are named {name}: {path} would be overwritten; predict them in separate runs"
                    ) from None

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the tables of all processes together."""
        trainer.strategy.barrier()
        tables = [path for rank in range(trainer.world_size) if (path := self._table(rank)).exists()]
        if tables and trainer.is_global_zero:
            with (self._folder / "attributes.csv").open(
                "w", newline="", encoding="utf-8", errors="surrogateescape"
            ) as file:
                csv.writer(file).writerow(["name", *ATTRIBUTES])
                for table in tables:
                    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as part:
                        shutil.copyfileobj(part, file)
                    table.unlink()
        rank_zero_info(f"written: {self._folder}")

    def _table(self, rank: int) -> Path:
        return self._folder / f"attributes_{rank}.csv"
