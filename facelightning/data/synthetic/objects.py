"""Pictures of objects that are no faces, by category, written to disk in ImageNet's layout."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from facelightning.data.files import SPLITS
from facelightning.data.synthetic.canvas import Colour, Points, symmetric
from facelightning.data.synthetic.clutter import Picture, draw_clutter
from facelightning.data.synthetic.dataset import write_image, written_once
from facelightning.data.synthetic.drawing import DRAWING_VERSION
from facelightning.errors import ConfigurationError

OBJECTS_VERSION = 1
"""Incremented whenever the same arguments give other objects than before."""

_SMALLEST = 24  # pixels from top to bottom, before it is turned
_SIDES = (64, 4096)  # of a picture, in pixels
_BITS = 4  # of a pixel's fraction, for OpenCV
_TURN = np.linspace(0, 2 * np.pi, 48, endpoint=False)


def _arc(radius: float, start: float, end: float, x: float = 0.0, y: float = 0.0) -> Points:
    """Points on a circle around x, y; angles in degrees, clockwise from the right."""
    angles = np.deg2rad(np.linspace(start, end, 24))
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def _star() -> Points:
    angles, radii = np.pi * np.arange(10) / 5, np.where(np.arange(10) % 2, 0.42, 1.0)
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _heart() -> Points:
    up = 13 * np.cos(_TURN) - 5 * np.cos(2 * _TURN) - 2 * np.cos(3 * _TURN) - np.cos(4 * _TURN)
    return np.stack([16 * np.sin(_TURN) ** 3, -up], axis=1) / 17


_OUTLINES: dict[str, ArrayLike] = {
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)],
    "bolt": [(0.2, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.35, 1), (0.6, -0.25), (0.05, -0.25), (0.5, -1)],
    "crescent": np.concatenate([_arc(1, 50, 310), _arc(0.84, 294, 66, x=0.3)]),
    "cross": symmetric([(0, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33), (0.33, 1), (0, 1)]),
    "drop": np.stack([0.85 * np.sin(_TURN) * np.sin(_TURN / 2) ** 1.5, -np.cos(_TURN)], axis=1),
    "heart": _heart(),
    "horseshoe": [(-0.9, 1), *_arc(0.9, 180, 360), (0.9, 1), (0.4, 1), *_arc(0.4, 360, 180), (-0.4, 1)],
    "hourglass": symmetric([(0, -1), (0.75, -1), (0.12, 0), (0.75, 1), (0, 1)]),
    "star": _star(),
    "triangle": [(0, -0.95), (1, 0.85), (-1, 0.85)],
}  # fmt: skip
"""Shapes that no clutter has, within -1...1, y down."""

OBJECTS = tuple(f"{shape}_{style}" for shape in _OUTLINES for style in ("filled", "outlined"))
"""The 20 categories, in alphabetical order: a shape, as an area or as a line around one."""


def draw_object(category: int, size: tuple[int, int], rng: np.random.Generator) -> Picture:
    """One object of any scale, place and tilt on clutter, as :func:`draw_scene` puts faces there; none has a face.

    It is 24 pixels to three quarters of the picture tall, uniformly on a logarithmic scale, is tilted by up to 25°, and
    differs in colour from what it covers.

    Args:
        category: Index of :data:`OBJECTS`.
        size: Height and width in pixels, at least 64.
        rng: The source of randomness.

    Returns:
        RGB, ``(H, W, 3)``.

    Example:
        >>> OBJECTS[0], draw_object(0, (128, 96), np.random.default_rng(0)).shape
        ('arrow_filled', (128, 96, 3))
    """
    picture = draw_clutter(size, rng)
    shape, style = OBJECTS[category].split("_")
    tall = np.exp(rng.uniform(np.log(_SMALLEST), np.log(0.75 * min(size))))
    angle = np.deg2rad(rng.uniform(-25, 25))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.asarray(_OUTLINES[shape]) @ turn.T * (tall / 2)
    stroke = max(2, round(0.1 * tall)) if style == "outlined" else 0
    low, high = points.min(axis=0) - stroke / 2, points.max(axis=0) + stroke / 2
    points += rng.uniform(-low, np.maximum(size[::-1] - high, -low))

    stencil = np.zeros(size, np.uint8)
    outline = [np.round(points * 2**_BITS).astype(np.int32)]
    if stroke:
        cv2.polylines(stencil, outline, True, 255, stroke, cv2.LINE_AA, _BITS)
    else:
        cv2.fillPoly(stencil, outline, 255, cv2.LINE_AA, _BITS)
    alpha = stencil[..., None] * np.float32(1 / 255)
    painted = picture * (1 - alpha) + _contrasting(picture[stencil > 127], rng) * alpha
    if rng.random() < 0.5:
        painted += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(2, 10))
    return np.clip(painted + 0.5, 0, 255).astype(np.uint8)


def _contrasting(covered: NDArray[np.uint8], rng: np.random.Generator) -> Colour:
    """A colour unlike the mean of what it covers."""
    mean = covered.mean(axis=0)
    while True:
        colour = rng.uniform(10, 245, 3).astype(np.float32)
        if np.abs(colour - mean).max() > 70:
            return colour


def write_objects(root: Path, objects: tuple[int, int, int], size: tuple[int, int] = (128, 128), seed: int = 0) -> None:
    """Write drawn objects as ``root/train/CATEGORY/000001.jpg``, ``val`` and ``test``, as ImageNet's images often lie.

    The categories, :data:`OBJECTS`, take turns. If ``root`` already holds the same objects, nothing is written; an
    interrupted run leaves no ``root``.

    Args:
        root: Folder to create, with its parents.
        objects: How many to draw for train, val and test; for train at least 20, one of each category.
        size: Height and width in pixels, at least 64.
        seed: The same seed gives the same files. Not negative.

    Raises:
        DataFormatError: If ``root`` exists, but is no such data set or has other parameters; nothing is changed.
        ConfigurationError: If a number is out of its range.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_objects(Path(folder) / "objects", (20, 1, 1), size=(64, 64))
        ...     len(list(Path(folder).glob("objects/train/*/*.jpg")))
        20
    """
    sides = min(size) < _SIDES[0] or max(size) > _SIDES[1]
    if objects[0] < len(OBJECTS) or min(*objects, seed) < 0 or sides:
        raise ConfigurationError(
            f"objects {objects} must begin with {len(OBJECTS)} or more, and they and seed {seed} must not be negative; "
            f"sides of size {size} must lie in {_SIDES[0]}...{_SIDES[1]}"
        )
    version = [DRAWING_VERSION, OBJECTS_VERSION]
    stamp: dict[str, object] = {"objects": [*objects], "size": [*size], "seed": seed, "version": version}
    with written_once(root, stamp) as made:
        if made is not None:
            with tqdm(total=sum(objects), desc="drawing objects", unit="object") as progress:
                for number, (split, count) in enumerate(zip(SPLITS, objects, strict=True)):
                    (made / split).mkdir()
                    for index in range(count):
                        category = index % len(OBJECTS)
                        folder = made / split / OBJECTS[category]
                        folder.mkdir(exist_ok=True)
                        picture = draw_object(category, size, np.random.default_rng([seed, 5, number, index]))
                        write_image(folder / f"{index + 1:06d}.jpg", picture)
                        progress.update()
