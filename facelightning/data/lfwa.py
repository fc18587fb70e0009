"""LFWA (Liu et al., ICCV 2015): 13 thousand photographs of Labeled Faces in the Wild with CelebA's 40 attributes."""

import re
from pathlib import Path
from zlib import crc32

import h5py
import numpy as np
import numpy.typing as npt

from facelightning.data.files import HTML_HINT, SPLITS, SUFFIXES, Split, existing_root, warn
from facelightning.data.tables import AttributeDataset
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import ATTRIBUTES

LABELS, INDICES = "lfw_att_40.mat", "indices_train_test.mat"
FOLDERS = ("lfw", "lfw-deepfunneled", "lfw_funneled", "images", "")
"""Where the folders of the identities may lie, within the root."""

_VALIDATION_SHARE = 10  # percent of the training identities: LFWA itself has no validation split


class LFWA(AttributeDataset):
    """LFWA with its attributes and identities [1]_.

    Reads ``lfw_att_40.mat`` and ``indices_train_test.mat`` (MATLAB 7.3) and the images in a folder for each identity.
    LFWA has no validation split: a tenth of its training identities, chosen by a checksum of their names, is held out
    as ``val``. No identity is in two splits. ``name`` is ``PERSON/PERSON_0001.jpg``.

    Args:
        root: The folder of the two files, with the images in it or in a folder ``lfw`` within; never written to.
        split: Its part.

    Raises:
        DataNotFoundError: If a file, or every image, is missing.
        DataFormatError: If a file is not what it should be.

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """

    def __init__(self, root: str | Path | None, split: Split = "train") -> None:
        super().__init__(**vars(read_lfwa(root)[split]))


def read_lfwa(root: str | Path | None) -> dict[Split, AttributeDataset]:
    """All splits of :class:`LFWA`; what has no image is left out, with a warning."""
    root = existing_root(root, "LFWA", f"{LABELS}, {INDICES} and lfw")
    names, attributes = _read_labels(root / LABELS)
    splits = _read_splits(root / INDICES, len(names))
    persons = np.array([name.rpartition("/")[0] for name in names])
    held_out = np.array([crc32(person.encode()) % 100 < _VALIDATION_SHARE for person in persons])
    both = np.intersect1d(persons[splits == "train"], persons[splits == "test"])
    splits = np.where((splits == "train") & held_out, "val", splits)
    if len(both):
        warn(f"{root / INDICES} puts {len(both)} identities (such as {both[0]}) into training and test")

    folder = next((root / inner for inner in FOLDERS if any((root / inner / name).is_file() for name in names)), None)
    if folder is None:
        looked = ", ".join(str(root / inner) for inner in FOLDERS)
        raise DataNotFoundError(f"LFWA: no image such as {names[0]} in any of {looked}; unpack lfw.tgz there")
    exists = np.array([(folder / name).is_file() for name in names])
    absent = np.array(names)[~exists]
    if len(absent):
        warn(f"LFWA in {root}: {len(absent)} images (such as {absent[0]}) are not in {folder}; left out")
    _, identities = np.unique(persons, return_inverse=True)
    everything = AttributeDataset(folder, np.array(names), attributes, None, identities.astype(np.int64))
    return {split: everything.select((splits == split) & exists) for split in SPLITS}


def _read_labels(path: Path) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Images' names with ``/``, and their attributes ``(rows, 40)`` in {0,1}, in the order of ``ATTRIBUTES``."""
    with _open(path) as file:
        label, names, columns = (_item(file, key) for key in ("label", "name", "AttrName"))
        images = [text.replace("\\", "/") for text in _texts(names)]
        found = {_plain(text): column for column, text in enumerate(_texts(columns))}
        values = np.asarray(label, dtype=np.float64)
    bad = [name for name in images if not name.lower().endswith(SUFFIXES)]
    if bad:
        raise DataFormatError(f"{path}: expected images' names, found {bad[0]!r}")
    missing = [name for name in ATTRIBUTES if _plain(name) not in found]
    if missing:
        raise DataFormatError(f"{path}: no attribute is named {', '.join(missing)}")
    # MATLAB stores by columns: its (N, 40) is (40, N) in the file
    shape = (len(found), len(images))
    if values.shape not in (shape, shape[::-1]):
        raise DataFormatError(f"{path}: label is {values.shape}, for {shape[0]} attributes and {shape[1]} images")
    values = values.T if values.shape == shape else values
    values = values[:, [found[_plain(name)] for name in ATTRIBUTES]]
    negative = -1 if (values == -1).any() else 0
    wrong = np.argwhere((values != 1) & (values != negative))
    if len(wrong):
        row, column = wrong[0]
        raise DataFormatError(
            f"{path}: a label must be {negative} or 1, but {ATTRIBUTES[column]} of {images[row]} is "
            f"{values[row, column]:g}"
        )
    return images, (values == 1).astype(np.uint8)


def _read_splits(path: Path, count: int) -> npt.NDArray[np.str_]:
    """``train``, ``test`` or nothing for each image, from MATLAB's indices, which start at 1."""
    splits = np.full(count, "", dtype="U5")
    with _open(path) as file:
        for split in ("train", "test"):
            indices = np.asarray(_item(file, f"indices_img_{split}"), dtype=np.float64).ravel()
            bad = indices[(indices != indices.round()) | (indices < 1) | (indices > count)]
            if bad.size:
                raise DataFormatError(f"{path}: an image's number must lie in 1...{count}; found {bad[0]:g}")
            places = indices.astype(int) - 1
            taken = places[splits[places] != ""]
            if taken.size:
                raise DataFormatError(f"{path}: image {taken[0] + 1} is in both training and test")
            splits[places] = split
    return splits


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise DataNotFoundError(f"LFWA: {path} does not exist; it comes with LFWA's annotations")
    try:
        return h5py.File(path, "r")
    except OSError:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
        if start[:1] == b"<":
            what = HTML_HINT
        elif start.startswith(b"MATLAB 5.0"):
            what = "it is an older MATLAB file: save it with -v7.3"
        else:
            what = "it is damaged or no MATLAB 7.3 file: download it again"
        raise DataFormatError(f"cannot read {path}: {what}") from None


def _item(file: h5py.File, key: str) -> h5py.Dataset:
    if not isinstance(file.get(key), h5py.Dataset):
        there = ", ".join(sorted(set(file) - {"#refs#"})) or "nothing"
        raise DataFormatError(f"{file.filename} has no {key}; it holds {there}")
    return file[key]


def _texts(cells: h5py.Dataset) -> list[str]:
    """A MATLAB cell array of texts: references to arrays of UTF-16 code units."""
    try:
        return ["".join(map(chr, np.asarray(cells.file[cell]).ravel())) for cell in np.asarray(cells).ravel()]
    except (TypeError, ValueError, KeyError):
        raise DataFormatError(f"{cells.file.filename}: {cells.name.lstrip('/')} is no cell array of texts") from None


def _plain(name: str) -> str:
    """An attribute's name without case, spaces and punctuation, which differ between copies."""
    return re.sub(r"[^0-9a-z]", "", name.lower())
