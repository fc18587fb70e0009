"""CelebA (Liu et al., ICCV 2015): 202,599 photographs of 10,177 people with 40 attributes and five landmarks each."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from facelightning.boxes import POINTS
from facelightning.data.files import SPLITS, Split, existing_root, list_images, warn
from facelightning.data.tables import AnnotationTable, AttributeDataset
from facelightning.errors import DataFormatError, DataNotFoundError, quoted, reading
from facelightning.labels import ATTRIBUTES

Crop = Literal["aligned", "wild"]

IMAGE_FOLDERS = {"aligned": ("img_align_celeba", "img_align_celeba_png"), "wild": ("img_celeba",)}
LANDMARK_FILES = {"aligned": "list_landmarks_align_celeba", "wild": "list_landmarks_celeba"}

BOX = ("x_1", "y_1", "width", "height")
"""The names of the columns of the boxes; a file whose columns have other names has them in this order."""

LARGEST_COORDINATE = 1_000_000  # of a landmark, in pixels
LARGEST_IDENTITY = 2**53  # the table holds floats, which skip whole numbers beyond this


class CelebA(AttributeDataset):
    """CelebA with its attributes and, if their files exist, landmarks, identities and boxes [1]_.

    Reads the official layout (``Anno``, ``Eval``, ``Img``), a flat folder, and Kaggle's CSV files. Landmarks are
    in pixels of the annotated images, even if these are copies of another size; so are the boxes, which only the
    original images have. ``name`` is the file's name.

    Args:
        root: The folder of the data set; never written to.
        split: ``train``, ``val``, ``test`` or ``all``.
        images: The pre-cropped images (``aligned``) or the original ones (``wild``).

    Raises:
        DataNotFoundError: If a folder or a required file is missing.
        DataFormatError: If an annotation file has an unexpected format; the message names file and line.

    Example:
        >>> faces = CelebA("~/celeba", "val")  # doctest: +SKIP
        >>> faces[0]["attributes"].shape, faces.attributes.shape  # doctest: +SKIP
        ((40,), (19867, 40))

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """

    def __init__(self, root: str | Path | None, split: Split = "train", images: Crop = "aligned") -> None:
        super().__init__(**vars(read_celeba(root, images)[split]))


def read_celeba(root: str | Path | None, images: Crop = "aligned") -> dict[Split, AttributeDataset]:
    """The splits of :class:`CelebA`, its annotation files joined by the images' names.

    Images missing from the attributes, the partition or the image folder are left out, with one warning.
    """
    root = existing_root(root, "CelebA", "list_attr_celeba.txt or Anno, Eval and Img")
    with reading(root):
        attributes_path = required_annotation(root, "list_attr_celeba")
        partition_path = required_annotation(root, "list_eval_partition")
        landmarks_path = find_annotation(root, LANDMARK_FILES[images])
        identities_path = find_annotation(root, "identity_CelebA")
        boxes_path = find_annotation(root, "list_bbox_celeba") if images == "wild" else None
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
    counts = {what: len(absent) for what, absent in left_out.items() if absent}
    notes = {what: f"{count} {what} (such as {quoted(left_out[what][0], 40)})" for what, count in counts.items()}
    if not rows:
        raise DataFormatError(f"CelebA in {root}: no image is left: {notes[max(counts, key=counts.__getitem__)]}")

    everything = AttributeDataset(
        folder,
        np.array([files[name] for name in joined]),
        attributes[rows],
        None if landmarks_path is None else read_landmarks(landmarks_path, joined),
        None if identities_path is None else read_identities(identities_path, joined),
        None if boxes_path is None else read_boxes(boxes_path, joined),
    )
    splits = np.array([partition[name] for name in joined])
    if notes:
        warn(f"CelebA in {root}: {len(rows)} images are used; left out are {'; '.join(notes.values())}")
    if everything.identities is not None:
        pairs = np.unique(np.stack([everything.identities, splits]), axis=1)
        crossing = pairs.shape[1] - len(np.unique(pairs[0]))
        if crossing:
            warn(f"{partition_path} puts images of the same identity into several splits, {crossing} times")
    return {split: everything.select(splits == number) for number, split in enumerate(SPLITS)} | {"all": everything}


def read_attributes(path: Path) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Images' names without suffix and their 40 attributes, ``(rows, 40)`` in {0,1}, in the order of ``ATTRIBUTES``.

    Raises:
        DataFormatError: If an attribute has no column, or the labels are neither all −1/1 nor all 0/1.
    """
    table = AnnotationTable.read(path, "labels")
    missing = [name for name in ATTRIBUTES if name not in table.columns]
    if missing:
        raise DataFormatError(f"{path}: no column is named {quoted(', '.join(missing))}")
    order = [table.columns.index(name) for name in ATTRIBUTES]
    table = replace(table, columns=list(ATTRIBUTES), values=table.values[:, order])
    negative = -1 if (table.values == -1).any() else 0
    table.refuse((table.values != 1) & (table.values != negative), f"a label must be {negative} or 1")
    return table.names, (table.values == 1).astype(np.uint8)


