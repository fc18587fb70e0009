"""Where in the face the evidence for an attribute lies."""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib import colormaps

from facelightning.figures.drawing import Floats, Image, blank_page, render

_DPI = 200


def attribute_regions_figure(face: Floats, evidence: Floats, attributes: Sequence[str]) -> Image:
    """The evidence for each attribute, drawn over the mean face (Liu et al., ICCV 2015, Fig. 11).

    Of each attribute only what is more than the mean of all attributes is drawn, as a veil of red: where every
    attribute has evidence, such as along the outlines of eyes, says nothing of one. The maps are smoothed over 1/30 of
    the height, and each has its own scale.

    Args:
        face: The mean face, RGB.
        evidence: For each attribute, the share of its evidence in each pixel.
        attributes: Names.

    Shape:
        - face: ``(3, H, W)``, in 0...255.
        - evidence: ``(A, H, W)``, not negative, summing to 1.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If shapes do not match, or evidence is negative or not finite.

    Example:
        >>> evidence = np.zeros((2, 109, 89))
        >>> evidence[0, 30, 40] = evidence[1, 80, 40] = 1
        >>> attribute_regions_figure(np.full((3, 109, 89), 128.0), evidence, ["Bangs", "Smiling"]).shape[2]
        3
    """
    if evidence.shape != (len(attributes), *face.shape[1:]) or not len(attributes):
        raise ValueError(f"evidence {evidence.shape} must be (A, H, W) for face {face.shape}, {len(attributes)} names")
    if not (np.isfinite(evidence) & (evidence >= 0)).all():
        raise ValueError(f"evidence is finite and not negative; found {evidence.min()}")
    sigma = face.shape[1] / 30
    smooth = np.stack([cv2.GaussianBlur(one.astype(np.float64), (0, 0), sigma) for one in evidence])
    own = (smooth - smooth.mean(axis=0)).clip(min=0)
    share = own / np.maximum(own.max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
    grey = np.repeat(face.mean(axis=0)[..., None] / 255 * 0.75 + 0.25, 3, axis=2)
    heat = colormaps["YlOrRd"](share)[..., :3]
    veiled = (1 - 0.8 * share[..., None]) * grey + 0.8 * share[..., None] * heat
    height, columns, step, line, margin = 190, min(8, len(attributes)), 204, 62, 20
    width = max(1, min(round(height * face.shape[2] / face.shape[1]), step - 4))
    tiles = np.stack([cv2.resize((255 * one).round().astype(np.uint8), (width, height)) for one in veiled])
    page = (margin + -(-len(tiles) // columns) * (height + line), 2 * margin + columns * step)
    figure = blank_page(page[1], page[0], _DPI)
    corners = []
    for number, name in enumerate(attributes):
        top, left = margin + number // columns * (height + line), margin + number % columns * step
        corners.append((top, left + (step - width) // 2))
        texts = (14, name.replace("_", " "), "black"), (36, f"{100 * own[number].sum():.0f} %", "#777777")
        for down, text, colour in texts:
            place = ((left + step / 2) / page[1], 1 - (top + height + down) / page[0])
            figure.text(*place, text, ha="center", va="center", fontsize=6.5, color=colour)
    return render(figure, tiles, corners)
