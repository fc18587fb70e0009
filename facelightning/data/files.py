"""Files become records: a missing, broken or mislabelled file is reported in one sentence."""

import codecs
import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

import cv2
import numpy as np
import numpy.typing as npt
from torch import distributed

from facelightning.data.decoding import MAX_PIXELS, decode, fault, promised_size
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError, ending, quoted, reading

Split = Literal["train", "val", "test", "all"]
"""A part of a data set; data sets with attributes also have all their images as one."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Record(TypedDict, total=False):
    """What a data set knows about one image, at the file's own size; only the keys that the data set has.

    ``image`` (H,W,3) RGB · ``mask`` (H,W), 255 = ignore · ``attributes`` (A,) in {0,1}, NaN = unknown ·
    ``landmarks`` (5,2) x,y in pixels: left and right eye, nose, left and right mouth corner ·
    ``box`` (4,) of the face: x0,y0,x1,y1 in pixels, right and bottom excluded, NaN = unknown · ``category`` the
    index of its name in the data set's list · ``age`` in years, NaN = unknown · ``is_cut`` if ``image`` is not the
    file's whole one.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    attributes: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]
    box: npt.NDArray[np.float32]
    identity: int
    category: int
    age: float
    name: str
    is_cut: bool


Columns = dict[str, npt.NDArray[Any]]
"""What a data set knows about all of its N images: by a record's keys, arrays with a first dimension N."""


class Records(Protocol):
    """One split of a data set."""

    @property
    def names(self) -> Sequence[str] | npt.NDArray[np.str_]:
        """The name of each image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


@runtime_checkable
class FileRecords(Records, Protocol):
    """One split of a data set whose images can be cached: it says what they depend on, and the rest without them."""

    @property
    def reading(self) -> str:
        """What a record's image, mask, landmarks and box depend on beside files and columns."""

    @property
    def columns(self) -> Columns:
        """What is known without opening an image, but for the names."""

    def sources(self, index: int) -> list[Path]:
        """The files that a record's image and mask are read from."""


class IdentityRecords(Records, Protocol):
    """One split of a data set that may know identities."""

    @property
    def identities(self) -> npt.NDArray[np.int64] | None:
        """The identity of each image, as a number."""


def with_sources(records: Records) -> FileRecords:
    """The same records, if their images can be cached.

    Raises:
        ConfigurationError: If not.
    """
    if isinstance(records, FileRecords):
        return records
    raise ConfigurationError(
        f"cache: {type(records).__name__} does not say what its images are read from: give it `reading`, `columns` and "
        "`sources`, as FileRecords has them, or leave data.cache out"
    )


class DerivedRecords:
    """Base of the records that are made of others, one of each; they can be cached if those can.

    Args:
        records: The others.
        change: What is made of them, as text. Two changes with different results need different texts.
    """

    def __init__(self, records: Records, change: str) -> None:
        self.records, self.change = records, change

    def __len__(self) -> int:
        return len(self.records)

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """The name of each image."""
        return np.asarray(self.records.names)

    @property
    def reading(self) -> str:
        """How the others are read, and what is made of them."""
        return f"{with_sources(self.records).reading} {self.change}"

    @property
    def columns(self) -> Columns:
        """What the others know without opening an image."""
        return with_sources(self.records).columns

    def sources(self, index: int) -> list[Path]:
        """The files that a record is read from."""
        return with_sources(self.records).sources(index)


def warn(message: str) -> None:
    """Warn once, even if several processes read the same files."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0):
        warnings.warn(message, stacklevel=3)


HTML_HINT = "it is a web page, as a download service sends when its quota is exceeded: download the file again"

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jp2", ".j2k",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Suffixes of image files that OpenCV decodes, in lower case; of two files with one stem the earlier one is taken."""

MAX_BYTES = 8 * MAX_PIXELS
"""No image of so many pixels has more: four channels of 16 bits."""


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION) -> npt.NDArray[np.uint8]:
    """Read an image file as uint8, (H,W,3) RGB, or (H,W) with ``cv2.IMREAD_GRAYSCALE``.

    By default the camera's orientation tag is ignored, because masks and landmarks refer to the pixels as stored.
    Warns if a decoder finds damage in it.

    Raises:
        DataNotFoundError: If there is no such file, or it cannot be read.
        DataFormatError: If it cannot be decoded, or has more than ``MAX_PIXELS``.
    """
    check_file(path)
    with reading(path):
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_BYTES else b""
    if size > MAX_BYTES:
        raise DataFormatError(_too_large(path, f"{size} bytes"))
    image, damage = decode_image(content, path, flags)
    if damage:
        warnings.warn(f"{ending(path)} is damaged, and many of its pixels may be wrong: {quoted(damage)}", stacklevel=3)
    return image


