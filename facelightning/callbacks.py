"""What a run leaves behind: tables, pictures, predictions."""

import csv
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import cv2
import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor

from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTES
from facelightning.tasks import FaceTask
from facelightning.visualization import Picture, parsing_panels, region_weights_figure, save_picture


def run_folder(trainer: L.Trainer) -> Path | None:
    """Where the run writes; ``None`` without a logger. Asks all processes: call it on every one."""
    folder = trainer.log_dir
    return Path(folder) if trainer.logger and folder else None


def score_table(title: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores as lines of text, in percent; ``nan`` where there is none.

    Args:
        title: The first line.
        results: Of one evaluation: ``"parsing"`` and ``"attributes"``, as far as they were scored.

    Example:
        >>> print(score_table("test", {"attributes": {"error": 8.33, "mean_ap": 81.02, "balanced_accuracy": 88.24,
        ...                                           "undefined": ["Bald"]}}))
        test
          attributes   error 8.33 %   mean AP 81.02 %   balanced accuracy 88.24 %
                       left out of a mean, for want of positives or negatives: Bald
    """
    lines = [title]
    if "attributes" in results:
        scores = results["attributes"]
        lines.append(
            f"  attributes   error {scores['error']:.2f} %   mean AP {scores['mean_ap']:.2f} %   "
            f"balanced accuracy {scores['balanced_accuracy']:.2f} %"
        )
        if scores["undefined"]:
            note = f"left out of a mean, for want of positives or negatives: {', '.join(scores['undefined'])}"
            lines += wrap(note, 100, initial_indent=" " * 15, subsequent_indent=" " * 15)
    if "parsing" in results:
        scores = results["parsing"]
        lines.append(
            f"  parsing      mean IoU {scores['mean_iou']:.2f} %   mean F1 (foreground) {scores['mean_f1']:.2f} %   "
            f"overall F1 (parts) {scores['overall_f1']:.2f} %"
        )
        lines.append("  IoU          " + "   ".join(f"{name} {iou:.2f}" for name, iou in scores["iou"].items()))
    return "\n".join(lines)


class Report(Callback):
    """Prints the scores after training, validation and test; a test also writes ``test_results.json``.

    The file holds ``"attributes"``: ``error``, ``mean_ap``, ``balanced_accuracy``, ``per_attribute`` (name → ``error``,
    ``ap``, ``balanced_accuracy``) and ``undefined`` (names); and ``"parsing"``: ``iou`` (class → IoU), ``mean_iou``,
    ``f1`` (class → F1), ``mean_f1``, ``overall_f1``; each as far as it was scored. Scores are in percent; ``null``
    where there is none. See :mod:`facelightning.metrics` for what each means. Without a logger nothing is written.
    """

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the scores of the few batches that Lightning tries before training."""
        if isinstance(pl_module, FaceTask):
            pl_module.results.pop("val", None)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The scores of the last validation."""
        self._print("scores of the last validation", "val", pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The scores, unless this validation is part of a training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._print("validation scores", "val", pl_module)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The scores, and the file."""
        folder = run_folder(trainer)
        self._print("test scores", "test", pl_module)
        if folder is not None and trainer.is_global_zero and isinstance(pl_module, FaceTask):
            path = folder / "test_results.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            results = _without_nan(pl_module.results["test"])
            path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            rank_zero_info(f"written: {path}")

    def _print(self, title: str, name: str, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, FaceTask) and name in pl_module.results:
            rank_zero_only(print)(score_table(title, pl_module.results[name]))


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: an undefined score is null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if value != value else value


class Figures(Callback):
    """Draws the current model after each validation into ``figures/``, and to Weights & Biases where it is used.

    ``parsing.png`` shows image | truth | prediction; ``region_weights.png`` how much each region counts for each
    attribute (Kalayeh et al., CVPR 2017, Figures 3 and 4), where the model weighs regions. The pictures are spread
    evenly over the first 64 with a mask; the weights are means over the first 256 with attributes, or few more: to
    the end of the batch. Of several processes the first draws what it sees.

    Args:
        num_images: Pictures in the parsing panels.
    """

    def __init__(self, num_images: int = 6) -> None:
        self.num_images = num_images
        self._pictures: list[tuple[Tensor, Tensor]] = []  # image (3, H, W) and mask (H, W)
        self._weights: list[Tensor] = []  # (N, A)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what an interrupted validation left."""
        self._pictures, self._weights = [], []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep pictures with masks, and weigh regions on pictures with attributes, until there are enough."""
        if trainer.sanity_checking or not trainer.is_global_zero or not isinstance(pl_module, FaceTask):
            return
        if pl_module.labels is not None and "mask" in batch:
            self._pictures += list(zip(batch["image"], batch["mask"], strict=True))[: 64 - len(self._pictures)]
        if pl_module.regions is not None and "attributes" in batch and len(self._weights) < 256:
            self._weights += pl_module.region_weights(batch).float()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what was kept."""
        folder = run_folder(trainer)
        if not isinstance(pl_module, FaceTask):
            return
        figures: dict[str, Picture] = {}
        if self._pictures and self.num_images > 0:
            figures["parsing"] = self._draw_parsing(pl_module)
        if self._weights and pl_module.regions is not None:
            weights = torch.stack(self._weights).mean(dim=0).T.cpu().numpy()
            figures["region_weights"] = region_weights_figure(weights, ATTRIBUTES, pl_module.regions)
        self._pictures, self._weights = [], []
        for name, picture in figures.items():
            if folder is not None:
                save_picture(folder / "figures" / f"{name}.png", picture)
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    # Lightning files a validation's scores under the step before: the pictures belong beside them
                    logger.log_image(f"figures/{name}", [picture], step=max(trainer.global_step - 1, 0))

    def _draw_parsing(self, task: FaceTask) -> Picture:
        step = max(1, len(self._pictures) // self.num_images)
        images, masks = (torch.stack(part) for part in zip(*self._pictures[::step][: self.num_images], strict=True))
        outputs, _ = task.predict_batch({"image": images, "mask": masks})
        predicted = outputs["parsing"][-1].max(dim=1).indices
        shown, truth, parsing = (tensor.cpu().numpy() for tensor in (images, masks, predicted))
        assert task.labels is not None
        return parsing_panels(shown, truth, parsing, task.labels)


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
