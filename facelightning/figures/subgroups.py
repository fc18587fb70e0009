"""How well a model does in subgroups of the images."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from facelightning.figures.drawing import FONT_SIZE, LETTER, Image, render

_PANELS = (("error", "error, %", "#D55E00"), ("balanced_accuracy", "balanced accuracy, %", "#0072B2"))


def subgroups_figure(divisions: Mapping[str, Mapping[str, Any]]) -> Image:
    """Error and balanced accuracy of each subgroup with its interval, one division below the other.

    Args:
        divisions: As :class:`~facelightning.metrics.SubgroupScores` computes them.

    Shape:
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no division.

    Example:
        >>> scores = {"images": 20, "error": [9.0, 8.0, 10.0], "balanced_accuracy": [80.0, 78.0, 83.0]}
        >>> subgroups_figure({"Male": {"groups": {"Male": scores, "not Male": scores}}}).shape[2]
        3
    """
    if not divisions:
        raise ValueError("there is no division to draw")
    rows, lines = dict[float, tuple[str, Mapping[str, Any]]](), 0.0
    for division in divisions.values():
        for name, scores in division["groups"].items():
            rows[lines] = (f"{name.replace('_', ' ')} ({scores['images']:,})", scores)
            lines += 1
        lines += 0.6  # a gap between two divisions
    left, width, height = max(len(label) for label, _ in rows.values()) * LETTER + 0.15, 1.9, 0.2 * lines + 0.1
    page_width, page_height = left + 2 * width + 0.4, height + 0.5
    figure = Figure(figsize=(page_width, page_height), dpi=200)
    for number, (key, title, colour) in enumerate(_PANELS):
        place = (
            (left + number * (width + 0.25)) / page_width,
            0.45 / page_height,
            width / page_width,
            height / page_height,
        )
        axes = figure.add_axes(place)
        for row, (_, scores) in rows.items():
            value, low, high = scores[key]
            axes.plot([low, high], [row, row], color=colour, linewidth=1.4)
            axes.plot([value], [row], "o", color=colour, markersize=4)
        axes.set_ylim(lines - 0.9, -0.7)
        axes.set_yticks(list(rows), [label for label, _ in rows.values()] if number == 0 else [], fontsize=FONT_SIZE)
        axes.tick_params(axis="x", labelsize=7)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e2e2e2", linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel(title, fontsize=FONT_SIZE)
    return render(figure)
