"""Images with attributes, and the tables that annotate them."""

import csv
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from facelightning.configs import suggestion
from facelightning.data.files import SUFFIXES, Columns, Record, is_file_name, read_image, read_lines, stem
from facelightning.errors import ConfigurationError, DataFormatError, quoted
from facelightning.labels import ATTRIBUTES

USUAL_NAME = re.compile(r"[\w-]{1,100}\.(?:jpg|png)", re.ASCII)
"""Of an image; whether any other is one takes longer to say."""

SEPARATED = (".csv", ".tsv")
"""How the names of tables end whose cells are split by commas, semicolons or tabs; those of others by spaces."""


@dataclass(frozen=True)
class AnnotationTable:
    """An annotation file in CelebA's format: a row for each image, with its name and numbers.

    Args:
        path: The file.
        columns: Names of the numbers, if the file has a header.
        names: The image's name in each row, without suffix.
        values: The numbers, ``(rows, columns)``.
        lines: Line number of each row, from 1.
    """

    path: Path
    columns: list[str]
    names: list[str]
    values: npt.NDArray[np.float64]
    lines: list[int]

    @classmethod
    def read(cls, path: Path, what: str, count: int | None = None) -> "AnnotationTable":
        """Read ``.txt``, split by spaces, or ``.csv`` and ``.tsv``, split by commas, semicolons or tabs.

        A row begins with an image's name. Before the first row come the number of rows, which is wrong in some copies
        and therefore ignored, and the names of the columns; in ``.csv`` including the column of images.

        Args:
            path: The file.
            what: What its numbers are, for error messages.
            count: How many numbers a row has; the number of column names if not given.

        Raises:
            DataNotFoundError: If the file cannot be read.
            DataFormatError: If a line is not such a row, an image has two different rows, or two columns have one name.
        """
        columns: list[str] = []
        rows: dict[str, int] = {}  # the place of each image
        lines, numbers = list[int](), array("d")  # one for all rows: an object for each would take long
        all_lines = read_lines(path)
        for number, cells in read_cells(path, all_lines):
            name = cells.pop(0).strip()
            usual = USUAL_NAME.fullmatch(name)
            if usual is None and not name.lower().endswith(SUFFIXES):
                where = f"{path}, line {number}"
                if rows:
                    raise DataFormatError(f"{where}: expected an image's name, found '{quoted(name)}'")
                if cells:  # not the number of rows
                    names_images = path.suffix.lower() in SEPARATED or name == "image_id"
                    columns = [cell.strip() for cell in (cells if names_images else (name, *cells))]
                    if len(set(columns)) < len(columns):
                        twice = Counter(columns).most_common(1)[0][0]
                        raise DataFormatError(f"{where}: two columns are named '{quoted(twice)}'; remove one of them")
                continue
            if usual is None and not is_file_name(name):
                where = f"{path}, line {number}"
                raise DataFormatError(f"{where}: expected an image's name without a folder, found '{quoted(name)}'")
            expected = len(columns) if count is None else count
            if expected == 0:
                raise DataFormatError(f"{path}, line {number}: expected the names of the columns before the first row")
            if len(cells) != expected:
                raise DataFormatError(f"{path}, line {number}: expected {expected} {what}, found {len(cells)}")
            if not rows and path.suffix.lower() not in SEPARATED:
                regular = _regular_rows(all_lines[number - 1 :], len(name), expected)
                if regular is not None:
                    names, values = regular
                    table = cls(path, columns, names, values, list(range(number, number + len(names))))
                    table.refuse(~np.isfinite(table.values), f"{what} must be finite")
                    return table
            end = len(numbers)
            try:
                numbers.extend(map(float, cells))
            except ValueError as error:
                cell = str(error).partition(": ")[2].strip("'")
                message = f"{what} must be numbers, found '{quoted(cell)}'"
                raise DataFormatError(f"{path}, line {number}: {message}") from None
            row = rows.setdefault(stem(name), len(lines))
            if row == len(lines):
                lines.append(number)
                continue
            if numbers[row * expected : (row + 1) * expected] != numbers[end:]:
                raise DataFormatError(f"{path}, line {number}: other {what} than in line {lines[row]}")
            del numbers[end:]
        if not rows:
            raise DataFormatError(f"{path} holds no row that begins with an image's name, such as 000001.jpg")

        table = cls(path, columns, list(rows), np.array(numbers).reshape(len(rows), -1), lines)
        table.refuse(~np.isfinite(table.values), f"{what} must be finite")
        return table

    def refuse(self, bad: npt.NDArray[np.bool_], message: str) -> None:
        """Raise an error that names the first row and value marked in ``bad``, ``(rows, columns)``, if any is."""
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataFormatError(f"{self.path}, line {self.lines[row]}: {message}, found {self.values[row, column]:g}")


