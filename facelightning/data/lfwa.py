"""LFWA (Liu et al., ICCV 2015): 13 thousand photographs of Labeled Faces in the Wild with CelebA's 40 attributes."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import numpy as np
import numpy.typing as npt

from facelightning.data.files import (
    HTML_HINT,
    SPLITS,
    SUFFIXES,
    Split,
    check_file,
    existing_root,
    is_file_name,
    list_images,
    stem,
    warn,
)
from facelightning.data.tables import AttributeDataset
from facelightning.errors import DataFormatError, DataNotFoundError, FacelightningError, quoted, reading
from facelightning.labels import ATTRIBUTES

LABELS, INDICES = "lfw_att_40.mat", "indices_train_test.mat"
FOLDERS = ("lfw", "lfw-deepfunneled", "lfw_funneled", "images", "")
"""Folders inside the root that may hold the folders of the identities."""

MOST_IMAGES, MOST_ATTRIBUTES, LONGEST_TEXT, LARGEST_CHUNK = 100_000, 100, 1_000, 2**26
"""The most that a file may claim, the last in bytes; a damaged one may claim more than memory."""


class LFWA(AttributeDataset):
    """LFWA with its attributes and identities (Liu et al., ICCV 2015).

    Reads ``lfw_att_40.mat`` and ``indices_train_test.mat`` (MATLAB 7.3) and the images in a folder for each identity.
    LFWA has no validation split: a tenth of its training identities, chosen by a checksum of their names, is held out
    as ``val``. No identity is in two splits. ``name`` is the file's, ``PERSON/PERSON_0001.jpg``; the file may have
    another suffix than in ``lfw_att_40.mat``.

    Args:
        root: The folder of the two files and of the images, or of a folder ``lfw`` with the images; never written to.
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        DataNotFoundError: If an annotation file is missing, or all images are.
        DataFormatError: If a file has an unexpected format.
    """

    def __init__(self, root: str | Path | None, split: Split = "train") -> None:
        super().__init__(**vars(read_lfwa(root)[split]))


def read_lfwa(root: str | Path | None) -> dict[Split, AttributeDataset]:
    """The splits of :class:`LFWA`; entries without an image are left out, with a warning."""
    root = existing_root(root, "LFWA", f"{LABELS}, {INDICES} and lfw")
    with reading(root):
        names, attributes = _read_labels(root / LABELS)
        splits = _read_splits(root / INDICES, len(names))
        folder, files = _find_images(root, names)
    persons = np.array([name.rpartition("/")[0] for name in names])
    held_out = np.array([crc32(person.encode()) % 100 < 10 for person in persons])  # a tenth, for validation
    both = np.intersect1d(persons[splits == "train"], persons[splits == "test"])
    splits = np.where((splits == "train") & held_out, "val", splits)
    if len(both):
        warn(f"{root / INDICES} puts {len(both)} identities (such as {quoted(both[0])}) into training and test")
    absent = [name for name, file in zip(names, files, strict=True) if not file]
    if absent:
        warn(f"LFWA in {root}: {len(absent)} images (such as {quoted(absent[0])}) are not in {folder}; left out")
    _, identities = np.unique(persons, return_inverse=True)
    entries = AttributeDataset(folder, np.array(files), attributes, None, identities.astype(np.int64))
    everything = entries.select((splits != "") & (entries.names != ""))
    return {split: entries.select((splits == split) & (entries.names != "")) for split in SPLITS} | {"all": everything}


def _find_images(root: Path, names: list[str]) -> tuple[Path, list[str]]:
    """The folder of the identities' folders, and each image's file in it, with any suffix, or an empty string."""
    images = [stem(name).rpartition("/") for name in names]
    persons = {person for person, _, _ in images}
    for folder in (root / outer / inner for outer in FOLDERS for inner in ("", outer)):
        there = {person: list_images(folder / person) for person in persons if (folder / person).is_dir()}
        files = [there.get(person, {}).get(image) for person, _, image in images]
        if any(files):
            return folder, [f"{image[0]}/{file}" if file else "" for image, file in zip(images, files, strict=True)]
    places = ", ".join(filter(None, FOLDERS))
    raise DataNotFoundError(
        f"LFWA: no image such as {quoted(names[0])} in {root} or its {places}; unpack lfw.tgz there"
    )


def _read_labels(path: Path) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Images' names with ``/``, and their attributes ``(rows, 40)`` in {0,1}, in the order of ``ATTRIBUTES``."""
    with _opened(path) as file:
        names, found = _read_names(file), _read_columns(file)
        values = _array(file, "label", _item(file, "label"), "biuf", len(found) * len(names)).astype(np.float64)
    # MATLAB stores by columns: its (N, 40) is (40, N) in the file
    shape = (len(found), len(names))
    if values.shape not in (shape, shape[::-1]):
        raise DataFormatError(f"{path}: label is {values.shape}, for {shape[0]} attributes and {shape[1]} images")
    values = values.T if values.shape == shape else values
    values = values[:, [found[_plain(name)] for name in ATTRIBUTES]]
    negative = -1 if (values == -1).any() else 0
    wrong = np.argwhere((values != 1) & (values != negative))
    if len(wrong):
        row, column = wrong[0]
        raise DataFormatError(
            f"{path}: a label must be {negative} or 1, but {ATTRIBUTES[column]} of {quoted(names[row])} is "
            f"{values[row, column]:g}"
        )
    return names, (values == 1).astype(np.uint8)


