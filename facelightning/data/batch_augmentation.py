"""Augmentation of whole batches: one warp of each image, one change of its colours, patches of plain colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.errors import ConfigurationError
from facelightning.labels import IGNORE_INDEX

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Range = tuple[float, float]

LUMA = np.array([0.299, 0.587, 0.114])
"""How bright red, green and blue look (ITU-R BT.601): a grey value is their sum."""


def uniform(seeds: Sequence[int], first: int, count: int) -> Floats:
    """Random numbers in [0, 1), ``(count, B)``: each sample's ``first``, ``first + 1``, … of SplitMix64 [1]_.

    A number depends on its sample's seed and its place alone: not on other samples, other numbers, or a state.

    Example:
        >>> alone, together = uniform([7], 0, 2), uniform([3, 7, 5], 1, 1)
        >>> bool(alone[1, 0] == together[0, 1])
        True

    .. [1] Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
    """
    places = np.arange(first + 1, first + count + 1, dtype=np.uint64)[:, None]
    bits = np.array(seeds, np.uint64) + places * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as it shall
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ bits >> np.uint64(shift)) * np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def between(limits: Range, numbers: Floats) -> Floats:
    """Numbers in [0, 1) as numbers of a range."""
    low, high = limits
    return low + (high - low) * numbers


def moved(points: npt.NDArray[np.float32], moves: Floats) -> Floats:
    """Points ``(B, N, 2)`` where ``moves``, ``(B, 2, 3)``, take them: ``move @ (x, y, 1)``.

    Example:
        >>> moved(np.array([[[3, 4]]], np.float32), np.array([[[-1.0, 0, 9], [0, 1, 0]]])).tolist()
        [[[6.0, 4.0]]]
    """
    found: Floats = points @ moves[..., :2].swapaxes(1, 2) + moves[:, None, :, 2]
    return found


@dataclass(frozen=True)
class Part:
    """Base of what is done to an image, with the chance that it is done, and ranges that numbers are drawn from."""

    first: ClassVar[int]
    """A part's own numbers begin here, so that they do not depend on what other parts there are."""

    limits: ClassVar[dict[str, Range]]
    """Of each range."""

    chance: float = 1.0

    def check(self) -> None:
        """Raise :class:`ConfigurationError` if the chance is none, or a range is none or beyond its limits."""
        if not 0 <= self.chance <= 1:
            raise ConfigurationError(f"{type(self).__name__}: chance must lie in 0...1, not {self.chance}")
        for name, (least, most) in self.limits.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ConfigurationError(
                    f"{type(self).__name__}: {name} must be [lowest, highest] within {least}...{most}, "
                    f"not [{low}, {high}]"
                )

    def drawn(self, seeds: Sequence[int], count: int) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Of each sample whether it is done, ``(B,)``, and ``count`` numbers in [0, 1), ``(count, B)``."""
        numbers = uniform(seeds, self.first, count + 1)
        return numbers[0] < self.chance, numbers[1:]


@dataclass(frozen=True)
class Affine(Part):
    """Scaling, then rotation, about the image's centre, then a shift. A scale above 1 shows a part of the image.

    Args:
        scale: Factors; width and height have one each.
        shift: In widths to the right, and in heights down.
        rotate: Degrees anticlockwise.
    """

    first: ClassVar[int] = 100
    limits: ClassVar[dict[str, Range]] = {"scale": (0.01, 100), "shift": (-1, 1), "rotate": (-360, 360)}

    scale: Range = (1, 1)
    shift: Range = (0, 0)
    rotate: Range = (0, 0)

    def moves(self, mirrored: npt.NDArray[np.bool_], seeds: Sequence[int], size: tuple[int, int]) -> Floats:
        """For :func:`moved`, ``(B, 2, 3)``, if some images, ``(B,)``, are mirrored before. 0 is a pixel's centre."""
        chosen, numbers = self.drawn(seeds, 5)
        width, height = np.where(chosen, between(self.scale, numbers[:2]), 1)
        shift = np.where(chosen, between(self.shift, numbers[2:4]), 0).T * size[::-1]
        angle = np.where(chosen, np.deg2rad(between(self.rotate, numbers[4])), 0)
        across, along = np.where(mirrored, -width, width), (np.cos(angle), np.sin(angle))
        linear = np.array([[along[0] * across, along[1] * height], [-along[1] * across, along[0] * height]])
        linear = np.moveaxis(linear, -1, 0)
        centre = (np.array(size[::-1]) - 1) / 2
        return np.concatenate([linear, (centre + shift - linear @ centre)[..., None]], axis=-1)


