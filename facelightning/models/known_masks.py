"""Regions from masks that the data itself has."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from facelightning.errors import ConfigurationError
from facelightning.labels import HELEN7
from facelightning.models.parser import pool_masks, spread_boxes
from facelightning.models.regions import RegionSource


class KnownMasks(RegionSource):
    """The data's own masks, an upper bound of what a parser gives; for drawn faces, whose masks are exact.

    Shape:
        - images: ``(B, 3, H, W)``.
        - masks: ``(B, H, W)``, classes of :data:`~facelightning.labels.HELEN7`; 255 belongs to no region.
    """

    names = HELEN7.classes
    needs_masks = True

    def forward(self, images: Tensor, masks: Tensor | None) -> "KnownRegions":
        """The regions of images; raises :class:`ConfigurationError` without masks."""
        if masks is None:
            raise ConfigurationError(
                "KnownMasks needs the images' masks, but these have none: for CelebA, set the data's `masks` to their "
                "folder; a parser finds regions without them: ParserRegions"
            )
        classes = torch.arange(len(self.names), device=masks.device).view(1, -1, 1, 1)
        return KnownRegions((masks.unsqueeze(1) == classes).float())


class KnownRegions:
    """Masks that are known at full resolution; coarser ones are pooled from them.

    Args:
        masks: ``(B, N, H, W)``, in [0, 1].
    """

    def __init__(self, masks: Tensor) -> None:
        self._masks = masks

    def at(self, stride: int) -> Tensor:
        """The covered fraction of each cell; beyond 1/8 small parts are max-pooled, as a parser's are."""
        half = stride if stride <= 8 else 2
        masks = avg_pool2d(self._masks, half, ceil_mode=True)
        return masks if half == stride else pool_masks(masks, HELEN7.part_indices, stride // half)

    def boxes(self) -> Tensor:
        """The box of each region, ``(B, N, 4)``; see :func:`~facelightning.models.parser.spread_boxes`."""
        return spread_boxes(self._masks)
