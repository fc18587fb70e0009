"""The painter: smooth outlines become soft stencils, which paint both the colour and the class of what they cover."""

from functools import cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from facelightning.labels import HELEN11

HEIGHT, WIDTH = 218, 178
"""The size of CelebA's aligned and cropped images in pixels."""

Points = NDArray[np.float64]
Colour = NDArray[np.float32]
_SUBPIXEL_BITS = 4
_FLIP: Points = np.array([-1.0, 1.0])


@cache
def _catmull_rom(count: int, steps: int, closed: bool) -> tuple[Points, Points]:
    """The matrices that map control points to points on their Catmull-Rom curve and to its tangents there."""
    t = np.arange(steps)[:, None] / steps
    weights = np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]) / 2
    slopes = np.hstack([-1 + 4 * t - 3 * t**2, -10 * t + 9 * t**2, 1 + 8 * t - 9 * t**2, -2 * t + 3 * t**2]) / 2
    segments = np.arange(count if closed else count - 1)
    curve, tangent = np.zeros((2, len(segments) * steps + (not closed), count))
    rows = segments[:, None] * steps + np.arange(steps)
    for neighbour in range(4):
        control = segments[:, None] - 1 + neighbour
        control = control % count if closed else control.clip(0, count - 1)
        curve[rows, control] += weights[:, neighbour]
        tangent[rows, control] += slopes[:, neighbour]
    if not closed:
        curve[-1, -1] = 1
        tangent[-1, -2:] = -1, 1
    return curve, tangent


def smooth(points: ArrayLike, closed: bool = True, steps: int = 5) -> Points:
    """Points on the Catmull-Rom curve through ``(K, 2)``: ``(K * steps, 2)``; ``((K - 1) * steps + 1, 2)`` if open.

    Example:
        >>> smooth([(0, 0), (1, 0), (1, 1), (0, 1)], steps=2).tolist()[:2]
        [[0.0, 0.0], [0.5, -0.125]]
    """
    control = np.asarray(points, dtype=np.float64)
    return _catmull_rom(len(control), steps, closed)[0] @ control


_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Points:
    """The outline of an upright ellipse."""
    return _CIRCLE * (radius_x, radius_y) + (x, y)


def dots(centres: Points, radius: float) -> list[Points]:
    """The outlines of small discs around ``centres``, ``(K, 2)``."""
    return list(centres[:, None] + _CIRCLE[::2] * radius)


def brush(points: ArrayLike, width: float, taper: float = 0.8) -> Points:
    """The outline of a brush stroke along an open curve, ``width`` pixels at its middle and thinner at the ends."""
    control = np.asarray(points, dtype=np.float64)
    curve, tangent = _catmull_rom(len(control), 5, False)
    line = curve @ control
    half = (1 - taper + taper * np.sin(np.linspace(0, np.pi, len(line))) ** 0.7)[:, None] / 2
    edge = _normals(tangent @ control) * (width * half)
    return np.concatenate([line + edge, (line - edge)[::-1]])


def _normals(tangents: Points) -> Points:
    x, y = tangents[:, 0], tangents[:, 1]
    return tangents[:, ::-1] * (_FLIP / (np.hypot(x, y)[:, None] + 1e-9))


def mirror(points: Points) -> Points:
    """The same outline on the other side of the face."""
    return points * _FLIP


def symmetric(half: ArrayLike) -> Points:
    """The points of one side of the face, then those of the other side backwards; points on the axis occur once.

    Example:
        >>> symmetric([(0, 5), (8, 1), (0, -3)]).tolist()
        [[0.0, 5.0], [8.0, 1.0], [0.0, -3.0], [-8.0, 1.0]]
    """
    points = np.array(half, dtype=np.float64)
    return np.concatenate([points, mirror(points[points[:, 0] != 0][::-1])])


def ripple(line: Points, amplitude: float, wavelength: float, phase: float) -> Points:
    """An outline with waves of given amplitude and wavelength, in pixels: locks and curls."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    dense = np.arange(0, length[-1], 2.5)
    line = np.stack([np.interp(dense, length, line[:, axis]) for axis in (0, 1)], axis=1)
    waves = amplitude * np.sin(2 * np.pi * (dense / wavelength + phase))
    return line + _normals(np.gradient(line, axis=0)) * waves[:, None]


class Stencil(NamedTuple):
    """An 8-bit alpha mask and the position of its upper left corner on the canvas."""

    alpha: NDArray[np.uint8]
    x: int
    y: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that it covers."""
        height, width = self.alpha.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    def within(self, other: "Stencil") -> "Stencil":
        """The part of this stencil that lies inside ``other``."""
        top, left = max(self.y, other.y), max(self.x, other.x)
        bottom = max(top, min(self.y + self.alpha.shape[0], other.y + other.alpha.shape[0]))
        right = max(left, min(self.x + self.alpha.shape[1], other.x + other.alpha.shape[1]))
        mine = self.alpha[top - self.y : bottom - self.y, left - self.x : right - self.x]
        theirs = other.alpha[top - other.y : bottom - other.y, left - other.x : right - other.x]
        return Stencil(np.minimum(mine, theirs), left, top)


