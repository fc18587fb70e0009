"""Whether probabilities mean what they say."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from facelightning.figures.drawing import FONT_SIZE, Image, render

_COLOURS = ("#D55E00", "#0072B2")


def reliability_figure(curves: Mapping[str, Sequence[tuple[float, float, int]]]) -> Image:
    """The share of positives against the predicted probability; calibrated probabilities lie on the diagonal.

    Above it, how many predictions have each probability, on a logarithmic scale.

    Args:
        curves: Name of at most two curves → mean probability, share of positives and number of predictions of each bin.

    Shape:
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no curve or more than two, or one has no bin.

    Example:
        >>> reliability_figure({"before": [(0.1, 0.2, 50), (0.9, 0.7, 30)]}).shape[2]
        3
    """
    if not 1 <= len(curves) <= 2 or not all(curves.values()):
        raise ValueError("one or two curves are needed, each with a bin")
    figure = Figure(figsize=(3.4, 4), dpi=200)
    axes = figure.add_axes((0.15, 0.11, 0.81, 0.66), xlim=(0, 1), ylim=(0, 1))
    above = figure.add_axes((0.15, 0.81, 0.81, 0.16), xlim=(0, 1), yscale="log")
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
    for colour, mark, (name, bins) in zip(_COLOURS, "os", curves.items(), strict=False):
        probability, share, count = np.array(bins).T
        axes.plot(probability, share, color=colour, marker=mark, markersize=3.5, linewidth=1.2, label=name)
        above.plot(probability, count, color=colour, marker=mark, markersize=2.5, linewidth=1)
    for each in (axes, above):
        each.tick_params(labelsize=7)
        each.grid(color="#e2e2e2", linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    counts = np.log10([count for bins in curves.values() for *_, count in bins])
    above.set_ylim(10 ** np.floor(counts.min() - 0.05), 10 ** np.ceil(counts.max() + 0.05))  # whole decades
    above.yaxis.set_minor_formatter(NullFormatter())
    above.set_xticklabels([])
    above.set_ylabel("predictions", fontsize=FONT_SIZE)
    axes.set_xlabel("predicted probability", fontsize=FONT_SIZE)
    axes.set_ylabel("share of positives", fontsize=FONT_SIZE)
    axes.legend(fontsize=7, frameon=False)
    return render(figure)
