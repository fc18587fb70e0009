"""Files of images at the network's size: their pixels, or JPEG."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, cast
from zlib import crc32

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.data.encoding import AS_STORED, encoded, own_bytes
from facelightning.data.samples import Fitted
from facelightning.errors import DataFormatError, ending

IN_A_ROW = ("image", "mask", "landmarks", "box", "size", "frame", "is_cut")
"""What depends on pixels or their number; all else is taken from the annotations, which may change at no cost."""

Bytes = npt.NDArray[np.uint8]


class CacheFile:
    """A file of NumPy's (``.npy``): a row for each image, with what the network's transform makes of it.

    Args:
        path: The file, without its suffix.
        fitted: One image as the transform gives it; the others have the same shapes.
        rows: How many there are.
        start: What checksums start from: a file under another's name is a damaged one.
    """

    suffix: ClassVar[str] = ".npy"
    decodes: ClassVar[bool] = False
    """Whether its images are decoded each time, for which workers pay."""

    def __init__(self, path: Path, fitted: Fitted, rows: int, start: int) -> None:
        self.path, self.count, self.start = path.with_name(path.name + self.suffix), rows, start
        self.image_shape = fitted["image"].shape
        self.dtype = self._row_type({key: np.asarray(value) for key, value in fitted.items() if key in IN_A_ROW})
        header = BytesIO()
        content = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (rows,)}
        np.lib.format.write_array_header_2_0(header, content)
        self.header = header.getvalue()
        self.end = len(self.header) + rows * self.dtype.itemsize
        self._rows: npt.NDArray[np.void] | None = None
        self._bytes: Bytes | None = None
        self._right = np.zeros(rows, bool)  # rows whose checksum was found right

    def __getstate__(self) -> dict[str, Any]:
        # pickle would copy what is mapped; a process maps the file itself
        return {**vars(self), "_rows": None, "_bytes": None}

    def _row_type(self, values: dict[str, npt.NDArray[Any]]) -> np.dtype[np.void]:
        values["image"] = np.moveaxis(values["image"], -1, 0)
        fields = [(key, values[key].dtype, values[key].shape) for key in IN_A_ROW if key in values]
        return np.dtype([*fields, ("checksum", np.dtype(np.uint32), ())])

    def is_complete(self) -> bool:
        """Whether the file is there, whole, and begins as it must."""
        if not self.path.is_file() or self.path.stat().st_size < self.end:
            return False
        with self.path.open("rb") as file:
            return file.read(len(self.header)) == self.header and self.path.stat().st_size == self._size()

    def _size(self) -> int:
        return self.end

    def needed(self, some: Sequence[Fitted]) -> int:
        """About how many bytes the file will have, if its images are like these."""
        return self.end

    def mapped(self) -> npt.NDArray[np.void]:
        """The rows, mapped into memory once."""
        if self._rows is None:
            mapped = np.memmap(self.path, self.dtype, "r", len(self.header), (self.count,))
            self._rows = mapped.view(np.ndarray)  # plain arrays are indexed faster
        return self._rows

    def read(self, index: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Copies of some rows, by field; ``image`` is ``(B, 3, H, W)``.

        Raises:
            DataFormatError: If one is damaged.
        """
        rows = self.mapped()
        unknown = index[~self._right[index]]
        if len(unknown):
            checked = rows[unknown]
            if (checked["checksum"] != self.checksums(checked)).any():
                raise self._damaged()
            self._right[unknown] = True
        return self.content(rows, index)

    def content(self, rows: npt.NDArray[np.void], index: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Copies of some rows, by field."""
        return {name: rows[name][index] for name in self._fields() if name in IN_A_ROW}

    def _damaged(self) -> DataFormatError:
        return DataFormatError(f"{ending(self.path)} is damaged: delete it, and it will be made anew")

    def packed(self, records: Sequence[Fitted], sources: Sequence[Sequence[Path]]) -> Bytes:
        """The bytes of some rows, for :meth:`add`; any process may make them.

        Args:
            records: The images.
            sources: The files that each was read from.
        """
        rows = self._filled(records)
        for row, fitted in zip(rows, records, strict=True):
            row["image"] = np.moveaxis(fitted["image"], -1, 0)
        rows["checksum"] = self.checksums(rows)
        return rows.view(np.uint8)

    def add(self, place: int, count: int, packed: Bytes) -> None:
        """Fill in so many rows from ``place`` on."""
        with self.path.open("r+b") as file:
            file.seek(len(self.header) + place * self.dtype.itemsize)
            file.write(packed.data)

    def _filled(self, records: Sequence[Fitted]) -> npt.NDArray[np.void]:
        rows = np.zeros(len(records), self.dtype)
        for row, fitted in zip(rows, records, strict=True):
            for name in self._fields():
                if name in fitted and name != "image":
                    row[name] = cast(dict[str, Any], fitted)[name]
        return rows

    def _fields(self) -> tuple[str, ...]:
        return self.dtype.names[:-1]  # type: ignore[index]  # it has names, and the last is the checksum's

    def checksums(self, rows: npt.NDArray[np.void]) -> list[int]:
        """What the last field of each row must be."""
        content = rows.view(np.uint8).reshape(len(rows), -1)[:, : -self.dtype["checksum"].itemsize]
        return [crc32(row, self.start) for row in content]


class JpegCacheFile(CacheFile):
    """The same with JPEG in place of pixels: fewer bytes, which are decoded each time.

    An image file whose pixels are what the network sees, such as one of CelebA's at 218×178, is kept as it is, to the
    bit. All else is encoded anew at quality 95, and its pixels differ a little. Behind the rows, which know places and
    lengths, come the JPEGs.
    """

    suffix: ClassVar[str] = ".jpegs"
    decodes: ClassVar[bool] = True

    def _row_type(self, values: dict[str, npt.NDArray[Any]]) -> np.dtype[np.void]:
        fields = [(key, values[key].dtype, values[key].shape) for key in IN_A_ROW[1:] if key in values]
        return np.dtype([*fields, ("place", np.uint64), ("length", np.uint64), ("checksum", np.uint32)])

    def _size(self) -> int:
        rows = self.mapped()
        self._rows = None  # another file may take its place
        return int((rows["place"] + rows["length"]).max())

    def needed(self, some: Sequence[Fitted]) -> int:
        """About how many bytes the file will have, if its images are like these."""
        return self.end + self.count * max(len(encoded(fitted["image"])) for fitted in some)

    def content(self, rows: npt.NDArray[np.void], index: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Copies of some rows, by field, and the images decoded."""
        height, width, channels = self.image_shape
        images = np.empty((len(index), channels, height, width), np.uint8)
        for planes, jpeg in zip(images, self._jpegs(rows[index]), strict=True):
            image = cv2.imdecode(jpeg, AS_STORED)
            if image is None or image.shape != self.image_shape:
                raise self._damaged()
            cv2.split(image, list(planes))
        return {"image": images, **super().content(rows, index)}

    def packed(self, records: Sequence[Fitted], sources: Sequence[Sequence[Path]]) -> Bytes:
        """The bytes of some rows, then their JPEGs."""
        rows = self._filled(records)
        jpegs = [
            _own_jpeg(fitted, files) or encoded(fitted["image"]) for fitted, files in zip(records, sources, strict=True)
        ]
        rows["length"] = [len(jpeg) for jpeg in jpegs]
        return np.frombuffer(bytearray(rows.tobytes() + b"".join(jpegs)), np.uint8)

    def add(self, place: int, count: int, packed: Bytes) -> None:
        """Fill in so many rows from ``place`` on, and add their JPEGs at the end."""
        first, jpegs = np.split(packed, [count * self.dtype.itemsize])
        rows = cast(npt.NDArray[np.void], first.copy().view(self.dtype))
        ends = self.end + np.cumsum(rows["length"])
        rows["place"] = ends - rows["length"]
        with self.path.open("r+b") as file:
            file.seek(self.end)
            file.write(jpegs.data)
        self.end = int(ends[-1])
        rows["checksum"] = self.checksums(rows)
        self._bytes = None  # the file has grown
        super().add(place, count, rows.view(np.uint8))

    def _jpegs(self, rows: npt.NDArray[np.void]) -> list[Bytes]:
        if self._bytes is None:
            self._bytes = np.memmap(self.path, np.uint8, "r").view(np.ndarray)
        return [self._bytes[int(row["place"]) :][: int(row["length"])] for row in rows]

    def checksums(self, rows: npt.NDArray[np.void]) -> list[int]:
        """What the last field of each row must be; its JPEG counts too."""
        return [
            crc32(jpeg.data, checksum)
            for jpeg, checksum in zip(self._jpegs(rows), super().checksums(rows), strict=True)
        ]


def _own_jpeg(fitted: Fitted, files: Sequence[Path]) -> bytes:
    own = own_bytes(fitted["image"], [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")])
    return b"" if own is None else own[1]
