"""UTKFace (Zhang, Song, Qi, CVPR 2017): 23,708 faces of 0 to 116 years, whose file names say age and race."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from facelightning.data.files import SUFFIXES, Split, existing_root, warn
from facelightning.data.folder import files_in
from facelightning.data.people import OLDEST, People, PeopleDataModule
from facelightning.errors import DataFormatError, ending, quoted

RACES = ("White", "Black", "Asian", "Indian", "Other")
"""The races in the order of their numbers in a file's name."""

NAME = re.compile(r"(\d{1,3})_[01]_([0-4])_\d+\.", re.ASCII)
LAYOUT = "AGE_GENDER_RACE_DATE.jpg"


class UTKFace(People):
    """UTKFace with its ages and races, from names such as ``31_0_2_20170117135424485.jpg.chip.jpg``.

    Subfolders are read too, such as ``part1`` to ``part3``. A few names of the real data set lack a number or have a
    wrong one: these images are left out, with a warning. Persons are unknown; of every ten images, in the order of
    their names, the ninth is for ``val`` and the tenth for ``test``, so that all splits have all ages. ``name`` is the
    path within ``root``.

    Args:
        root: The folder of the images; never written to.
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        DataNotFoundError: If the folder is missing or cannot be read.
        DataFormatError: If fewer than ten images have such a name.
    """

    def __init__(self, root: str | Path | None, split: Split = "train") -> None:
        super().__init__(**vars(read_utkface(root)[split]))


def read_utkface(root: str | Path | None) -> dict[Split, People]:
    """The splits of :class:`UTKFace`."""
    path = existing_root(root, "UTKFace", f"images named {LAYOUT}")
    files = [file for file in files_in(path) if file.suffix.lower() in SUFFIXES]
    named = {file.relative_to(path).as_posix(): NAME.match(file.name) for file in files}
    good = {name: (int(found[1]), int(found[2])) for name, found in sorted(named.items()) if found}
    good = {name: (age, race) for name, (age, race) in good.items() if age <= OLDEST}
    if not good:
        raise DataFormatError(
            f"UTKFace: {ending(path)} holds no images named {LAYOUT} of up to {OLDEST} years; pass the folder that does"
        )
    bad = sorted(named.keys() - good.keys())
    if bad:
        which = quoted(", ".join(bad[:3]), 120)
        what = f"which are not named as {LAYOUT} or are older than {OLDEST} years"
        warn(f"{ending(path)}: {len(bad)} images are left out, {what} ({which})")
    ages, races = np.array(list(good.values())).T
    return People(path, np.array(list(good)), None, ages.astype(np.float32), races.astype(np.int64), RACES).splits()


@dataclass(eq=False)
class UTKFaceDataModule(PeopleDataModule):
    """Batches of :class:`~facelightning.data.UTKFace`.

    Args:
        root: The folder of the images; never written to.
    """

    root: str | None = None

    @cached_property
    def splits(self) -> dict[Split, People]:
        """The data set, read on first use."""
        return read_utkface(self.root)
