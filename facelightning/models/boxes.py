"""Boxes around facial landmarks, to be pooled in instead of semantic regions."""

import torch
from torch import Tensor

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
"""Names of the five landmarks, in the order of CelebA's files; left is the image's left."""

_ASPECTS = ((1, 1), (1, 2), (2, 1))  # height : width

BOXES = (*(f"{name} {h}:{w}" for name in LANDMARKS for h, w in _ASPECTS), "picture")
"""Names of the sixteen regions of "BBox": aspect ratios are height : width."""


_CELL = 16  # pixels: four poolings of 2 lie between the picture and the last map


def box_masks(landmarks: Tensor, image_size: tuple[int, int], side: float = 40) -> Tensor:
    """How much of each cell of the last map lies in each box around the landmarks ("BBox") [1]_.

    Three boxes of one area around each landmark, and the whole picture. A box outside of the picture is empty.

    Args:
        landmarks: x, y in pixels of the picture.
        image_size: Height H and width W of the picture.
        side: Of the square box, in pixels of a picture of 218×178 (40 in the paper, which found 20 alike); it scales
            with the picture's size.

    Shape:
        - landmarks: ``(B, 5, 2)``.
        - return: ``(B, 16, ⌈H/16⌉, ⌈W/16⌉)``, in [0, 1], in the order of :data:`BOXES`.

    Example:
        >>> box_masks(torch.full((1, 5, 2), 50.0), (218, 178)).shape
        torch.Size([1, 16, 14, 12])

    .. [1] Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017, §4.3.
    """
    landmarks = landmarks.float()
    height, width = image_size
    scaled = side * (height * width / (218 * 178)) ** 0.5
    heights, widths = (
        scaled * torch.tensor([aspect[axis] / aspect[1 - axis] for aspect in _ASPECTS], device=landmarks.device).sqrt()
        for axis in (0, 1)
    )
    down = _covered(landmarks[..., 1], heights, height)
    across = _covered(landmarks[..., 0], widths, width)
    boxes = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(1, 2)  # (B, 15, h, w)
    return torch.cat([boxes, torch.ones_like(boxes[:, :1])], dim=1)


def _covered(centres: Tensor, extents: Tensor, length: int) -> Tensor:
    """The part of each cell that each extent covers along one axis: ``(B, 5)`` and ``(3,)`` to ``(B, 5, 3, cells)``."""
    edges = (torch.arange(-(-length // _CELL) + 1, device=centres.device) * _CELL).clamp(max=length)
    low = (centres.unsqueeze(-1) - extents / 2).unsqueeze(-1)
    high = (centres.unsqueeze(-1) + extents / 2).unsqueeze(-1)
    return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0) / _CELL
