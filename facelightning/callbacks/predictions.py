"""Predictions as files."""

import csv
import errno
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

import cv2
import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info

from facelightning.data.prediction import Failure, PredictionLoader
from facelightning.errors import ConfigurationError, DataFormatError, ending, quoted
from facelightning.figures import found_faces_figure
from facelightning.runs import RunFolder
from facelightning.tasks import FaceTask


def relative_path(name: str, suffix: str = "png") -> str:
    """Where the mask of an image goes: no two names share a path, and none leads out of the folder.

    Characters that some system forbids in file names are percent-encoded, as in a URL. So are the dots of ``..``, and
    the dot of a folder's ``.png``, which could be another image's mask. An empty part is ``%``. Pictures of another
    kind have another suffix.

    Example:
        >>> relative_path("friends/a?.jpg"), relative_path("../a"), relative_path("/a")
        ('friends/a%3F.jpg.png', '%2E%2E/a.png', '%/a.png')
    """
    # bytes that are not UTF-8 are surrogates in a name
    name = re.sub(r'[%<>:"\\|?*\x00-\x1f\ud800-\udfff]', lambda found: f"%{ord(found[0]):02X}", name)
    *folders, last = name.split("/")
    dots = re.compile(rf"^\.{{0,2}}$|\.(?={suffix}$)", re.IGNORECASE)
    folders = [dots.sub(lambda found: found[0].replace(".", "%2E") or "%", folder) for folder in folders]
    return "/".join([*folders, f"{last or '%'}.{suffix}"])


def _strongest(probabilities: Mapping[str, float], count: int = 6) -> list[tuple[str, float]]:
    """The most probable attributes, and what is more likely than not."""
    ordered = sorted(probabilities.items(), key=lambda pair: -pair[1])
    return [pair for pair in ordered if pair[1] > 0.5][:count]


class PredictionWriter(BasePredictionWriter):
    """Writes predictions into ``predictions/`` of the run folder.

    - ``attributes.csv``: a row for each image, with its ``name`` and all probabilities, in no particular order.
    - ``category.csv``, of a model that tells categories apart: likewise their probabilities.
    - ``identity.csv``, of a model that tells persons apart: likewise its features.
    - ``age.csv``, of a model of ages: likewise the years.
    - ``faces.csv``, of a model that finds faces: a row for each face, with the image's ``name``, the box in pixels of
      the file, the response, and all probabilities; an image without a face has one row with empty cells.
    - ``faces/NAME.png``: the image with a box around each face, and its strongest attributes; of the first
      ``max_pictures`` images only.
    - ``parsing/NAME.png``: class indices as grey values. NAME is the image's whole name, with its folders, and with
      its suffix if it has one, so that ``1.jpg`` and ``1.png`` do not collide: ``1.jpg.png``; for characters that some
      system forbids in file names see :func:`relative_path`.
    - ``failures.csv``: ``name`` and ``reason`` of each image that could not be read, or that has no mask because its
      name is too long; only if there are such images.

    Args:
        max_pictures: Images to draw with their faces, by each process: a picture takes longer than its prediction.

    Raises:
        ConfigurationError: If there is no logger, and so no run folder; if there are predictions already; or if two
            images have the same name. Nothing is overwritten.
    """

    def __init__(self, max_pictures: int = 200) -> None:
        super().__init__(write_interval="batch")
        self.max_pictures = self._pictures_left = max_pictures
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
        self._folder, self.failures, self._pictures_left = folder.predictions, [], self.max_pictures
        exists = self._folder.exists()
        trainer.strategy.barrier()  # no process creates the folder before all have checked it
        if exists:
            raise ConfigurationError(f"{self._folder} holds predictions already; delete it, or write to another run")
        if trainer.is_global_zero:
            self._folder.mkdir(parents=True)
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            with suppress(FileExistsError):  # one that is made here is another than the first process's
                self._folder.mkdir(parents=True)
                self._folder.rmdir()
                raise ConfigurationError(
                    f"{self._folder} is another folder on this machine than on the first: predict into one that all "
                    "machines share"
                )

    def write_on_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, prediction: Any, _: Any, batch: Any, *__: int
    ) -> None:
        """Write one batch; each process writes its own tables."""
        assert isinstance(pl_module, FaceTask)
        for key in prediction.keys() & pl_module.objectives.keys():
            columns = pl_module.objectives[key].columns
            if columns:
                with self._open(f"{key}_{trainer.global_rank}.csv", "a") as file:
                    for name, values in zip(prediction["name"], prediction[key], strict=True):
                        # enough digits to tell float32 numbers apart
                        rows = values.cpu().numpy().reshape(-1, len(columns)).tolist() or [[""] * len(columns)]
                        csv.writer(file).writerows([name, *row] for row in rows)
                if key == "faces":
                    self._draw_faces(prediction, batch, columns)
            else:
                for name, mask in zip(prediction["name"], prediction[key].cpu().numpy(), strict=True):
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
            columns = {key: each.columns for key, each in pl_module.objectives.items() if each.columns}
            written = [key for key in columns if list(self._folder.glob(f"{key}_*.csv"))]
            for key in written or columns:  # a cascade scores attributes apart from faces, but predicts them together
                self._merge(key, ("name", *columns[key]), trainer.world_size)
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

    def _draw_faces(self, prediction: Any, batch: Any, columns: Sequence[str]) -> None:
        for n, (name, faces) in enumerate(zip(prediction["name"], prediction["faces"], strict=True)):
            self._pictures_left -= 1
            if self._pictures_left < 0:
                return
            frame = batch["frame"][n].double().cpu().numpy()
            (left, top), (right, bottom) = frame.reshape(2, 2).round().astype(int)
            photograph = batch["image"][n, :, top : max(bottom, top + 1), left : max(right, left + 1)]
            scale = (frame[2] - frame[0]) / int(batch["size"][n, 1])
            boxes = scale * faces[:, :4].double().numpy() + np.tile(frame[:2] - (left, top), 2)
            likely = [dict(zip(columns[5:], row[5:].tolist(), strict=True)) for row in faces]
            words = [
                [f"{key.replace('_', ' ')} {100 * share:.0f} %" for key, share in _strongest(each)] for each in likely
            ]
            drawn = found_faces_figure(photograph.permute(1, 2, 0).cpu().numpy(), name, boxes, words)
            self._write_image(
                self._folder / "faces" / relative_path(name), name, np.ascontiguousarray(drawn[..., ::-1])
            )

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