@dataclass(frozen=True)
class Color(Part):
    """Brightness, contrast and saturation, as one change of red, green and blue, which is rounded once.

    Args:
        brightness: Factors of all values.
        contrast: Factors of the distance to the image's mean grey value.
        saturation: Factors of the distance to each pixel's grey value.
    """

    first: ClassVar[int] = 200
    limits: ClassVar[dict[str, Range]] = dict.fromkeys(("brightness", "contrast", "saturation"), (0, 10))

    brightness: Range = (1, 1)
    contrast: Range = (1, 1)
    saturation: Range = (1, 1)

    def changes(self, seeds: Sequence[int]) -> tuple[Floats, Floats]:
        """Of each image the matrix of its colours, ``(B, 3, 3)``, and what of its mean colour is added, likewise.

        The three change places without a difference, because saturation leaves grey values as they are.
        """
        chosen, numbers = self.drawn(seeds, 3)
        ranges = (self.brightness, self.contrast, self.saturation)
        factors = [between(limits, number) for limits, number in zip(ranges, numbers, strict=True)]
        brightness, contrast, saturation = np.where(chosen, factors, 1)[..., None, None]
        grey = np.tile(LUMA, (3, 1))
        saturated = saturation * np.eye(3) + (1 - saturation) * grey
        return brightness * contrast * saturated, brightness * (1 - contrast) * grey


@dataclass(frozen=True)
class Erasing(Part):
    """Patches of one colour each, any colour, anywhere within the image.

    Args:
        count: How many patches.
        height: A patch's height, in heights of the image.
        width: Its width, in widths of the image.
    """

    first: ClassVar[int] = 300
    limits: ClassVar[dict[str, Range]] = {"count": (0, 100), "height": (0, 1), "width": (0, 1)}

    count: tuple[int, int] = (0, 0)
    height: Range = (0.1, 0.2)
    width: Range = (0.1, 0.2)

    def patches(self, seeds: Sequence[int], size: tuple[int, int]) -> list[list[tuple[slice, slice, Pixels]]]:
        """The rows, columns and colour ``(3,)`` of each patch of each image."""
        low, high = self.count
        chosen, numbers = self.drawn(seeds, 1 + 7 * high)
        counts = np.where(chosen, between((low, high + 1), numbers[0]), 0).astype(int)
        heights, widths, top, left, *colors = numbers[1:].reshape(high, 7, len(seeds)).swapaxes(0, 1)
        sides = []
        for limits, share, place, length in ((self.height, heights, top, size[0]), (self.width, widths, left, size[1])):
            extent = np.maximum(between(limits, share) * length, 1).astype(int)
            begin = (place * (length - extent + 1)).astype(int)
            sides.append((begin, begin + extent))
        fills = (np.array(colors) * 256).astype(np.uint8)
        (tops, bottoms), (lefts, rights) = sides
        return [
            [(slice(tops[k, j], bottoms[k, j]), slice(lefts[k, j], rights[k, j]), fills[:, k, j]) for k in range(count)]
            for j, count in enumerate(counts)
        ]


