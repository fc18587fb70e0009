"""How much each region counts for each attribute."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from facelightning.figures.drawing import FONT_SIZE, LETTER, Floats, Image, render


def region_weights_figure(weights: Floats, attributes: Sequence[str], regions: Sequence[str]) -> Image:
    """How much each region counts for each attribute, as a heat map (Kalayeh et al., CVPR 2017, Fig. 4).

    A row for each attribute, a column for each region; a dot marks the largest weight of a row, unless two are equally
    large (to 1e-6). The colours (ColorBrewer's YlGnBu) darken steadily: they can be told apart by the colour-blind, and
    in grey.

    Shape:
        - weights: ``(A, N)``, in [0, 1], each row summing to 1.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is not one name for each row and column, or a weight lies outside [0, 1].

    Example:
        >>> region_weights_figure(np.array([[0.9, 0.1]]), ["Wavy_Hair"], ["hair", "nose"]).shape[2]
        3
    """
    if weights.shape != (len(attributes), len(regions)) or weights.size == 0:
        raise ValueError(f"weights {weights.shape} need {len(attributes)} rows and {len(regions)} columns")
    if not ((weights >= 0) & (weights <= 1 + 1e-5)).all():
        raise ValueError(f"weights lie in [0, 1]; found {weights.min()}...{weights.max()}")
    # a layout in inches: matplotlib's own takes several times as long as the drawing itself
    left = max(map(len, attributes)) * LETTER + 0.1
    top = max(map(len, regions)) * LETTER * 0.71 + 0.15  # region names are slanted by 45 degrees
    right = max(0.71 * LETTER * len(name) - 0.32 * i for i, name in enumerate(reversed(regions))) + 0.05
    width, height, bottom = 0.32 * len(regions), 0.16 * len(attributes), 0.55
    page_width, page_height = left + width + right, top + height + bottom

    figure = Figure(figsize=(page_width, page_height), dpi=200)
    axes = figure.add_axes((left / page_width, bottom / page_height, width / page_width, height / page_height))
    mesh = axes.pcolormesh(weights, cmap="YlGnBu", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
    axes.invert_yaxis()
    axes.set_axis_off()  # names as plain text: ticks take several times as long to draw
    for row, name in enumerate(attributes):
        axes.text(-0.12, row + 0.5, name.replace("_", " "), ha="right", va="center_baseline", fontsize=FONT_SIZE)
    for column, name in enumerate(regions):
        axes.text(column + 0.5, -0.25, name.replace("_", " "), rotation=45, rotation_mode="anchor", fontsize=FONT_SIZE)
    largest = weights >= weights.max(axis=1, keepdims=True) - 1e-6
    rows, columns = (largest & (largest.sum(axis=1, keepdims=True) == 1)).nonzero()
    dots = np.where(weights[rows, columns] > 0.5, "white", "black")
    axes.scatter(columns + 0.5, rows + 0.5, s=4, c=dots, linewidths=0)

    bar = figure.add_axes((left / page_width, 0.38 / page_height, width / page_width, 0.08 / page_height))
    figure.colorbar(mesh, cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.tick_params(length=2, pad=1, labelsize=7)
    bar.set_xlabel("weight (dot: the largest)", labelpad=1, fontsize=FONT_SIZE)
    return render(figure)
