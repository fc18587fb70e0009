"""Photographs of people: who it is, how old, and of which race, as far as a data set knows."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from facelightning.data.datamodule import IdentityDataModule
from facelightning.data.files import Columns, Record, Split, read_image
from facelightning.errors import DataFormatError, ending
from facelightning.facts import DataFacts

TEN = 10
"""Of so many persons or images one is for validation and one for test."""

OLDEST = 120.0
"""The largest age that is taken for one, in years."""


@dataclass(frozen=True, eq=False, repr=False)
class People(Dataset[Record]):
    """Images with what is known of the person in each, as records; images are upright.

    Args:
        folder: Where the images are.
        names: Paths of the N images within it.
        identities: ``(N,)``, the identity of each image, as a number.
        ages: ``(N,)``, in years; NaN where unknown.
        numbers: ``(N,)``, the race of each image, as an index of ``categories``.
        categories: The races.
    """

    folder: Path
    names: npt.NDArray[np.str_]
    identities: npt.NDArray[np.int64] | None = None
    ages: npt.NDArray[np.float32] | None = None
    numbers: npt.NDArray[np.int64] | None = None
    categories: tuple[str, ...] | None = None

    reading = "upright"

    @property
    def columns(self) -> Columns:
        """What is known without opening an image."""
        columns = {"identity": self.identities, "age": self.ages, "category": self.numbers}
        return {key: column for key, column in columns.items() if column is not None}

    def sources(self, index: int) -> list[Path]:
        """The file of an image."""
        return [self.folder / str(self.names[index])]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        name = str(self.names[index])
        image = read_image(self.folder / name, cv2.IMREAD_COLOR_RGB)  # rotated by the camera's orientation tag
        record = Record(image=image, name=name)
        if self.identities is not None:
            record["identity"] = int(self.identities[index])
        if self.ages is not None:
            record["age"] = float(self.ages[index])
        if self.numbers is not None:
            record["category"] = int(self.numbers[index])
        return record

    def select(self, chosen: npt.NDArray[np.bool_]) -> "People":
        """The images marked in ``chosen``, ``(N,)``."""
        columns = {name: column[chosen] for name, column in vars(self).items() if isinstance(column, np.ndarray)}
        return People(**{**vars(self), **columns})

    def splits(self) -> dict[Split, "People"]:
        """Of every ten persons, in the order of their numbers, the ninth for val and the tenth for test.

        So no person is in two splits. If identities are unknown, of every ten images, in the order of their names.

        Raises:
            DataFormatError: If there are fewer than ten.
        """
        _, places = np.unique(self.names if self.identities is None else self.identities, return_inverse=True)
        count = int(places.max()) + 1
        if count < TEN:
            what = ("image" if self.identities is None else "person") + ("s" if count > 1 else "")
            raise DataFormatError(
                f"{ending(self.folder)} holds {count} {what}, but of every ten, one is for validation and one for "
                "test: put at least ten there"
            )
        kinds = np.array(["train"] * (TEN - 2) + ["val", "test"])[places % TEN]
        return self.by_split(kinds)

    def by_split(self, kinds: npt.NDArray[np.str_]) -> dict[Split, "People"]:
        """The splits, if ``kinds`` ``(N,)`` names that of each image."""
        parts: tuple[Split, ...] = ("train", "val", "test")
        return {split: self.select(kinds == split) for split in parts} | {"all": self}


@dataclass(kw_only=True, eq=False)
class PeopleDataModule(IdentityDataModule):
    """Base of the data modules of people: a subclass defines how to read the splits."""

    @cached_property
    def splits(self) -> dict[Split, People]:
        """The data set, read on first use."""
        raise NotImplementedError

    def records(self, split: Split) -> People:
        """One split of the data set."""
        return self.splits[split]

    @property
    def facts(self) -> DataFacts:
        """Image size; once a split is open, also races and the identities of the training split."""
        facts = DataFacts(self.image_size)
        if not self._datasets:
            return facts
        train = self.records("train")
        identities = None if train.identities is None else tuple(np.unique(train.identities).tolist())
        return replace(facts, identities=identities, categories=train.categories)
