"""Boxes of faces: what to cut out around them, how they overlap, how many were found, and the table of found ones.

Boxes are ``(N, 4)``: x0, y0, x1, y1 in pixels; x1 and y1 are exclusive.
"""

import csv
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facelightning.errors import DataFormatError, reading

Floats = npt.NDArray[np.float64]

POINTS = tuple(f"{point}_{axis}" for point in "lefteye righteye nose leftmouth rightmouth".split() for axis in "xy")
"""The names of the columns of a face's five points, as CelebA calls its landmarks; left is the image's left."""


def containing(boxes: Floats, size: tuple[int, int]) -> Floats:
    """The smallest boxes of the shape of ``size``, height and width, that hold the boxes and have their centres.

    Example:
        >>> containing(np.array([[0, 0, 10, 40]]), (100, 50))
        array([[-5.,  0., 15., 40.]])
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    shape = np.array(size[::-1])
    half = ((high - low) / shape).max(axis=1, keepdims=True) * shape / 2
    return np.hstack([(low + high) / 2 - half, (low + high) / 2 + half])


def around(boxes: Floats, factor: float, size: tuple[int, int]) -> Floats:
    """What to cut out around boxes: the smallest ones of the shape of ``size`` that hold a square around the box.

    The square's side is ``factor`` times the box's longer one. The result may leave the image: clipped, it would lose
    its shape. Who cuts it out fills the outside.

    Example:
        >>> around(np.array([[10, 10, 30, 50]]), 1.5, (100, 100))
        array([[-10.,   0.,  50.,  60.]])
        >>> around(np.array([[10, 10, 30, 50]]), 1, (100, 50))
        array([[  0., -10.,  40.,  70.]])
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    half = factor * (high - low).max(axis=1, keepdims=True) / 2
    return containing(np.hstack([(low + high) / 2 - half, (low + high) / 2 + half]), size)


def clipped(boxes: Floats, frames: Floats) -> Floats:
    """What of each box lies within its frame, both ``(N, 4)``.

    Example:
        >>> clipped(np.array([[-2, 3, 5, 9]]), np.array([[0, 0, 4, 8]]))
        array([[0, 3, 4, 8]])
    """
    low, high = np.tile(frames[:, :2], 2), np.tile(frames[:, 2:], 2)
    inside: Floats = boxes.clip(low, high)
    return inside


def rescaled(boxes: Floats, width: float, height: float, down: float) -> Floats:
    """Boxes with other sides: width and height as multiples; their centres move down by ``down`` heights.

    Example:
        >>> rescaled(np.array([[0, 0, 10, 20]]), 2, 1, 0.5)
        array([[-5., 10., 15., 30.]])
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * [0, down]
    half = sides * [width, height] / 2
    return np.hstack([centre - half, centre + half])


def overlap(a: Floats, b: Floats) -> Floats:
    """Intersection over union of each box of ``a`` with each of ``b``: ``(N, 4)``, ``(M, 4)`` to ``(N, M)``, in [0, 1].

    A box without area overlaps with nothing, not even with itself.

    Example:
        >>> overlap(np.array([[0, 0, 4, 4]]), np.array([[0, 0, 4, 4], [2, 0, 6, 4], [4, 0, 8, 4]]))
        array([[1.        , 0.33333333, 0.        ]])
    """
    a, b = a[:, None], b[None]  # (N, 1, 4), (1, M, 4)
    both = _area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))
    either = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - both
    return both / np.where(either > 0, either, 1)


def paired_overlaps(found: Floats, true: Floats) -> Floats:
    """The overlap of each true box with the found box that is its own: ``(N, 4)``, ``(M, 4)`` to ``(M,)``, in [0, 1].

    The two boxes that overlap most are a pair, then the two of the others, and so on: a found box counts once. A true
    box without one has 0.

    Example:
        >>> found = np.array([[0, 0, 4, 4], [9, 9, 11, 11]])
        >>> paired_overlaps(found, np.array([[0, 0, 4, 8], [0, 0, 4, 5]]))
        array([0. , 0.8])
    """
    left, own = overlap(found, true), np.zeros(len(true))
    while left.size and left.max() > 0:
        row, column = np.unravel_index(left.argmax(), left.shape)
        own[column] = left[row, column]
        left[row], left[:, column] = 0, 0
    return own


def read_boxes_table(path: Path) -> dict[str, Floats]:
    """Read a table of faces: found ones, such as ``predictions.csv``, or true ones, such as ``all_boxes.csv``.

    Its columns are ``name``, ``image`` or ``image_id``, ``x0``, ``y0``, ``x1``, ``y1``, in any order, and, if there
    are such, ``response`` or ``score``, and the ten of :data:`POINTS`, in pixels. An empty cell of a box says that no
    face was found, one of a point that the points are unknown; without a response it is 1.

    Returns:
        For each image, the rows ``(N, 15)`` in the table's order: box, response and points; NaN in the box where none
        was found, and in the points where they are unknown.

    Raises:
        DataNotFoundError: If there is no such file, or it cannot be read.
        DataFormatError: If it is not such a table; the message names the line.

    Example:
        >>> read_boxes_table(Path("missing/faces.csv"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.DataNotFoundError: cannot read missing/faces.csv: No such file or directory; ...
    """
    columns = ("x0", "y0", "x1", "y1")
    found: dict[str, list[list[float]]] = {}
    with reading(path), path.open(newline="", encoding="utf-8-sig", errors="strict") as file:
        rows = csv.DictReader(file)
        try:
            header = set(rows.fieldnames or ())
            key = next((key for key in ("name", "image") if key in header), "image_id")
            if not {key, *columns} <= header:
                raise DataFormatError(f"{path}: expected the columns name, {', '.join(columns)}")
            points = POINTS if header.issuperset(POINTS) else ()
            if not points and header.intersection(POINTS):
                lacking = ", ".join(name for name in POINTS if name not in header)
                warnings.warn(f"{path}: the points are left out, because there is no {lacking}", stacklevel=2)
            for row in rows:
                cells = [row[column] for column in (*columns, *points)]
                if None in cells:
                    raise ValueError
                numbers = np.array([float(cell) if cell else np.nan for cell in cells])
                box, five = numbers[:4], numbers[4:] if points else np.full(len(POINTS), np.nan)
                response = float(row.get("response") or row.get("score") or 1)
                if np.isinf([*numbers, response]).any() or (box[2:] <= box[:2]).any():
                    raise ValueError
                found.setdefault(row[key], []).append([*box, response, *five])
        except (ValueError, TypeError, csv.Error) as error:
            if isinstance(error, DataFormatError):
                raise
            also = ", and a number as response" if "response" in header else ""
            also += ", and numbers as points" if header.issuperset(POINTS) else ""
            place = f"{path}, line {rows.line_num}"
            raise DataFormatError(f"{place}: expected a box x0 < x1, y0 < y1, or none{also}") from None
    return {name: np.array(boxes) for name, boxes in found.items()}


def _area(low: Floats, high: Floats) -> Floats:
    """Area between two corners ``(…, 2)``; 0 if the lower corner is not the lower one."""
    area: Floats = (high - low).clip(min=0).prod(axis=-1)
    return area
