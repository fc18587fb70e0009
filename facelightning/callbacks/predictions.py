"""Predictions as files."""

import csv
import errno
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import cv2
import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info

from facelightning.data.files import ending
from facelightning.data.prediction import Failure, PredictionLoader
from facelightning.errors import ConfigurationError, DataFormatError, quoted
from facelightning.runs import RunFolder
from facelightning.tasks import FaceTask


def relative_path(name: str) -> str:
    """Where the mask of an image goes: no two names share a path, and none leads out of the folder.

    Characters that some system forbids in file names are percent-encoded, as in a URL. So are the dots of ``..``, and
    the dot of a folder's ``.png``, which could be another image's mask. An empty part is ``%``.

    Example:
        >>> relative_path("friends/a?.jpg"), relative_path("../a"), relative_path("/a")
        ('friends/a%3F.jpg.png', '%2E%2E/a.png', '%/a.png')
    """
    # bytes that are not UTF-8 are surrogates in a name
    name = re.sub(r'[%<>:"\\|?*\x00-\x1f\ud800-\udfff]', lambda found: f"%{ord(found[0]):02X}", name)
    *folders, last = name.split("/")
    dots = re.compile(r"^\.{0,2}$|\.(?=png$)", re.IGNORECASE)
    folders = [dots.sub(lambda found: found[0].replace(".", "%2E") or "%", folder) for folder in folders]
    return "/".join([*folders, f"{last or '%'}.png"])


class PredictionWriter(BasePredictionWriter):
    """Writes predictions into ``predictions/`` of the run folder.

    - ``attributes.csv``: a row for each image, with its ``name`` and all probabilities, in no particular order.
    - ``parsing/NAME.png``: class indices as grey values. NAME is the image's whole name, with its folders, and with
      its suffix if it has one, so that ``1.jpg`` and ``1.png`` do not collide: ``1.jpg.png``; for characters that some
      system forbids in file names see :func:`relative_path`.
    - ``failures.csv``: ``name`` and ``reason`` of each image that could not be read, or that has no mask because its
      name is too long; only if there are such images.

    Raises:
        ConfigurationError: If there is no logger, and so no run folder; if there are predictions already; or if two
            images have the same name. Nothing is overwritten.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._folder = Path()
        self.failures: list[Failure] = []
        """Of this process; once the prediction has ended, of all, and only on the first."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Create the folder."""
        if stage != "predict":
            return
        folder = RunFolder.of(trainer)
        if folder is None:
            raise ConfigurationError("predictions are written into the run folder; configure a trainer.logger")
        self._folder, self.failures = folder.predictions, []
        exists = self._folder.exists()
        trainer.strategy.barrier()  # no process creates the folder before all have checked it
        if exists:
            raise ConfigurationError(f"{self._folder} holds predictions already; delete it, or write to another run")
        self._folder.mkdir(parents=True, exist_ok=True)

    def write_on_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, prediction: Any, *_: Any) -> None:
        """Write one batch; each process writes its own tables."""
        assert isinstance(pl_module, FaceTask)
        for key, objective in pl_module.objectives.items():
            values = prediction[key].cpu().numpy()
            if objective.columns:
                with self._open(f"{key}_{trainer.global_rank}.csv", "a") as file:
                    for name, row in zip(prediction["name"], values, strict=True):
                        csv.writer(file).writerow([name, *row])  # enough digits to tell float32 numbers apart
            else:
                for name, mask in zip(prediction["name"], values, strict=True):
                    self._write_image(self._folder / key / relative_path(name), name, mask.astype(np.uint8))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Merge the tables of all processes."""
        assert isinstance(pl_module, FaceTask)
        for loader in CombinedLoader(trainer.predict_dataloaders).flattened:
            if isinstance(loader, PredictionLoader):
                self.failures += loader.failures
        if self.failures:
            with self._open(f"failures_{trainer.global_rank}.csv", "w") as file:
                csv.writer(file).writerows(self.failures)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            for key, objective in pl_module.objectives.items():
                if objective.columns:
                    self._merge(key, ("name", *objective.columns), trainer.world_size)
            if list(self._folder.glob("failures_*.csv")):
                self._merge("failures", ("name", "reason"), trainer.world_size)
                with self._open("failures.csv", "r") as file:
                    self.failures = [Failure(*row) for row in list(csv.reader(file))[1:]]
        else:
            self.failures = []
        rank_zero_info(f"written: {self._folder}")

    def check_complete(self) -> None:
        """Refuse, on the first process, a prediction that has ended with failures.

        Raises:
            DataFormatError: If it has.
        """
        if self.failures:
            names = quoted(", ".join(failure.name for failure in self.failures[:3]))
            where = ending(self._folder / "failures.csv")
            raise DataFormatError(f"{len(self.failures)} images lack predictions ({names}); {where} says why")

    def _merge(self, key: str, header: Sequence[str], processes: int) -> None:
        with self._open(f"{key}.csv", "w") as file:
            csv.writer(file).writerow(header)
            for part in [self._folder / f"{key}_{rank}.csv" for rank in range(processes)]:
                if part.exists():  # a process may have read no image, or all
                    with self._open(part.name, "r") as rows:
                        shutil.copyfileobj(rows, file)
                    part.unlink()

    def _open(self, name: str, mode: str) -> TextIO:
        # a file name may hold bytes that are not UTF-8; the table is UTF-8
        return cast(TextIO, (self._folder / name).open(mode, newline="", encoding="utf-8", errors="backslashreplace"))

    def _write_image(self, path: Path, name: str, mask: npt.NDArray[np.uint8]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(cv2.imencode(".png", mask)[1].tobytes())
        except FileExistsError:
            raise ConfigurationError(
                f"two images are named {quoted(name)}: {ending(path)} would be overwritten; predict them in two runs"
            ) from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self.failures.append(Failure(name, "the name of its mask would be too long; give the image a shorter name"))