class Canvas:
    """An RGB image under construction and the record of what covers what.

    Outlines are given in face coordinates: pixels of an upright face, the point between the eyes at the origin, y down.

    Args:
        background: The image behind the face, ``(3, 218, 178)`` in [0, 255].
        pose: The affine map from face coordinates to pixels, ``(2, 3)``.
    """

    def __init__(self, background: NDArray[np.float32], pose: NDArray[np.float64]) -> None:
        self.image = background
        self.pose = pose
        self._fixed_pose = (pose[:, :2].T * 2**_SUBPIXEL_BITS, pose[:, 2] * 2**_SUBPIXEL_BITS + 0.5)
        self._layers: list[tuple[int, Stencil]] = []

    def place(self, points: Points) -> Points:
        """Face coordinates ``(K, 2)`` as pixels of the image."""
        return points @ self.pose[:, :2].T + self.pose[:, 2]

    def stencil(self, *outlines: Points, blur: float = 0.0) -> Stencil:
        """The inside of outlines, blurred by a radius in pixels; an outline inside another cuts a hole."""
        margin = 1 + int(2 * blur)
        fixed = (np.concatenate(outlines) @ self._fixed_pose[0] + self._fixed_pose[1]).astype(np.int32)
        x, y, width, height = (value >> _SUBPIXEL_BITS for value in cv2.boundingRect(fixed))
        left, right = max(0, x - margin), min(WIDTH, x + width + 2 + margin)
        top, bottom = max(0, y - margin), min(HEIGHT, y + height + 2 + margin)
        if right <= left or bottom <= top:
            return Stencil(np.zeros((0, 0), np.uint8), 0, 0)
        alpha = np.zeros((bottom - top, right - left), np.uint8)
        fixed -= np.array((left << _SUBPIXEL_BITS, top << _SUBPIXEL_BITS), np.int32)
        ends = list(accumulate(map(len, outlines)))
        polygons = [fixed[start:end] for start, end in pairwise([0, *ends])]
        cv2.fillPoly(alpha, polygons, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        if blur:
            size = (2 * int(blur) + 1, 2 * int(blur) + 1)  # two box filters come close to a Gaussian one
            alpha = cv2.blur(cv2.blur(alpha, size), size).astype(np.uint8, copy=False)
        return Stencil(alpha, left, top)

    def paint(
        self,
        stencil: Stencil,
        colour: Colour,
        label: str | None = None,
        opacity: float = 1.0,
        texture: NDArray[np.float32] | None = None,
    ) -> None:
        """Lay a colour over the image.

        Args:
            stencil: Where to paint.
            colour: RGB in [0, 255], ``(3,)``.
            label: The class of :data:`~facelightning.labels.HELEN11` that covered pixels get; None to leave their class
                as it was.
            opacity: Opacity of the paint, in [0, 1]; the class always covers with the stencil's alpha.
            texture: Factors of the colour, ``(218, 178)``.
        """
        rows, columns = stencil.area
        below = self.image[:, rows, columns]
        ink = colour[:, None, None] if texture is None else colour[:, None, None] * texture[rows, columns]
        change = ink - below
        change *= stencil.alpha * np.float32(opacity / 255)
        below += change
        if label is not None:
            self._layers.append((HELEN11.index(label), stencil))

    def masks(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """How much of each pixel each class covers, and how much all that has a class covers.

        Shape:
            - return: ``(11, 218, 178)``, which sum to 255 in every pixel, and ``(218, 178)``: the person, of whom
              clothes, hat and jewellery have the class background.
        """
        masks = np.zeros((len(HELEN11), HEIGHT, WIDTH), np.uint8)
        clear = np.full((HEIGHT, WIDTH), 255, np.uint8)
        for label, stencil in reversed(self._layers):  # front to back, each layer takes its share of what is left
            if stencil.alpha.size:
                left = clear[stencil.area]
                share = cv2.multiply(left, stencil.alpha, scale=1 / 255).astype(np.uint8, copy=False)
                masks[label][stencil.area] += share
                left -= share
        masks[0] += clear
        return masks, 255 - clear
