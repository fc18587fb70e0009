"""LFWA (Liu et al., ICCV 2015): 13 thousand photographs of Labeled Faces in the Wild with CelebA's 40 attributes."""

import re
from pathlib import Path
from zlib import crc32

import albumentations as A
import h5py
import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_warn

from facelightning.data.datamodule import FaceDataModule, Split
from facelightning.data.files import HTML_HINT, SUFFIXES, existing_root
from facelightning.data.tables import AttributeReader
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import ATTRIBUTES

LABELS, INDICES = "lfw_att_40.mat", "indices_train_test.mat"
FOLDERS = ("lfw", "lfw-deepfunneled", "lfw_funneled", "images", "")
"""Where the folders of the persons may lie, within the root."""

_VALIDATION_SHARE = 10  # percent of the training persons: LFWA itself has no validation split


class LFWADataModule(FaceDataModule):
    """LFWA with its attributes and persons [1]_.

    Reads ``lfw_att_40.mat`` and ``indices_train_test.mat`` (MATLAB 7.3) and the pictures in a folder for each person.
    LFWA has no validation split: a tenth of its training persons, chosen by a checksum of their names, is held out as
    ``val``. No person is in two splits. ``name`` is ``PERSON/PERSON_0001.jpg``.

    Args:
        root: The folder of the two files, with the pictures in it or in a folder ``lfw`` within; never written to.
        image_size: As the others, see :class:`~facelightning.data.datamodule.FaceDataModule`.
        batch_size: See there.
        num_workers: See there.
        augmentations: See there.
        seed: See there.

    Raises:
        DataNotFoundError: On set-up, if a file, or every picture, is missing.
        DataFormatError: On set-up, if a file is not what it should be.

    Example:
        >>> data = LFWADataModule("~/lfwa", image_size=(109, 89))
        >>> data.setup("test")  # doctest: +SKIP
        >>> next(iter(data.test_dataloader()))["attributes"].shape  # doctest: +SKIP
        torch.Size([32, 40])

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """

    def __init__(
        self,
        root: str | None = None,
        image_size: tuple[int, int] = (218, 178),
        batch_size: int = 32,
        num_workers: int = 2,
        augmentations: list[A.BasicTransform] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, augmentations, seed)
        self.root = root
        self._readers: dict[Split, AttributeReader] | None = None

    def reader(self, split: Split) -> AttributeReader:
        """The records of one split; the files are read at the first call, for all splits."""
        if self._readers is None:
            self._readers = read_lfwa(existing_root(self.root, "LFWA", f"{LABELS}, {INDICES} and lfw"))
        return self._readers[split]

    def positive_rates(self) -> npt.NDArray[np.float32]:
        """How often each attribute occurs in the training split, ``(40,)``."""
        return self.reader("train").positive_rates()


def read_lfwa(root: Path) -> dict[Split, AttributeReader]:
    """Read both files and join them with the pictures; what has no picture is left out, with a warning.

    Raises:
        DataNotFoundError: If a file, or every picture, is missing.
        DataFormatError: If a file does not hold what it should.
    """
    names, attributes = _read_labels(root / LABELS)
    splits = _read_splits(root / INDICES, len(names))
    persons = np.array([name.rpartition("/")[0] for name in names])
    held_out = np.array([crc32(person.encode()) % 100 < _VALIDATION_SHARE for person in persons])
    splits = np.where((splits == "train") & held_out, "val", splits)
    both = set(persons[splits == "test"]) & set(persons[np.isin(splits, ("train", "val"))])
    if both:
        rank_zero_warn(f"{root / INDICES} puts {len(both)} persons (such as {min(both)}) into training and test")

    folder = next((root / inner for inner in FOLDERS if any((root / inner / name).is_file() for name in names)), None)
    if folder is None:
        looked = ", ".join(str(root / inner) for inner in FOLDERS)
        raise DataNotFoundError(f"LFWA: no picture such as {names[0]} in any of {looked}; unpack lfw.tgz there")
    exists = np.array([(folder / name).is_file() for name in names])
    absent = [name for name, there in zip(names, exists, strict=True) if not there]
    if absent:
        rank_zero_warn(f"LFWA in {root}: {len(absent)} pictures (such as {absent[0]}) are not in {folder}; left out")
    _, identities = np.unique(persons, return_inverse=True)
    everything = AttributeReader(folder, np.array(names), attributes, None, identities.astype(np.int64))
    chosen: tuple[Split, ...] = ("train", "val", "test")
    return {split: everything.select((splits == split) & exists) for split in chosen}


