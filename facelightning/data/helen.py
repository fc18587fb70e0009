"""Helen with the masks of Smith et al. (CVPR 2013): 2,330 photographs with a soft mask for each of eleven labels."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt

from facelightning.data.datamodule import FaceDataModule, Split
from facelightning.data.files import SUFFIXES, existing_root, list_pictures, read_image, read_lines
from facelightning.data.transforms import Record
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import HELEN7, HELEN11, HELEN11_TO_7

LISTS: dict[Split, str] = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}

GROUPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "helen11": tuple((index,) for index in range(len(HELEN11))),
    "helen7": tuple(tuple(HELEN11.index(part) for part in HELEN11_TO_7[name]) for name in HELEN7.classes),
}
"""For each label space and class of it the ``lblNN`` files that it unites."""


def merge_masks(alphas: list[npt.NDArray[np.uint8]], groups: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.uint8]:
    """The class of each pixel: of the groups of soft masks the one with the largest sum.

    Sums stop at 255; of equal ones the first group wins, so a pixel without any mask is background.

    Args:
        alphas: One soft mask a label, each ``(H, W)`` in [0, 255].
        groups: For each class its masks' places in ``alphas``.

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


def read_list(path: Path) -> dict[str, int]:
    """The ids of a list file and the line of each; lines are ``<number> , <id>`` or only ``<id>``.

    Raises:
        DataFormatError: If a line is something else, or an id comes twice.
    """
    ids: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(?:\d+\s*,\s*)?([^\s,/]+)", line.strip())
        if match is None:
            raise DataFormatError(f"{path}, line {number}: expected '<number> , <id>', found {line.strip()[:40]!r}")
        if ids.setdefault(match[1], number) != number:
            raise DataFormatError(f"{path}, line {number}: {match[1]} is already in line {ids[match[1]]}")
    return ids


def read_lists(root: Path) -> dict[Split, dict[str, int]]:
    """The ids of all list files that are there, and the line of each.

    Raises:
        DataFormatError: If an id is in two lists.
    """
    lists = {split: read_list(root / name) for split, name in LISTS.items() if (root / name).is_file()}
    seen: dict[str, Split] = {}
    for split, ids in lists.items():
        for name, line in ids.items():
            if (other := seen.setdefault(name, split)) != split:
                raise DataFormatError(
                    f"{root / LISTS[split]}, line {line}: {name} is also in {LISTS[other]}, line {lists[other][name]}; "
                    "a picture may serve one purpose only"
                )
    return lists


@dataclass(frozen=True)
class HelenReader:
    """Some of Helen's pictures with their masks.

    Args:
        root: The folder of the data set.
        ids: What names a picture, its folder of masks, and the masks.
        pictures: The pictures' file names, one an id.
        labels: The label space of the masks.
    """

    root: Path
    ids: npt.NDArray[np.str_]
    pictures: npt.NDArray[np.str_]
    labels: Literal["helen7", "helen11"]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        name = str(self.ids[index])
        # the masks were made for the stored pixels, not for the orientation that a camera may have noted in the file
        path = self.root / "images" / str(self.pictures[index])
        image = read_image(path)
        alphas = [self._read_alpha(name, label, image.shape[:2]) for label in range(len(HELEN11))]
        return Record(image=image, mask=merge_masks(alphas, GROUPS[self.labels]), name=name)

    def _read_alpha(self, name: str, label: int, size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        path = self.root / "labels" / name / mask_name(name, label)
        alpha = read_image(path, cv2.IMREAD_GRAYSCALE)
        if alpha.shape != size:
            (height, width), (expected_height, expected_width) = alpha.shape, size
            raise DataFormatError(
                f"{path} has {height}×{width} pixels (height×width), but its picture {expected_height}×{expected_width}"
            )
        return alpha


def mask_name(name: str, label: int) -> str:
    """The file of one label's soft mask.

    Example:
        >>> mask_name("232194_1", 3)
        '232194_1_lbl03.png'
    """
    return f"{name}_lbl{label:02d}.png"


def read_helen(
    root: Path, ids: dict[str, int], list_name: str, labels: Literal["helen7", "helen11"] = "helen7"
) -> HelenReader:
    """Find the pictures and masks of a list.

    Args:
        root: The folder of the data set.
        ids: The ids and the line of each, as from :func:`read_list`.
        list_name: The list's file, for messages.
        labels: The label space of the masks.

    Raises:
        DataNotFoundError: If an id has no picture or not all masks.
    """
    images = root / "images"
    if not images.is_dir():
        raise DataNotFoundError(f"Helen: no folder {images} of pictures; the root must hold images, labels and lists")
    pictures = list_pictures(images)
    for name, line in ids.items():
        where = f"{root / list_name}, line {line}"
        if name not in pictures:
            raise DataNotFoundError(f"{where}: {name} has no picture: no {name}{', '.join(SUFFIXES)} in {images}")
        folder = root / "labels" / name
        there = set(os.listdir(folder)) if folder.is_dir() else set()
        missing = [file for label in range(len(HELEN11)) if (file := mask_name(name, label)) not in there]
        if missing:
            raise DataNotFoundError(f"{where}: {name} lacks {len(missing)} of 11 masks: no {missing[0]} in {folder}")
    return HelenReader(root, np.array(list(ids)), np.array([pictures[name] for name in ids]), labels)


class HelenDataModule(FaceDataModule):
    """Helen's pictures with the masks of Smith et al. [1]_, of eleven labels or the seven of Kalayeh et al. [2]_.

    The exemplars are the training split, the tuning list is the validation split. ``name`` is Helen's id.

    Args:
        root: The folder of ``images``, ``labels`` and the three lists; never written to.
        labels: The label space of the masks.
        image_size: As the others, see :class:`~facelightning.data.datamodule.FaceDataModule`.
        batch_size: See there.
        num_workers: See there.
        augmentations: See there.
        seed: See there.

    Raises:
        DataNotFoundError: On set-up, if a list, picture or mask is missing.
        DataFormatError: On set-up, if a list is not what it should be; on reading, if a picture or mask is not.

    Example:
        >>> data = HelenDataModule("~/helen", labels="helen11")
        >>> data.setup("fit")  # doctest: +SKIP
        >>> next(iter(data.train_dataloader()))["mask"].shape  # doctest: +SKIP
        torch.Size([32, 218, 178])

    .. [1] Smith, Zhang, Brandt, Lin, Yang, "Exemplar-Based Face Parsing", CVPR 2013.
    .. [2] Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017, §4.1.
    """

    def __init__(
        self,
        root: str | None = None,
        labels: Literal["helen7", "helen11"] = "helen7",
        image_size: tuple[int, int] = (218, 178),
        batch_size: int = 32,
        num_workers: int = 2,
        augmentations: list[A.BasicTransform] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, augmentations, seed)
        self.root = root
        self.labels: Literal["helen7", "helen11"] = labels

    def reader(self, split: Split) -> HelenReader:
        """The records of one split."""
        root = existing_root(self.root, "Helen", "images, labels, exemplars.txt, tuning.txt and testing.txt")
        lists = read_lists(root)
        if split not in lists:
            raise DataNotFoundError(f"Helen: no {LISTS[split]}, the list of the {split} split, in {root}")
        return read_helen(root, lists[split], LISTS[split], self.labels)
