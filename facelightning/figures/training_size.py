"""How accuracy grows with the number of training images."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from facelightning.figures.drawing import FONT_SIZE, Image, render

_COLOURS, _MARKS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), "osD^vP"


def training_size_figure(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Image:
    """Accuracy against the number of training images (Liu et al., ICCV 2015, Fig. 13).

    A mark for each run; a line through the mean of the runs of each size. Sizes are drawn on a logarithmic scale.

    Args:
        curves: Name of each curve → number of images and accuracy in percent of each of its runs.

    Shape:
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no curve, or one has no run or a size that is not positive.

    Example:
        >>> training_size_figure({"anet": [(500, 80.1), (1000, 83.0), (1000, 83.4)], "avg": [(500, 78.0)]}).shape[2]
        3
    """
    if not curves or any(not runs or min(size for size, _ in runs) < 1 for runs in curves.values()):
        raise ValueError("each curve needs a run, and each run a positive number of images")
    figure = Figure(figsize=(4.2, 3), dpi=200)
    axes = figure.add_axes((0.13, 0.16, 0.83, 0.78), xscale="log")
    for number, (name, runs) in enumerate(curves.items()):
        colour, mark = _COLOURS[number % 6], _MARKS[number % 6]
        sizes = sorted({size for size, _ in runs})
        means = [np.mean([accuracy for size, accuracy in runs if size == each]) for each in sizes]
        axes.plot(sizes, means, color=colour, linewidth=1.2, marker=mark, markersize=4, label=name)
        axes.plot(*zip(*runs, strict=True), mark, color=colour, markersize=3, alpha=0.6, linewidth=0)
    sizes = sorted({size for runs in curves.values() for size, _ in runs})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("training images", fontsize=FONT_SIZE)
    axes.set_ylabel("accuracy, %", fontsize=FONT_SIZE)
    axes.grid(color="#e2e2e2", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    return render(figure)
