"""Files become records: what is missing, broken or not what it says is reported in one sentence."""

import os
import warnings
from pathlib import Path
from typing import Literal, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
from torch import distributed

from facelightning.errors import DataFormatError, DataNotFoundError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Record(TypedDict, total=False):
    """What a data set knows of one image, at the file's own size; only the keys that the data set has.

    ``image`` (H,W,3) RGB · ``mask`` (H,W), 255 = ignore · ``attributes`` (A,) in {0,1}, NaN = unknown ·
    ``landmarks`` (5,2) x,y in pixels: left and right eye, nose, left and right mouth corner.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    attributes: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]
    identity: int
    name: str


def warn(message: str) -> None:
    """Warn once, however many processes read the same files."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0):
        warnings.warn(message, stacklevel=3)


HTML_HINT = "it is a web page, as a download service sends when its quota is exceeded: download the file again"

SUFFIXES = (".jpg", ".jpeg", ".png")
"""What an image file ends with."""

STORED_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
"""Masks and landmarks belong to the pixels as stored, so a note of the camera's orientation is not followed."""


def read_image(path: Path, flags: int = STORED_RGB) -> npt.NDArray[np.uint8]:
    """Read an image file as uint8, (H,W,3) RGB, or (H,W) with ``cv2.IMREAD_GRAYSCALE``.

    Raises:
        DataNotFoundError: If there is no such file.
        DataFormatError: If it cannot be decoded.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataNotFoundError(f"image {path} does not exist") from None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:
        raise DataFormatError(
            f"cannot decode {path}: OpenCV refuses it, for example for its number of pixels"
        ) from None
    if image is None:
        what = HTML_HINT if content.lstrip()[:1] == b"<" else f"its {len(content)} bytes are not an image"
        raise DataFormatError(f"cannot decode {path}: {what}")
    return image.astype(np.uint8, copy=False)


def existing_root(root: str | Path | None, what: str, example: str) -> Path:
    """The folder of the data set named ``what``, or one clear sentence about what to pass; ``example`` lies in it."""
    if root is None:
        raise DataNotFoundError(f"{what}: no data root given; pass its folder as `root` (it holds {example})")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise DataNotFoundError(f"{what}: data root {path} does not exist; pass the folder that holds {example}")
    return path


def read_lines(path: Path) -> list[str]:
    """The lines of a text file of a data set, whatever its line ends.

    Raises:
        DataFormatError: If it is empty, a web page or not text.
    """
    content = path.read_bytes()
    if content.lstrip()[:1] == b"<":
        raise DataFormatError(f"cannot read {path}: {HTML_HINT}")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataFormatError(f"cannot read {path}: it is not a text file; download it again") from None
    if not lines:
        raise DataFormatError(f"cannot read {path}: it is empty; download it again")
    return lines


def stem(name: str) -> str:
    """A file's name without its last suffix; what comes before may contain dots."""
    return name.rpartition(".")[0]


def list_images(folder: Path) -> dict[str, str]:
    """The names of all images in a folder by their stem, from one listing."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and name[0] != ".")
    return {stem(name): name for name in reversed(names)}  # of one stem's files the first, .jpg before .png