def decode_image(content: bytes, path: Path, flags: int) -> tuple[npt.NDArray[np.uint8], str]:
    """The image in the bytes of a file, as :func:`read_image` reads it, and the damage that its decoder found.

    Raises:
        DataFormatError: If it cannot be decoded, or has more than ``MAX_PIXELS``; the message names ``path``.

    Example:
        >>> decode_image(b"<html>", Path("a.jpg"), cv2.IMREAD_COLOR_RGB)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.DataFormatError: cannot decode a.jpg: it is a web page, ...
    """
    width, height = promised_size(content)
    if width * height > MAX_PIXELS:
        raise DataFormatError(_too_large(path, f"{width}×{height} pixels"))
    try:
        image, damage = decode(content, flags) if content else (None, "")
    except cv2.error:
        raise DataFormatError(f"cannot decode {ending(path)}: OpenCV refuses it; save it as PNG or JPEG") from None
    if image is None:
        what = HTML_HINT if content[:1000].lstrip()[:1] == b"<" else fault(content)
        raise DataFormatError(f"cannot decode {ending(path)}: {what}")
    return image.astype(np.uint8, copy=False), damage


def _too_large(path: Path, much: str) -> str:
    limit = f"the limit of {MAX_PIXELS // 10**6} megapixels"
    return f"cannot decode {ending(path)}: {much} are above {limit}; scale it down"


def existing_root(root: str | Path | None, what: str, example: str) -> Path:
    """The folder of the data set named ``what``; an error about a missing one says that it must hold ``example``."""
    if root is None:
        raise DataNotFoundError(f"{what}: no data root given; pass its folder as `root` (it holds {example})")
    path = Path(os.path.expanduser(root))
    with reading(path):
        found = path.is_dir()
    if not found:
        reason = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataNotFoundError(f"{what}: data root {ending(path)} {reason}; pass the folder that holds {example}")
    return path


def is_file_name(name: str) -> bool:
    """Whether a listed name is a plain file name on every system: neither a path nor a drive, and not too long."""
    safe = name.isprintable() and name not in ("", ".", "..") and set("/\\:").isdisjoint(name)
    return safe and len(name.encode()) <= 255


def check_file(path: Path) -> None:
    """Refuse anything but a regular file before opening it: opening a pipe would block.

    Raises:
        DataNotFoundError: If it does not exist, or is a folder or a device.
    """
    with reading(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "folder" if stat.S_ISDIR(mode) else "device"
        raise DataNotFoundError(f"cannot read {ending(path)}: it is a {what}, not a file; put the file in its place")


def read_lines(path: Path) -> list[str]:
    """The lines of a data set's text file, with any line endings.

    Raises:
        DataNotFoundError: If there is no such file, or it cannot be read.
        DataFormatError: If it is empty, a web page or not text in UTF-8.
    """
    check_file(path)
    with reading(path):
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if content[:1000].lstrip()[:1] == b"<":
        raise DataFormatError(f"cannot read {path}: {HTML_HINT}")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or content[:2].count(0) == 1:
        raise DataFormatError(f"cannot read {path}: it is UTF-16: save it as UTF-8")
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise DataFormatError(f"cannot read {path}: it is not a text file; download it again") from None
    if not lines:
        raise DataFormatError(f"cannot read {path}: it is empty; download it again")
    if b"\0" in content:
        number = next(number for number, line in enumerate(lines, start=1) if "\0" in line)
        raise DataFormatError(f"{path}, line {number}: it holds NUL bytes, so it is damaged; download it again")
    return lines


def stem(name: str) -> str:
    """A file's name without its last suffix; the rest may contain dots."""
    return name.rpartition(".")[0]


def list_images(folder: Path) -> dict[str, str]:
    """The names of all images in a folder by their stem, from one listing."""
    with reading(folder):
        names = [name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and name[0] != "."]
    names.sort(key=lambda name: (SUFFIXES.index(os.path.splitext(name)[1].lower()), name))
    return {stem(name): name for name in reversed(names)}  # the first file of each stem wins: .jpg before .png
