"""What the features of each layer tell of the attributes."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from facelightning.figures.drawing import FONT_SIZE, LETTER, Image, render
from facelightning.labels import IDENTITY_ATTRIBUTES

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito's, for every kind of sight
_MARKS, _LETTERS = "osD^", "●■◆▲"
_GREY, _ROW = "#777777", 0.155


def layers_figure(accuracies: Mapping[str, Mapping[str, float]], majority: Mapping[str, float]) -> Image:
    """Accuracy of each attribute from the features of several layers (Liu et al., ICCV 2015, Fig. 9).

    Above those of :data:`~facelightning.labels.IDENTITY_ATTRIBUTES`, below all others; a line across marks each
    group's mean of a layer.

    Args:
        accuracies: Layer → attribute → accuracy in percent; at most four layers.
        majority: Attribute → what guessing the more frequent answer reaches: a black tick.

    Shape:
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no layer or more than four, or layers differ in their attributes.

    Example:
        >>> layers = {"FC": {"Male": 97.0, "Bald": 98.0}, "C3": {"Male": 90.5, "Bald": 98.1}}
        >>> layers_figure(layers, {"Male": 60.0, "Bald": 97.0}).shape[2]
        3
    """
    if not 0 < len(accuracies) <= 4 or any(each.keys() != majority.keys() for each in accuracies.values()):
        raise ValueError("there must be one to four layers, all of the same attributes as `majority`")
    groups = {
        "identity": [name for name in majority if name in IDENTITY_ATTRIBUTES],
        "other": [name for name in majority if name not in IDENTITY_ATTRIBUTES],
    }
    rows = sum(len(names) for names in groups.values()) + 1
    left, plot, right, head, foot = max(map(len, majority)) * LETTER + 0.15, 3.4, 0.15, 0.35, 0.75
    width, height = left + plot + right, head + _ROW * rows + foot
    lowest = min(min(majority.values()), *(min(each.values()) for each in accuracies.values()))
    figure = Figure(figsize=(width, height), dpi=200)
    axes = figure.add_axes((left / width, foot / height, plot / width, _ROW * rows / height))
    start = 10 * int(lowest // 10)
    axes.set(xlim=(start - 1, 101), ylim=(rows - 0.5, -0.5))
    axes.set_axis_off()
    for value in range(start, 101, 10):
        axes.axvline(value, color="#e2e2e2", linewidth=0.6, zorder=0)
        axes.text(value, rows - 0.3, str(value), ha="center", va="top", fontsize=7, color=_GREY)
    axes.text((start + 100) / 2, rows + 0.6, "accuracy, %", ha="center", va="top", fontsize=FONT_SIZE, color=_GREY)
    first = 0
    for names in groups.values():
        places = range(first, first + len(names))
        for place, name in zip(places, names, strict=True):
            axes.text(start - 2, place, name.replace("_", " "), ha="right", va="center_baseline", fontsize=FONT_SIZE)
            axes.hlines(place, start, 100, color="#f0f0f0", linewidth=0.6, zorder=0)
            axes.vlines(majority[name], place - 0.35, place + 0.35, color="black", linewidth=1)
        for scores, colour, mark in zip(accuracies.values(), _COLOURS, _MARKS, strict=False):
            values = [scores[name] for name in names]
            axes.scatter(values, places, s=13, color=colour, marker=mark, linewidths=0, zorder=3)
            if names:
                mean = sum(values) / len(values)
                axes.vlines(mean, first - 0.5, places[-1] + 0.5, color=colour, linewidth=0.9, zorder=1)
        first += len(names) + 1
    for number, layer in enumerate(accuracies):
        corner, text = ((left + 0.2 + 0.6 * number) / width, 1 - 0.15 / height), f"{_LETTERS[number]} {layer}"
        figure.text(*corner, text, va="center", fontsize=FONT_SIZE, color=_COLOURS[number])
    note = "above: related to identity; below: all others\nblack: the more frequent answer; lines: means of a layer"
    figure.text((left + plot / 2) / width, 0.05 / height, note, ha="center", va="bottom", fontsize=7, color=_GREY)
    return render(figure)