class BatchAugmentation:
    """Mirrors, moves, colours and erases images, in this order; masks and points follow.

    It does what a list of Albumentations' ``HorizontalFlip``, ``Affine``, ``ColorJitter`` (but for hues) and
    ``CoarseDropout`` does, with equal distributions, in less time: all numbers of a batch are drawn at once, and an
    image is warped and coloured once. What a sample becomes depends on its seed alone, not on its batch.

    Args:
        mirror: The chance that an image is mirrored.
        affine: How images are scaled, turned and shifted.
        color: How their colours change.
        erasing: What is covered.
        outside: The class of pixels that come from beyond the image or are covered; 255 = ignore.

    Example:
        >>> augmentation = BatchAugmentation(mirror=1)
        >>> images, _ = augmentation(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), None, seeds=[0])
        >>> images[0, ..., 0].tolist(), augmentation.moves([0], (2, 2))[0].tolist()
        ([[3, 0], [9, 6]], [[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    """

    def __init__(
        self,
        mirror: float = 0.5,
        affine: Affine = Affine(),
        color: Color = Color(),
        erasing: Erasing = Erasing(),
        outside: int = IGNORE_INDEX,
    ) -> None:
        self.mirror, self.affine, self.color, self.erasing, self.outside = mirror, affine, color, erasing, outside

    def check(self, classes: int) -> None:
        """Refuse wrong numbers; the constructor does not, because the command line would hide its message.

        Args:
            classes: How many the masks have.

        Raises:
            ConfigurationError: If a chance or a range is none, or ``outside`` neither a class nor 255.
        """
        name = type(self).__name__
        if not 0 <= self.mirror <= 1:
            raise ConfigurationError(f"{name}: mirror must lie in 0...1, not {self.mirror}")
        if self.outside != IGNORE_INDEX and not 0 <= self.outside < classes:
            raise ConfigurationError(
                f"{name}: outside must be one of {classes} classes or {IGNORE_INDEX}, not {self.outside}"
            )
        for part in (self.affine, self.color, self.erasing):
            part.check()

    def moves(self, seeds: Sequence[int], size: tuple[int, int]) -> Floats:
        """For :func:`moved`, where points of images of a height and width go, ``(B, 2, 3)``; 0 is a pixel's centre."""
        return self.affine.moves(uniform(seeds, 0, 1)[0] < self.mirror, seeds, size)

    def __call__(self, images: Pixels, masks: Pixels | None, seeds: Sequence[int]) -> tuple[Pixels, Pixels | None]:
        """Augment a batch.

        Args:
            images: ``(B, H, W, 3)`` RGB, uint8.
            masks: Classes ``(B, H, W)``, if there are any.
            seeds: One for each image, in [0, 2⁶⁴).

        Returns:
            New images and masks. Left and right classes keep their names: who mirrors a face swaps them.

        Raises:
            ConfigurationError: If the images are not uint8.
        """
        if images.dtype != np.uint8:
            raise ConfigurationError(f"{type(self).__name__} takes images of bytes, not of {images.dtype}")
        height, width = size = images.shape[1:3]
        moves = self.moves(seeds, size)
        matrices, of_mean = self.color.changes(seeds)
        patches = self.erasing.patches(seeds, size)
        is_moved = (moves != np.eye(2, 3)).any(axis=(1, 2))
        is_colored = (matrices != np.eye(3)).any(axis=(1, 2)) | of_mean.any(axis=(1, 2))
        planes = np.empty((len(images), 3, height, width), np.uint8)
        for at, image in enumerate(np.moveaxis(images, -1, 1)):
            seen = cv2.merge(list(image))
            if is_moved[at]:
                seen = cv2.warpAffine(seen, moves[at], (width, height))
            if is_colored[at]:
                added = of_mean[at] @ cv2.mean(seen)[:3]
                seen = cv2.transform(seen, np.column_stack([matrices[at], added]))
            cv2.split(seen, list(planes[at]))
            for rows, columns, color in patches[at]:
                planes[at, :, rows, columns] = color[:, None, None]
        return np.moveaxis(planes, 1, -1), None if masks is None else self._masks(masks, moves, patches)

    def _masks(self, masks: Pixels, moves: Floats, patches: list[list[tuple[slice, slice, Pixels]]]) -> Pixels:
        found = np.empty_like(masks)
        size = masks.shape[:0:-1]
        for at, mask in enumerate(masks):
            cv2.warpAffine(mask, moves[at], size, found[at], cv2.INTER_NEAREST, borderValue=self.outside)
            for rows, columns, _ in patches[at]:
                found[at, rows, columns] = self.outside
        return found
