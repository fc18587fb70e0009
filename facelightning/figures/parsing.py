"""Masks in colours, and image, truth and prediction side by side."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Patch

from facelightning.figures.drawing import FONT_SIZE, LETTER, Floats, Image, Masks, blank_page, enlarged, render
from facelightning.labels import IGNORE_INDEX, LabelSpace

_SPACING: dict[str, Any] = {"borderpad": 0, "borderaxespad": 0, "columnspacing": 1.2, "fontsize": FONT_SIZE}
_LEGEND: dict[str, Any] = {"frameon": False, "handlelength": 1, "handleheight": 1, "handletextpad": 0.4, **_SPACING}


def color_mask(mask: Masks, labels: LabelSpace) -> Image:
    """Paint class indices in the label space's colours; ignored pixels are white.

    Shape:
        - mask: ``(H, W)`` or ``(B, H, W)``, class indices or 255.
        - return: ``(…, 3)``, RGB.

    Raises:
        ValueError: If an index is neither a class nor 255.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> color_mask(np.array([[0, 3]]), HELEN7).tolist()
        [[[0, 0, 0], [60, 140, 220]]]
    """
    unknown = mask[((mask < 0) | (mask >= len(labels))) & (mask != IGNORE_INDEX)]
    if unknown.size:
        raise ValueError(f"class indices of {labels.name} lie in 0...{len(labels) - 1}; the mask holds {unknown[0]}")
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(labels)] = labels.colors
    return palette.take(mask, axis=0)


def parsing_panels(images: Image, truth: Masks, predicted: Masks, labels: LabelSpace) -> Image:
    """Image, truth and prediction of each image side by side, with a legend (Kalayeh et al., CVPR 2017, Fig. 3).

    Two images per row; a panel's size does not depend on their number, and every pixel is drawn as a square.

    Shape:
        - images: ``(B, 3, H, W)``, uint8 RGB.
        - truth, predicted: ``(B, H, W)``, class indices; where the truth is 255, nothing counts: both are white.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no image, a shape or dtype is wrong, or an index is neither a class nor 255.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> images, masks = np.zeros((4, 3, 109, 89), np.uint8), np.zeros((4, 109, 89), np.uint8)
        >>> parsing_panels(images, masks, masks, HELEN7).shape[2]
        3
    """
    count, _, height, width = images.shape
    if count == 0 or truth.shape != (count, height, width) or predicted.shape != truth.shape:
        raise ValueError(
            f"images {images.shape} need at least one image, and truth {truth.shape} and predicted {predicted.shape} "
            f"of ({count}, {height}, {width})"
        )
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, in 0...255; found {images.dtype}")
    predicted = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, predicted)
    triples = np.stack([images.transpose(0, 2, 3, 1), color_mask(truth, labels), color_mask(predicted, labels)], axis=1)
    panels = enlarged(triples.reshape(-1, height, width, 3), 330)
    inch = round(max(panels.shape[1:3]) / 1.65)  # keeps print size and letter size constant
    panels = np.pad(panels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=160)  # a grey frame
    height, width = panels.shape[1:3]

    columns = 3 * min(count, 2)
    gap, margin, header = round(0.03 * inch), round(0.12 * inch), round(0.25 * inch)
    lefts = [margin + column * (width + gap) + column // 3 * (margin - gap) for column in range(columns)]
    tops = [header + row * (height + gap) for row in range(-(-len(panels) // columns))]

    names = [name.replace("_", " ") for name in labels.classes]
    colors = [f"#{bytes(color).hex()}" for color in labels.colors]
    if (truth == IGNORE_INDEX).any() or (predicted == IGNORE_INDEX).any():
        names, colors = [*names, "ignored"], [*colors, "white"]
    page_width = lefts[-1] + width + margin
    entry = (max(map(len, names)) * LETTER + 0.35) * inch
    legend_rows = -(-len(names) // max(1, int(page_width / entry)))
    page_height = tops[-1] + height + round((0.12 + 0.18 * legend_rows) * inch)

    figure = blank_page(page_width, page_height, inch)
    for left, title in zip(lefts, 2 * ("image", "truth", "prediction"), strict=False):
        middle = (left + width / 2) / page_width
        figure.text(middle, 1 - 0.55 * header / page_height, title, ha="center", va="center", fontsize=FONT_SIZE)
    patches = [Patch(facecolor=color, edgecolor="gray", linewidth=0.5) for color in colors]
    place, ncols = (0.5, 0.03 * inch / page_height), -(-len(names) // legend_rows)
    figure.legend(patches, names, loc="lower center", bbox_to_anchor=place, ncols=ncols, **_LEGEND)
    return render(figure, panels, [(top, left) for top in tops for left in lefts][: len(panels)])


def mean_masks_figure(masks: Floats, labels: LabelSpace) -> Image:
    """Where each class lies, as its mean probability over many faces, and which is the likeliest on average.

    What a parser finds (Kalayeh et al., CVPR 2017, Fig. 3), without showing a person. Below a class stands its share
    of the area.

    Shape:
        - masks: ``(K, H, W)``, in [0, 1], summing to 1 over the classes.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is not one mask for each class, or they do not sum to 1.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> mean_masks_figure(np.full((7, 109, 89), 1 / 7), HELEN7).shape[2]
        3
    """
    if len(masks) != len(labels) or not np.allclose(masks.sum(axis=0), 1, atol=1e-2):
        raise ValueError(f"masks {masks.shape} need {len(labels)} classes that sum to 1 in each pixel")
    likeliest = color_mask(masks.argmax(axis=0), labels)
    tiles = enlarged(np.stack([*colormaps["YlGnBu"](masks, bytes=True)[..., :3], likeliest]), 240)
    tiles = np.pad(tiles, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=160)  # a grey frame
    names = [name.replace("_", " ") for name in labels.classes]
    titles = [
        *(f"{name}\n{share:.1%}" for name, share in zip(names, masks.mean(axis=(1, 2)), strict=True)),
        "likeliest",
    ]
    height, width = tiles.shape[1:3]
    gap, margin, below, bar, columns, dpi = 14, 20, 70, 80, 4, 150
    page_width = 2 * margin + columns * (width + gap) + bar
    page_height = margin + -(-len(tiles) // columns) * (height + below)
    figure, corners = blank_page(page_width, page_height, dpi), []
    for number, title in enumerate(titles):
        top, left = margin + number // columns * (height + below), margin + number % columns * (width + gap)
        corners.append((top, left))
        place = ((left + width / 2) / page_width, 1 - (top + height + 8) / page_height)
        figure.text(*place, title, ha="center", va="top", fontsize=FONT_SIZE)
    edges = (page_width - margin - bar, page_height - margin - height, 12, height)
    axes = figure.add_axes(tuple(np.divide(edges, (page_width, page_height) * 2)))
    figure.colorbar(ScalarMappable(cmap="YlGnBu"), cax=axes, ticks=[0, 1])
    axes.tick_params(length=2, pad=1, labelsize=7)
    axes.text(2.2, 0.5, "probability", rotation=90, va="center", fontsize=FONT_SIZE, transform=axes.transAxes)
    return render(figure, tiles, corners)
