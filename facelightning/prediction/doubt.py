"""Boxes that a finder is not sure of: those that a parser sees a face in, one for each face."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from facelightning.boxes import Floats
from facelightning.labels import LabelSpace

LEAST = 0.35
"""A box holds a face if so much of it is one: around CelebA's faces it is 0.5 to 0.75, elsewhere under 0.25."""
SAME = 0.5
"""Two boxes are one face if so much of the smaller one lies in the other."""


def face_shares(
    probabilities: Sequence[npt.NDArray[np.float32]], boxes: Floats, cuts: Floats, frames: Floats, labels: LabelSpace
) -> Floats:
    """How much of each box is a face, not background or hair, as a parser sees it: ``(F,)``, in [0, 1].

    Args:
        probabilities: Of the classes in the network's image of each face, ``(K, h, w)``.
        boxes: ``(F, 4)``, in pixels of the photograph.
        cuts: What was cut out around each, ``(F, 4)``, in pixels of the photograph.
        frames: Where the cut lies in the network's image, ``(F, 4)``.
        labels: The classes.

    Example: of four columns two are skin, and a box covers the right half
        >>> from facelightning.labels import HELEN7
        >>> maps = np.zeros((7, 4, 4), np.float32)
        >>> maps[0, :, :2] = maps[HELEN7.index("face_skin"), :, 2:] = 1
        >>> cuts, frames = np.array([[0.0, 0, 40, 40]]), np.array([[0.0, 0, 4, 4]])
        >>> face_shares([maps], np.array([[20.0, 0, 40, 40]]), cuts, frames, HELEN7)
        array([1.])
    """
    of_face = [index for index, name in enumerate(labels.classes) if name not in ("background", "hair")]
    scale = (frames[:, 2:] - frames[:, :2]) / (cuts[:, 2:] - cuts[:, :2])
    places = (boxes - np.tile(cuts[:, :2], 2)) * np.tile(scale, 2) + np.tile(frames[:, :2], 2)
    shares = []
    for maps, place in zip(probabilities, places, strict=True):
        left, top = np.floor(place[:2]).astype(int)
        right, bottom = np.maximum(np.ceil(place[2:]).astype(int), (left + 1, top + 1))
        shares.append(maps[of_face, top:bottom, left:right].sum(axis=0).mean())
    return np.array(shares, np.float64)


def one_a_face(boxes: Floats, scores: Floats) -> npt.NDArray[np.int64]:
    """The indices of one box for each face, the best scores first.

    Of those that show one face, the one with the largest product of score and side: among true ones the larger is the
    usual one, and the smaller has the larger share of skin.

    Example:
        >>> boxes = np.array([[0.0, 0, 10, 10], [2, 2, 8, 8], [20, 20, 30, 30]])
        >>> one_a_face(boxes, np.array([0.6, 0.9, 0.7])).tolist()
        [2, 0]
    """
    kept: list[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for index in np.argsort(-scores * np.sqrt(areas), kind="stable"):
        low = np.maximum(boxes[kept, :2], boxes[index, :2])
        high = np.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = (high - low).clip(min=0).prod(axis=1)
        if (shared <= SAME * np.minimum(areas[kept], areas[index])).all():
            kept.append(int(index))
    return np.array(sorted(kept, key=lambda index: -scores[index]), np.int64)
