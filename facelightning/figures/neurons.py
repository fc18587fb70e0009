"""Mean faces: what a neuron responds to."""

from collections.abc import Sequence

import numpy as np

from facelightning.figures.drawing import FONT_SIZE, Floats, Image, blank_page, enlarged, render

_DPI = 200
_NAMES = ("high", "medium", "low")


def mean_faces_figure(faces: Floats, titles: Sequence[str]) -> Image:
    """Mean faces of a neuron's high, medium and low responses, a row for each neuron (Liu et al., ICCV 2015, Fig. 8a).

    Two neurons beside one another; every pixel is drawn as a square.

    Args:
        faces: For each neuron three mean faces, RGB.
        titles: What stands above each, such as its number.

    Shape:
        - faces: ``(K, 3, 3, H, W)``: neuron, response, colour, row, column; in 0...255.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no neuron, not one title for each, or a value lies outside 0...255.

    Example:
        >>> mean_faces_figure(np.full((2, 3, 3, 109, 89), 128.0), ["neuron 3: Male", "neuron 8: Bald"]).shape[2]
        3
    """
    if not 0 < len(titles) == len(faces) or faces.shape[1:3] != (3, 3):
        raise ValueError(f"faces {faces.shape} must be (K, 3, 3, H, W) with a title for each; found {len(titles)}")
    if not ((faces >= 0) & (faces <= 255)).all():
        raise ValueError(f"colours lie in 0...255; found {faces.min()}...{faces.max()}")
    tiles = enlarged(faces.reshape(-1, *faces.shape[2:]).transpose(0, 2, 3, 1).round().astype(np.uint8), 220)
    height, width = tiles.shape[1:3]
    gap, margin, line, columns = 4, 24, 34, min(2, len(titles))
    block = (line + height + margin, 3 * (width + gap) + margin)
    rows = -(-len(titles) // columns)
    page = (margin + line + rows * block[0], margin + columns * block[1])
    figure = blank_page(page[1], page[0], _DPI)
    corners = []
    for number, title in enumerate(titles):
        top, left = margin + line + number // columns * block[0], margin + number % columns * block[1]
        figure.text(left / page[1], 1 - (top + line / 2) / page[0], title, va="center", fontsize=FONT_SIZE)
        corners += [(top + line, left + place * (width + gap)) for place in range(3)]
    for number, (_, left) in enumerate(corners[: 3 * columns]):
        middle = ((left + width / 2) / page[1], 1 - (margin + line / 2) / page[0])
        figure.text(*middle, _NAMES[number % 3], ha="center", va="center", fontsize=FONT_SIZE, color="#777777")
    return render(figure, tiles, corners)
