"""Images with attributes: the tables that annotate them, and how they are read."""

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from facelightning.data.files import SUFFIXES, Record, read_image, read_lines, stem
from facelightning.errors import DataFormatError


@dataclass(frozen=True)
class AnnotationTable:
    """An annotation file as CelebA's: a row for each image, of the image's name and numbers.

    Args:
        path: The file.
        columns: The numbers' names, where the file has a line of them.
        names: One image's name a row, without suffix.
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

        A row begins with an image's name. What comes before the first row is the number of rows, which is wrong in
        some copies and therefore not used, and the names of the columns.

        Args:
            path: The file.
            what: What its numbers are, for messages.
            count: How many numbers a row has; as many as there are column names if not given.

        Raises:
            DataFormatError: If a line is no such row, or an image has two rows that differ.
        """
        separator = "," if path.suffix == ".csv" else None
        columns: list[str] = []
        rows: dict[str, tuple[int, array[float]]] = {}
        for number, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            name, *cells = line.split(separator)
            if not name.strip().lower().endswith(SUFFIXES):
                if rows:
                    raise DataFormatError(f"{where}: expected an image's name, found {name!r}")
                header = [cell.strip() for cell in (name, *cells)]
                if cells:  # not the number of rows
                    columns = header[1:] if header[0] in ("", "image_id") else header
                continue
            expected = len(columns) if count is None else count
            if expected == 0:
                raise DataFormatError(f"{where}: expected the names of the columns before the first row")
            if len(cells) != expected:
                raise DataFormatError(f"{where}: expected {expected} {what}, found {len(cells)}")
            try:
                values = array("d", map(float, cells))
            except ValueError as error:
                raise DataFormatError(f"{where}: {what} must be numbers, but {error}") from None
            first, known = rows.setdefault(stem(name.strip()), (number, values))
            if first != number and known != values:
                raise DataFormatError(f"{where}: other {what} than in line {first}")
        if not rows:
            raise DataFormatError(f"{path} holds no row that begins with an image's name, such as 000001.jpg")

        lines, numbers = zip(*rows.values(), strict=True)
        table = cls(path, columns, list(rows), np.array(numbers), list(lines))
        unknown = ~np.isfinite(table.values)
        if unknown.any():
            raise table.error(unknown, f"{what} must be finite")
        return table

    def error(self, bad: npt.NDArray[np.bool_], message: str) -> DataFormatError:
        """An error that names the first row and value marked in ``bad``, ``(rows, columns)``."""
        row, column = np.argwhere(bad)[0]
        return DataFormatError(f"{self.path}, line {self.lines[row]}: {message}, found {self.values[row, column]:g}")


@dataclass(frozen=True, eq=False, repr=False)
class AttributeDataset(Dataset[Record]):
    """Images with their attributes, as records.

    Args:
        folder: Where the images are.
        names: Their file names, N of them.
        attributes: ``(N, 40)`` in {0,1}.
        landmarks: ``(N, 5, 2)`` x,y in pixels of the file: left and right eye, nose, left and right mouth corner.
        identities: ``(N,)``, the number of the identity that each image shows.
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

    def select(self, chosen: npt.NDArray[np.bool_]) -> "AttributeDataset":
        """The images marked in ``chosen``, ``(N,)``."""
        columns = {name: column[chosen] for name, column in vars(self).items() if isinstance(column, np.ndarray)}
        return AttributeDataset(**{**vars(self), **columns})
