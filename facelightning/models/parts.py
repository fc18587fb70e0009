"""A face as its parts: a crop of each region, beside one another."""

import torch
from torch import Tensor
from torchvision.ops import roi_align

from facelightning.errors import ConfigurationError
from facelightning.models.blocks import as_floats
from facelightning.models.encoders import Encoder, Input
from facelightning.models.regions import Regions, need_regions


class PartCrops(Input):
    """A crop of each region's box, all of one size; an absent region is black.

    Args:
        num_regions: P.
        size: Height and width of a crop, in pixels; the shape of a box is not kept.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - return: ``(B, 3 P, size, size)``, float32 in [0, 1], channels-last; RGB of the first region, then of the next.

    Raises:
        ConfigurationError: If there are no regions, or the size is out of its range.

    Example:
        >>> from facelightning.models.regions import BoxRegions
        >>> regions = BoxRegions(torch.tensor([[[10.0, 10, 30, 50]]]), (109, 89))
        >>> PartCrops(2, size=32)(torch.rand(1, 3, 109, 89), regions).shape
        torch.Size([1, 6, 32, 32])
    """

    needs_regions = True

    def __init__(self, num_regions: int, size: int = 64) -> None:
        super().__init__(num_regions)
        need_regions(self, num_regions)
        if not 8 <= size <= 512:
            raise ConfigurationError(f"PartCrops: size must lie in 8...512, not {size}")
        self.num_parts, self.size, self.channels = num_regions, size, 3 * num_regions

    def forward(self, images: Tensor, regions: Regions | None) -> Tensor:
        assert regions is not None
        pixels, boxes = as_floats(images, torch.float32).float(), regions.boxes().float()
        # the whole-number box of a pixel is around its centre: aligned
        crops: Tensor = roi_align(pixels, list(boxes), self.size, aligned=True).clamp(0, 1)
        return crops.reshape(len(images), -1, *crops.shape[2:]).contiguous(memory_format=torch.channels_last)


def need_parts(encoder: Encoder, image_input: Input) -> PartCrops:
    """The input of an encoder of parts; raises :class:`ConfigurationError` if it is another."""
    if not isinstance(image_input, PartCrops):
        raise ConfigurationError(
            f"{type(encoder).__name__} sees the parts of a face: set `image_input` to PartCrops, and `regions` to "
            "FaceParts, or to ParserRegions with the checkpoint of a SegNet"
        )
    return image_input
