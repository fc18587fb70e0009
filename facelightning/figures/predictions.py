"""What was predicted for a photograph, upon it and beside it; and what the colours of a mask mean."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import cast

import cv2
import matplotlib
import numpy as np
from matplotlib import colormaps
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from facelightning.figures.drawing import Floats, Image, Masks
from facelightning.figures.parsing import color_mask
from facelightning.labels import LabelSpace

_SIDE, _MARGIN, _LINE, _COLUMN = 640, 16, 22, 230
"""The picture's longer side, space around what is drawn, height of a line, width of a column; in pixels."""
_TINT = 0.5
"""How much of a class's colour covers the photograph."""
_COLOURS = [
    tuple(round(255 * part) for part in colour)
    for colour in colormaps["tab10"].colors  # type: ignore[attr-defined]  # of a list
]
_GREY, _BLACK, _WHITE = (110, 110, 110), (20, 20, 20), (255, 255, 255)


def prediction_figure(
    picture: Image,
    size: tuple[int, int],
    words: Sequence[Sequence[str]],
    boxes: Floats | None = None,
    mask: Masks | None = None,
    labels: LabelSpace | None = None,
    count: int = 10,
) -> Image:
    """A photograph with its classes in colours and a numbered box around each face; beside it what each is like.

    Args:
        picture: The photograph, ``(h, w, 3)``, uint8 RGB, or a smaller copy; drawn with a longer side of 640 pixels.
        size: Height and width of the photograph.
        words: For each face, what is written beside it.
        boxes: x0, y0, x1, y1 in pixels of the photograph, ``(F, 4)``; the picture itself is the face if not given.
        mask: Class indices, ``(H, W)``; background is not drawn.
        labels: The classes.
        count: Words of a face that are shown; how many are left out is said below them.

    Returns:
        ``(height, width, 3)``, uint8 RGB.

    Example:
        >>> prediction_figure(np.zeros((100, 80, 3), np.uint8), (100, 80), [["Male 98 %"]]).shape
        (672, 790, 3)
    """
    scale = _SIDE / max(picture.shape[:2])
    width, height = (max(1, round(scale * side)) for side in picture.shape[1::-1])
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    panel = cast(Image, cv2.resize(picture, (width, height), interpolation=shrinks))
    if mask is not None and labels is not None:
        classes = cast(Image, cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST))
        panel = tinted(panel, classes, labels)
    image = Pillow.fromarray(panel)
    corners = np.empty((0, 4)) if boxes is None else boxes * np.tile([width / size[1], height / size[0]], 2)
    for number, corner in enumerate(corners):
        _draw_box(ImageDraw.Draw(image), corner.tolist(), number, width)

    lists = [(list(each[:count]) + [f"and {len(each) - count} more"] * (len(each) > count)) for each in words]
    heads = [""] * len(lists) if boxes is None else [f"face {number + 1}" for number in range(len(lists))]
    if not lists:
        lists, heads = [[]], ["no face"]
    places, columns = _columns([len(each) + bool(head) for each, head in zip(lists, heads, strict=True)], height)
    names = [] if mask is None or labels is None else [labels.classes[index] for index in np.unique(mask) if index]
    legend, legend_height = _legend_places(names, width + columns * _COLUMN)
    written = max(y + _LINE * (len(each) + bool(head)) for (_, y), each, head in zip(places, lists, heads, strict=True))
    below = max(height, written) + 2 * _MARGIN
    page = Pillow.new("RGB", (width + columns * _COLUMN + 3 * _MARGIN, below + legend_height), _WHITE)
    page.paste(image, (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(page)
    for number, ((x, y), each, head) in enumerate(zip(places, lists, heads, strict=True)):
        left, top = x + width + 2 * _MARGIN, y + _MARGIN
        if head:
            colour = _COLOURS[number % len(_COLOURS)] if words else _GREY
            draw.text((left, top), head, fill=colour, font=_font(16, bold=True))
        for place, word in enumerate(each):
            draw.text((left, top + _LINE * (place + bool(head))), word, fill=_BLACK, font=_font(15))
    for name, (x, y) in zip(names, legend, strict=True):
        assert labels is not None
        _draw_entry(draw, _MARGIN + x, below + y, name, labels.colors[labels.index(name)])
    return np.asarray(page)


def tinted(picture: Image, mask: Masks, labels: LabelSpace) -> Image:
    """A picture ``(h, w, 3)`` under the colours of its classes ``(h, w)``, each with a thin dark edge.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> tinted(np.full((1, 2, 3), 200, np.uint8), np.array([[0, 0]], np.uint8), HELEN7).tolist()
        [[[200, 200, 200], [200, 200, 200]]]
    """
    classes = mask.astype(np.uint8)
    mixed = cv2.addWeighted(picture, 1 - _TINT, color_mask(classes, labels), _TINT, 0)
    edge = cv2.dilate(classes, np.ones((2, 2), np.uint8)) != classes
    mixed[edge] //= 2
    return np.where((classes > 0)[..., None] | edge[..., None], mixed, picture)


def legend_figure(labels: LabelSpace) -> Image:
    """The colours of a label space with the index and the name of each class: ``(h, w, 3)``, uint8 RGB.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> legend_figure(HELEN7).shape
        (186, 220, 3)
    """
    page = Pillow.new("RGB", (220, _LINE * len(labels) + 2 * _MARGIN), _WHITE)
    for index, (name, colour) in enumerate(zip(labels.classes, labels.colors, strict=True)):
        _draw_entry(ImageDraw.Draw(page), _MARGIN, _MARGIN + _LINE * index, f"{index}  {name}", colour)
    return np.asarray(page)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Matplotlib's own, which every installation has."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _draw_box(draw: ImageDraw.ImageDraw, box: Sequence[float], number: int, width: int) -> None:
    """A box with its number beside it: upon the face it would hide a small one."""
    colour = _COLOURS[number % len(_COLOURS)]
    draw.rectangle(tuple(box), outline=_WHITE, width=5)
    draw.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline=colour, width=3)
    text, font = str(number + 1), _font(16, bold=True)
    wide = round(font.getlength(text)) + 12
    left, top = max(min(box[0], width - wide), 0), box[1] - 22 if box[1] >= 22 else box[3]
    draw.rectangle((left, top, left + wide, top + 22), fill=colour)
    draw.text((left + 6, top + 1), text, fill=_WHITE, font=font)


def _draw_entry(draw: ImageDraw.ImageDraw, x: int, y: int, name: str, colour: Sequence[int]) -> None:
    draw.rectangle((x, y + 4, x + 14, y + 18), fill=tuple(colour), outline=_GREY)
    draw.text((x + 22, y + 2), name.replace("_", " "), fill=_BLACK, font=_font(15))


def _columns(lines: Sequence[int], height: int) -> tuple[list[tuple[int, int]], int]:
    """Where lists of so many lines go, in columns of about the picture's ``height``, and the number of columns."""
    body = max([height, *(_LINE * count for count in lines)])
    places, column, y = [], 0, 0
    for count in lines:
        if y + count * _LINE > body:
            column, y = column + 1, 0
        places.append((column * _COLUMN, y))
        y += (count + 1) * _LINE  # and an empty one
    return places, column + 1


def _legend_places(names: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Where the entries of a legend go, in lines of a width, and how high all are."""
    places, x, y = [], 0, 0
    for name in names:
        wide = round(_font(15).getlength(name)) + 44
        if x and x + wide > width:
            x, y = 0, y + _LINE
        places.append((x, y))
        x += wide
    return places, y + _LINE + _MARGIN if names else 0
