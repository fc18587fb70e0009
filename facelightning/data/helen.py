"""Helen with the masks of Smith et al. (CVPR 2013): 2,330 photographs with a soft mask for each of eleven labels."""

import os
import re
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from facelightning.data.files import (
    SPLITS,
    SUFFIXES,
    Columns,
    Record,
    Split,
    existing_root,
    is_file_name,
    list_images,
    read_image,
    read_lines,
)
from facelightning.errors import DataFormatError, DataNotFoundError, quoted, reading
from facelightning.labels import HELEN7, HELEN11, HELEN11_TO_7

LISTS: dict[Split, str] = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}

GROUPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "helen11": tuple((index,) for index in range(len(HELEN11))),
    "helen7": tuple(tuple(HELEN11.index(part) for part in HELEN11_TO_7[name]) for name in HELEN7.classes),
}
"""For each class of each label space, the numbers of the ``lblNN`` files that it merges."""


def merge_masks(alphas: list[npt.NDArray[np.uint8]], groups: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.uint8]:
    """The class of each pixel: the group of soft masks with the largest sum.

    Sums are capped at 255; ties go to the first group, so a pixel without any mask is background.

    Args:
        alphas: One soft mask per label, each ``(H, W)`` in [0, 255].
        groups: For each class, the indices of its masks in ``alphas``.

    Shape:
        - return: ``(H, W)``, indices of ``groups``.

    Example:
        >>> skin, upper, lower = (np.uint8([[alpha]]) for alpha in (100, 60, 60))
        >>> merge_masks([skin, upper, lower], ((0,), (1, 2)))  # two half-transparent lips beat the skin
        array([[1]], dtype=uint8)
    """
    classes = np.zeros(alphas[0].shape, np.uint8)
    strongest = np.zeros(alphas[0].shape, np.uint16)
    for index, group in enumerate(groups):
        alpha = np.minimum(np.sum([alphas[label] for label in group], axis=0, dtype=np.uint16), 255)
        classes[alpha > strongest] = index
        strongest = np.maximum(strongest, alpha)
    return classes


def read_lists(root: Path) -> dict[Split, dict[str, int]]:
    """The ids in each existing list file, with their line numbers; a line is ``<number> , <id>`` or only ``<id>``.

    Raises:
        DataNotFoundError: If a list cannot be read.
        DataFormatError: If a line has another form, or an id occurs twice.
    """
    lists: dict[Split, dict[str, int]] = {}
    seen: dict[str, tuple[str, int]] = {}
    for split, list_name in LISTS.items():
        path = root / list_name
        with reading(path):
            if not (path.exists() or path.is_symlink()):
                continue
        lists[split] = {}
        for number, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            match = re.fullmatch(r"(?:\d+\s*,\s*)?([^\s,/]+)", line.strip())
            if match is None or not is_file_name(match[1]):
                raise DataFormatError(f"{where}: expected '<number> , <id>', found '{quoted(line.strip())}'")
            name = match[1]
            other, first = seen.setdefault(name, (list_name, number))
            if other != list_name:
                raise DataFormatError(
                    f"{where}: {quoted(name)} is also in {other}, line {first}; an image may serve one purpose only"
                )
            if first != number:
                raise DataFormatError(f"{where}: {quoted(name)} is already in line {first}")
            lists[split][name] = number
    return lists


def mask_name(name: str, label: int) -> str:
    """The file name of one label's soft mask."""
    return f"{name}_lbl{label:02d}.png"


class Helen(Dataset[Record]):
    """Helen's images with the masks of Smith et al. [1]_: eleven classes, or Kalayeh et al.'s seven (CVPR 2017, §4.1).

    The exemplars are the training split, the tuning list is the validation split. ``name`` is Helen's id.

    Args:
        root: The folder of ``images``, ``labels`` and the three lists; never written to.
        split: ``train``, ``val``, ``test``, or ``all`` three, one after another.
        label_space: Label space of the masks.

    Raises:
        DataNotFoundError: If a list, image or mask is missing.
        DataFormatError: If a list has an unexpected format; on reading a sample, if an image or mask has one.

    Example:
        >>> faces = Helen("~/helen", label_space="helen11")  # doctest: +SKIP
        >>> faces[0]["image"].shape[:2] == faces[0]["mask"].shape  # doctest: +SKIP
        True

    .. [1] Smith, Zhang, Brandt, Lin, Yang, "Exemplar-Based Face Parsing", CVPR 2013.
    """

    def __init__(
        self,
        root: str | Path | None,
        split: Split = "train",
        label_space: Literal["helen7", "helen11"] = "helen7",
    ) -> None:
        self.root = existing_root(root, "Helen", "images, labels, exemplars.txt, tuning.txt and testing.txt")
        self.label_space = label_space
        lists = read_lists(self.root)
        splits = SPLITS if split == "all" else (split,)
        for each in splits:
            if each not in lists:
                raise DataNotFoundError(f"Helen: no {LISTS[each]}, the list of the {each} split, in {self.root}")
        self.names = [name for each in splits for name in lists[each]]
        with reading(self.root):
            self.files = [file for each in splits for file in self._find_files(lists[each], LISTS[each])]

    @property
    def reading(self) -> str:
        """The label space that the masks are merged to."""
        return self.label_space

    @property
    def columns(self) -> Columns:
        """Nothing is known beside images and masks."""
        return {}

    def sources(self, index: int) -> list[Path]:
        """The files of an image and its soft masks."""
        labels = self.root / "labels" / self.names[index]
        masks = [labels / mask_name(self.names[index], label) for label in range(len(HELEN11))]
        return [self.root / "images" / self.files[index], *masks]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        name = self.names[index]
        image = read_image(self.root / "images" / self.files[index])
        alphas = []
        for label in range(len(HELEN11)):
            path = self.root / "labels" / name / mask_name(name, label)
            alphas.append(read_image(path, cv2.IMREAD_GRAYSCALE))
            if alphas[-1].shape != image.shape[:2]:
                found, expected = ("×".join(map(str, size)) for size in (alphas[-1].shape, image.shape[:2]))
                raise DataFormatError(f"{path} has {found} pixels (height×width), but its image {expected}")
        return Record(image=image, mask=merge_masks(alphas, GROUPS[self.label_space]), name=name)

    def _find_files(self, ids: dict[str, int], list_name: str) -> list[str]:
        """The image file of each id of a list; also checks that its masks exist."""
        images = self.root / "images"
        if not images.is_dir():
            raise DataNotFoundError(f"Helen: no folder {images}; the root must hold images, labels and lists")
        files = list_images(images)
        for name, line in ids.items():
            where = f"{self.root / list_name}, line {line}"
            if name not in files:
                file = f"{quoted(name, 40)}{SUFFIXES[0]}"
                raise DataNotFoundError(f"{where}: {quoted(name, 40)} has no image: no {file} or the like in {images}")
            folder = self.root / "labels" / name
            there = set(os.listdir(folder)) if folder.is_dir() else set()
            missing = [file for label in range(len(HELEN11)) if (file := mask_name(name, label)) not in there]
            if missing:
                masks = f"{len(missing)} of 11 masks: no {quoted(missing[0], 40)}"
                raise DataNotFoundError(f"{where}: {quoted(name, 40)} lacks {masks} in {folder}")
        return [files[name] for name in ids]
