"""CelebA (Liu et al., ICCV 2015): 202,599 photographs of 10,177 people with 40 attributes and five landmarks each."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from facelightning.data.files import SPLITS, Split, existing_root, list_images, warn
from facelightning.data.tables import AnnotationTable, AttributeDataset
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import ATTRIBUTES

Crop = Literal["aligned", "wild"]

IMAGE_FOLDERS = {"aligned": ("img_align_celeba", "img_align_celeba_png"), "wild": ("img_celeba",)}
LANDMARK_FILES = {"aligned": "list_landmarks_align_celeba", "wild": "list_landmarks_celeba"}


class CelebA(AttributeDataset):
    """CelebA with its attributes and, where their files are there, landmarks and identities [1]_.

    Reads the official layout (``Anno``, ``Eval``, ``Img``), a flat folder, and Kaggle's CSV files. Landmarks are
    pixels of the annotated files, also where the images are copies of another size. ``name`` is the file's name.

    Args:
        root: The folder of the data set; never written to.
        split: Its part.
        images: The pre-cropped images (``aligned``) or the original ones (``wild``).

    Raises:
        DataNotFoundError: If a folder, or a file that every run needs, is missing.
        DataFormatError: If an annotation file is not what it should be; the message names file and line.

    Example:
        >>> faces = CelebA("~/celeba", "val")  # doctest: +SKIP
        >>> faces[0]["attributes"].shape, faces.attributes.shape  # doctest: +SKIP
        ((40,), (19867, 40))

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """

    def __init__(self, root: str | Path | None, split: Split = "train", images: Crop = "aligned") -> None:
        super().__init__(**vars(read_celeba(root, images)[split]))


def read_celeba(root: str | Path | None, images: Crop = "aligned") -> dict[Split, AttributeDataset]:
    """All splits of :class:`CelebA`: its annotation files are read and joined by the images' names.

    What is not in all of attributes, partition and image folder is left out, with one warning that counts it.
    """
    root = existing_root(root, "CelebA", "list_attr_celeba.txt or Anno, Eval and Img")
    attributes_path = required_annotation(root, "list_attr_celeba")
    partition_path = required_annotation(root, "list_eval_partition")
    folder, files = find_images(root, images)
    names, attributes = read_attributes(attributes_path)
    partition = read_partition(partition_path)

    rows = [row for row, name in enumerate(names) if name in partition and name in files]
    joined = [names[row] for row in rows]
    known = set(names)
    left_out = {
        f"without an image in {folder}": [name for name in names if name not in files],
        f"not in {partition_path.name}": [name for name in names if name not in partition],
        f"in {partition_path.name}, but not in {attributes_path.name}": [n for n in partition if n not in known],
        f"in {folder}, but not in {attributes_path.name}": [name for name in files if name not in known],
    }
    notes = [f"{len(absent)} {what} (such as {absent[0]})" for what, absent in left_out.items() if absent]
    if not rows:
        raise DataFormatError(f"CelebA in {root}: no image is left: {'; '.join(notes)}")

    landmarks = _read_rows(find_annotation(root, LANDMARK_FILES[images]), "coordinates", 10, joined)
    identities = _read_rows(find_annotation(root, "identity_CelebA"), "identity number", 1, joined)
    everything = AttributeDataset(
        folder,
        np.array([files[name] for name in joined]),
        attributes[rows],
        None if landmarks is None else landmarks.reshape(-1, 5, 2).astype(np.float32),
        None if identities is None else identities[:, 0].astype(np.int64),
    )
    splits = np.array([partition[name] for name in joined])
    if notes:
        warn(f"CelebA in {root}: {len(rows)} images are used; left out are {'; '.join(notes)}")
    if everything.identities is not None:
        pairs = np.unique(np.stack([everything.identities, splits]), axis=1)
        crossing = pairs.shape[1] - len(np.unique(pairs[0]))
        if crossing:
            warn(f"{partition_path} puts images of the same identity into several splits, {crossing} times")
    return {split: everything.select(splits == number) for number, split in enumerate(SPLITS)}


def read_attributes(path: Path) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Images' names without suffix and their 40 attributes, ``(rows, 40)`` in {0,1}, in the order of ``ATTRIBUTES``.

    Raises:
        DataFormatError: If an attribute has no column, or a label is neither −1/1 nor, throughout the file, 0/1.
    """
    table = AnnotationTable.read(path, "labels")
    missing = [name for name in ATTRIBUTES if name not in table.columns]
    if missing:
        raise DataFormatError(f"{path}: no column is named {', '.join(missing)}")
    order = [table.columns.index(name) for name in ATTRIBUTES]
    table = replace(table, columns=list(ATTRIBUTES), values=table.values[:, order])
    negative = -1 if (table.values == -1).any() else 0
    bad = (table.values != 1) & (table.values != negative)
    if bad.any():
        raise table.error(bad, f"a label must be {negative} or 1")
    return table.names, (table.values == 1).astype(np.uint8)


def read_partition(path: Path) -> dict[str, int]:
    """For each image's name, without suffix, its place in ``SPLITS``."""
    table = AnnotationTable.read(path, "partition number", 1)
    bad = ~np.isin(table.values, range(len(SPLITS)))
    if bad.any():
        raise table.error(bad, "a partition number must be 0 (training), 1 (validation) or 2 (test)")
    return dict(zip(table.names, table.values[:, 0].astype(int).tolist(), strict=True))


def find_annotation(root: Path, name: str) -> Path | None:
    """An annotation file, ``.txt`` before ``.csv``, in the official folders or in the root itself."""
    places = [root / folder / f"{name}{suffix}" for suffix in (".txt", ".csv") for folder in ("Anno", "Eval", "")]
    return next((path for path in places if path.is_file()), None)


def required_annotation(root: Path, name: str) -> Path:
    """The same of a file that no run can do without."""
    if path := find_annotation(root, name):
        return path
    raise DataNotFoundError(f"CelebA: no {name}.txt or {name}.csv in {root} or its Anno or Eval folder; copy it there")


def find_images(root: Path, images: Crop) -> tuple[Path, dict[str, str]]:
    """The folder of the images and their names by stem."""
    names = IMAGE_FOLDERS[images]
    # Kaggle's archive has the folder within a folder of the same name
    places = [root / parent / name / inner for parent in ("Img", "") for name in names for inner in (name, "")]
    for folder in places:
        if folder.is_dir() and (files := list_images(folder)):
            return folder, files
    raise DataNotFoundError(
        f"CelebA: no folder with the {images} images: looked for .jpg or .png files in {' or '.join(names)} "
        f"in {root} and {root / 'Img'}; unpack the archive of the images there"
    )


def _read_rows(path: Path | None, what: str, count: int, names: list[str]) -> npt.NDArray[np.float64] | None:
    """The numbers of the named images, if there is a file of them that has all."""
    if path is None:
        return None
    table = AnnotationTable.read(path, what, count)
    row = {name: row for row, name in enumerate(table.names)}
    absent = [name for name in names if name not in row]
    if absent:
        warn(f"{path} lacks {len(absent)} images (such as {absent[0]}) and is therefore not used")
        return None
    return table.values[[row[name] for name in names]]
