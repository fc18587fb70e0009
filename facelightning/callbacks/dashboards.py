"""What Weights & Biases and TensorBoard show beside logged scores, in their own formats."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from facelightning.figures import Image
from facelightning.labels import IGNORE_INDEX, LabelSpace

Table = tuple[list[str], list[list[Any]]]
"""A header, and rows."""


class BestWandbLogger(WandbLogger):
    """Lightning's logger for Weights & Biases; with ``log_model``, only what a score has chosen goes along.

    Lightning's own also sends the last checkpoint, and names that one the best. Its arguments are those of Lightning's.
    """

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Note what the training's end sends."""
        if checkpoint_callback.monitor is not None:
            super().after_save_checkpoint(checkpoint_callback)


def show_figures(trainer: L.Trainer, drawn: Mapping[str, Image], step: int) -> None:
    """Pictures by their names, as ``figures/NAME``."""
    for logger in trainer.loggers:
        for name, image in drawn.items():
            if isinstance(logger, WandbLogger):
                logger.log_image(f"figures/{name}", [image], step=step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"figures/{name}", image, step, dataformats="HWC")


def show_masks(
    trainer: L.Trainer,
    images: npt.NDArray[np.uint8],
    masks: Mapping[str, npt.NDArray[Any]],
    labels: LabelSpace,
    step: int,
) -> None:
    """Images ``(B, 3, H, W)`` with masks ``(B, H, W)`` by their names, which a reader of W&B lays over each other."""
    names = {**dict(enumerate(labels.classes)), IGNORE_INDEX: "ignored"}
    overlays = [
        {name: {"mask_data": mask[n].astype(np.uint8), "class_labels": names} for name, mask in masks.items()}
        for n in range(len(images))
    ]
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image("masks", list(images.transpose(0, 2, 3, 1)), step=step, masks=overlays)


def show_tables(trainer: L.Trainer, stage: str, results: Mapping[str, Any], step: int) -> None:
    """The scores of each attribute and of each class as ``STAGE/attributes`` and ``STAGE/parsing``, tables of W&B."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            for key, (header, rows) in score_tables(results).items():
                logger.log_table(f"{stage}/{key}", header, rows, step=step)


def score_tables(results: Mapping[str, Any]) -> dict[str, Table]:
    """Tables of the scores of one evaluation, in percent; ``None`` where undefined.

    Example:
        >>> undefined = float("nan")
        >>> score_tables({"parsing": {"iou": {"hair": 50.0, "nose": undefined}, "f1": {"hair": 60.0, "nose": 0.0}}})
        {'parsing': (['class', 'IoU %', 'F1 %'], [['hair', 50.0, 60.0], ['nose', None, 0.0]])}
    """
    tables: dict[str, Table] = {}
    if scores := results.get("attributes"):
        keys = {"error": "error %", "ap": "AP %", "balanced_accuracy": "balanced accuracy %"}
        rows = [[name, *map(each.get, keys)] for name, each in scores["per_attribute"].items()]
        tables["attributes"] = (["attribute", *keys.values()], rows)
    if scores := results.get("parsing"):
        rows = [[name, iou, scores["f1"][name]] for name, iou in scores["iou"].items()]
        tables["parsing"] = (["class", "IoU %", "F1 %"], rows)
    return {
        key: (header, [[None if cell != cell else cell for cell in row] for row in rows])  # NaN equals nothing
        for key, (header, rows) in tables.items()
    }
