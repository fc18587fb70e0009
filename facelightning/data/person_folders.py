"""Images in a folder for each person, as CASIA-WebFace, VGGFace2 and LFW have them."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from facelightning.data.files import SUFFIXES, Split, existing_root, warn
from facelightning.data.folder import NO_PHOTOGRAPHS, files_in
from facelightning.data.people import People, PeopleDataModule
from facelightning.errors import DataFormatError, ending, quoted, reading

LAYOUT = "a folder of images for every person"


class PersonFolders(People):
    """Images with identities, in a folder for each person: ``root/PERSON/*.jpg``.

    Persons are numbered in the alphabetical order of their folders. Of every ten, the ninth is for ``val`` and the
    tenth for ``test``, so no person is in two splits. Subfolders of a person belong to it, also by links. A link
    to a person who has a folder already, or to the folder of all persons, is no person. ``name`` is the path within
    ``root``.

    Args:
        root: The folder of the persons; never written to.
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        DataNotFoundError: If the folder is missing or cannot be read.
        DataFormatError: If it holds fewer than ten persons.
    """

    def __init__(self, root: str | Path | None, split: Split = "train") -> None:
        super().__init__(**vars(read_person_folders(root)[split]))


def read_person_folders(root: str | Path | None) -> dict[Split, People]:
    """The splits of :class:`PersonFolders`; what is no image, or no person, is left out with a warning."""
    path = existing_root(root, "PersonFolders", LAYOUT)
    with reading(path):
        entries = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    listed = [name for name in entries if name[0] != "." and name not in NO_PHOTOGRAPHS]
    persons, again = _without_second_names(path, listed)
    names, identities, others, empty = list[str](), list[int](), list[str](), list[str]()
    for number, person in enumerate(persons):
        files = sorted(file.relative_to(path).as_posix() for file in files_in(path / person))
        images = [file for file in files if file.lower().endswith(SUFFIXES)]
        others += [file for file in files if not file.lower().endswith(SUFFIXES)]
        empty += [] if images else [person]
        names += images
        identities += [number] * len(images)
    if not names:
        raise DataFormatError(f"PersonFolders: {ending(path)} holds no folder with images; it must hold {LAYOUT}")
    notes = {"files that are no images": others, "folders without an image": empty, "links to other persons": again}
    left_out = [f"{len(found)} {what} ({quoted(', '.join(found[:3]), 60)})" for what, found in notes.items() if found]
    if left_out:
        warn(f"{ending(path)}: left out are {' and '.join(left_out)}")
    return People(path, np.array(names), np.array(identities, np.int64)).splits()


def _without_second_names(root: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """The names of different folders, and those of links to one of them, or to the folder that holds them all."""
    whose, again = dict[str, str](), list[str]()
    for name in sorted(names, key=lambda name: (root / name).is_symlink()):  # a folder keeps its own name
        real = os.path.realpath(root / name)
        if Path(os.path.realpath(root)).is_relative_to(real) or whose.setdefault(real, name) != name:
            again.append(name)
    return sorted(set(names) - set(again)), again


@dataclass(eq=False)
class PersonFoldersDataModule(PeopleDataModule):
    """Batches of :class:`~facelightning.data.PersonFolders`.

    Args:
        root: The folder of the persons' folders; never written to.
    """

    root: str | None = None

    @cached_property
    def splits(self) -> dict[Split, People]:
        """The data set, read on first use."""
        return read_person_folders(self.root)
