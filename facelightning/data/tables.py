"""Pictures with attributes: the tables that annotate them, and how they are read."""

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facelightning.data.files import SUFFIXES, read_image, read_lines, stem
from facelightning.data.transforms import Record
from facelightning.errors import DataFormatError


@dataclass(frozen=True)
class AnnotationTable:
    """An annotation file as CelebA's: a row for each picture, of the picture's name and numbers.

    Args:
        path: The file.
        columns: The numbers' names, where the file has a line of them.
        names: One picture's name a row, without suffix.
        values: The numbers, ``(rows, columns)``.
        lines: Each row's line in the file, from 1.
    """

    path: Path
    columns: list[str]
    names: list[str]
    values: npt.NDArray[np.float64]
    lines: list[int]

    @classmethod
    def read(cls, path: Path, what: str, count: int | None = None) -> "AnnotationTable":
        """Read ``.txt``, split by spaces, or ``.csv``.

        A row begins with a picture's name. What comes before the first row is the number of rows, which is wrong in
        some copies and therefore not used, and the names of the columns.

        Args:
            path: The file.
            what: What its numbers are, for messages.
            count: How many numbers a row has; as many as there are column names if not given.

        Raises:
            DataFormatError: If a line is no such row, or a picture has two rows that differ.
        """
        separator = "," if path.suffix == ".csv" else None
        columns: list[str] = []
        seen: dict[str, int] = {}
        again: list[tuple[int, int]] = []
        numbers, lines = array("d"), list[int]()
        for number, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            name, *cells = line.split(separator)
            if not name.strip().lower().endswith(SUFFIXES):
                if lines:
                    raise DataFormatError(f"{path}, line {number}: expected a picture's name, found {name!r}")
                header = [cell.strip() for cell in (name, *cells)]
                if len(header) > 1:  # not the number of rows
                    columns = header[1:] if header[0] in ("", "image_id") else header
                continue
            expected = len(columns) if count is None else count
            if expected == 0:
                raise DataFormatError(f"{path}, line {number}: expected the names of the columns before the first row")
            if len(cells) != expected:
                raise DataFormatError(f"{path}, line {number}: expected {expected} {what}, found {len(cells)}")
            try:
                numbers.extend(map(float, cells))
            except ValueError as error:
                raise DataFormatError(f"{path}, line {number}: {what} must be numbers, but {error}") from None
            lines.append(number)
            first = seen.setdefault(stem(name.strip()), len(lines) - 1)
            if first != len(lines) - 1:
                again.append((first, len(lines) - 1))
        if not lines:
            raise DataFormatError(f"{path} holds no row that begins with a picture's name, such as 000001.jpg")

        values = np.frombuffer(numbers).reshape(len(lines), -1)
        for first, second in again:
            if not np.array_equal(values[first], values[second]):
                raise DataFormatError(f"{path}, line {lines[second]}: other {what} than in line {lines[first]}")
        rows = list(seen.values())
        table = cls(path, columns, list(seen), values[rows], [lines[row] for row in rows])
        unknown = ~np.isfinite(table.values)
        if unknown.any():
            raise table.error(unknown, f"{what} must be finite")
        return table

    def error(self, bad: npt.NDArray[np.bool_], message: str) -> DataFormatError:
        """An error that names the first row and value marked in ``bad``, ``(rows, columns)``."""
        row, column = np.argwhere(bad)[0]
        return DataFormatError(f"{self.path}, line {self.lines[row]}: {message}, found {self.values[row, column]:g}")


@dataclass(frozen=True)
class AttributeReader:
    """Some pictures of a data set with their attributes.

    Args:
        folder: Where the pictures are.
        names: Their file names, N of them.
        attributes: ``(N, 40)`` in {0,1}.
        landmarks: ``(N, 5, 2)`` x,y in pixels of the file: left and right eye, nose, left and right mouth corner.
        identities: ``(N,)``.
    """

    folder: Path
    names: npt.NDArray[np.str_]
    attributes: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[np.float32] | None = None
    identities: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        name = str(self.names[index])
        # annotators and networks saw the stored pixels, not the orientation that a camera may have noted in the file
        image = read_image(self.folder / name)
        record = Record(image=image, attributes=self.attributes[index].astype(np.float32), name=name)
        if self.landmarks is not None:
            record["landmarks"] = self.landmarks[index]
        if self.identities is not None:
            record["identity"] = int(self.identities[index])
        return record

    def positive_rates(self) -> npt.NDArray[np.float32]:
        """How often each attribute occurs, ``(40,)``."""
        rates: npt.NDArray[np.float32] = self.attributes.mean(axis=0, dtype=np.float32)
        return rates

    def select(self, chosen: npt.NDArray[np.bool_]) -> "AttributeReader":
        """The pictures marked in ``chosen``, ``(N,)``."""
        return AttributeReader(
            self.folder,
            self.names[chosen],
            self.attributes[chosen],
            None if self.landmarks is None else self.landmarks[chosen],
            None if self.identities is None else self.identities[chosen],
        )
