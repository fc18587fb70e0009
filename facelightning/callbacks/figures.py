"""Figures of the current model after each validation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from facelightning import figures
from facelightning.callbacks.dashboards import show_figures, show_masks
from facelightning.figures import Image, save_image
from facelightning.labels import LabelSpace
from facelightning.objectives import RelatedAttributes
from facelightning.runs import RunFolder
from facelightning.tasks import FaceTask


class Parsed(NamedTuple):
    """Images ``(B, 3, H, W)``, their true masks ``(B, H, W)`` and those that are predicted."""

    images: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.int64]
    parsing: npt.NDArray[np.int64]
    labels: LabelSpace

    def draw(self) -> Image:
        """All side by side."""
        return figures.parsing_panels(*self)


@torch.no_grad()
def parse(task: FaceTask, faces: Sequence[tuple[Tensor, ...]]) -> Parsed:
    """A task's parsing of a few images ``(3, H, W)`` with masks ``(H, W)``."""
    images, masks = (torch.stack(part) for part in zip(*faces, strict=True))
    output, _ = task.predict_batch({"image": images.to(task.device), "mask": masks})
    predicted = task.objectives["parsing"].predict(output)
    assert task.facts is not None and task.facts.label_space is not None
    image, truth, parsing = (tensor.cpu().numpy() for tensor in (images, masks, predicted))
    return Parsed(image, truth, parsing, task.facts.label_space)


class Figures(Callback):
    """Draws figures after each validation, to ``figures/`` and, if used, to Weights & Biases and TensorBoard.

    Weights & Biases also gets the masks of ``parsing.png`` in its own format, to be laid over the images.

    - ``parsing.png``: image, truth and prediction (Kalayeh et al., CVPR 2017, Figure 3).
    - ``attributes.png``: average precision of each attribute, beside the share of positives in the training data.
    - ``faces.png``: faces beside their attributes, predicted and true.
    - ``relations.png``, of one that learns relations: which attributes go together in the labels that it has seen.
    - ``region_weights.png``, of a model that weighs regions: how much each counts for each attribute (Figure 4).

    Each is drawn if the model predicts it and the data has its truth. The images are spread evenly over the first 64
    with a mask, and the first 64 with attributes; the weights are means over the first 256 with attributes, rounded up
    to whole batches. With several processes, the first draws its own images; average precision is that of all.

    Args:
        num_images: Images in the parsing panels, and in the faces; 0 draws no figure at all.
    """

    def __init__(self, num_images: int = 6) -> None:
        self.num_images = num_images
        self._discard()

    def _discard(self) -> None:
        self._images: list[tuple[Tensor, Tensor]] = []  # image (3, H, W) and mask (H, W)
        self._faces: list[tuple[Tensor, Tensor, Tensor]] = []  # image, probabilities (A,) and truth (A,)
        self._weights: list[Tensor] = []  # (N, A)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Discard what an interrupted validation left."""
        self._discard()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: int
    ) -> None:
        """Keep images with masks, and what is predicted for images with attributes, until there are enough."""
        wanted = self.num_images > 0 and not trainer.sanity_checking and trainer.is_global_zero
        if not wanted or not isinstance(pl_module, FaceTask):
            return
        if "parsing" in outputs and "mask" in batch:
            self._images += list(zip(batch["image"], batch["mask"], strict=True))[: 64 - len(self._images)]
        if "attributes" in outputs and "attributes" in batch and len(self._faces) < 64:
            likely = pl_module.objectives["attributes"].predict(outputs).float()
            truth = batch["attributes"].float()
            self._faces += list(zip(batch["image"], likely, truth, strict=True))[: 64 - len(self._faces)]
        if "region_weights" in outputs and "attributes" in batch and len(self._weights) < 256:
            self._weights += outputs["region_weights"].float()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what was kept."""
        folder = RunFolder.of(trainer)
        if not isinstance(pl_module, FaceTask) or pl_module.facts is None:
            return
        drawn: dict[str, Image] = {}
        names = pl_module.facts.attributes or ()
        step = max(trainer.global_step - 1, 0)  # Lightning logs a validation's scores there: the figures belong beside
        if self._images:
            parsed = parse(pl_module, self._spread(self._images))
            drawn["parsing"] = parsed.draw()
            masks = {"prediction": parsed.parsing, "ground_truth": parsed.truth}
            show_masks(trainer, parsed.images, masks, parsed.labels, step)
        if self._faces:
            scores = pl_module.results["val"]["attributes"]["per_attribute"]
            rates = dict(zip(names, pl_module.facts.positive_rates or (), strict=False))
            drawn["attributes"] = figures.average_precision_figure({name: scores[name]["ap"] for name in names}, rates)
            parts = zip(*self._spread(self._faces), strict=True)
            images, likely, truth = (torch.stack(part).cpu().numpy() for part in parts)
            drawn["faces"] = figures.faces_figure(images, names, likely, truth)
            if isinstance(objective := pl_module.objectives["attributes"], RelatedAttributes):
                drawn["relations"] = figures.relations_figure(objective.correlations().cpu().numpy(), names)
        if self._weights:
            weights = torch.stack(self._weights).mean(dim=0).T.cpu().numpy()
            drawn["region_weights"] = figures.region_weights_figure(weights, names, pl_module.places)
        self._discard()
        if folder is not None:
            for name, image in drawn.items():
                save_image(folder.figures / f"{name}.png", image)
        show_figures(trainer, drawn, step)

    def _spread(self, kept: Sequence[tuple[Tensor, ...]]) -> Sequence[tuple[Tensor, ...]]:
        step = max(1, len(kept) // self.num_images)
        return kept[::step][: self.num_images]