def read_partition(path: Path) -> dict[str, int]:
    """The index in ``SPLITS`` of each image, by its name without suffix."""
    table = AnnotationTable.read(path, "partition number", 1)
    unknown = ~np.isin(table.values, range(len(SPLITS)))
    table.refuse(unknown, "a partition number must be 0 (training), 1 (validation) or 2 (test)")
    return dict(zip(table.names, table.values[:, 0].astype(int).tolist(), strict=True))


def read_landmarks(path: Path, names: list[str]) -> npt.NDArray[np.float32] | None:
    """The five landmarks of each named image, ``(N, 5, 2)`` x,y in pixels; ``None`` if the file lacks an image."""
    coordinates = _coordinates(path, names, POINTS)
    return None if coordinates is None else coordinates.reshape(-1, 5, 2).astype(np.float32)


def read_boxes(path: Path, names: list[str]) -> npt.NDArray[np.float32] | None:
    """The box of each named image, ``(N, 4)``; ``None`` if the file lacks an image.

    ``x_1, y_1, width, height`` become x0 = x_1, y0 = y_1, x1 = x_1 + width, y1 = y_1 + height, neither rounded nor
    limited to the image. A few boxes of CelebA have no width or height: they are unknown, NaN.
    """
    boxes = _coordinates(path, names, BOX)
    if boxes is None:
        return None
    unknown = (boxes[:, 2:] <= 0).any(axis=1)
    boxes[:, 2:] += boxes[:, :2]
    boxes[unknown] = np.nan
    return boxes.astype(np.float32)


def _coordinates(path: Path, names: list[str], columns: tuple[str, ...]) -> npt.NDArray[np.float64] | None:
    """The pixels in ``columns`` of each named image; ``None`` if the file lacks an image."""
    table = _rows_of(AnnotationTable.read(path, "coordinates", len(columns)), names)
    if table is None:
        return None
    too_far = np.abs(table.values) > LARGEST_COORDINATE
    table.refuse(too_far, f"a coordinate must lie within ±{LARGEST_COORDINATE} pixels")
    named = set(table.columns) == set(columns)
    return table.values[:, [table.columns.index(name) for name in columns] if named else range(len(columns))]


def read_identities(path: Path, names: list[str]) -> npt.NDArray[np.int64] | None:
    """The identity of each named image as a number, ``(N,)``; ``None`` if the file lacks an image."""
    table = _rows_of(AnnotationTable.read(path, "identity number", 1), names)
    if table is None:
        return None
    no_number = (table.values != table.values.round()) | (np.abs(table.values) > LARGEST_IDENTITY)
    table.refuse(no_number, "an identity's number must be a whole number")
    return table.values[:, 0].astype(np.int64)


def find_annotation(root: Path, name: str) -> Path | None:
    """An annotation file, ``.txt`` before ``.csv``, in the official folders or in the root itself.

    If there is none, a folder or link of that name, so that reading it reports what it is.
    """
    places = [root / folder / f"{name}{suffix}" for suffix in (".txt", ".csv") for folder in ("Anno", "Eval", "")]
    there = [path for path in places if path.is_file() or path.is_dir() or path.is_symlink()]
    return next((path for path in there if path.is_file()), there[0] if there else None)


def required_annotation(root: Path, name: str) -> Path:
    """The same for a required file."""
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
        f"in {root} or its Img folder; unpack the archive of the images there"
    )


def _rows_of(table: AnnotationTable, names: list[str]) -> AnnotationTable | None:
    """The rows of the named images; ``None``, with a warning, if one is missing."""
    if table.names == names:  # as in CelebA itself
        return table
    place = {name: row for row, name in enumerate(table.names)}
    absent = [name for name in names if name not in place]
    if absent:
        warn(f"{table.path} lacks {len(absent)} images (such as {quoted(absent[0])}) and is therefore not used")
        return None
    rows = [place[name] for name in names]
    return replace(table, names=names, values=table.values[rows], lines=[table.lines[row] for row in rows])
