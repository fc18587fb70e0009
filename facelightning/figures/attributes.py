"""Attributes: how well each is ranked, and what is predicted for single faces."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from facelightning.figures.drawing import FONT_SIZE, LETTER, Floats, Image, blank_page, enlarged, render
from facelightning.labels import ATTRIBUTE_GROUPS

_RIGHT, _WRONG, _GREY = "#0072B2", "#D55E00", "#777777"  # blue and vermilion: Okabe and Ito's, for every kind of sight
_DPI = 200


def average_precision_figure(scores: Mapping[str, float], rates: Mapping[str, float] | None = None) -> Image:
    """Average precision of each attribute as bars, in its group of :data:`~facelightning.labels.ATTRIBUTE_GROUPS`.

    The order does not depend on the scores, so that two figures can be laid side by side. A dashed line shows the mean.

    Args:
        scores: Name → average precision in percent; NaN where undefined, and left out of the mean.
        rates: Name → share of positives in [0, 1], which random guesses would reach: a black line across the bar.

    Shape:
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no attribute, or a score lies outside 0...100.

    Example:
        >>> average_precision_figure({"Bald": 47.3, "Smiling": 97.1}, {"Bald": 0.02, "Smiling": 0.48}).shape[2]
        3
    """
    values = np.array(list(scores.values()), float)
    if not scores or (values < 0).any() or (values > 100 + 1e-3).any():
        raise ValueError(f"scores of at least one attribute lie in 0...100; found {values.tolist()}")
    grouped = {name for names in ATTRIBUTE_GROUPS.values() for name in names}
    groups = {group: [name for name in names if name in scores] for group, names in ATTRIBUTE_GROUPS.items()}
    groups["other"] = [name for name in scores if name not in grouped]
    places: dict[str, float] = {}  # in rows from the top; half a row apart, the groups
    starts: dict[str, float] = {}
    for group, names in groups.items():
        if names:
            starts[group] = len(places) + 0.5 * len(starts)
            places |= {name: starts[group] + row for row, name in enumerate(names)}

    left, width, right = 0.55 + max(map(len, scores)) * LETTER, 2.6, 0.45
    rows, head, foot = max(places.values()) + 1, 0.3, 0.6 if rates else 0.45
    size = (left + width + right, 0.16 * rows + head + foot)
    figure = Figure(figsize=size, dpi=_DPI)
    axes = figure.add_axes((left / size[0], foot / size[1], width / size[0], 0.16 * rows / size[1]))
    axes.set(xlim=(0, 100), ylim=(rows - 0.5, -0.5))
    axes.set_axis_off()
    for share in (0, 25, 50, 75, 100):
        axes.axvline(share, color="#dddddd", linewidth=0.6, zorder=0)
        axes.text(share, rows - 0.2, f"{share}", ha="center", va="top", fontsize=7, color=_GREY)
    axes.text(50, rows + 0.7, "average precision, %", ha="center", va="top", fontsize=FONT_SIZE, color=_GREY)
    for group, start in starts.items():
        axes.text(-100 * (left - 0.05) / width, start, group, va="center_baseline", fontsize=FONT_SIZE, color=_GREY)
    for name, place in places.items():
        score = scores[name]
        axes.text(-2, place, _words(name), ha="right", va="center_baseline", fontsize=FONT_SIZE)
        text = f"{score:.1f}" if score == score else "–"
        axes.text(102, place, text, va="center_baseline", fontsize=FONT_SIZE)
    axes.barh(list(places.values()), [np.nan_to_num(scores[name]) for name in places], 0.72, color="#7FB7DA")
    if not np.isnan(values).all():
        mean = np.nanmean(values)
        axes.axvline(mean, color=_RIGHT, linewidth=1, linestyle=(0, (4, 2)))
        axes.text(mean, -0.65, f"mean AP {mean:.2f} %", ha="center", fontsize=FONT_SIZE, color=_RIGHT)
    if rates:
        shares, ys = [100 * rates[name] for name in places], np.array(list(places.values()))
        axes.vlines(shares, ys - 0.36, ys + 0.36, color="black", linewidth=1.2)
        note = "black line: what guessing reaches, the share of positives"
        axes.text(50, rows + 1.8, note, ha="center", va="top", fontsize=7, color=_GREY)
    return render(figure)


def faces_figure(
    images: Image, attributes: Sequence[str], probabilities: Floats, truth: Floats, count: int = 10
) -> Image:
    """Faces beside the attributes that each is predicted to have, or has: the most probable first.

    A filled bar with ✓ is right. A hollow one with ✗ is wrong: above 50 %, the grey line, the face lacks the attribute;
    below, it has it. ``?`` marks an attribute that is not known. Two faces a row; every pixel is drawn as a square.

    Args:
        images: The faces.
        attributes: Names in the order of the columns.
        probabilities: As predicted.
        truth: As annotated.
        count: Attributes shown beside a face; how many are left out is said below them.

    Shape:
        - images: ``(B, 3, H, W)``, uint8 RGB.
        - probabilities, truth: ``(B, A)``, in [0, 1]; truth 0, 1, or NaN where unknown.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no face, a shape or dtype is wrong, or a probability lies outside [0, 1].

    Example:
        >>> images = np.zeros((2, 3, 109, 89), np.uint8)
        >>> faces_figure(images, ["Bald", "Male"], np.array([[0.1, 0.9]] * 2), np.array([[1.0, 1.0]] * 2)).shape[2]
        3
    """
    shape = (len(images), len(attributes))
    if 0 in shape or images.dtype != np.uint8 or probabilities.shape != shape or truth.shape != shape:
        raise ValueError(
            f"images {images.shape} {images.dtype} need at least one uint8 image, and probabilities "
            f"{probabilities.shape} and truth {truth.shape} of {shape}"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(f"probabilities lie in [0, 1]; found {probabilities.min()}...{probabilities.max()}")
    panels = enlarged(images.transpose(0, 2, 3, 1), 330)
    height, width = panels.shape[1:3]
    row, margin = 30, 24
    words = round(max(map(len, attributes)) * LETTER * _DPI) + 190  # mark, name, bar, percent
    block = (max(height, (count + 1) * row) + margin, width + words + margin)
    columns = min(2, len(images))
    page_width = max(margin + columns * block[1], 760)  # wide enough for the legend
    page_height = margin + -(-len(images) // columns) * block[0] + 48
    figure = blank_page(page_width, page_height, _DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page_width), ylim=(page_height, 0))
    axes.set_axis_off()
    corners = [(margin + i // columns * block[0], margin + i % columns * block[1]) for i in range(len(images))]
    for (top, left), likely, true in zip(corners, probabilities, truth, strict=True):
        face = dict(zip(attributes, zip(likely.tolist(), true.tolist(), strict=True), strict=True))
        _list(axes, top, left + width + 12, words - 12, face, count)
    legend = "✓ right     ✗ wrong\nwrong above 50 %, the grey line: not there; wrong below it: there, but missed"
    axes.text(page_width / 2, page_height - 36, legend, ha="center", va="center", fontsize=7, color=_GREY)
    return render(figure, panels, corners)


def _list(axes: Axes, top: int, left: int, width: int, face: Mapping[str, tuple[float, float]], count: int) -> None:
    """Write a face's attributes, name → (probability, truth), in a block of pixels."""
    shown = sorted((name for name, pair in face.items() if max(np.nan_to_num(pair)) > 0.5), key=lambda n: -face[n][0])
    bar, length = left + width - 148, 90
    bars: list[tuple[float, float, str, str]] = []  # middle, length, edge and inside: one call draws all
    for place, name in enumerate(shown[:count]):
        (likely, true), middle = face[name], top + 30 * place + 15
        right = (likely > 0.5) == (true > 0.5)
        mark, color = ("?", _GREY) if true != true else ("✓", _RIGHT) if right else ("✗", _WRONG)
        axes.text(left, middle, mark, va="center_baseline", fontsize=FONT_SIZE, color=color)
        axes.text(left + 24, middle, _words(name), va="center_baseline", fontsize=FONT_SIZE)
        bars.append((middle, length * likely, color, color if mark == "✓" else "white"))
        percent = f"{100 * likely:.0f}"
        axes.text(bar + length + 50, middle, percent, ha="right", va="center_baseline", fontsize=FONT_SIZE)
    if bars:
        middles, lengths, edges, insides = zip(*bars, strict=True)
        axes.barh(middles, lengths, 16, left=bar, color=insides, ec=edges, lw=0.8)
    axes.vlines(bar + length / 2, top, top + 30 * min(len(shown), count), color="#bbbbbb", linewidth=0.6)
    if len(shown) > count:
        text = f"and {len(shown) - count} more"
        axes.text(left + 24, top + 30 * count + 15, text, va="center_baseline", fontsize=7, color=_GREY)


def _words(name: str) -> str:
    return name.replace("_", " ")
