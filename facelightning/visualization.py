"""Pictures of what a model sees: pure functions from arrays to RGB pictures."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from facelightning.labels import IGNORE_INDEX, LabelSpace

Picture = npt.NDArray[np.uint8]

_IGNORED_COLOR = (255, 255, 255)


def save_picture(path: Path, picture: Picture) -> None:
    """Write an RGB picture ``(H, W, 3)`` as a PNG file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())


def color_mask(mask: npt.NDArray[np.integer], labels: LabelSpace) -> Picture:
    """Paint class indices in the label space's colours; ignored pixels are white.

    Shape:
        - mask: ``(H, W)`` or ``(B, H, W)``, class indices or 255.
        - return: ``(…, 3)``, RGB.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> color_mask(np.array([[0, 3]]), HELEN7).tolist()
        [[[0, 0, 0], [60, 140, 220]]]
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(labels)] = labels.colors
    palette[IGNORE_INDEX] = _IGNORED_COLOR
    painted: Picture = palette[mask]
    return painted


def parsing_panels(
    images: Picture, truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], labels: LabelSpace
) -> Picture:
    """Image, truth and prediction of each picture side by side, with a legend (Kalayeh et al., CVPR 2017, Fig. 3).

    Shape:
        - images: ``(B, 3, H, W)``, uint8 RGB.
        - truth, predicted: ``(B, H, W)``, class indices; 255 in the truth is shown white.
        - return: ``(h, w, 3)``, RGB.
    """
    columns = max(1, round(len(images) ** 0.5))
    rows = -(-len(images) // columns)
    height, width = images.shape[-2:]
    scale = 180 / height  # panels of one height, whatever the network's input
    figure = Figure(figsize=(columns * (3 * width * scale + 24) / 100, (rows * 188 + 60) / 100), dpi=140)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    gap = np.full((height, max(1, width // 30), 3), 255, np.uint8)
    for axis, image, mask, prediction in zip(axes, images, truth, predicted, strict=False):
        panels = (image.transpose(1, 2, 0), color_mask(mask, labels), color_mask(prediction, labels))
        axis.imshow(np.hstack([panels[0], gap, panels[1], gap, panels[2]]), interpolation="nearest")
    for axis in axes[:columns]:
        axis.set_title("image   |   truth   |   prediction", fontsize=8)
    patches = [Patch(facecolor=f"#{bytes(color).hex()}", edgecolor="gray") for color in labels.colors]
    names = [name.replace("_", " ") for name in labels.classes]
    figure.legend(patches, names, loc="lower center", ncol=min(len(labels), 7), fontsize=7, frameon=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 22 / (rows * 188 + 60), bottom=36 / (rows * 188 + 60))
    figure.subplots_adjust(wspace=0.03, hspace=0.03)
    return _render(figure)


def region_weights_figure(
    weights: npt.NDArray[np.floating], attributes: Sequence[str], regions: Sequence[str]
) -> Picture:
    """How much each region counts for each attribute, as a heat map (Kalayeh et al., CVPR 2017, Fig. 4).

    Shape:
        - weights: ``(A, N)``, in [0, 1], each row summing to 1.
        - return: ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If there is not one name for each row and column.
    """
    if weights.shape != (len(attributes), len(regions)):
        raise ValueError(f"weights {weights.shape} need {len(attributes)} rows and {len(regions)} columns")
    figure = Figure(figsize=(0.26 * len(attributes) + 1.6, 0.26 * len(regions) + 2.0), dpi=150, layout="constrained")
    axis = figure.add_subplot()
    image = axis.imshow(weights.T, cmap="viridis", vmin=0, vmax=1, aspect="equal")
    axis.set_xticks(range(len(attributes)), [name.replace("_", " ") for name in attributes], rotation=90, fontsize=8)
    axis.set_yticks(range(len(regions)), [name.replace("_", " ") for name in regions], fontsize=8)
    axis.tick_params(length=0)
    figure.colorbar(image, ax=axis, fraction=0.012, pad=0.01, label="weight").ax.tick_params(labelsize=7)
    return _render(figure)


def _render(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)  # drawn in memory: no display, no global state of pyplot
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib is only partly typed
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
