"""Where faces are found: recall against overlap, and the responses that lead to a face."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from facelightning.errors import quoted
from facelightning.figures.drawing import FONT_SIZE, LETTER, Floats, Image, blank_page, render

OVERLAPS = np.arange(101) / 100
"""Where a curve of recall is drawn."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart."""
_STYLES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
_DPI = 200
_SIDE, _GAP, _LINE = 300, 10, 40
"""Of a panel, between panels, and of a line of text; in pixels."""
_FOUND, _TRUE = (255, 140, 0), (255, 255, 255)


def recall_figure(curves: Mapping[str, Floats], of: str = "faces") -> Image:
    """Recall against overlap (Liu et al., ICCV 2015, Fig. 7), with the numbers at 0.5 and 0.7 in the legend.

    Several seeds of a system are drawn as their mean, in a band from the lowest to the highest.

    Args:
        curves: For each system, by its name, recall in percent at :data:`OVERLAPS`, a row for each seed: ``(S, 101)``.
        of: What is found, for the axis.

    Returns:
        ``(h, w, 3)``, uint8 RGB.

    Raises:
        ValueError: If there is no curve, or one has another shape or a value outside 0...100.

    Example:
        >>> recall_figure({"LNet": 100 * np.linspace([1, 1], [0, 0.1], 101, axis=1)}).shape[2]
        3
    """
    if not curves:
        raise ValueError("there is no curve to draw")
    for name, curve in curves.items():
        if curve.ndim != 2 or not len(curve) or curve.shape[1] != len(OVERLAPS):
            raise ValueError(f"{name}: a curve is (S, {len(OVERLAPS)}), S at least 1; found {curve.shape}")
        if not ((curve >= 0) & (curve <= 100)).all():
            raise ValueError(f"{name}: recall lies in 0...100; found {curve.min()}...{curve.max()}")
    labels = []
    for name, curve in curves.items():
        seeds = f" ({len(curve)} seeds)" if len(curve) > 1 else ""
        labels.append(f"{quoted(name, 60)}: {_at(curve, 50)} at 0.5, {_at(curve, 70)} at 0.7{seeds}")
    height, width = 3.25 + 0.18 * len(curves), max(4.6, 0.9 + LETTER * max(map(len, labels)))
    figure = Figure(figsize=(width, height), dpi=_DPI)
    axes = figure.add_axes((0.51 / width, 1 - 2.75 / height, 3.96 / width, 2.65 / height))
    for number, (label, curve) in enumerate(zip(labels, curves.values(), strict=True)):
        colour, style = _COLOURS[number % len(_COLOURS)], _STYLES[number % len(_STYLES)]
        axes.plot(OVERLAPS, curve.mean(axis=0), color=colour, linestyle=style, linewidth=1.4, label=label)
        if len(curve) > 1:
            axes.fill_between(OVERLAPS, curve.min(axis=0), curve.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, 100), xticks=np.arange(0, 1.01, 0.1), yticks=range(0, 101, 20))
    axes.set_xlabel("overlap with the true box (intersection over union)", fontsize=FONT_SIZE)
    axes.set_ylabel(f"recall of {of}, %", fontsize=FONT_SIZE)
    axes.tick_params(labelsize=7, length=2)
    axes.grid(color="0.9", linewidth=0.5)
    for place in (0.5, 0.7):
        axes.axvline(place, color="0.6", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), frameon=False, fontsize=7.5, borderaxespad=0)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return render(figure)


def _at(curve: Floats, percent: int) -> str:
    """Recall at an overlap; of several seeds their mean and standard deviation.

    Example:
        >>> _at(np.full((1, 101), 50.0), 50), _at(np.array([[40.0] * 101, [42.0] * 101]), 70)
        ('50.0 %', '41.0 ± 1.4 %')
    """
    values = curve[:, percent]
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread} %"


@dataclass(frozen=True)
class SeenCut:
    """What an LNet sees of a cut.

    Args:
        image: The cut, ``(h, w, 3)``, uint8 RGB.
        response: Its response in each pixel, ``(h, w)``, not negative.
        windows: x0, y0, x1, y1 in pixels of the cut, ``(N, 4)``.
    """

    image: Image
    response: Floats
    windows: Floats


