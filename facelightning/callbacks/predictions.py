"""Predictions as files."""

import csv
import re
import shutil
from pathlib import Path
from typing import Any, TextIO, cast

import cv2
import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from facelightning.errors import ConfigurationError
from facelightning.runs import RunFolder
from facelightning.tasks import FaceTask


def file_name(name: str) -> str:
    """An image's name as one file name: what no file name may hold is written as in a URL.

    Example:
        >>> file_name("friends/a?.jpg")
        'friends%2Fa%3F.jpg'
    """
    return re.sub(r'[%<>:"/\\|?*\x00-\x1f]', lambda found: f"%{ord(found[0]):02X}", name)


class PredictionWriter(BasePredictionWriter):
    """Writes predictions into ``predictions/`` of the run folder.

    - ``attributes.csv``: a row for each image, of its ``name`` and all probabilities, in no particular order.
    - ``parsing/NAME.png``: class indices as grey values. NAME is the image's whole name, with its suffix if it has
      one, so that ``1.jpg`` and ``1.png`` do not meet: ``1.jpg.png``. What a file name cannot hold everywhere is
      written as in a URL: ``a/b`` becomes ``a%2Fb.png``.

    Raises:
        ConfigurationError: If there is no logger, and so no run folder; if there are predictions already; or if two
            images have one name, which would have to share a file. Nothing is overwritten.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._folder = Path()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the folder."""
        if stage != "predict":
            return
        folder = RunFolder.of(trainer)
        if folder is None:
            raise ConfigurationError("predictions are written into the run folder; configure a trainer.logger")
        self._folder = folder.predictions
        exists = self._folder.exists()
        trainer.strategy.barrier()  # no process makes the folder before all have looked
        if exists:
            raise ConfigurationError(f"{self._folder} holds predictions already; delete it, or write to another run")
        self._folder.mkdir(parents=True, exist_ok=True)

    def write_on_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, prediction: Any, *_: Any) -> None:
        """Write one batch; each process has tables of its own."""
        assert isinstance(pl_module, FaceTask)
        for key, objective in pl_module.objectives.items():
            values = prediction[key].cpu().numpy()
            if objective.columns:
                with self._open(f"{key}_{trainer.global_rank}.csv", "a") as file:
                    for name, row in zip(prediction["name"], values, strict=True):
                        csv.writer(file).writerow([name, *row])  # as many digits as tell float32 numbers apart
            else:
                (self._folder / key).mkdir(exist_ok=True)
                for name, mask in zip(prediction["name"], values, strict=True):
                    self._write_image(self._folder / key / f"{file_name(name)}.png", name, mask.astype(np.uint8))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the tables of all processes together."""
        assert isinstance(pl_module, FaceTask)
        trainer.strategy.barrier()
        for key, objective in pl_module.objectives.items():
            parts = [f"{key}_{rank}.csv" for rank in range(trainer.world_size)]
            parts = [name for name in parts if (self._folder / name).exists()]
            if parts and trainer.is_global_zero:
                with self._open(f"{key}.csv", "w") as file:
                    csv.writer(file).writerow(["name", *objective.columns])
                    for name in parts:
                        with self._open(name, "r") as part:
                            shutil.copyfileobj(part, file)
                        (self._folder / name).unlink()
        rank_zero_info(f"written: {self._folder}")

    def _open(self, name: str, mode: str) -> TextIO:
        # a file's name may hold bytes that are not text
        return cast(TextIO, (self._folder / name).open(mode, newline="", encoding="utf-8", errors="surrogateescape"))

    def _write_image(self, path: Path, name: str, mask: npt.NDArray[np.uint8]) -> None:
        try:
            with path.open("xb") as file:
                file.write(cv2.imencode(".png", mask)[1].tobytes())
        except FileExistsError:
            raise ConfigurationError(
                f"two images are named {name}: {path} would be overwritten; predict them in separate runs"
            ) from None
