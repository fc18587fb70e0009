"""The strongest channels of feature maps."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from facelightning.figures.drawing import FONT_SIZE, LETTER, Floats, Image, blank_page, enlarged, render


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

    title_width = max(len(text) for title in maps for text in title.split("\n")) * LETTER * dpi
    page_width = 2 * margin + round(max(title_width, max(mosaic.shape[1] for *_, mosaic in blocks) + bar))
    page_height = margin // 2 + sum(header + len(mosaic) + margin for _, header, mosaic in blocks)
    figure = blank_page(page_width, page_height, dpi)
    top = margin // 2
    for title, header, mosaic in blocks:
        height, width = mosaic.shape
        figure.text(margin / page_width, 1 - top / page_height, title, va="top", fontsize=FONT_SIZE)
        bottom, end = page_height - top - header - height, np.nanmax(mosaic) or 1
        image = figure.figimage(mosaic, margin, bottom, cmap="YlGnBu", vmin=0, vmax=end, origin="upper")
        place = (margin + width + 2 * gap, bottom, round(0.08 * dpi), height)
        axes = figure.add_axes(tuple(np.divide(place, (page_width, page_height) * 2)))
        figure.colorbar(image, cax=axes, format="%.3g", ticks=[0, end])
        axes.tick_params(length=2, pad=1, labelsize=7)
        if height > dpi:  # else there is no room between the labels of the two ticks
            axes.text(2.2, 0.5, "activation", rotation=90, va="center", fontsize=FONT_SIZE, transform=axes.transAxes)
        top += header + height + margin
    return render(figure)


def _mosaic(maps: Floats, gap: int) -> npt.NDArray[np.float64]:
    """Maps ``(C, H, W)`` enlarged, ten per row, separated by NaN."""
    columns = min(len(maps), 10)
    padding = ((0, -len(maps) % columns), (0, gap), (0, gap))
    tiles = np.pad(enlarged(maps, 140).astype(np.float64), padding, constant_values=np.nan)
    rows = [np.hstack(list(tiles[first : first + columns])) for first in range(0, len(tiles), columns)]
    return np.vstack(rows)[:-gap, :-gap]
