"""What a run leaves behind: tables, pictures, predictions."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTES
from facelightning.tasks import FaceTask
from facelightning.visualization import parsing_panels, region_weights_figure, save_picture


def run_folder(trainer: L.Trainer) -> Path | None:
    """Where the run writes; ``None`` without a logger. Asks all processes: call it on every one."""
    folder = trainer.log_dir
    return Path(folder) if trainer.logger and folder else None


def score_table(title: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores as lines of text, in percent.

    Args:
        title: The first line.
        results: Of one evaluation: ``"parsing"`` and ``"attributes"``, as far as they were scored.

    Example:
        >>> print(score_table("test", {"attributes": {"error": 8.33, "mean_ap": 81.02, "balanced_accuracy": 88.24,
        ...                                           "undefined": []}}))
        test
          attributes   error 8.33 %   mean AP 81.02 %   balanced accuracy 88.24 %
    """
    lines = [title]
    if "attributes" in results:
        scores = results["attributes"]
        lines.append(
            f"  attributes   error {scores['error']:.2f} %   mean AP {scores['mean_ap']:.2f} %   "
            f"balanced accuracy {scores['balanced_accuracy']:.2f} %"
        )
        if scores["undefined"]:
            lines.append(f"               left out of a mean, one class only: {', '.join(scores['undefined'])}")
    if "parsing" in results:
        scores = results["parsing"]
        lines.append(
            f"  parsing      mean IoU {scores['mean_iou']:.2f} %   mean F1 (foreground) {scores['mean_f1']:.2f} %   "
            f"overall F1 (parts) {scores['overall_f1']:.2f} %"
        )
        lines.append("  IoU          " + "   ".join(f"{name} {iou:.2f}" for name, iou in scores["iou"].items()))
    return "\n".join(lines)


class Report(Callback):
    """Prints the scores after training, validation and test; a test also writes ``test_results.json``."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The scores of the last validation."""
        self._print("validation scores after training", "val", pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The scores, unless this validation is part of a training."""
        if trainer.validating:
            self._print("validation scores", "val", pl_module)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The scores, and the file."""
        folder = run_folder(trainer)
        self._print("test scores", "test", pl_module)
        if folder is not None and trainer.is_global_zero and isinstance(pl_module, FaceTask):
            path = folder / "test_results.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_without_nan(pl_module.results["test"]), indent=2) + "\n", encoding="utf-8")
            rank_zero_info(f"written: {path}")

    def _print(self, title: str, name: str, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, FaceTask) and name in pl_module.results:
            rank_zero_only(print)(score_table(title, pl_module.results[name]))


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: an undefined score is null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


class Figures(Callback):
    """Draws the current model after each validation into ``figures/``, and to Weights & Biases where it is used.

    ``parsing.png`` shows image | truth | prediction; ``region_weights.png`` how much each region counts for each
    attribute (Kalayeh et al., CVPR 2017, Figures 3 and 4), where the model weighs regions.

    Args:
        num_images: Pictures in the parsing panels.
    """

    def __init__(self, num_images: int = 6) -> None:
        self.num_images = num_images
        self._batches: dict[str, dict[str, Any]] = {}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first batch of each validation set."""
        if batch_idx == 0 and not trainer.sanity_checking:
            self._batches |= {key: batch for key in ("mask", "attributes") if key in batch}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what was kept."""
        folder = run_folder(trainer)
        batches, self._batches = self._batches, {}
        if trainer.sanity_checking or not trainer.is_global_zero or not isinstance(pl_module, FaceTask):
            return
        figures = dict(_figures(pl_module, batches, self.num_images))
        for name, picture in figures.items():
            if folder is not None:
                save_picture(folder / "figures" / f"{name}.png", picture)
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_image(f"figures/{name}", [picture], step=trainer.global_step)


@torch.no_grad()
def _figures(task: FaceTask, batches: Mapping[str, Mapping[str, Any]], num_images: int) -> list[tuple[str, Any]]:
    figures = []
    if task.labels is not None and "mask" in batches:
        batch = {key: batches["mask"][key][:num_images] for key in ("image", "mask")}
        outputs, _ = task.predict_batch(batch)
        predicted = outputs["parsing"][-1].max(dim=1).indices
        images, truth, parsing = (x.cpu().numpy() for x in (batch["image"], batch["mask"], predicted))
        figures.append(("parsing", parsing_panels(images, truth, parsing, task.labels)))
    regions = task.regions
    if regions is not None and "attributes" in batches:
        weights = task.region_weights(batches["attributes"]["image"]).mean(dim=0)  # (N, A)
        figures.append(("region_weights", region_weights_figure(weights.T.cpu().numpy(), ATTRIBUTES, regions)))
    return figures


class PredictionWriter(BasePredictionWriter):
    """Writes predictions into ``predictions/``: ``attributes.csv`` with 40 probabilities a picture, and the parsing
    of each picture as ``parsing/NAME.png``, whose pixels are class indices."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._folder: Path | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the folder; predictions that nobody could find are refused."""
        if stage != "predict":
            return
        folder = run_folder(trainer)
        if folder is None:
            raise ConfigurationError("predictions are written into the run folder; configure a trainer.logger")
        self._folder = folder / "predictions"
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
        """Append one batch; each process has a table of its own."""
        assert self._folder is not None
        if "attributes" in prediction:
            suffix = f"_{trainer.global_rank}" if trainer.world_size > 1 else ""
            path = self._folder / f"attributes{suffix}.csv"
            new = not path.exists()
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if new:
                    writer.writerow(["name", *ATTRIBUTES])
                for name, row in zip(prediction["name"], prediction["attributes"].tolist(), strict=True):
                    writer.writerow([name, *(f"{probability:.6f}" for probability in row)])
        if "parsing" in prediction:
            for name, mask in zip(prediction["name"], prediction["parsing"].cpu().numpy(), strict=True):
                path = self._folder / "parsing" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), mask.astype(np.uint8))