def _regular_rows(lines: Sequence[str], width: int, count: int) -> tuple[list[str], npt.NDArray[np.float64]] | None:
    """Names and numbers of many rows in a quarter of the time; ``None`` if any row needs a closer look.

    Args:
        lines: Each a row.
        width: The length of a name; some may be a little longer.
        count: How many numbers follow it.
    """
    row = np.dtype([("name", np.str_, width + 8), ("numbers", np.float64, (count,))])
    try:
        with warnings.catch_warnings(action="error"):
            table = np.loadtxt(lines, row, comments=None, ndmin=1)
    except (ValueError, UserWarning):
        return None
    names = table["name"].tolist()
    # an empty line gives no row, and a longer name is cut
    if len(names) != len(lines) or max(map(len, names)) == width + 8 or not all(map(USUAL_NAME.fullmatch, names)):
        return None
    stems = list(map(stem, names))
    return (stems, table["numbers"]) if len(set(stems)) == len(stems) else None


def read_cells(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The line number, from 1, and the cells of each line that is not empty; see :meth:`AnnotationTable.read`.

    Raises:
        DataFormatError: If a quotation mark is not closed.
    """
    if path.suffix.lower() not in SEPARATED:
        yield from ((number, cells) for number, line in enumerate(lines, start=1) if (cells := line.split()))
        return
    first = next(filter(str.strip, lines), "")
    reader = csv.reader(lines, delimiter=max(",;\t", key=first.count), skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataFormatError(f"{path}, line {reader.line_num}: {error}; is a quotation mark not closed?") from None


@dataclass(frozen=True, eq=False, repr=False)
class AttributeDataset(Dataset[Record]):
    """Images with their attributes, as records.

    Args:
        folder: Where the images are.
        names: File names of the N images.
        attributes: ``(N, A)`` in {0,1}, in the order of ``ATTRIBUTES``: all 40, or those that are not left out.
        landmarks: ``(N, 5, 2)`` x,y in pixels of the file: left and right eye, nose, left and right mouth corner.
        identities: ``(N,)``, the identity of each image, as a number.
        boxes: ``(N, 4)`` x0,y0,x1,y1 of each face in pixels of the file, right and bottom excluded; NaN if unknown.
    """

    folder: Path
    names: npt.NDArray[np.str_]
    attributes: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[np.float32] | None = None
    identities: npt.NDArray[np.int64] | None = None
    boxes: npt.NDArray[np.float32] | None = None

    reading = "as stored"

    @property
    def columns(self) -> Columns:
        """What is known without opening an image."""
        attributes = self.attributes.astype(np.float32)
        columns = {
            "attributes": attributes,
            "landmarks": self.landmarks,
            "box": self.boxes,
            "identity": self.identities,
        }
        return {key: column for key, column in columns.items() if column is not None}

    def sources(self, index: int) -> list[Path]:
        """The file of an image."""
        return [self.folder / str(self.names[index])]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        name = str(self.names[index])
        image = read_image(self.folder / name)
        record = Record(image=image, attributes=self.attributes[index].astype(np.float32), name=name)
        if self.landmarks is not None:
            record["landmarks"] = self.landmarks[index]
        if self.boxes is not None:
            record["box"] = self.boxes[index]
        if self.identities is not None:
            record["identity"] = int(self.identities[index])
        return record

    def positive_rates(self) -> npt.NDArray[np.float32]:
        """How often each attribute occurs, ``(A,)``."""
        rates: npt.NDArray[np.float32] = self.attributes.mean(axis=0, dtype=np.float32)
        return rates

    def select(self, chosen: npt.NDArray[np.bool_]) -> "AttributeDataset":
        """The images marked in ``chosen``, ``(N,)``."""
        columns = {name: column[chosen] for name, column in vars(self).items() if isinstance(column, np.ndarray)}
        return AttributeDataset(**{**vars(self), **columns})

    def some(self, count: int, seed: int) -> "AttributeDataset":
        """So many images, in their order: those of whole identities in an order by ``seed``, but for the last one.

        More images include the fewer. If identities are unknown, each image is one.

        Raises:
            ConfigurationError: If there are not so many, or it is none.
        """
        if not 0 < count <= len(self):
            raise ConfigurationError(f"train_images must lie in 1...{len(self)}, the images of the split, not {count}")
        identities = np.arange(len(self)) if self.identities is None else self.identities
        _, inverse = np.unique(identities, return_inverse=True)
        places = np.random.default_rng(seed).permutation(int(inverse.max()) + 1)[inverse]
        chosen = np.zeros(len(self), bool)
        chosen[np.argsort(places, kind="stable")[:count]] = True
        return self.select(chosen)

    def without(self, names: Sequence[str]) -> "AttributeDataset":
        """The same images without some of the 40 attributes.

        Raises:
            ConfigurationError: If there is no such attribute, or none would be left.
        """
        for unknown in (name for name in names if name not in ATTRIBUTES):
            hint = suggestion(unknown, ATTRIBUTES)
            raise ConfigurationError(f"leave_out: no attribute is named {quoted(unknown)}; {hint}")
        if len(set(names)) == len(ATTRIBUTES):
            raise ConfigurationError("leave_out names all attributes; leave some to learn")
        return replace(self, attributes=self.attributes[:, ~np.isin(ATTRIBUTES, names)]) if names else self
