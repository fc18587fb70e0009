"""Figures of the current model after each validation."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from facelightning.figures import Picture, parsing_panels, region_weights_figure, save_picture
from facelightning.labels import ATTRIBUTES
from facelightning.runs import run_folder
from facelightning.tasks import FaceTask


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
