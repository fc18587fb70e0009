"""What all figures share: types, sizes of letters, and how a page becomes an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Image = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]

FONT_SIZE = 8
LETTER = 0.062
"""Width of a letter in inches, with a margin."""


def save_image(path: Path, image: Image) -> None:
    """Write an RGB image ``(H, W, 3)`` as a PNG file; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


def enlarged(maps: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Maps ``(n, H, W, …)`` enlarged to about ``side`` pixels; every pixel becomes a square."""
    zoom = max(1, round(side / max(maps.shape[1:3])))
    return maps.repeat(zoom, axis=1).repeat(zoom, axis=2)


def blank_page(width: int, height: int, dpi: int) -> Figure:
    """An empty figure of a size in pixels."""
    # half a pixel more: matplotlib truncates the size to whole pixels
    return Figure(figsize=((width + 0.5) / dpi, (height + 0.5) / dpi), dpi=dpi)


def render(figure: Figure, panels: Image | tuple[()] = (), corners: Sequence[tuple[int, int]] = ()) -> Image:
    """A figure as an RGB image, with panels ``(n, h, w, 3)`` that have their top left corners at (row, column)."""
    canvas = FigureCanvasAgg(figure)  # drawn in memory: no display, no global state of pyplot
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib is only partly typed
    page: Image = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]  # as canvas.draw
    for panel, (top, left) in zip(panels, corners, strict=True):
        page[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    return page
