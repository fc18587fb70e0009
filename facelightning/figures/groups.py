"""Which attributes a classifier finds alike."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from facelightning.figures.drawing import FONT_SIZE, LETTER, Floats, Image, render

_CELL = 0.145  # inches


def groups_figure(
    similarity: Floats,
    attributes: Sequence[str],
    groups: npt.NDArray[np.integer],
    note: str,
    title: str = "cosine of their weights",
) -> Image:
    """Similarities of attributes, sorted by group (Liu et al., ICCV 2015, Fig. 10).

    A square for each pair, blue where they are opposite and red where they are alike; a group's names have its colour,
    and a frame encloses its squares. Within a group the attribute most like the others comes first.

    Args:
        similarity: Of each pair.
        attributes: Names.
        groups: The number of each attribute's group, 0 to G - 1.
        note: What stands below.
        title: What is similar, below the colours.

    Shape:
        - similarity: ``(A, A)``, symmetric, in [-1, 1].
        - groups: ``(A,)``.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If shapes do not match, or a similarity lies outside [-1, 1].

    Example:
        >>> groups_figure(np.eye(3), ["Bald", "Smiling", "Young"], np.array([0, 1, 1]), "").shape[2]
        3
    """
    count = len(attributes)
    if count == 0 or similarity.shape != (count, count) or groups.shape != (count,):
        raise ValueError(f"similarity {similarity.shape} and groups {groups.shape} must be of {count} attributes")
    if not (np.abs(similarity) <= 1 + 1e-5).all():
        raise ValueError(f"similarities lie in [-1, 1]; found {similarity.min()}...{similarity.max()}")
    alike = np.array([similarity[row, groups == groups[row]].mean() for row in range(count)])
    order = np.lexsort((-alike, groups))
    left, side, bottom = max(map(len, attributes)) * LETTER + 0.15, _CELL * count, 0.75
    width, height = left + max(side, 2.1, len(note) * LETTER - left) + 0.1, side + bottom + 0.1
    figure = Figure(figsize=(width, height), dpi=200)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    limit = max(0.1, float(np.abs(similarity - np.diag(np.diag(similarity))).max()))
    mesh = axes.pcolormesh(similarity[np.ix_(order, order)], cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.invert_yaxis()
    axes.set_axis_off()
    colours = colormaps["Dark2"]
    for row, index in enumerate(order):
        name, colour = attributes[index].replace("_", " "), colours(int(groups[index]) % 8)
        axes.text(-0.4, row + 0.5, name, ha="right", va="center_baseline", fontsize=FONT_SIZE, color=colour)
    for group in np.unique(groups):
        places = np.flatnonzero(groups[order] == group)
        start, end = places[0], places[-1] + 1
        frame = (start, end, end, start, start), (start, start, end, end, start)
        axes.plot(*frame, color=colours(int(group) % 8), linewidth=1.5, clip_on=False)
    bar = figure.add_axes((left / width, 0.55 / height, 2 / width, 0.08 / height))
    figure.colorbar(mesh, cax=bar, orientation="horizontal", ticks=[-limit, 0, limit], format="%.2g")
    bar.tick_params(length=2, pad=1, labelsize=7)
    bar.set_xlabel(title, labelpad=1, fontsize=FONT_SIZE)
    figure.text(0.08 / width, 0.08 / height, note, fontsize=FONT_SIZE, color="#777777")
    return render(figure)


def relations_figure(correlations: Floats, attributes: Sequence[str]) -> Image:
    """Which attributes go together in the labels that a network has seen (Wang, Su, Zhao, §II-C).

    Drawn as by :func:`groups_figure`. Groups are the clusters of complete linkage, at most nine, as many as Wang et al.
    form by hand; the larger, the earlier.

    Shape:
        - correlations: ``(A, A)``, symmetric, in [-1, 1]; NaN where undefined, which is drawn as 0.
        - return: ``(h, w, 3)``, RGB.

    Example:
        >>> relations_figure(np.array([[1, 0.8, np.nan], [0.8, 1, 0], [np.nan, 0, np.nan]]), "abc").shape[2]
        3
    """
    known = np.nan_to_num(correlations.astype(np.float64))
    groups = np.zeros(len(attributes), np.int64)
    if len(attributes) > 1:
        links = linkage(squareform(1 - known, checks=False), "complete")
        clusters = fcluster(links, 9, "maxclust")
        _, first, inverse, sizes = np.unique(clusters, return_index=True, return_inverse=True, return_counts=True)
        groups = np.lexsort((first, -sizes)).argsort()[inverse]
    return groups_figure(known, attributes, groups, "", "correlation of their labels")
