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
            "(train one with: facelightning fit --config segnet.yaml), or to LandmarkBoxes or FaceParts"
        )


class Regions(Protocol):
    """The N regions of a batch of images, at any resolution."""

    def at(self, stride: int) -> Tensor:
        """How much of each cell lies in each region, ``(B, N, ⌈H/stride⌉, ⌈W/stride⌉)``, in [0, 1]."""

    def boxes(self) -> Tensor:
        """A box for each region, ``(B, N, 4)``: x0, y0, x1, y1 in pixels, within the image; empty if it is absent."""


class RegionSource(nn.Module):
    """Finds the regions of images; a part of the network that uses them."""

    names: tuple[str, ...]
    """Names of the regions, in the order of their channels."""
    needs_landmarks = False
    needs_masks = False
    """Whether it takes the images' known masks instead of their landmarks."""
    strides: tuple[int, ...] = ()
    """Strides of the masks that its network will ask for. These are read ahead from a file; others on demand."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """Arguments that a checkpoint stores instead of the given ones, so that it needs no other file."""

    def forward(self, images: Tensor, landmarks: Tensor | None) -> Regions:
        """The regions of images ``(B, 3, H, W)``; landmarks ``(B, 5, 2)`` are x, y in pixels."""
        raise NotImplementedError


class LandmarkRegions(RegionSource):
    """Base of the boxes that are drawn around five landmarks; the last region is the whole image."""

    needs_landmarks = True

    def around(self, landmarks: Tensor, image_size: tuple[int, int]) -> Tensor:
        """The other regions' boxes, ``(B, N - 1, 4)``, in pixels; they may leave the image."""
        raise NotImplementedError

    def forward(self, images: Tensor, landmarks: Tensor | None) -> "BoxRegions":
        """The boxes of images; raises :class:`ConfigurationError` without landmarks."""
        if landmarks is None:
            raise ConfigurationError(
                f"{type(self).__name__} draws boxes around five landmarks, but the data has none; CelebA's copy needs "
                "list_landmarks_align_celeba.txt (for in-the-wild images list_landmarks_celeba.txt); a parser finds "
                "regions without them: ParserRegions"
            )
        size = (images.shape[-2], images.shape[-1])
        return BoxRegions(self.around(landmarks.float(), size), size)


class LandmarkBoxes(LandmarkRegions):
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

    def around(self, landmarks: Tensor, image_size: tuple[int, int]) -> Tensor:
        side = self.side * (image_size[0] * image_size[1] / (218 * 178)) ** 0.5
        aspects = torch.tensor(_ASPECTS, device=landmarks.device)
        extents = side * (aspects.flip(1) / aspects).sqrt()  # (3, 2): width, height
        centres = landmarks.unsqueeze(2)  # (B, 5, 1, 2)
        return torch.cat([centres - extents / 2, centres + extents / 2], dim=3).flatten(1, 2)


_PARTS: Mapping[str, tuple[tuple[float, ...], tuple[float, float]]] = {
    # weights of the five landmarks, whose sum is the centre; width and height in units of the face
    "hair": ((1.15, 1.15, 0, -0.65, -0.65), (2.8, 1.6)),
    "left_eyebrow": ((1.2, 0.2, 0, -0.2, -0.2), (1.0, 0.6)),
    "right_eyebrow": ((0.2, 1.2, 0, -0.2, -0.2), (1.0, 0.6)),
    "left_eye": ((1, 0, 0, 0, 0), (0.9, 0.6)),
    "right_eye": ((0, 1, 0, 0, 0), (0.9, 0.6)),
    "nose": ((0.15, 0.15, 0.7, 0, 0), (0.8, 1.0)),
    "mouth": ((0, 0, 0, 0.5, 0.5), (1.4, 0.8)),
    "chin": ((-0.3, -0.3, 0, 0.8, 0.8), (1.6, 0.8)),
    "left_cheek": ((0.7, -0.2, 0, 0.5, 0), (0.8, 1.0)),
    "right_cheek": ((-0.2, 0.7, 0, 0, 0.5), (0.8, 1.0)),
}


class FaceParts(LandmarkRegions):
    """The functional regions of a face from its landmarks: ten boxes, and the whole image.

    FaceTracer (Kumar, Belhumeur, Nayar, ECCV 2008) describes such regions, and Liu et al. (ICCV 2015, §5) place them by
    landmarks. Places and sizes are ours. The unit of the sizes is the larger of two distances: between the
    eyes, which shrinks in a profile, and between eyes and mouth, which shrinks in a face that looks down.

    Example:
        >>> landmarks = torch.tensor([[[69.0, 112], [109, 112], [89, 135], [73, 152], [105, 152]]])
        >>> parts = FaceParts()
        >>> dict(zip(parts.names, parts(torch.zeros(1, 3, 218, 178), landmarks).boxes()[0].tolist()))["left_eye"]
        [51.0, 100.0, 87.0, 124.0]
    """

    names = (*_PARTS, "image")

    def around(self, landmarks: Tensor, image_size: tuple[int, int]) -> Tensor:
        weights, extents = (landmarks.new_tensor(table) for table in zip(*_PARTS.values(), strict=True))
        left_eye, right_eye, _, mouth_left, mouth_right = landmarks.unbind(1)
        across, down = right_eye - left_eye, (mouth_left + mouth_right - left_eye - right_eye) / 2
        unit = torch.maximum(across.norm(dim=1), down.norm(dim=1))[:, None, None]
        centres, half = weights @ landmarks, unit * extents / 2  # (B, N - 1, 2)
        return torch.cat([centres - half, centres + half], dim=2)


class BoxRegions:
    """Boxes, drawn on demand, and the whole image as the last region.

    Args:
        boxes: ``(B, N - 1, 4)``: x0, y0, x1, y1 in pixels; what leaves the image is cut off.
        image_size: Height and width of the images.

    Example:
        >>> regions = BoxRegions(torch.tensor([[[8.0, -5, 24, 16]]]), (32, 32))
        >>> regions.at(16)[0, 0]
        tensor([[0.5000, 0.5000],
                [0.0000, 0.0000]])
        >>> regions.boxes()[0].tolist()
        [[8.0, 0.0, 24.0, 16.0], [0.0, 0.0, 32.0, 32.0]]
    """

    def __init__(self, boxes: Tensor, image_size: tuple[int, int]) -> None:
        height, width = self.image_size = image_size
        inside = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
        whole = boxes.new_tensor([0, 0, width, height]).expand(boxes.shape[0], 1, 4)
        self._boxes = torch.cat([inside, whole], dim=1)

    def boxes(self) -> Tensor:
        """The boxes and the whole image, ``(B, N, 4)``."""
        return self._boxes

    def at(self, stride: int) -> Tensor:
        """The covered fraction of each cell; a box outside the image is empty."""
        down, across = (self._covered(axis, stride) for axis in (0, 1))
        boxes = down.unsqueeze(-1) * across.unsqueeze(-2)  # (B, N - 1, h, w)
        return torch.cat([boxes, torch.ones_like(boxes[:, :1])], dim=1)

    def _covered(self, axis: int, cell: int) -> Tensor:
        """The fraction of each cell that each box covers, vertically or horizontally: ``(B, N - 1, cells)``."""
        low, high = (self._boxes[:, :-1, 1 - axis + side, None] for side in (0, 2))
        length = self.image_size[axis]
        edges = (torch.arange((length + cell - 1) // cell + 1, device=low.device) * cell).clamp(max=length)
        return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0) / cell
