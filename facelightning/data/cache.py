"""Images that are decoded and resized once, into a file that is mapped into memory."""

import os
import shutil
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import cv2
import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from facelightning.data.files import FileRecords, with_sources
from facelightning.data.samples import Fitted, Sample, tensors, unstacked
from facelightning.data.sampling import Key
from facelightning.data.transforms import FaceDataset, FaceTransform, checked
from facelightning.errors import ConfigurationError, DataFormatError, ending, reading

FORMAT = 1
"""Another number for every change of what a file holds."""

IN_A_ROW = ("image", "mask", "landmarks", "box", "size", "frame", "is_cut")
"""What depends on pixels or their number; all else is taken from the annotations, which may change at no cost."""

BATCH = 16
"""So many images are written at once."""

IMAGES_FOR_A_PROCESS = 500
"""It does not pay to start one for fewer."""


class CacheFile:
    """A file of NumPy's (``.npy``): a row for each image, with what the network's transform makes of it.

    Args:
        path: The file.
        dtype: The fields of a row; the last one is its checksum.
        rows: How many there are.
        start: What checksums start from: a file under another's name is a damaged one.
    """

    def __init__(self, path: Path, dtype: np.dtype[np.void], rows: int, start: int) -> None:
        self.path, self.dtype, self.count, self.start = path, dtype, rows, start
        header = BytesIO()
        content = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
        np.lib.format.write_array_header_2_0(header, content)
        self.header = header.getvalue()
        self.size = len(self.header) + rows * dtype.itemsize
        self._rows: npt.NDArray[np.void] | None = None
        self._right = np.zeros(rows, bool)  # rows whose checksum was found right

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_rows": None}  # pickle would copy all rows; a process maps the file itself

    def is_complete(self) -> bool:
        """Whether the file is there, whole, and begins as it must."""
        if not self.path.is_file() or self.path.stat().st_size != self.size:
            return False
        with self.path.open("rb") as file:
            return file.read(len(self.header)) == self.header

    def read(self, index: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Copies of some rows, by field.

        Raises:
            DataFormatError: If one is damaged.
        """
        if self._rows is None:
            mapped = np.memmap(self.path, self.dtype, "r", len(self.header), (self.count,))
            self._rows = mapped.view(np.ndarray)  # plain arrays are indexed faster
        unknown = index[~self._right[index]]
        if len(unknown):
            rows = self._rows[unknown]
            if (rows["checksum"] != self._checksums(rows)).any():
                raise DataFormatError(f"{ending(self.path)} is damaged: delete it, and it will be made anew")
            self._right[unknown] = True
        return {name: self._rows[name][index] for name in self.dtype.names[:-1]}  # type: ignore[index]  # it has names

    def write(self, place: int, records: Sequence[Fitted]) -> None:
        """Fill in the rows from ``place`` on."""
        rows = np.zeros(len(records), self.dtype)
        for row, fitted in zip(rows, records, strict=True):
            for name in self.dtype.names[:-1]:  # type: ignore[index]  # likewise
                value = cast(dict[str, Any], fitted)[name]
                row[name] = np.moveaxis(value, -1, 0) if name == "image" else value
        rows["checksum"] = self._checksums(rows)
        with self.path.open("r+b") as file:
            file.seek(len(self.header) + place * self.dtype.itemsize)
            file.write(rows.tobytes())

    def _checksums(self, rows: npt.NDArray[np.void]) -> list[int]:
        content = rows.view(np.uint8).reshape(len(rows), -1)[:, : -self.dtype["checksum"].itemsize]
        return [crc32(row, self.start) for row in content]


class CachedFaces(Dataset[Any]):
    """The samples of a data set, to the same bits, with images from a file; ``__getitems__`` gives a whole batch."""

    def __init__(self, dataset: FaceDataset, file: CacheFile) -> None:
        self.file, self.transform = file, dataset.transform
        self.names = np.asarray(dataset.names)
        columns = with_sources(dataset.records).columns
        self.columns = {key: column for key, column in columns.items() if key not in IN_A_ROW}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: Key) -> Sample:
        index, seed = checked(key)
        (fitted,) = unstacked(self._fitted([index]))
        return tensors(self.transform.augmented(fitted, seed))

    def __getitems__(self, keys: Sequence[Key]) -> Sample:
        """The batch of these samples."""
        index, seeds = zip(*map(checked, keys), strict=True)
        return self.transform.batch(self._fitted(index), seeds)

    def _fitted(self, index: Sequence[int]) -> Fitted:
        """What :meth:`FaceTransform.fitted` gives for each of the images, one behind another."""
        where = np.array(index)
        fitted: dict[str, Any] = {"name": self.names[where].tolist()}
        fitted |= {key: column[where] for key, column in self.columns.items()} | self.file.read(where)
        fitted["image"] = np.moveaxis(fitted["image"], 1, -1)
        return cast(Fitted, fitted)


def single_threaded(worker: int) -> None:
    """For the start of a loader's worker."""
    cv2.setNumThreads(0)  # the workers already run in parallel; OpenCV's own threads would compete for the cores


def cached(dataset: FaceDataset, folder: Path) -> CachedFaces:
    """The same data set, read from a file in ``folder``, which is made if there is none or no whole one.

    Its name holds a hash of all that decides its content: the image files' paths, sizes and times of modification,
    landmarks, boxes, image size, crop, and the versions of what decodes and resizes. Of several processes that need
    the same file one makes it, and the others wait.

    Raises:
        ConfigurationError: If there is no room for it, or the records do not say what they are read from.
    """
    records = with_sources(dataset.records)
    first = dataset.transform.fitted(records[0])
    hashed = _fingerprint(records, dataset.transform)
    height, width = dataset.transform.image_size
    name = f"{type(records).__name__}-{len(records)}-{height}x{width}-{hashed[:16]}.npy"
    file = CacheFile(folder / name, _row_type(first), len(records), int(hashed[-8:], 16))
    if not file.is_complete():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(file.path.with_suffix(".lock")):
                if not file.is_complete():  # another process may have made it meanwhile
                    _make(dataset, file)
        except NotImplementedError:
            hint = "name a folder on another disk as data.cache_folder"
            raise ConfigurationError(f"cache: no file in {ending(folder)} can be locked: {hint}") from None
    return CachedFaces(dataset, file)


def _fingerprint(records: FileRecords, transform: FaceTransform) -> str:
    about = [FORMAT, type(records).__name__, records.reading, transform.image_size]
    hashed = sha256(repr([*about, cv2.__version__, version("albumentations")]).encode())
    for key, column in records.columns.items():
        if key in IN_A_ROW:
            hashed.update(f"{key} {column.dtype} {column.shape}".encode() + column.tobytes())
    for index in range(len(records)):
        for path in records.sources(index):
            with reading(path):
                found = os.stat(path)
            hashed.update(os.fsencode(f"{os.path.abspath(path)}\0{found.st_size}\0{found.st_mtime_ns}\n"))
    return hashed.hexdigest()


def _row_type(fitted: Fitted) -> np.dtype[np.void]:
    values = {key: np.asarray(value) for key, value in fitted.items() if key in IN_A_ROW}
    values["image"] = np.moveaxis(values["image"], -1, 0)
    fields = [(key, values[key].dtype, values[key].shape) for key in IN_A_ROW if key in values]
    return np.dtype([*fields, ("checksum", np.dtype(np.uint32), ())])


class _Making(Dataset[int]):
    """A data set whose records are written when a loader, with its processes, reads them."""

    def __init__(self, dataset: FaceDataset, file: CacheFile) -> None:
        self.dataset, self.file = dataset, file

    def __getitem__(self, batch: range) -> int:
        self.file.write(batch[0], [self.dataset.transform.fitted(self.dataset.records[index]) for index in batch])
        return len(batch)


def _make(dataset: FaceDataset, file: CacheFile) -> None:
    """Write the file beside its place, and move it there once it is complete."""
    part = CacheFile(file.path.with_suffix(".part"), file.dtype, file.count, file.start)
    part.path.unlink(missing_ok=True)
    free = shutil.disk_usage(part.path.parent).free
    if part.size > free:
        raise ConfigurationError(
            f"cache: {ending(part.path.parent)} has {_bytes(free)} free, but the images take {_bytes(part.size)}: "
            "free some space, name another data.cache_folder, or leave data.cache out"
        )
    batches = [range(file.count)[place : place + BATCH] for place in range(0, file.count, BATCH)]
    processes = min(os.cpu_count() or 1, file.count // IMAGES_FOR_A_PROCESS)
    own = torch.Generator()  # or else a loader draws from the run's, and a network would begin with other weights
    loader = DataLoader(
        _Making(dataset, part),
        None,
        sampler=batches,
        num_workers=processes,
        worker_init_fn=single_threaded,
        generator=own,
    )
    what = f"caching {_bytes(part.size)} in {ending(part.path.parent)}"
    try:
        with part.path.open("wb") as opened:
            opened.write(part.header)
            opened.truncate(part.size)
        with tqdm(total=file.count, desc=what, unit="image") as progress:
            for count in loader:
                progress.update(count)
        part.path.replace(file.path)
    finally:
        part.path.unlink(missing_ok=True)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
