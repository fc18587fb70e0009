"""Any folder of photographs, for prediction."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import cv2
from torch.utils.data import Dataset

from facelightning.data.files import SUFFIXES, Columns, Record, existing_root, read_image, warn
from facelightning.errors import DataNotFoundError, ending, quoted, reading

NO_PHOTOGRAPHS = {"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found", "Thumbs.db", "desktop.ini"}
"""What systems put beside photographs; and all that begins with a dot."""


class Folder(Dataset[Record]):
    """The images in a folder and its subfolders, in alphabetical order, upright. ``name`` is the relative path.

    Links to folders are followed; a folder with two ways to it is read once. Other files are counted in a warning.

    Args:
        root: The folder.

    Raises:
        DataNotFoundError: If it holds no image, or cannot be read.
    """

    def __init__(self, root: str | Path | None) -> None:
        self.root = existing_root(root, "Folder", "photographs")
        files = sorted(files_in(self.root))
        self.paths = [path for path in files if path.suffix.lower() in SUFFIXES]
        self.names = [path.relative_to(self.root).as_posix() for path in self.paths]
        others = [path.relative_to(self.root).as_posix() for path in files if path.suffix.lower() not in SUFFIXES]
        note = f"{len(others)} of {len(files)} files are left out ({quoted(', '.join(others[:3]), 60)})"
        if any(name.lower().endswith((".heic", ".heif")) for name in others):
            note += "; convert HEIC to JPEG"
        if not self.paths:
            what = f": {note}" if others else f" ({', '.join(SUFFIXES[:4])}, …); pass a folder of photographs"
            raise DataNotFoundError(f"no image in {ending(self.root)}{what}")
        if others:
            warn(f"{ending(self.root)}: {note}")

    reading = "upright"

    @property
    def columns(self) -> Columns:
        """Nothing is known of photographs."""
        return {}

    def sources(self, index: int) -> list[Path]:
        """The file of an image."""
        return [self.paths[index]]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        image = read_image(self.paths[index], cv2.IMREAD_COLOR_RGB)  # rotated by the camera's orientation tag
        return Record(image=image, name=self.names[index])


def files_in(root: Path) -> Iterator[Path]:
    """All that is no folder in a folder and its subfolders, also what cannot be read, such as a link to nothing."""
    waiting, seen = deque([root]), set()
    while waiting:
        folder = waiting.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        with reading(folder):
            entries = list(os.scandir(folder))
        for entry in entries:
            if entry.name[0] == "." or entry.name in NO_PHOTOGRAPHS:
                continue
            if not os.path.isdir(entry.path):
                yield Path(entry.path)
            elif not entry.is_symlink():
                waiting.appendleft(Path(entry.path))
            elif not Path(real).is_relative_to(os.path.realpath(entry.path)):  # it would lead back
                waiting.append(Path(entry.path))  # last, so that a folder keeps its own name
