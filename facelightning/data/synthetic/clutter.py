"""Pictures without a face: colour noise, furniture, and much that looks a little like a person."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from facelightning.data.synthetic.canvas import Colour, Points, ellipse, smooth, symmetric
from facelightning.data.synthetic.parameters import CLOTHS, HAIR, OTHER_HAIR, SKIN, blend, rgb

Picture = NDArray[np.uint8]
Pose = NDArray[np.float64]

_BITS = 4  # of a pixel's fraction, for OpenCV


class _Brush(NamedTuple):
    """A picture and where on it to draw: face coordinates, as of a :class:`Canvas`, mapped to pixels."""

    picture: Picture
    pose: Pose
    rng: np.random.Generator

    def fill(self, outline: ArrayLike, colour: Colour) -> None:
        """Fill an outline in face coordinates, ``(K, 2)``."""
        points = np.asarray(outline) @ self.pose[:, :2].T + self.pose[:, 2]
        fixed = np.round(points * 2**_BITS).astype(np.int32)
        cv2.fillPoly(self.picture, [fixed], np.clip(colour, 0, 255).tolist(), cv2.LINE_AA, _BITS)


def draw_clutter(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    """A picture of ``size`` (height, width) without a face, RGB, ``(H, W, 3)``.

    Smooth colour noise on several scales; 6 to 14 things on it, of any size, place and slant: furniture, stripes,
    patches of noise, and more often skin-coloured ellipses, bodies without a head, heads without a face.

    Example:
        >>> draw_clutter((64, 48), np.random.default_rng(0)).shape
        (64, 48, 3)
    """
    height, width = size
    grey = rng.uniform(45, 205)
    shades = 35 * _colour_noise(size, rng, channels=1) + 25 * _colour_noise(size, rng)
    picture = np.clip(grey + rng.normal(0, 18, 3) + shades, 0, 255).astype(np.uint8)
    things = rng.choice(len(_THINGS), int(rng.integers(6, 15)), p=_CHANCES)
    for thing in things.tolist():
        scale = np.exp(rng.uniform(np.log(24), np.log(max(48, 0.8 * min(size))))) / 140  # of heads, 140 pixels tall
        angle = np.deg2rad(rng.normal(0, 12))
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        x, y = rng.random(2) * (width, height)
        _THINGS[thing][0](_Brush(picture, np.array([[cos, -sin, x], [sin, cos, y]]), rng))
    light = 1 + 0.13 * _colour_noise(size, rng, channels=1)
    return np.asarray(np.clip(picture * light, 0, 255), dtype=np.uint8)


def draw_body(picture: Picture, pose: Pose, cloth: Colour) -> None:
    """Shoulders, arms and trunk of one colour.

    Args:
        picture: What to draw on, ``(H, W, 3)``.
        pose: The affine map from face coordinates, whose origin lies between the eyes of an upright head of about 140
            pixels, to pixels of the picture, ``(2, 3)``.
        cloth: RGB in [0, 255].
    """
    brush = _Brush(picture, pose, np.random.default_rng(0))
    brush.fill(_BODY, cloth)
    for arm in (_ARM, _ARM * (-1, 1)):
        brush.fill(arm, cloth * np.float32(0.8))


_BODY = smooth(symmetric([(0, 84), (32, 87), (55, 95), (92, 107), (108, 125), (112, 180), (100, 330), (0, 335)]))
_ARM = np.array([(84.0, 175), (89, 174), (86, 340), (79, 340)])  # the gap between arm and trunk


def _colour_noise(size: tuple[int, int], rng: np.random.Generator, channels: int = 3) -> NDArray[np.float32]:
    """Smooth noise of about unit variance, coarse scales stronger than fine ones, ``(H, W, channels)``."""
    noise = np.zeros((*size, channels), np.float32)
    for cells, weight in ((3, 0.8), (7, 0.5), (20, 0.3), (50, 0.15)):
        grid = rng.standard_normal((cells, cells, channels), dtype=np.float32) * np.float32(weight)
        noise += cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(noise.shape)
    return noise


def _skin(rng: np.random.Generator) -> Colour:
    place = float(rng.random()) ** 1.4 * (len(SKIN) - 1)
    tone = blend(SKIN[int(place)], SKIN[int(place) + 1], place % 1) * np.float32(rng.uniform(0.75, 1.1))
    return blend(tone, rgb(253, 238, 231), 0.85) if rng.random() < 0.08 else tone


def _cloth(rng: np.random.Generator) -> Colour:
    return CLOTHS[rng.integers(len(CLOTHS))] * np.float32(rng.uniform(0.6, 1.1))


def _colour(rng: np.random.Generator) -> Colour:
    return rng.uniform(20, 235) + rng.normal(0, 30, 3).astype(np.float32)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _furniture(brush: _Brush) -> None:
    """A board with panels: a door, a window, a shelf."""
    rng, colour = brush.rng, _colour(brush.rng)
    wide, high = rng.uniform(40, 160, 2)
    brush.fill(_box(-wide, -high, wide, high), colour)
    columns, rows = rng.integers(1, 4, 2).tolist()
    panel = colour * np.float32(rng.uniform(0.6, 1.3))
    for column in range(columns):
        for row in range(rows):
            left, top = -wide + 2 * wide * column / columns, -high + 2 * high * row / rows
            brush.fill(_box(left + 8, top + 8, left + 2 * wide / columns - 8, top + 2 * high / rows - 8), panel)


def _stripes(brush: _Brush) -> None:
    rng, first, second = brush.rng, _colour(brush.rng), _colour(brush.rng)
    wide, high, step = rng.uniform(20, 90), rng.uniform(20, 90), rng.uniform(8, 24)
    for number, left in enumerate(np.arange(-wide, wide, step)):
        brush.fill(_box(left, -high, left + step, high), second if number % 2 else first)


def _noise_patch(brush: _Brush) -> None:
    """An ellipse of noise of a random grain."""
    rng, picture = brush.rng, brush.picture
    stencil = np.zeros(picture.shape, np.uint8)
    shape = ellipse(0, 0, *rng.uniform(25, 75, 2))
    _Brush(stencil, brush.pose, rng).fill(shape, np.full(3, 255, np.float32))
    x, y, width, height = cv2.boundingRect(stencil[..., 0])
    if width and height:
        area = slice(y, y + height), slice(x, x + width)
        cells = np.ceil(np.array([height, width]) / rng.uniform(1, 5)).astype(int)
        noise = _colour(rng) + rng.uniform(15, 60) * rng.standard_normal((*cells, 3), dtype=np.float32)
        noise = cv2.resize(np.clip(noise, 0, 255), (width, height), interpolation=cv2.INTER_LINEAR)
        mixed = picture[area] + (noise - picture[area]) * (stencil[area] / np.float32(255))
        picture[area] = mixed.astype(np.uint8)


def _ellipse(brush: _Brush) -> None:
    brush.fill(ellipse(0, 0, *brush.rng.uniform(20, 75, 2)), _colour(brush.rng))


def _skin_ellipse(brush: _Brush) -> None:
    brush.fill(ellipse(0, 0, brush.rng.uniform(28, 50), brush.rng.uniform(40, 75)), _skin(brush.rng))


def _headless_body(brush: _Brush) -> None:
    skin = _skin(brush.rng)
    brush.fill(_box(-24, brush.rng.uniform(20, 70), 24, 100), skin)
    draw_body(brush.picture, brush.pose, _cloth(brush.rng))


def _blank_head(brush: _Brush) -> None:
    """A head with hair, ears and neck, perhaps a body, and no face but two dots."""
    rng, skin = brush.rng, _skin(brush.rng)
    colours = (*HAIR.values(), *OTHER_HAIR)
    hair, long = colours[rng.integers(len(colours))], rng.random() < 0.5
    if long:
        brush.fill(smooth(symmetric([(0, -80), (50, -55), (57, 20), (50, rng.uniform(50, 100)), (0, 50)])), hair * 0.75)
    brush.fill(_box(-24, 40, 24, 98), skin * np.float32(0.85))
    if rng.random() < 0.6:
        draw_body(brush.picture, brush.pose, _cloth(rng))
    for side in (-1, 1):
        brush.fill(ellipse(side * 46, 8, 7, 13), skin * np.float32(0.9))
    if rng.random() < 0.85:
        brush.fill(smooth(symmetric([(0, -77), (40, -62), (51, -20), (45, 8), (0, 0)])), hair)
    brush.fill(smooth(symmetric([(0, -47), (30, -40), (42, -5), (38, 42), (20, 62), (0, 66)])), skin)
    dot = rng.uniform(3, 7)
    for side in (-1, 1):
        brush.fill(ellipse(side * 20, 0, dot, dot), rgb(30, 25, 25))


_THINGS: tuple[tuple[Callable[[_Brush], None], float], ...] = (
    (_furniture, 0.2), (_stripes, 0.1), (_noise_patch, 0.1), (_ellipse, 0.1),
    (_skin_ellipse, 0.15), (_headless_body, 0.15), (_blank_head, 0.2),
)  # fmt: skip
"""What lies about, and how often."""

_CHANCES = [chance for _, chance in _THINGS]
