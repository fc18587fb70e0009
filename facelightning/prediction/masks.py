"""From the class probabilities of faces to one mask of the photograph, in its own pixels."""

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.boxes import Floats, clipped
from facelightning.data.alignment import UPRIGHT

Mask = npt.NDArray[np.uint8]


def photograph_mask(
    probabilities: Sequence[npt.NDArray[np.float32]], turns: Floats, cuts: Floats, frames: Floats, size: tuple[int, int]
) -> Mask:
    """The class of each pixel of a photograph.

    Probabilities are brought to the photograph's pixels before the most probable class is taken: classes would keep
    the steps of the network's pixels. What lies in no cut is background, class 0. Where cuts overlap, a class other
    than background counts, and of two such that of the earlier face.

    Args:
        probabilities: Of K classes in the network's images of F faces, each ``(K, h, w)``.
        turns: How the photograph was turned before each was cut out of it, ``(F, 2, 3)``: from its pixels to those
            that the cut is in.
        cuts: What was cut out for each, ``(F, 4)``, in whole pixels of the turned photograph, which it may leave.
        frames: Where the cut lies in the network's image, ``(F, 4)``, in whole pixels; around it is padding.
        size: Height and width of the photograph.

    Returns:
        ``(H, W)``, class indices.

    Example: the left half of a network's image, and of the photograph, is class 1
        >>> left = np.array([[[[0, 0], [0, 0]], [[1, 0], [1, 0]]]], np.float32)
        >>> left[:, 0] = 1 - left[:, 1]
        >>> photograph_mask(left, UPRIGHT[None], np.array([[0.0, 0, 4, 2]]), np.array([[0.0, 0, 2, 2]]), (2, 4))
        array([[1, 1, 0, 0],
               [1, 1, 0, 0]], dtype=uint8)
    """
    mask = np.zeros(size, np.uint8)
    for maps, turn, cut, frame in reversed(list(zip(probabilities, turns, cuts, frames, strict=True))):
        x0, y0, x1, y1 = frame.astype(int)
        classes = _classes(maps[:, y0:y1, x0:x1], (int(cut[2] - cut[0]), int(cut[3] - cut[1])))
        place = clipped(_around(turn, cut)[None], np.array([[0.0, 0, *size[::-1]]]))[0].astype(int)
        part = _turned_back(classes, turn, cut[:2], place)
        left, top, right, bottom = place
        np.copyto(mask[top:bottom, left:right], part, where=part > 0)  # the first face comes last, on top
    return mask


def _around(turn: Floats, cut: Floats) -> Floats:
    """The box in whole pixels of the photograph around a cut of the turned one, ``(4,)``."""
    x0, y0, x1, y1 = cut
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]]) @ cv2.invertAffineTransform(turn).T
    return np.concatenate([np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))])


def _turned_back(classes: Mask, turn: Floats, corner: Floats, place: npt.NDArray[np.int_]) -> Mask:
    """The classes in a place of the photograph, ``(4,)``, of those in a cut, whose corner is in the turned one."""
    left, top, right, bottom = place
    if np.array_equal(turn, UPRIGHT):  # OpenCV turns no image of more than 32,767 pixels
        dx, dy = (place[:2] - corner).astype(int)
        return classes[dy : dy + bottom - top, dx : dx + right - left]
    matrix = turn.copy()
    # OpenCV's coordinates are those of the pixels' centres
    matrix[:, 2] += turn[:, :2] @ (place[:2] + 0.5) - corner - 0.5
    how = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    size = (int(right - left), int(bottom - top))
    return cast(Mask, cv2.warpAffine(classes, matrix, size, flags=how)) if min(size) else np.zeros(size[::-1], np.uint8)


def _classes(maps: npt.NDArray[np.float32], size: tuple[int, int]) -> Mask:
    """The most probable class of each pixel of maps ``(K, h, w)`` that are brought to a width and height.

    One class after another, so that memory does not grow with their number; of equal ones the first counts.
    """
    # cubic: linear interpolation cuts the corners of curves, by more than a pixel of a large photograph.
    # OpenCV lays the images' edges together, not the centres of their corner pixels
    planes = (cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_CUBIC) for plane in maps)
    best, classes = next(planes), np.zeros(size[::-1], np.uint8)
    for index, mapped in enumerate(planes, start=1):
        better = cast(Mask, cv2.compare(mapped, best, cv2.CMP_GT))  # 0 or 255
        cv2.max(best, mapped, best)
        np.maximum(classes, better & index, out=classes)
    return classes
