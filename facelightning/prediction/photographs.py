"""A photograph as people have it: a file, a Pillow image, an array, a tensor."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from facelightning.data.files import read_image
from facelightning.errors import DataFormatError, quoted
from facelightning.models.blocks import as_floats

Image = npt.NDArray[np.uint8]
Source: TypeAlias = str | Path | Pillow.Image | npt.NDArray[Any] | Tensor
"""A path, a Pillow image, an array ``(H, W, 3)``, or a tensor ``(3, H, W)``."""


def is_one(images: Any) -> TypeGuard[Source]:
    """Whether it is a single photograph, not several."""
    one = isinstance(images, str | Path | Pillow.Image) or getattr(images, "ndim", 4) < 4
    return one or not isinstance(images, Iterable)


def named(images: Iterable[Source]) -> Iterator[tuple[str, Source]]:
    """Photographs with their names: a file's is its path, that of any other its number."""
    for number, image in enumerate(images):
        yield str(image if isinstance(image, str | Path) else number), image


def as_image(source: Any) -> Image:
    """A photograph as an array ``(H, W, 3)``, uint8, RGB, upright as its camera was held.

    Args:
        source: A path; a Pillow image; an array ``(H, W, 3)``, uint8, RGB; a tensor ``(3, H, W)``, RGB, uint8, or float
            in [0, 1]. Transparency is left out.

    Raises:
        DataNotFoundError: If there is no such file, or it cannot be read.
        DataFormatError: If a file cannot be decoded, or an array or tensor is another one.

    Example:
        >>> import torch
        >>> as_image(torch.ones(3, 1, 2)).tolist()
        [[[255, 255, 255], [255, 255, 255]]]
        >>> as_image(np.zeros((4, 3)))
        Traceback (most recent call last):
        facelightning.errors.DataFormatError: an image must be (H, W, 3), uint8, RGB; found (4, 3), float64: convert it
    """
    if isinstance(source, str | Path):
        return read_image(Path(source).expanduser(), cv2.IMREAD_COLOR_RGB)
    if isinstance(source, Pillow.Image):
        return _of_pillow(source)
    if isinstance(source, Tensor):
        floats = as_floats(source.detach()[None], torch.float32)[0]  # refuses all others
        pixels = (255 * floats).round() if source.is_floating_point() else source
        source = pixels.byte().permute(1, 2, 0).cpu().numpy()
    if not isinstance(source, np.ndarray):
        kind = quoted(type(source).__name__)
        raise DataFormatError(f"{kind} is no image: give a path, a Pillow image, an array or a tensor")
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
        found = f"{source.shape}, {source.dtype}"
        raise DataFormatError(f"an image must be (H, W, 3), uint8, RGB; found {found}: convert it")
    return np.ascontiguousarray(source)


def _of_pillow(image: Pillow.Image) -> Image:
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # Pillow would cut off all above 255
            image = Pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise DataFormatError(f"a Pillow image of mode {image.mode} has no range of its own: convert it to RGB")
        return np.array(image.convert("RGB"))
    except OSError as error:  # Pillow decodes late
        reason = quoted(str(error))
        raise DataFormatError(f"cannot decode a Pillow image: {reason}; copy or download it again") from None
