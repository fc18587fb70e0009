"""How many images a second, for each of several ways."""

from collections.abc import Mapping, Sequence
from statistics import median

from matplotlib.figure import Figure

from facelightning.figures.drawing import FONT_SIZE, LETTER, Image, render


def rates_figure(rates: Mapping[str, Sequence[float]], ours: Sequence[str] = ()) -> Image:
    """Images a second of each way, on a logarithmic scale: a point at the median of its rounds, a line to the extremes.

    Args:
        rates: Name of each way, from top to bottom → images a second in each of its rounds.
        ours: Names of those to stand out.

    Shape:
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no way, or one has no round, or a rate that is not positive.

    Example:
        >>> rates_figure({"plain loop": [98.0, 101.5], "facelightning": [120.0, 125.0]}, ["facelightning"]).shape[2]
        3
    """
    if not rates or any(not rounds or min(rounds) <= 0 for rounds in rates.values()):
        raise ValueError("each way needs a round, and each round a positive rate")
    left, right, top, bottom = 0.1 + LETTER * max(map(len, rates)), 0.3, 0.1, 0.42
    width, height = left + 3.0 + right, top + 0.24 * len(rates) + bottom
    figure = Figure(figsize=(width, height), dpi=200)
    frame = (left / width, bottom / height, 3.0 / width, 0.24 * len(rates) / height)
    axes = figure.add_axes(frame, xscale="log")
    lowest, highest = (f(f(rounds) for rounds in rates.values()) for f in (min, max))
    axes.set_xlim(lowest / 1.25, highest * (highest / lowest) ** 0.25 * 1.6)  # with room for the last number
    axes.set_ylim(len(rates) - 0.5, -0.5)
    for row, (name, rounds) in enumerate(rates.items()):
        colour = "#0072B2" if name in ours else "#555555"
        axes.plot([min(rounds), max(rounds)], [row, row], color=colour, linewidth=1.6, solid_capstyle="round")
        axes.plot(median(rounds), row, "o", color=colour, markersize=4.5)
        text = f"{median(rounds):,.0f}" if median(rounds) >= 100 else f"{median(rounds):.1f}"
        axes.annotate(
            text, (max(rounds), row), (5, 0), textcoords="offset points", va="center", fontsize=7, color=colour
        )
    axes.set_yticks(range(len(rates)), rates, fontsize=7)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:,g}" if highest < 10 * lowest else "")
    axes.tick_params(axis="x", which="both", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("images a second", fontsize=FONT_SIZE)
    axes.grid(axis="x", color="#e2e2e2", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return render(figure)
