"""Images whose masks are known: a folder with a map of classes for each."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.data.files import Columns, Record, Records, existing_root, read_image, stem, with_sources
from facelightning.errors import DataFormatError
from facelightning.labels import IGNORE_INDEX, LabelSpace


class MaskedRecords:
    """Records with the masks of a folder: grey PNG files, named as the images, whose values are classes.

    Args:
        records: Records with ``image`` and ``name``.
        folder: The masks' folder.
        label_space: Label space of the masks; 255 marks pixels of no class.

    Raises:
        DataNotFoundError: If there is no such folder; when indexed, if an image has no mask.
        DataFormatError: When indexed, if a mask has another size than its image, or a value that is no class.
    """

    def __init__(self, records: Records, folder: str, label_space: LabelSpace) -> None:
        self.records, self.label_space = records, label_space
        self.folder = existing_root(folder, "masks", "a PNG file for each image")

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """The name of each image."""
        return np.asarray(self.records.names)

    @property
    def reading(self) -> str:
        """How the records are read, and their masks."""
        return f"{with_sources(self.records).reading} {self.label_space}"

    @property
    def columns(self) -> Columns:
        """What is known without opening an image."""
        return with_sources(self.records).columns

    def sources(self, index: int) -> list[Path]:
        """The files of an image and its mask."""
        return [*with_sources(self.records).sources(index), self._mask(str(self.names[index]))]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        record = self.records[index]
        path = self._mask(record["name"])
        mask, size = read_image(path, cv2.IMREAD_GRAYSCALE), record["image"].shape[:2]
        if mask.shape != size:
            found, expected = ("×".join(map(str, each)) for each in (mask.shape, size))
            raise DataFormatError(f"{path} has {found} pixels (height×width), but its image {expected}")
        if (strange := mask[(mask >= len(self.label_space)) & (mask != IGNORE_INDEX)]).size:
            raise DataFormatError(
                f"{path} has the value {strange[0]}, but classes are 0...{len(self.label_space) - 1}, and 255 is none"
            )
        return Record(**{**record, "mask": mask})

    def _mask(self, name: str) -> Path:
        return Path(self.folder, f"{stem(name)}.png")
