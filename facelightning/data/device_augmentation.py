"""Augmentation of whole batches on the network's device, such as a GPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from facelightning.data.batch_augmentation import BatchAugmentation, Floats, Pixels
from facelightning.errors import ConfigurationError


class DeviceAugmentation(BatchAugmentation):
    """What :class:`BatchAugmentation` does, with the same numbers for the same seeds, where the network computes.

    A loader moves landmarks and boxes, and gives images and masks as they are, with their seeds. The data module
    augments these once Lightning has moved the batch to its device, so a trainer needs the data module, not its loader.
    Pixels differ by roundings. A single sample of a data set is augmented at once, on the processor.

    Example:
        >>> images = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
        >>> images, _ = DeviceAugmentation(mirror=1).augmented(images, None, seeds=[0])
        >>> images[0, 0].tolist()
        [[1, 0], [3, 2]]
    """

    def __call__(self, images: Pixels, masks: Pixels | None, seeds: Sequence[int]) -> tuple[Pixels, Pixels | None]:
        """Augment a batch of arrays, as of :class:`BatchAugmentation`."""
        planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
        found, classes = self.augmented(planes, None if masks is None else torch.from_numpy(masks), seeds)
        return np.moveaxis(found.numpy(), 1, -1), None if classes is None else classes.numpy()

    def augmented(self, images: Tensor, masks: Tensor | None, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Augment a batch on its device.

        Args:
            images: ``(B, 3, H, W)`` RGB, uint8.
            masks: Classes ``(B, H, W)`` of any integer type, if there are any.
            seeds: One for each image, in [0, 2⁶⁴).

        Returns:
            Images and masks of the same types, new ones where anything is done to them.

        Raises:
            ConfigurationError: If the images are not uint8.
        """
        if images.dtype != torch.uint8:
            raise ConfigurationError(f"{type(self).__name__} takes images of bytes, not of {images.dtype}")
        height, width = images.shape[-2:]
        moves = self.moves(seeds, (height, width))
        if (moves != np.eye(2, 3)).any():
            places = _places(moves, images)
            images = _rounded(grid_sample(images.float(), places, align_corners=False))
            if masks is not None:  # beyond the image, grid_sample gives 0
                classes = (masks.float() - self.outside)[:, None]
                nearest = grid_sample(classes, places, "nearest", align_corners=False)[:, 0]
                masks = (nearest + self.outside).to(masks.dtype)
        matrices, of_mean = self.color.changes(seeds)
        if (matrices != np.eye(3)).any() or of_mean.any():
            images = _colored(images, matrices, of_mean)
        return self._erased(images, masks, seeds)

    def _erased(self, images: Tensor, masks: Tensor | None, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """With one patch after another, in all images at once."""
        height, width = images.shape[-2:]
        patches = self.erasing.patches(seeds, (height, width))
        row, column = torch.arange(height, device=images.device)[:, None], torch.arange(width, device=images.device)
        for place in range(max(map(len, patches))):
            corners, colors = np.zeros((4, len(patches), 1, 1), int), np.zeros((len(patches), 3, 1, 1), np.uint8)
            for at, each in enumerate(patches):
                for rows, columns, color in each[place : place + 1]:  # none, if it has fewer
                    corners[:, at, 0, 0] = rows.start, rows.stop, columns.start, columns.stop
                    colors[at, :, 0, 0] = color
            top, bottom, left, right = _sent(corners, images)
            covered = (row >= top) & (row < bottom) & (column >= left) & (column < right)
            images = torch.where(covered[:, None], _sent(colors, images), images)
            masks = None if masks is None else masks.masked_fill(covered, self.outside)
        return images, masks


def _sent(array: npt.NDArray[Any], images: Tensor) -> Tensor:
    """A small array on the images' device, without waiting for it."""
    return torch.from_numpy(array).to(images.device, non_blocking=True)


# Sums are written out below: a matrix product may round otherwise in another batch.


def _places(moves: Floats, images: Tensor) -> Tensor:
    """For ``grid_sample``, ``(B, H, W, 2)``: where each pixel comes from, from -1 to 1 between the image's edges."""
    height, width = images.shape[-2:]
    size = np.array([width, height])
    centre = (size - 1) / 2
    linear = np.linalg.inv(moves[..., :2])
    shift = linear @ (centre - moves[..., 2])[..., None] - centre[:, None]
    scaled = np.concatenate([linear, shift], axis=2) * (2 / size[:, None])  # (B, 2, 3)
    of_x, of_y, added = _sent(np.moveaxis(scaled, 2, 0)[:, :, None, None].astype(np.float32), images)
    x = torch.arange(width, dtype=torch.float32, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32, device=images.device) - (height - 1) / 2
    places: Tensor = of_x * x[:, None] + of_y * y[:, None, None] + added
    return places


def _colored(images: Tensor, matrices: Floats, of_mean: Floats) -> Tensor:
    """Of each pixel the product with a matrix, ``(B, 3, 3)``, plus that of the image's mean with another."""
    means = images.sum(dim=(2, 3), keepdim=True) / images[0, 0].numel()  # integers: exact sums
    colors, means = images.float(), means.float()
    of_pixel, of_image = (_sent(each[..., None, None].astype(np.float32), images) for each in (matrices, of_mean))
    found = of_image[:, :, 0] * means[:, :1] + of_image[:, :, 1] * means[:, 1:2] + of_image[:, :, 2] * means[:, 2:]
    for column in range(3):
        found = found + of_pixel[:, :, column] * colors[:, column, None]
    return _rounded(found)


def _rounded(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)