@dataclass(frozen=True)
class SeenPhotograph:
    """How the faces of a photograph are found.

    Args:
        name: Its name.
        image: ``(H, W, 3)``, uint8 RGB.
        found: Boxes of the found faces, ``(F, 4)``, x0, y0, x1, y1 in pixels.
        true: Boxes of the true ones, ``(M, 4)``, as far as they are known.
        cuts: The whole image as LNet_o sees it; then head and shoulders of the first face as LNet_s sees them.
    """

    name: str
    image: Image
    found: Floats
    true: Floats
    cuts: Sequence[SeenCut]


def responses_figure(photographs: Sequence[SeenPhotograph], stages: int, least: float = 0.0) -> Image:
    """From responses to faces, a line for each photograph (Liu et al., ICCV 2015, Fig. 6).

    Photograph with found and true boxes, LNet_o's response and windows; then, with two stages, the cut of head and
    shoulders around the first window, LNet_s's response and its window. The colours (matplotlib's inferno) end at the
    largest response of a cut; LNet_o's at ``least`` where all are weaker, so that no face looks like none.

    Args:
        photographs: One at least.
        stages: 1 or 2.
        least: The least response of LNet_o in an image with a face.

    Returns:
        ``(h, w, 3)``, uint8 RGB.

    Raises:
        ValueError: If there is no photograph.

    Example:
        >>> cut = SeenCut(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64)), np.array([[5.0, 5, 50, 60]]))
        >>> seen = SeenPhotograph("a.jpg", np.zeros((50, 70, 3), np.uint8), cut.windows, np.empty((0, 4)), [cut])
        >>> responses_figure([seen], stages=1).shape
        (400, 630, 3)
    """
    if not photographs:
        raise ValueError("there is no photograph to draw")
    titles = ["found (orange), true (white)", "LNet_o: response, windows"]
    titles += ["head and shoulders", "LNet_s: response, window"] if stages > 1 else []
    height = _LINE + len(photographs) * (_SIDE + _LINE + _GAP) + _GAP
    width = len(titles) * (_SIDE + _GAP) + _GAP
    figure = blank_page(width, height, _DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    lefts = [_GAP + column * (_SIDE + _GAP) for column in range(len(titles))]
    for left, title in zip(lefts, titles, strict=True):
        axes.text(left, _LINE / 2 + 5, title, va="center", fontsize=6.5)
    panels, corners = [], []
    for row, photograph in enumerate(photographs):
        top = _LINE + row * (_SIDE + _LINE + _GAP)
        count = len(photograph.found)
        found = "no face" if not count else f"{count} face{'s' if count > 1 else ''}"
        name = quoted(photograph.name if len(photograph.name) <= 60 else f"…{photograph.name[-59:]}")
        text = f"{name}: {found}"
        axes.text(_GAP, top + _SIDE + _LINE / 2, text, va="center", fontsize=6.5, parse_math=False)
        for left, panel in zip(lefts, _panels(photograph, least), strict=False):
            panels.append(panel)
            corners.append((top, left))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of letters that the font has not
        return render(figure, np.stack(panels), corners)


def _panels(photograph: SeenPhotograph, least: float) -> list[Image]:
    whole = {_TRUE: photograph.true, _FOUND: photograph.found}
    panels = [_panel(photograph.image, whole)]
    for number, cut in enumerate(photograph.cuts):
        if number > 0:
            panels.append(_panel(cut.image, {}))
        end = max(float(cut.response.max()), least if number == 0 else 0.0) or 1.0
        heat = colormaps["inferno"](np.clip(cut.response / end, 0, 1))[..., :3] * 255
        grey = cv2.cvtColor(cut.image, cv2.COLOR_RGB2GRAY)[..., None]
        panels.append(_panel((0.3 * grey + 0.7 * heat).round().astype(np.uint8), {_TRUE: cut.windows}))
    return panels


def _panel(image: Image, boxes: Mapping[tuple[int, int, int], Floats]) -> Image:
    """An image scaled to fit a square, on white, with boxes of each colour."""
    scale = _SIDE / max(image.shape[:2])
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    drawn = cast(Image, cv2.resize(image, (width, height), interpolation=shrinks))
    for colour, places in boxes.items():
        for box in np.round(scale * places).astype(int).tolist():
            for tone, thickness in (((0, 0, 0), 4), (colour, 2)):
                cv2.rectangle(drawn, (box[0], box[1]), (box[2] - 1, box[3] - 1), tone, thickness)
    panel = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    panel[top : top + height, left : left + width] = drawn
    return panel
