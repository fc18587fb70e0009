"""Any folder of photographs, to predict on."""

from pathlib import Path

import cv2
from torch.utils.data import Dataset

from facelightning.data.files import SUFFIXES, Record, existing_root, read_image
from facelightning.errors import DataNotFoundError


class Folder(Dataset[Record]):
    """The images in a folder and its subfolders, in alphabetical order, upright. ``name`` is the path within.

    Args:
        root: The folder.

    Raises:
        DataNotFoundError: If it holds no image.
    """

    def __init__(self, root: str | Path | None) -> None:
        self.root = existing_root(root, "Folder", "photographs")
        named = (path for path in self.root.rglob("*") if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
        self.paths = sorted(path for path in named if path.is_file())
        if not self.paths:
            raise DataNotFoundError(f"no image ({', '.join(SUFFIXES)}) in {self.root}; pass a folder of photographs")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        path = self.paths[index]
        image = read_image(path, cv2.IMREAD_COLOR_RGB)  # turned as the camera noted
        return Record(image=image, name=path.relative_to(self.root).as_posix())
