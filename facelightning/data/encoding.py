"""Images as the bytes of files: their own if nothing is lost, or JPEG."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.data.decoding import promised_size
from facelightning.data.files import decode_image
from facelightning.errors import DataFormatError, reading

AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
"""As data sets read images."""

QUALITY = (
    cv2.IMWRITE_JPEG_QUALITY, 95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,  # colours at full resolution
)  # fmt: skip


def own_bytes(image: npt.NDArray[np.uint8], paths: Iterable[Path]) -> tuple[str, bytes] | None:
    """Suffix and bytes of the first of these files that is whole and exactly this image, ``(H, W, 3)`` RGB, if any."""
    for path in paths:
        with reading(path):
            content = path.read_bytes()
        if promised_size(content) != image.shape[1::-1]:  # most do not need a second decoding
            continue
        try:
            found, damage = decode_image(content, path, AS_STORED)
        except DataFormatError:
            continue
        if not damage and np.array_equal(found, image):
            return path.suffix[1:].lower(), content
    return None


def encoded(image: npt.NDArray[np.uint8]) -> bytes:
    """An image, ``(H, W, 3)`` RGB, as JPEG of quality 95: its pixels differ a little."""
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), QUALITY)[1].tobytes()
