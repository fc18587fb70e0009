"""What a network sees of a photograph: all of it, or each face that is found, cut out or aligned."""

from dataclasses import dataclass, replace
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
import torch

from facelightning.boxes import Floats, around, rescaled
from facelightning.data.alignment import UPRIGHT, aligned_cut
from facelightning.data.cropping import cut_out
from facelightning.data.transforms import FaceTransform
from facelightning.labels import IGNORE_INDEX
from facelightning.models.finding import Finder

Image = npt.NDArray[np.uint8]

SEARCHED = 1024
"""Longer side, in pixels, of what a finder searches; a larger photograph is scaled down."""


@dataclass(frozen=True)
class Seen:
    """A photograph as a network sees it: F images of faces, and where each comes from.

    Args:
        name: Its name.
        picture: The photograph, ``(H, W, 3)``, uint8 RGB; or a smaller copy, to draw on.
        size: Its height and width in pixels.
        boxes: The faces, ``(F, 4)``, in its pixels: the most certain first.
        scores: How certain the finder is of each, ``(F,)``, on its own scale; NaN if nothing was searched.
        points: Left eye, right eye, nose tip, left and right mouth corner of each, ``(F, 5, 2)``, x and y in its
            pixels; NaN where they are unknown.
        turns: How it was turned before a face was cut out, ``(F, 2, 3)``: from its pixels to those that cuts are
            in. Only faces that are aligned are turned.
        cuts: What was cut out for each, ``(F, 4)``, in whole pixels; it may leave the photograph.
        frames: Where the cut lies in the network's image, ``(F, 4)``, in whole pixels of that: around it is padding.
        images: The network's images, ``(F, 3, h, w)``, uint8.
    """

    name: str
    picture: Image
    size: tuple[int, int]
    boxes: Floats
    scores: Floats
    points: Floats
    turns: Floats
    cuts: Floats
    frames: Floats
    images: Image

    def only(self, kept: npt.NDArray[np.int64]) -> Self:
        """Some of the faces, in this order."""
        arrays = ("boxes", "scores", "points", "turns", "cuts", "frames", "images")
        return replace(self, **{name: getattr(self, name)[kept] for name in arrays})


class View:
    """From a photograph to what a network sees of it, scaled and padded as its training data was.

    Args:
        image_size: Height and width of the network's images.
        finder: Finds the faces; none if a photograph is the cut around one face already.
        margin: A cut around a face holds a square of this many times the longer side of its box.
        shift: By so many heights of its box the cut lies lower.
        aligns: Whether a face whose points are known is seen as CelebA's aligned images show faces, instead.

    Example:
        >>> seen = View((40, 40))(np.zeros((100, 50, 3), np.uint8), "a.jpg")
        >>> seen.boxes.tolist(), seen.frames.tolist(), seen.images.shape
        ([[0.0, 0.0, 50.0, 100.0]], [[10.0, 0.0, 30.0, 40.0]], (1, 3, 40, 40))
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        finder: Finder | None = None,
        margin: float = 1.0,
        shift: float = 0.0,
        aligns: bool = False,
    ) -> None:
        self.image_size, self.finder, self.margin, self.shift = image_size, finder, margin, shift
        self.aligns = aligns
        self.transform = FaceTransform(image_size)

    def __call__(self, photograph: Image, name: str) -> Seen:
        """Look at a photograph ``(H, W, 3)``, uint8 RGB."""
        height, width = photograph.shape[:2]
        boxes, scores = np.array([[0.0, 0, width, height]]), np.array([np.nan])
        places, points = boxes, np.full((1, 5, 2), np.nan)
        if self.finder is not None:
            boxes, scores, points = self._find(self.finder, photograph, name)
            places = around(rescaled(boxes, 1, 1, self.shift), self.margin, self.image_size)
        images, turns, cuts, frames = [], [], [], []
        for place, five in zip(places, points, strict=True):
            aligned = aligned_cut(photograph, five) if self.aligns else None
            cut, box = cut_out(photograph, place) if aligned is None else (aligned.image, _whole(aligned.image))
            sample = self.transform({"image": cut, "mask": np.zeros(cut.shape[:2], np.uint8)}, seed=0)
            images.append(sample["image"].numpy())
            turns.append(UPRIGHT if aligned is None else aligned.turn)
            cuts.append(box)
            frames.append(_frame(sample["mask"].numpy()))
        return Seen(
            name,
            photograph,
            (height, width),
            boxes,
            scores,
            points,
            np.array(turns, np.float64).reshape(-1, 2, 3),
            np.array(cuts, np.float64).reshape(-1, 4),
            np.array(frames, np.float64).reshape(-1, 4),
            np.stack(images) if images else np.empty((0, 3, *self.image_size), np.uint8),
        )

    @torch.inference_mode()
    def _find(self, finder: Finder, photograph: Image, name: str) -> tuple[Floats, Floats, Floats]:
        """The boxes, in pixels of the photograph, their scores, and the faces' points."""
        height, width = photograph.shape[:2]
        scale = min(1.0, SEARCHED / max(height, width))
        small = (max(1, round(scale * width)), max(1, round(scale * height)))
        searched = cv2.resize(photograph, small, interpolation=cv2.INTER_AREA) if scale < 1 else photograph
        device = next(finder.parameters(), torch.empty(0)).device
        image = torch.from_numpy(np.ascontiguousarray(searched.transpose(2, 0, 1)))[None].to(device)
        frames, sizes = np.array([[0.0, 0, *small]]), np.array([[height, width]], np.float64)
        found = finder(image, frames, sizes, [name])
        larger = np.array([width, height]) / small
        points = np.full((len(found.boxes), 5, 2), np.nan) if found.points is None else found.points * larger
        return found.boxes * np.tile(larger, 2), found.responses, points


def _whole(cut: Image) -> tuple[int, int, int, int]:
    return 0, 0, cut.shape[1], cut.shape[0]


def _frame(mask: npt.NDArray[np.int64]) -> list[int]:
    """Where a cut lies in the network's image, in whole pixels: around it, its mask is ignored."""
    rows, columns = ((mask != IGNORE_INDEX).any(axis=axis).nonzero()[0] for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
