"""A table of images with ages, races or identities, as FairFace has one and IMDB-WIKI is often given."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from facelightning.data.files import SPLITS, Split, existing_root, is_file_name, read_lines, warn
from facelightning.data.people import OLDEST, People, PeopleDataModule
from facelightning.data.synthetic import write_people
from facelightning.data.tables import read_cells
from facelightning.errors import ConfigurationError, DataFormatError, ending, quoted, reading

Column = Literal["age", "race", "identity"]
COLUMNS: tuple[Column, ...] = ("age", "race", "identity")

SPLIT = "split"
"""The column that names the split of each image, if there is one."""


class FaceTable(People):
    """Images that a table with a header describes: ``file`` is a path within ``root``, the others are optional.

    - ``age``: years, which may have a fraction; empty where unknown.
    - ``race`` and ``identity``: any names, which are numbered in alphabetical order.
    - ``split``: ``train``, ``val`` or ``test``. Without it, of every ten persons, or images if persons are unknown, in
      alphabetical order, the ninth is for ``val`` and the tenth for ``test``.

    Other columns are not read. Rows without an image are left out, with a warning.

    Args:
        root: The folder that paths begin at; never written to.
        split: ``train``, ``val``, ``test`` or ``all``.
        table: The table's path within ``root``; cells of ``.csv`` and ``.tsv`` are split by commas, semicolons or tabs,
            those of others by spaces.
        columns: Which of the columns to read, as far as the table has them.

    Raises:
        DataNotFoundError: If folder or table cannot be read.
        DataFormatError: If the table lacks a column, or a row is not as described; the message names its line.
        ConfigurationError: If there is no such column.
    """

    def __init__(
        self,
        root: str | Path | None,
        split: Split = "train",
        table: str = "faces.csv",
        columns: Sequence[Column] = COLUMNS,
    ) -> None:
        super().__init__(**vars(read_face_table(root, table, columns)[split]))


def read_face_table(root: str | Path | None, table: str, columns: Sequence[Column]) -> dict[Split, People]:
    """The splits of :class:`FaceTable`."""
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ConfigurationError(f"FaceTable: columns may name {', '.join(COLUMNS)}, not {quoted(unknown[0])}")
    folder = existing_root(root, "FaceTable", f"{table} and the images that it names")
    path = folder / table
    rows = _read_rows(path, columns)
    with reading(folder):  # a path may be too long, or a folder locked
        absent = [name for name in rows if not (folder / name).is_file()]
    if absent:
        note = f"{path}: {len(absent)} of its files (such as {quoted(absent[0])}) are not in {ending(folder)}"
        if len(absent) == len(rows):
            raise DataFormatError(f"{note}, nor any other: its paths must begin at the data root")
        warn(f"{note}; left out")
        rows = {name: row for name, row in rows.items() if name not in set(absent)}
    known: dict[str, list[str]] = {name: [row[name] for row in rows.values()] for name in next(iter(rows.values()))}
    races, numbers = _numbered(known["race"]) if "race" in known else (None, None)
    _, identities = _numbered(known["identity"]) if "identity" in known else (None, None)
    ages = np.array([float(cell or "nan") for cell in known["age"]], np.float32) if "age" in known else None
    everything = People(folder, np.array(list(rows)), identities, ages, numbers, races)
    return everything.by_split(np.array(known[SPLIT])) if SPLIT in known else everything.splits()


def _read_rows(path: Path, columns: Sequence[Column]) -> dict[str, dict[str, str]]:
    """For each file, its cells by column: those of ``columns`` and of ``split`` that the table has."""
    lines = read_cells(path, read_lines(path))
    number, header = next(lines)
    header = [cell.strip() for cell in header]
    found = [name for name in (*columns, SPLIT) if name in header]
    if header.count("file") != 1 or not set(found) & set(COLUMNS) or any(header.count(name) > 1 for name in found):
        raise DataFormatError(
            f"{path}, line {number}: expected the names of the columns, file and {' or '.join(columns)}, each once, "
            f"found '{quoted(', '.join(header))}'"
        )
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for number, cells in lines:
        where = f"{path}, line {number}"
        if len(cells) != len(header):
            raise DataFormatError(f"{where}: expected {len(header)} cells, found {len(cells)}")
        said = dict(zip(header, map(str.strip, cells), strict=True))
        name, row = said["file"], {column: said[column] for column in found}
        if not all(map(is_file_name, name.split("/"))):
            raise DataFormatError(f"{where}: expected a path within the data root, found '{quoted(name)}'")
        for column, cell in row.items():
            _check(column, cell, where)
        first, known = rows.setdefault(name, (number, row))
        if known != row:
            raise DataFormatError(f"{where}: says something else of {quoted(name)} than line {first}")
    if not rows:
        raise DataFormatError(f"{path} holds no row below the names of its columns")
    return {name: row for name, (_, row) in rows.items()}


def _check(column: str, cell: str, where: str) -> None:
    """Refuse a cell that is no value of its column."""
    if column == "age":
        try:
            good = 0 <= float(cell or 0) <= OLDEST
        except ValueError:
            good = False
        expected = f"an age of 0 to {OLDEST:g} years, or nothing where unknown (`columns` may leave ages out)"
    elif column == SPLIT:
        good, expected = cell in SPLITS, f"a split, {' or '.join(SPLITS)}"
    else:
        good, expected = cell != "", f"the name of a {column}"
    if not good:
        raise DataFormatError(f"{where}: expected {expected}, found '{quoted(cell)}'")


def _numbered(cells: Sequence[str]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The different names in a column, in alphabetical order, and the place of each row's among them."""
    names, numbers = np.unique(np.array(cells), return_inverse=True)
    return tuple(names.tolist()), numbers.astype(np.int64)


@dataclass(eq=False)
class FaceTableDataModule(PeopleDataModule):
    """Batches of :class:`~facelightning.data.FaceTable`.

    Args:
        root: The folder that the table's paths begin at; never written to.
        table: The table's path within ``root``.
        columns: Which of the columns ``age``, ``race`` and ``identity`` to read, as far as the table has them.
    """

    root: str | None = None
    table: str = "faces.csv"
    columns: list[Column] = field(default_factory=lambda: [*COLUMNS])

    @cached_property
    def splits(self) -> dict[Split, People]:
        """The data set, read on first use; ages that are all unknown in training are an error."""
        splits = read_face_table(self.root, self.table, self.columns)
        ages = splits["train"].ages
        if ages is not None and len(ages) > 0 and np.isnan(ages).all():
            hint = "fill the column in, or leave it out of `columns`"
            raise DataFormatError(f"{self.table}: no age of a training image is known; {hint}")
        return splits


@dataclass(eq=False)
class SyntheticPeopleDataModule(FaceTableDataModule):
    """Cartoon faces of known identity, age and tone of skin, drawn on first use and read as any table.

    :func:`~facelightning.data.synthetic.write_people` says what is drawn. The tone of the skin stands in for the race.

    Args:
        root: Folder to write the faces to, and to read them from.
        persons: How many persons to draw for train, val and test.
        faces_per_person: How many faces of each.
        drawing_seed: Another seed draws other persons; needs another ``root``.

    Example:
        >>> SyntheticPeopleDataModule(persons=(60, 10, 10)).facts.image_size
        (218, 178)
    """

    root: str = "data/people"
    persons: tuple[int, int, int] = (200, 25, 50)
    faces_per_person: int = 16
    drawing_seed: int = 0

    def prepare_data(self) -> None:
        """Draw the faces, unless they exist already."""
        write_people(Path(self.root).expanduser(), self.persons, self.faces_per_person, self.drawing_seed)
