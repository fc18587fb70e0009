"""Faces found in a photograph: a box around each, and what it is like."""

import warnings
from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
from matplotlib import colormaps

from facelightning.errors import quoted
from facelightning.figures.drawing import FONT_SIZE, Floats, Image, blank_page, render

_DPI = 150
_COLOURS = (np.array(colormaps["tab10"].colors) * 255).round().astype(int)  # type: ignore[attr-defined]  # of a list
_LINE, _MARGIN, _COLUMN = 22, 16, 240
"""Height of a line, space around what is drawn, and width of a column of the faces' list; in pixels."""


def found_faces_figure(image: Image, name: str, boxes: Floats, attributes: Sequence[Sequence[str]] = ()) -> Image:
    """A photograph with a numbered box around each face, and beside it each face's strongest attributes.

    Args:
        image: The photograph, ``(H, W, 3)``, uint8 RGB; enlarged or reduced to a longer side of about 640 pixels.
        name: Its name; cut to 60 letters.
        boxes: x0, y0, x1, y1 in pixels, ``(F, 4)``; none is said, not drawn.
        attributes: For each face, words to write beside it; nothing if not given.

    Returns:
        ``(h, w, 3)``, uint8 RGB.

    Example:
        >>> boxes = np.array([[10, 10, 50, 60]])
        >>> found_faces_figure(np.zeros((100, 80, 3), np.uint8), "a.jpg", boxes, [["Male 98 %"]]).shape
        (710, 800, 3)
    """
    scale = 640 / max(image.shape[:2])
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    panel = cast(Image, cv2.resize(image, (width, height), interpolation=shrinks))
    lists = [list(words) for words in attributes] or [[] for _ in boxes]
    places, body_width, body_height = _columns([len(words) + 1 for words in lists], height)
    page_height = body_height + 3 * _MARGIN + _LINE
    page_width = max(width + body_width + 3 * _MARGIN, 640)  # a long name has room
    figure = blank_page(page_width, page_height, _DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page_width), ylim=(page_height, 0))
    axes.set_axis_off()
    found = f"{len(boxes)} face{'s' if len(boxes) > 1 else ''}" if len(boxes) else "no face"
    title = f"{quoted(name if len(name) <= 60 else '…' + name[-59:])}: {found}"
    axes.text(_MARGIN, _MARGIN + _LINE / 2, title, va="center", fontsize=FONT_SIZE, parse_math=False)
    top, left = 2 * _MARGIN + _LINE, width + 2 * _MARGIN
    for number, (box, words, (across, down)) in enumerate(zip(boxes, lists, places, strict=True)):
        colour = tuple(_COLOURS[number % len(_COLOURS)].tolist())
        (x0, y0), (x1, y1) = (np.round(scale * corner).astype(int).tolist() for corner in (box[:2], box[2:]))
        cv2.rectangle(panel, (x0, y0), (x1 - 1, y1 - 1), (255, 255, 255), 5)
        cv2.rectangle(panel, (x0, y0), (x1 - 1, y1 - 1), colour, 3)
        wide = 14 + 13 * len(str(number + 1))
        above, below = y0 - 24, min(y1, height - 24)  # beside the face, for a number upon it would hide a small one
        tag_x, tag_y = max(min(x0, width - wide), 0), above if above >= 0 else max(below, 0)
        cv2.rectangle(panel, (tag_x, tag_y), (tag_x + wide, tag_y + 24), colour, -1)
        cv2.putText(panel, str(number + 1), (tag_x + 6, tag_y + 19), 0, 0.65, (255, 255, 255), 2, cv2.LINE_AA)
        share = [part / 255 for part in colour]
        x, y = left + across, top + down + _LINE / 2
        axes.text(x, y, f"face {number + 1}", va="center", fontsize=FONT_SIZE, color=share)
        for place, word in enumerate(words, start=1):
            axes.text(x + 12, y + place * _LINE, word, va="center", fontsize=7, parse_math=False)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of letters that the font has not
        return render(figure, panel[None], [(top, _MARGIN)])


def _columns(lines: Sequence[int], height: int) -> tuple[list[tuple[int, int]], int, int]:
    """Where lists of so many lines go, in columns of about the picture's ``height``, and how wide and high all are."""
    body = max([height, *(_LINE * count for count in lines)])
    places, x, y = [], 0, 0
    for count in lines:
        if y + count * _LINE > body:
            x, y = x + _COLUMN, 0
        places.append((x, y))
        y += (count + 1) * _LINE  # and an empty one
    return places, x + _COLUMN, body
