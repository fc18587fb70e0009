"""From the class probabilities of faces to one mask of the photograph, in its own pixels."""

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.boxes import Floats, clipped


def photograph_mask(
    probabilities: Sequence[npt.NDArray[np.float32]], cuts: Floats, frames: Floats, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """The class of each pixel of a photograph.

    Probabilities are brought to the photograph's pixels before the most probable class is taken: classes would keep
    the steps of the network's pixels. What lies in no cut is background, class 0. Where cuts overlap, a class other
    than background counts, and of two such that of the earlier face.

    Args:
        probabilities: Of K classes in the network's images of F faces, each ``(K, h, w)``.
        cuts: What was cut out for each, ``(F, 4)``, in whole pixels of the photograph, which it may leave.
        frames: Where the cut lies in the network's image, ``(F, 4)``, in whole pixels; around it is padding.
        size: Height and width of the photograph.

    Returns:
        ``(H, W)``, class indices.

    Example: the left half of a network's image, and of the photograph, is class 1
        >>> left = np.array([[[[0, 0], [0, 0]], [[1, 0], [1, 0]]]], np.float32)
        >>> left[:, 0] = 1 - left[:, 1]
        >>> photograph_mask(left, np.array([[0.0, 0, 4, 2]]), np.array([[0.0, 0, 2, 2]]), (2, 4))
        array([[1, 1, 0, 0],
               [1, 1, 0, 0]], dtype=uint8)
    """
    mask = np.zeros(size, np.uint8)
    inside = clipped(cuts, np.tile([0.0, 0, *size[::-1]], (len(cuts), 1))).astype(int)
    for maps, cut, frame, seen in reversed(list(zip(probabilities, cuts, frames, inside, strict=True))):
        x0, y0, x1, y1 = frame.astype(int)
        classes = _classes(maps[:, y0:y1, x0:x1], (int(cut[2] - cut[0]), int(cut[3] - cut[1])))
        left, top, right, bottom = seen
        dx, dy = (seen[:2] - cut[:2]).astype(int)
        part = classes[dy : dy + bottom - top, dx : dx + right - left]
        np.copyto(mask[top:bottom, left:right], part, where=part > 0)  # the first face comes last, on top
    return mask


def _classes(maps: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The most probable class of each pixel of maps ``(K, h, w)`` that are brought to a width and height.

    One class after another, so that memory does not grow with their number; of equal ones the first counts.
    """
    # cubic: linear interpolation cuts the corners of curves, by more than a pixel of a large photograph.
    # OpenCV lays the images' edges together, not the centres of their corner pixels
    planes = (cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_CUBIC) for plane in maps)
    best, classes = next(planes), np.zeros(size[::-1], np.uint8)
    for index, mapped in enumerate(planes, start=1):
        better = cast(npt.NDArray[np.uint8], cv2.compare(mapped, best, cv2.CMP_GT))  # 0 or 255
        cv2.max(best, mapped, best)
        np.maximum(classes, better & index, out=classes)
    return classes