def _read_labels(path: Path) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Pictures' names with ``/``, and their attributes ``(rows, 40)`` in {0,1}, in the order of ``ATTRIBUTES``."""
    with _open(path) as file:
        label, names, columns = (_item(file, key, path) for key in ("label", "name", "AttrName"))
        pictures = [text.replace("\\", "/") for text in _texts(file, names, path)]
        found = {_plain(text): column for column, text in enumerate(_texts(file, columns, path))}
        values = np.asarray(label, dtype=np.float64)
    bad = [name for name in pictures if not name.lower().endswith(SUFFIXES)]
    if bad:
        raise DataFormatError(f"{path}: expected pictures' names, found {bad[0]!r}")
    missing = [name for name in ATTRIBUTES if _plain(name) not in found]
    if missing:
        raise DataFormatError(f"{path}: no attribute is named {', '.join(missing)}")
    # MATLAB stores by columns: its (N, 40) is (40, N) in the file
    shape = (len(found), len(pictures))
    if values.shape not in (shape, shape[::-1]):
        raise DataFormatError(f"{path}: label is {values.shape}, for {shape[0]} attributes and {shape[1]} pictures")
    values = values.T if values.shape == shape else values
    values = values[:, [found[_plain(name)] for name in ATTRIBUTES]]
    negative = -1 if (values == -1).any() else 0
    wrong = np.argwhere((values != 1) & (values != negative))
    if len(wrong):
        row, column = wrong[0]
        raise DataFormatError(
            f"{path}: a label must be {negative} or 1, but {ATTRIBUTES[column]} of {pictures[row]} is "
            f"{values[row, column]:g}"
        )
    return pictures, (values == 1).astype(np.uint8)


def _read_splits(path: Path, count: int) -> npt.NDArray[np.str_]:
    """``train``, ``test`` or nothing for each picture, from MATLAB's indices, which start at 1."""
    splits = np.full(count, "", dtype="U5")
    with _open(path) as file:
        for split in ("train", "test"):
            indices = np.asarray(_item(file, f"indices_img_{split}", path), dtype=np.float64).ravel()
            bad = indices[(indices != indices.round()) | (indices < 1) | (indices > count)]
            if bad.size:
                raise DataFormatError(f"{path}: a picture's number must lie in 1...{count}; found {bad[0]:g}")
            places = indices.astype(int) - 1
            if (splits[places] != "").any():
                twice = int(places[splits[places] != ""][0]) + 1
                raise DataFormatError(f"{path}: picture {twice} is in both training and test")
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


def _item(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    if key not in file or not isinstance(file[key], h5py.Dataset):
        raise DataFormatError(f"{path} has no {key}; it holds {', '.join(sorted(set(file) - {'#refs#'})) or 'nothing'}")
    return file[key]


def _texts(file: h5py.File, cells: h5py.Dataset, path: Path) -> list[str]:
    """A MATLAB cell array of texts: references to arrays of UTF-16 code units."""
    try:
        return ["".join(map(chr, np.asarray(file[cell]).ravel())) for cell in np.asarray(cells).ravel()]
    except (TypeError, ValueError, KeyError):
        raise DataFormatError(f"{path}: {cells.name.lstrip('/')} is no cell array of texts") from None


def _plain(name: str) -> str:
    """An attribute's name without case, spaces and punctuation, which differ between copies."""
    return re.sub(r"[^0-9a-z]", "", name.lower())
