"""Images whose masks are known: a folder with a map of classes for each."""

from pathlib import Path

import cv2

from facelightning.data.files import DerivedRecords, Record, Records, existing_root, read_image, stem
from facelightning.errors import DataFormatError
from facelightning.labels import IGNORE_INDEX, LabelSpace


class MaskedRecords(DerivedRecords):
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
        super().__init__(records, f"masks {label_space}")
        self.label_space = label_space
        self.folder = existing_root(folder, "masks", "a PNG file for each image")

    def sources(self, index: int) -> list[Path]:
        """The files of an image and its mask."""
        return [*super().sources(index), self._mask(str(self.names[index]))]

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