def _read_names(file: h5py.File) -> list[str]:
    """The images' names with ``/``, of which no two name the same file."""
    images: dict[str, str] = {}  # by name without suffix: a copy may hold .png instead of .jpg
    for text in _texts(file, "name", MOST_IMAGES):
        name = text.replace("\\", "/")
        if not (name.lower().endswith(SUFFIXES) and "/" in name and all(map(is_file_name, name.split("/")))):
            raise DataFormatError(
                f"{file.filename}: expected images' names, found '{quoted(name)}', unlike PERSON/PERSON_0001.jpg"
            )
        if stem(name) in images:
            raise DataFormatError(f"{file.filename}: name lists '{quoted(name)}' twice; remove one of them")
        images[stem(name)] = name
    if not images:
        raise DataFormatError(f"{file.filename}: name lists no image; download it again")
    return list(images.values())


def _read_columns(file: h5py.File) -> dict[str, int]:
    """The column of each attribute, by its plain name."""
    found: dict[str, int] = {}
    for column, text in enumerate(_texts(file, "AttrName", MOST_ATTRIBUTES)):
        if _plain(text) in found:
            raise DataFormatError(f"{file.filename}: AttrName lists '{quoted(text)}' twice; remove one of them")
        found[_plain(text)] = column
    missing = [name for name in ATTRIBUTES if _plain(name) not in found]
    if missing:
        raise DataFormatError(f"{file.filename}: no attribute is named {quoted(', '.join(missing))}")
    return found


def _read_splits(path: Path, count: int) -> npt.NDArray[np.str_]:
    """``train``, ``test`` or an empty string for each image, from MATLAB's indices, which start at 1."""
    splits = np.full(count, "", dtype="U5")
    with _opened(path) as file:
        for split in ("train", "test"):
            key = f"indices_img_{split}"
            indices = _array(file, key, _item(file, key), "iuf", count).astype(np.float64).ravel()
            bad = indices[(indices != indices.round()) | (indices < 1) | (indices > count)]
            if bad.size:
                raise DataFormatError(f"{path}: an image's number must lie in 1...{count}; found {bad[0]:g}")
            numbers, counts = np.unique(indices, return_counts=True)
            if (counts > 1).any():
                raise DataFormatError(f"{path}: {key} lists image {numbers[counts.argmax()]:.0f} twice")
            places = indices.astype(int) - 1
            taken = places[splits[places] != ""]
            if taken.size:
                raise DataFormatError(f"{path}: image {taken[0] + 1} is in both training and test")
            splits[places] = split
    return splits


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a MATLAB 7.3 file for reading; any error that HDF5 raises becomes one sentence."""
    if not (path.exists() or path.is_symlink()):
        raise DataNotFoundError(f"LFWA: {path} does not exist; it comes with LFWA's annotations")
    check_file(path)
    with path.open("rb") as start_of_file:
        start = start_of_file.read(64).lstrip()
    try:
        with h5py.File(path, "r", locking=False) as file:  # some network drives refuse locks
            yield file
    except FacelightningError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:  # what h5py raises
        if start[:1] == b"<":
            what = HTML_HINT
        elif start.startswith(b"MATLAB 5.0"):
            what = "it is an older MATLAB file: save it with -v7.3"
        else:
            what = "it is damaged or no MATLAB 7.3 file: download it again"
        raise DataFormatError(f"cannot read {path}: {what}") from error


def _item(file: h5py.File, key: str) -> object:
    """What ``key`` names in the file; ``None`` if it is only a link, which may lead to another file."""
    link = file.get(key, getlink=True)
    if link is None:
        there = ", ".join(sorted(set(file) - {"#refs#"})) or "nothing"
        raise DataFormatError(f"{file.filename} has no {key}; it holds {quoted(there)}")
    return file[key] if isinstance(link, h5py.HardLink) else None


def _array(file: h5py.File, key: str, item: object, kinds: str, largest: int) -> npt.NDArray[Any]:
    """The content of an array of ``key``, after a check of its type, place and size.

    An array may be stored in other files, and a small file may claim an array that no memory holds.

    Args:
        file: The file.
        key: The key that it belongs to, for error messages.
        item: The array, to be checked.
        kinds: NumPy's letters for the types that it may have, ``R`` for references.
        largest: The most elements that it may have.
    """
    if isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external and item.size is not None:
        dtype = item.dtype  # h5py makes it anew each time
        kind = "R" if h5py.check_ref_dtype(dtype) is h5py.Reference else dtype.kind
        chunk = math.prod(item.chunks or ()) * dtype.itemsize
        if kind in kinds and item.size <= largest and chunk <= LARGEST_CHUNK:
            return np.asarray(item[()])
    what = "array of numbers" if "f" in kinds else "cell array of texts"
    raise DataFormatError(f"{file.filename}: {key} is no {what} in this file with at most {largest:,} elements")


def _texts(file: h5py.File, key: str, most: int) -> Iterator[str]:
    """The texts of a MATLAB cell array: references to arrays of UTF-16 code units."""
    for cell in _array(file, key, _item(file, key), "R", most).ravel():
        codes = _array(file, key, file[cell], "u", LONGEST_TEXT)
        yield codes.astype("<u2", casting="safe").tobytes().decode("utf-16-le")


def _plain(name: str) -> str:
    """An attribute's name without case, spaces and punctuation, which differ between copies."""
    return re.sub(r"[\W_]", "", name.lower())
