"""Faces as CelebA's aligned images show them: turned upright, scaled and cut out by eyes and mouth."""

from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.boxes import Floats

HEIGHT, WIDTH = 218, 178
"""Of an aligned image, in pixels."""

EYES_AND_MOUTH = np.array([[70.245, 111.5], [107.737, 111.5], [88.932, 153.014]])
"""Where an aligned image has left eye, right eye and the middle of the mouth, x and y in pixels; left is the image's
left. These are the numbers of CelebA's authors, whose first pixel has its centre at 1: here it is at 0.5."""

UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""The turn of a photograph that is left as it is."""

LEAST = 0.5
"""How well a face's points must fit: a profile has 0.8, points in another order under 0.3."""

LARGEST = 12_000
"""Height of the largest aligned cut, in pixels of the photograph: a larger one would fill the memory."""


class AlignedCut(NamedTuple):
    """A face, cut out of the turned photograph."""

    image: npt.NDArray[np.uint8]
    """``(h, w, 3)``, in the shape of an aligned image and about as large as in the photograph."""
    turn: Floats
    """From pixels of the photograph to those of the cut, ``(2, 3)``."""


def alignment(points: Floats) -> Floats | None:
    """From pixels of an aligned image to those of a photograph, ``(2, 3)``: a rotation, a scale and a shift.

    As CelebA's authors made their images: left eye, right eye and the middle of the mouth corners of an aligned image
    go as near as can be, by least squares, to those of the face. The nose does not count: it moves as the head turns.

    Args:
        points: Left eye, right eye, nose tip, left and right mouth corner of a face, ``(5, 2)``, x and y in pixels.

    Returns:
        The transform; ``None`` if a point is unknown, NaN, or if they are not arranged like those of a face.

    Example: a face that lies on its side, twice as large
        >>> points = np.array([[0, 0], [0, 74.984], [-40, 37], [-83.028, 17.374], [-83.028, 57.374]])
        >>> alignment(points).round(2).tolist()
        [[0.0, -2.0, 223.0], [2.0, 0.0, -140.49]]
    """
    if np.isnan(points).any():
        return None
    found = np.vstack([points[:2], points[3:].mean(axis=0)])
    back = similarity(EYES_AND_MOUTH, found)
    fit = np.hypot(*back[:, 0]) * _spread(EYES_AND_MOUTH)
    return back if fit > LEAST * _spread(found) else None


def similarity(points: Floats, targets: Floats) -> Floats:
    """Turn, scale and shift that bring points nearest to their targets, by least squares, without mirroring.

    Args:
        points: At least two different ones, ``(N, 2)``, x and y.
        targets: ``(N, 2)``.

    Returns:
        ``(2, 3)``: x, y, 1 to x, y.

    Example:
        >>> similarity(np.array([[0.0, 0], [1, 0]]), np.array([[5.0, 5], [5, 7]])).round(6) + 0.0
        array([[ 0., -2.,  5.],
               [ 2.,  0.,  5.]])
    """
    source, target = points @ [1, 1j], targets @ [1, 1j]
    centred = source - source.mean()
    factor = np.vdot(centred, target - target.mean()) / np.vdot(centred, centred).real
    shift = target.mean() - factor * source.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def _spread(points: Floats) -> float:
    return float(np.linalg.norm(points - points.mean(axis=0)))


def aligned_cut(image: npt.NDArray[np.uint8], points: Floats) -> AlignedCut | None:
    """Cut a face out of an image ``(H, W, 3)`` as CelebA's aligned images are; beyond the image, its edge goes on.

    Args:
        image: The photograph.
        points: Of the face, as for :func:`alignment`.

    Returns:
        The cut; ``None`` if the points are not those of a face, if it would be higher than :data:`LARGEST` pixels, or
        if nothing of the image lies in it.

    Example:
        >>> image = np.zeros((436, 356, 3), np.uint8)
        >>> cut = aligned_cut(image, 2 * EYES_AND_MOUTH[[0, 1, 2, 2, 2]])
        >>> cut.image.shape, (cut.turn + 0).round(2).tolist()
        ((436, 356, 3), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    """
    back = alignment(points)
    if back is None:
        return None
    scale = np.hypot(*back[:, 0])
    width, height = max(1, round(WIDTH * scale)), max(1, round(HEIGHT * scale))
    back[:, :2] *= [WIDTH / width, HEIGHT / height]  # from whole pixels of the cut
    x0, y0, x1, y1 = _seen(back, (width, height), image.shape[:2])
    if height > LARGEST or x1 <= x0 or y1 <= y0:
        return None
    # a coordinate of OpenCV counts from the first pixel's centre, one of ours from its edge
    centred = back + np.array([[0, 0, -0.5 - x0], [0, 0, -0.5 - y0]])
    centred[:, 2] += back[:, :2].sum(axis=1) / 2
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    cut = cv2.warpAffine(part, centred, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return AlignedCut(cut.astype(np.uint8, copy=False), cast(Floats, cv2.invertAffineTransform(back)))


def _seen(back: Floats, size: tuple[int, int], shape: tuple[int, ...]) -> list[int]:
    """What of an image of a shape a cut of a width and height shows, and two pixels around: x0, y0, x1, y1."""
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [*size, 1]]) @ back.T
    low, high = np.floor(corners.min(axis=0)) - 2, np.ceil(corners.max(axis=0)) + 2
    bounds = np.array([*low, *high]).clip(0, np.tile(shape[1::-1], 2))
    return [int(side) for side in bounds]
