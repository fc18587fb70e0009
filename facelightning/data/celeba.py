"""CelebA (Liu et al., ICCV 2015): 202,599 photographs of 10,177 people with 40 attributes and five landmarks each."""

from pathlib import Path
from typing import Literal

import albumentations as A
import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_warn

from facelightning.data.datamodule import FaceDataModule, Split
from facelightning.data.files import existing_root, list_pictures
from facelightning.data.tables import AnnotationTable, AttributeReader
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import ATTRIBUTES

PARTITION: tuple[Split, ...] = ("train", "val", "test")
"""The split that each number in ``list_eval_partition.txt`` stands for."""

IMAGE_FOLDERS = {"aligned": ("img_align_celeba", "img_align_celeba_png"), "wild": ("img_celeba",)}
LANDMARK_FILES = {"aligned": "list_landmarks_align_celeba", "wild": "list_landmarks_celeba"}


def read_attributes(path: Path) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Pictures' names without suffix and their 40 attributes, ``(rows, 40)`` in {0,1}, in the order of ``ATTRIBUTES``.

    Raises:
        DataFormatError: If an attribute has no column, or a label is neither −1/1 nor, throughout the file, 0/1.
    """
    table = AnnotationTable.read(path, "labels")
    missing = [name for name in ATTRIBUTES if name not in table.columns]
    if missing:
        raise DataFormatError(f"{path}: no column is named {', '.join(missing)}")
    if table.columns != list(ATTRIBUTES):
        order = [table.columns.index(name) for name in ATTRIBUTES]
        table = AnnotationTable(path, list(ATTRIBUTES), table.names, table.values[:, order], table.lines)
    negative = -1 if (table.values == -1).any() else 0
    bad = (table.values != 1) & (table.values != negative)
    if bad.any():
        raise table.error(bad, f"a label must be {negative} or 1")
    return table.names, (table.values == 1).astype(np.uint8)


def read_partition(path: Path) -> dict[str, int]:
    """For each picture's name, without suffix, its place in ``PARTITION``.

    Raises:
        DataFormatError: If a number is not 0, 1 or 2.
    """
    table = AnnotationTable.read(path, "partition number", 1)
    bad = ~np.isin(table.values, range(len(PARTITION)))
    if bad.any():
        raise table.error(bad, "a partition number must be 0 (training), 1 (validation) or 2 (test)")
    return dict(zip(table.names, table.values[:, 0].astype(int).tolist(), strict=True))


def find_annotation(root: Path, name: str) -> Path | None:
    """An annotation file, ``.txt`` before ``.csv``, in the official folders or in the root itself."""
    places = [root / folder / f"{name}{suffix}" for suffix in (".txt", ".csv") for folder in ("Anno", "Eval", "")]
    return next((path for path in places if path.is_file()), None)


def required_annotation(root: Path, name: str) -> Path:
    """The same of a file that no run can do without.

    Raises:
        DataNotFoundError: If it is in none of these places.
    """
    path = find_annotation(root, name)
    if path is None:
        raise DataNotFoundError(
            f"CelebA: no {name}.txt or {name}.csv in {root} or its Anno or Eval folder; copy it there"
        )
    return path


def find_images(root: Path, images: Literal["aligned", "wild"]) -> tuple[Path, dict[str, str]]:
    """The folder of the pictures and their names by stem.

    Raises:
        DataNotFoundError: If no such folder holds a picture.
    """
    names = IMAGE_FOLDERS[images]
    # Kaggle's archive has the folder within a folder of the same name
    places = [root / parent / name / inner for parent in ("Img", "") for name in names for inner in (name, "")]
    for folder in places:
        if folder.is_dir() and (pictures := list_pictures(folder)):
            return folder, pictures
    raise DataNotFoundError(
        f"CelebA: no folder with the {images} pictures: looked for .jpg or .png files in {' or '.join(names)} "
        f"in {root} and {root / 'Img'}; unpack the archive of the pictures there"
    )


def read_celeba(root: Path, images: Literal["aligned", "wild"]) -> dict[Split, AttributeReader]:
    """Read all annotation files and join them by the pictures' names.

    What is not in all of attributes, partition and picture folder is left out, with one warning that counts it.

    Raises:
        DataNotFoundError: If a file that every run needs is missing.
        DataFormatError: If an annotation file does not hold what it should, or no picture is left.
    """
    attributes_path = required_annotation(root, "list_attr_celeba")
    partition_path = required_annotation(root, "list_eval_partition")
    folder, pictures = find_images(root, images)
    names, attributes = read_attributes(attributes_path)
    partition = read_partition(partition_path)

    rows = [row for row, name in enumerate(names) if name in partition and name in pictures]
    joined = [names[row] for row in rows]
    notes = []
    known = set(names)
    for what, absent in (
        (f"without a picture in {folder}", [name for name in names if name not in pictures]),
        (f"not in {partition_path.name}", [name for name in names if name not in partition]),
        (f"in {partition_path.name}, but not in {attributes_path.name}", [n for n in partition if n not in known]),
        (f"in {folder}, but not in {attributes_path.name}", [name for name in pictures if name not in known]),
    ):
        if absent:
            notes.append(f"{len(absent)} {what} (such as {absent[0]})")
    if not rows:
        raise DataFormatError(f"CelebA in {root}: no picture is left: {'; '.join(notes)}")

    everything = AttributeReader(
        folder, np.array([pictures[name] for name in joined]), attributes[rows], *_read_optional(root, images, joined)
    )
    splits = np.array([partition[name] for name in joined])
    if notes:
        rank_zero_warn(f"CelebA in {root}: {len(rows)} pictures are used; left out are {'; '.join(notes)}")
    if everything.identities is not None:
        crossing = len(set(zip(everything.identities.tolist(), splits.tolist(), strict=True)))
        crossing -= len(np.unique(everything.identities))
        if crossing:
            rank_zero_warn(f"{partition_path} puts pictures of the same person into several splits, {crossing} times")
    return {split: everything.select(splits == number) for number, split in enumerate(PARTITION)}


def _read_optional(
    root: Path, images: Literal["aligned", "wild"], names: list[str]
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int64] | None]:
    """Landmarks and identities of the named pictures, each only if there is a file of them with all pictures."""
    landmarks = _read_rows(find_annotation(root, LANDMARK_FILES[images]), "coordinates", 10, names)
    identities = _read_rows(find_annotation(root, "identity_CelebA"), "identity number", 1, names)
    return (
        None if landmarks is None else landmarks.reshape(-1, 5, 2).astype(np.float32),
        None if identities is None else identities[:, 0].astype(np.int64),
    )


def _read_rows(path: Path | None, what: str, count: int, names: list[str]) -> npt.NDArray[np.float64] | None:
    if path is None:
        return None
    table = AnnotationTable.read(path, what, count)
    row = {name: row for row, name in enumerate(table.names)}
    absent = [name for name in names if name not in row]
    if absent:
        rank_zero_warn(f"{path} lacks {len(absent)} pictures (such as {absent[0]}) and is therefore not used")
        return None
    return table.values[[row[name] for name in names]]


class CelebADataModule(FaceDataModule):
    """CelebA with its attributes and, where their files are there, landmarks and identities [1]_.

    Reads the official layout (``Anno``, ``Eval``, ``Img``), a flat folder, and Kaggle's CSV files. Landmarks are
    pixels of the annotated files, also where the pictures are copies of another size. ``name`` is the file's name.

    Args:
        root: The folder of the data set; never written to.
        images: The pre-cropped pictures (``aligned``) or the original ones (``wild``).
        image_size: As the others, see :class:`~facelightning.data.datamodule.FaceDataModule`.
        batch_size: See there.
        num_workers: See there.
        augmentations: See there.
        seed: See there.

    Raises:
        DataNotFoundError: On set-up, if a folder or file is missing.
        DataFormatError: On set-up, if an annotation file is not what it should be; the message names file and line.

    Example:
        >>> data = CelebADataModule("~/celeba", image_size=(109, 89))
        >>> data.setup("fit")  # doctest: +SKIP
        >>> next(iter(data.val_dataloader()))["attributes"].shape  # doctest: +SKIP
        torch.Size([32, 40])

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """

    def __init__(
        self,
        root: str | None = None,
        images: Literal["aligned", "wild"] = "aligned",
        image_size: tuple[int, int] = (218, 178),
        batch_size: int = 32,
        num_workers: int = 2,
        augmentations: list[A.BasicTransform] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, augmentations, seed)
        self.root = root
        self.images = images
        self._readers: dict[Split, AttributeReader] | None = None

    def reader(self, split: Split) -> AttributeReader:
        """The records of one split; the annotation files are read at the first call, for all splits."""
        if self._readers is None:
            root = existing_root(self.root, "CelebA", "list_attr_celeba.txt or Anno, Eval and Img")
            self._readers = read_celeba(root, self.images)
        return self._readers[split]

    def positive_rates(self) -> npt.NDArray[np.float32]:
        """How often each attribute occurs in the training split, ``(40,)``."""
        return self.reader("train").positive_rates()
