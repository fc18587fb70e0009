"""Images of what a model sees: pure functions from arrays to RGB images, for screen and print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from facelightning.labels import IGNORE_INDEX, LabelSpace

Image = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]

_FONT_SIZE = 8
_LETTER = 0.062  # width of a letter in inches, with a margin
_SPACING: dict[str, Any] = {"borderpad": 0, "borderaxespad": 0, "columnspacing": 1.2, "fontsize": _FONT_SIZE}
_LEGEND: dict[str, Any] = {"frameon": False, "handlelength": 1, "handleheight": 1, "handletextpad": 0.4, **_SPACING}


def save_image(path: Path, image: Image) -> None:
    """Write an RGB image ``(H, W, 3)`` as a PNG file; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


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
        - truth, predicted: ``(B, H, W)``, class indices; 255, ignored, is white.
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
    triples = np.stack([images.transpose(0, 2, 3, 1), color_mask(truth, labels), color_mask(predicted, labels)], axis=1)
    panels = _enlarged(triples.reshape(-1, height, width, 3), 330)
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
    entry = (max(map(len, names)) * _LETTER + 0.35) * inch
    legend_rows = -(-len(names) // max(1, int(page_width / entry)))
    page_height = tops[-1] + height + round((0.12 + 0.18 * legend_rows) * inch)

    # half a pixel more: matplotlib truncates the size to whole pixels
    figure = Figure(figsize=((page_width + 0.5) / inch, (page_height + 0.5) / inch), dpi=inch)
    for left, title in zip(lefts, 2 * ("image", "truth", "prediction"), strict=False):
        middle = (left + width / 2) / page_width
        figure.text(middle, 1 - 0.55 * header / page_height, title, ha="center", va="center", fontsize=_FONT_SIZE)
    patches = [Patch(facecolor=color, edgecolor="gray", linewidth=0.5) for color in colors]
    place, ncols = (0.5, 0.03 * inch / page_height), -(-len(names) // legend_rows)
    figure.legend(patches, names, loc="lower center", bbox_to_anchor=place, ncols=ncols, **_LEGEND)
    page = _render(figure)
    for index, panel in enumerate(panels):
        top, left = tops[index // columns], lefts[index % columns]
        page[top : top + height, left : left + width] = panel
    return page


def region_weights_figure(weights: Floats, attributes: Sequence[str], regions: Sequence[str]) -> Image:
    """How much each region counts for each attribute, as a heat map (Kalayeh et al., CVPR 2017, Fig. 4).

    A row for each attribute, a column for each region; a dot marks the largest weight of a row. The colours
    (ColorBrewer's YlGnBu) darken steadily: they can be told apart by the colour-blind, and in grey.

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
    left = max(map(len, attributes)) * _LETTER + 0.1
    top = max(map(len, regions)) * _LETTER * 0.71 + 0.15  # region names are slanted by 45 degrees
    right = max(0.71 * _LETTER * len(name) - 0.32 * i for i, name in enumerate(reversed(regions))) + 0.05
    width, height, bottom = 0.32 * len(regions), 0.16 * len(attributes), 0.55
    page_width, page_height = left + width + right, top + height + bottom

    figure = Figure(figsize=(page_width, page_height), dpi=200)
    axes = figure.add_axes((left / page_width, bottom / page_height, width / page_width, height / page_height))
    mesh = axes.pcolormesh(weights, cmap="YlGnBu", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
    axes.invert_yaxis()
    axes.set_axis_off()  # names as plain text: ticks take several times as long to draw
    for row, name in enumerate(attributes):
        axes.text(-0.12, row + 0.5, name.replace("_", " "), ha="right", va="center_baseline", fontsize=_FONT_SIZE)
    for column, name in enumerate(regions):
        axes.text(column + 0.5, -0.25, name.replace("_", " "), rotation=45, rotation_mode="anchor", fontsize=_FONT_SIZE)
    largest = weights.argmax(axis=1)
    dots = ["white" if row[region] > 0.5 else "black" for row, region in zip(weights, largest, strict=True)]
    axes.scatter(largest + 0.5, np.arange(len(attributes)) + 0.5, s=4, c=dots, linewidths=0)

    bar = figure.add_axes((left / page_width, 0.38 / page_height, width / page_width, 0.08 / page_height))
    figure.colorbar(mesh, cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.tick_params(length=2, pad=1, labelsize=7)
    bar.set_xlabel("weight (dot: the largest)", labelpad=1, fontsize=_FONT_SIZE)
    return _render(figure)


def strongest_channels(maps: Floats, count: int = 50) -> Floats:
    """The channels of largest mean activation, the strongest first; ties keep their order.

    Shape:
        - maps: ``(C, H, W)``.
        - return: ``(min(C, count), H, W)``.

    Example:
        >>> strongest_channels(np.array([[[1.0, 2.0]], [[4.0, 0.0]], [[0.0, 1.0]]]), count=2).tolist()
        [[[4.0, 0.0]], [[1.0, 2.0]]]
    """
    return maps[np.argsort(-maps.mean(axis=(1, 2)), kind="stable")[:count]]


def channels_figure(maps: Mapping[str, Floats], count: int = 50) -> Image:
    """The strongest channels of a feature map, one block for each network (Kalayeh et al., CVPR 2017, Fig. 5).

    Ten channels per row, strongest first; each block has one colour scale, up to its largest value; every pixel is
    drawn as a square.

    Args:
        maps: Title and channels of each block, from top to bottom; a title may have several lines.
        count: How many channels a block shows.

    Shape:
        - maps: ``(C, H, W)``, non-negative: PReLU's negative values must be clamped to 0.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is no block, or one has no channel, or a value is negative or not finite.

    Example:
        >>> channels_figure({"average pooling": np.ones((64, 14, 12)), "SSP": np.ones((64, 14, 12))}).shape[2]
        3
    """
    if not maps:
        raise ValueError("there is no block to draw")
    dpi, gap = 200, 4
    margin, line, bar = round(0.12 * dpi), round(0.16 * dpi), round(0.45 * dpi)
    blocks = []
    for title, channels in maps.items():
        if channels.ndim != 3 or channels.size == 0:
            raise ValueError(f"{title}: maps are (C, H, W) with at least one value; found {channels.shape}")
        if not (np.isfinite(channels) & (channels >= 0)).all():
            raise ValueError(f"{title}: activations are finite and not negative; found {channels.min()}")
        header = line * (title.count("\n") + 1) + gap
        blocks.append((title, header, _mosaic(strongest_channels(channels, count), gap)))

    title_width = max(len(text) for title in maps for text in title.split("\n")) * _LETTER * dpi
    page_width = 2 * margin + round(max(title_width, max(mosaic.shape[1] for *_, mosaic in blocks) + bar))
    page_height = margin // 2 + sum(header + len(mosaic) + margin for _, header, mosaic in blocks)
    # half a pixel more: matplotlib truncates the size to whole pixels
    figure = Figure(figsize=((page_width + 0.5) / dpi, (page_height + 0.5) / dpi), dpi=dpi)
    top = margin // 2
    for title, header, mosaic in blocks:
        height, width = mosaic.shape
        figure.text(margin / page_width, 1 - top / page_height, title, va="top", fontsize=_FONT_SIZE)
        bottom, end = page_height - top - header - height, np.nanmax(mosaic) or 1
        image = figure.figimage(mosaic, margin, bottom, cmap="YlGnBu", vmin=0, vmax=end, origin="upper")
        place = (margin + width + 2 * gap, bottom, round(0.08 * dpi), height)
        axes = figure.add_axes(tuple(np.divide(place, (page_width, page_height) * 2)))
        figure.colorbar(image, cax=axes, format="%.3g", ticks=[0, end])
        axes.tick_params(length=2, pad=1, labelsize=7)
        if height > dpi:  # else there is no room between the labels of the two ticks
            axes.text(2.2, 0.5, "activation", rotation=90, va="center", fontsize=_FONT_SIZE, transform=axes.transAxes)
        top += header + height + margin
    return _render(figure)


def _enlarged(maps: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Maps ``(n, H, W, …)`` enlarged to about ``side`` pixels; every pixel becomes a square."""
    zoom = max(1, round(side / max(maps.shape[1:3])))
    return maps.repeat(zoom, axis=1).repeat(zoom, axis=2)


def _mosaic(maps: Floats, gap: int) -> npt.NDArray[np.float64]:
    """Maps ``(C, H, W)`` enlarged, ten per row, separated by NaN."""
    columns = min(len(maps), 10)
    padding = ((0, -len(maps) % columns), (0, gap), (0, gap))
    tiles = np.pad(_enlarged(maps, 140).astype(np.float64), padding, constant_values=np.nan)
    rows = [np.hstack(list(tiles[first : first + columns])) for first in range(0, len(tiles), columns)]
    return np.vstack(rows)[:-gap, :-gap]


def _render(figure: Figure) -> Image:
    canvas = FigureCanvasAgg(figure)  # drawn in memory: no display, no global state of pyplot
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib is only partly typed
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
