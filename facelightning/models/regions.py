"""Where the parts of a face are: regions for gates and poolings, at the resolution that each needs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
"""Names of the five landmarks, in the order of CelebA's files; left is the image's left."""

_ASPECTS = ((1, 1), (1, 2), (2, 1))  # height : width

BOXES = (*(f"{name} {h}:{w}" for name in LANDMARKS for h, w in _ASPECTS), "image")
"""Names of the sixteen regions of "BBox": aspect ratios are height : width."""


def need_regions(part: nn.Module, num_regions: int) -> None:
    """Refuse to make a part of a network that needs regions if there are none."""
    if num_regions == 0:
        raise ConfigurationError(
            f"{type(part).__name__} needs regions: set `regions` to ParserRegions with the checkpoint of a SegNet "
            "(train one with: facelightning fit --config segnet.yaml), or to LandmarkBoxes"
        )


class Regions(Protocol):
    """The N regions of a batch of images, at any resolution."""

    def at(self, stride: int) -> Tensor:
        """How much of each cell lies in each region, ``(B, N, ⌈H/stride⌉, ⌈W/stride⌉)``, in [0, 1]."""


class RegionSource(nn.Module):
    """Finds the regions of images; a part of the network that uses them."""

    names: tuple[str, ...]
    """Names of the regions, in the order of their channels."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """Arguments that a checkpoint stores instead of the given ones, so that it needs no other file."""

    def forward(self, images: Tensor, landmarks: Tensor | None) -> Regions:
        """The regions of images ``(B, 3, H, W)``; landmarks ``(B, 5, 2)`` are x, y in pixels."""
        raise NotImplementedError


class LandmarkBoxes(RegionSource):
    """Three equal boxes around each annotated landmark, and the whole image (Kalayeh et al., CVPR 2017, §4.3: "BBox").

    Args:
        side: Side of the square box, in pixels of a 218×178 image; it scales with the image size. The paper found two
            areas equally good, but does not state them; 40² is our choice.
    """

    names = BOXES

    def __init__(self, side: float = 40) -> None:
        super().__init__()
        if side <= 0:
            raise ConfigurationError(f"LandmarkBoxes: side must be positive, not {side}")
        self.side = side

    def forward(self, images: Tensor, landmarks: Tensor | None) -> "BoxRegions":
        """The boxes of images; raises :class:`ConfigurationError` without landmarks."""
        if landmarks is None:
            raise ConfigurationError(
                "LandmarkBoxes draws boxes around five landmarks, but the data has none; CelebA's copy needs "
                "list_landmarks_align_celeba.txt (for in-the-wild images list_landmarks_celeba.txt)"
            )
        return BoxRegions(landmarks, (images.shape[-2], images.shape[-1]), self.side)


class BoxRegions:
    """Boxes around landmarks, drawn on demand.

    Args:
        landmarks: ``(B, 5, 2)``, x, y in pixels.
        image_size: Height and width of the images.
        side: Side of the square box, in pixels of a 218×178 image.

    Example:
        >>> BoxRegions(torch.full((1, 5, 2), 50.0), (218, 178)).at(16).shape
        torch.Size([1, 16, 14, 12])
    """

    def __init__(self, landmarks: Tensor, image_size: tuple[int, int], side: float = 40) -> None:
        self.landmarks, self.image_size = landmarks.float(), image_size
        self.side = side * (image_size[0] * image_size[1] / (218 * 178)) ** 0.5

    def at(self, stride: int) -> Tensor:
        """The covered fraction of each cell, in the order of :data:`BOXES`; a box outside the image is empty."""
        down, across = (self._covered(axis, stride) for axis in (0, 1))
        boxes = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(1, 2)  # (B, 15, h, w)
        return torch.cat([boxes, torch.ones_like(boxes[:, :1])], dim=1)

    def _covered(self, axis: int, cell: int) -> Tensor:
        """The fraction of each cell that each box covers, vertically or horizontally: ``(B, 5, 3, cells)``."""
        device = self.landmarks.device
        ratios = torch.tensor([aspect[axis] / aspect[1 - axis] for aspect in _ASPECTS], device=device)
        extents, length = self.side * ratios.sqrt(), self.image_size[axis]
        centres = self.landmarks[..., 1 - axis].unsqueeze(-1)
        edges = (torch.arange(-(-length // cell) + 1, device=device) * cell).clamp(max=length)
        low, high = ((centres + sign * extents / 2).unsqueeze(-1) for sign in (-1, 1))
        return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0) / cell
