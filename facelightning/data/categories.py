"""Images in a folder for each category."""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset

from facelightning.data.datamodule import FaceDataModule
from facelightning.data.files import SUFFIXES, Columns, Record, Split, existing_root, read_image, warn
from facelightning.data.folder import NO_PHOTOGRAPHS, files_in
from facelightning.errors import DataFormatError, DataNotFoundError, ending, quoted, reading
from facelightning.facts import DataFacts

LAYOUT = "train, val and test, and each a folder of images for every category"


class ImageFolder(Dataset[Record]):
    """Images by category, in the layout of ImageNet: ``root/train/CATEGORY/*.jpg``, likewise ``val`` and ``test``.

    The folders in ``train`` are the categories, in alphabetical order. Another split may lack some of them. Subfolders
    of a category belong to it, also by links; images are upright. ``name`` is the path within the split.

    Args:
        root: The folder of ``train``, ``val`` and ``test``; never written to.
        split: Which of them.

    Raises:
        DataNotFoundError: If a folder is missing or cannot be read.
        DataFormatError: If there is no category, one without an image, or one that ``train`` lacks.
    """

    def __init__(self, root: str | Path | None, split: Split) -> None:
        path = existing_root(root, "ImageFolder", LAYOUT)
        self.folder, self.categories = path / split, _categories(path, "train")
        own = _categories(path, split)
        if unknown := sorted(set(own) - set(self.categories)):
            raise DataFormatError(
                f"{ending(self.folder)} has categories that train lacks ({quoted(', '.join(unknown))}): rename or "
                "remove their folders"
            )
        names, numbers, others = list[str](), list[int](), list[str]()
        for category in own:
            # not torchvision's listing: it follows a link that leads back without end
            files = sorted(files_in(self.folder / category))
            images = [file for file in files if file.suffix.lower() in SUFFIXES]
            if not images:
                where = ending(self.folder / category)
                raise DataFormatError(f"{where} holds no image that can be read ({', '.join(SUFFIXES[:4])}, …)")
            names += [file.relative_to(self.folder).as_posix() for file in images]
            numbers += [self.categories.index(category)] * len(images)
            others += [file.relative_to(self.folder).as_posix() for file in files if file not in images]
        self.names = np.array(names)
        self.numbers = np.array(numbers, np.int64)
        """The category of each image, as an index of ``categories``."""
        if others:
            warn(f"{ending(self.folder)}: {len(others)} files are left out ({quoted(', '.join(others[:3]), 60)})")

    reading = "upright"

    @property
    def columns(self) -> Columns:
        """What is known without opening an image."""
        return {"category": self.numbers}

    def sources(self, index: int) -> list[Path]:
        """The file of an image."""
        return [self.folder / str(self.names[index])]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        name = str(self.names[index])
        image = read_image(self.folder / name, cv2.IMREAD_COLOR_RGB)  # rotated by the camera's orientation tag
        return Record(image=image, category=int(self.numbers[index]), name=name)


def _categories(root: Path, split: Split) -> tuple[str, ...]:
    """The names of the folders of a split."""
    with reading(root):
        if not (root / split).is_dir():
            raise DataNotFoundError(f"ImageFolder: {ending(root)} has no folder {split}; it must hold {LAYOUT}")
        entries = list(os.scandir(root / split))
    found = sorted(entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name))
    if not found:
        raise DataFormatError(f"ImageFolder: {ending(root / split)} holds no folder; {ending(root)} must hold {LAYOUT}")
    return tuple(found)


def _is_hidden(name: str) -> bool:
    return name[0] == "." or name in NO_PHOTOGRAPHS


@dataclass(eq=False)
class ImageFolderDataModule(FaceDataModule):
    """Batches of :class:`~facelightning.data.ImageFolder`.

    Args:
        root: The folder of ``train``, ``val`` and ``test``, which hold a folder for each category; never written to.
    """

    root: str | None = None

    def records(self, split: Split) -> ImageFolder:
        """One split of the data set."""
        return ImageFolder(self.root, split)

    @property
    def facts(self) -> DataFacts:
        """Image size; once a split is open, also the categories."""
        found = [dataset.records for dataset in self._datasets.values()]
        categories = next((each.categories for each in found if isinstance(each, ImageFolder)), None)
        return DataFacts(self.image_size, categories=categories)
