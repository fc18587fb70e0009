"""Any folder of photographs, to predict on."""

from pathlib import Path

import cv2

from facelightning.data.datamodule import FaceDataModule, Split
from facelightning.data.files import SUFFIXES, existing_root, read_image
from facelightning.data.transforms import Record
from facelightning.errors import ConfigurationError, DataNotFoundError


def is_picture(path: Path) -> bool:
    """Whether a file's name says that it is a picture; hidden files are notes of the operating system."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


class FolderReader:
    """The pictures in a folder and its subfolders, in alphabetical order, upright.

    Args:
        root: The folder.

    Raises:
        DataNotFoundError: If it holds no picture.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = sorted(path for path in root.rglob("*") if is_picture(path))
        if not self.paths:
            raise DataNotFoundError(f"no picture ({', '.join(SUFFIXES)}) in {root}; pass a folder of photographs")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        path = self.paths[index]
        image = read_image(path, cv2.IMREAD_COLOR_RGB)  # turned as the camera noted
        return Record(image=image, name=path.relative_to(self.root).as_posix())


class FolderDataModule(FaceDataModule):
    """Photographs without labels, for ``facelightning predict``: one face a picture, cropped about as in training.

    Args:
        root: A folder; its subfolders are read too.
        image_size: Height and width that the model was trained with, in pixels.
        batch_size: Pictures a step and process.
        num_workers: Processes that read; 0 reads in the main process.
    """

    def __init__(
        self,
        root: str | None = None,
        image_size: tuple[int, int] = (218, 178),
        batch_size: int = 32,
        num_workers: int = 2,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers)
        self.root = root

    def setup(self, stage: str) -> None:
        """Open the folder; there is nothing to train or to score on."""
        if stage != "predict":
            raise ConfigurationError(f"FolderDataModule has no labels: use it with `predict`, not with {stage}")
        super().setup(stage)

    def reader(self, split: Split) -> FolderReader:
        """All pictures."""
        return FolderReader(existing_root(self.root, "FolderDataModule", "photographs"))
