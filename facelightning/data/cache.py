"""Images that are read and resized once, into a file that is mapped into memory."""

import os
import shutil
from collections.abc import Sequence
from copy import copy
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import cv2
import lightning as L
import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from facelightning.data.cache_file import IN_A_ROW, Bytes, CacheFile, JpegCacheFile
from facelightning.data.files import FileRecords, with_sources
from facelightning.data.samples import Fitted, Sample, tensors, unstacked
from facelightning.data.sampling import Key
from facelightning.data.transforms import FaceDataset, FaceTransform, checked
from facelightning.errors import ConfigurationError, ending, reading

FORMAT = 1
"""Another number for every change of what a file holds."""

BATCH = 16
"""So many images are written at once."""

IMAGES_FOR_A_PROCESS = 500
"""It does not pay to start one for fewer."""

LITTLE = 10**9
"""Bytes of decoded images that may be kept without asking."""

SOME = 16
"""From so many images the size of a file is estimated."""


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


def enough_workers(trainer: L.Trainer | None) -> int:
    """How many processes decode the images of one loader.

    Two decode more than a processor learns from. A GPU learns from more, and leaves the cores to them: half of each
    GPU's share of the cores, from 2 to 8, as there are often two loaders.
    """
    if trainer is None or trainer.strategy.root_device.type == "cpu":
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(2, cores // (2 * trainer.num_devices)), 8)


def cached(dataset: FaceDataset, folder: Path, kind: type[CacheFile] = CacheFile) -> CachedFaces:
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
    name = f"{type(records).__name__}-{len(records)}-{height}x{width}-{hashed[:16]}"
    file = kind(folder / name, first, len(records), int(hashed[-8:], 16))
    if not file.is_complete():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(file.path.with_suffix(".lock")):
                if not file.is_complete():  # another process may have made it meanwhile
                    _make(dataset, records, file)
        except NotImplementedError:
            hint = "name a folder on another disk as data.cache_folder"
            raise ConfigurationError(f"cache: no file in {ending(folder)} can be locked: {hint}") from None
    return CachedFaces(dataset, file)


def decoded_once(dataset: FaceDataset) -> CachedFaces | None:
    """The same data set, read from a file that no other process sees, and that is gone when this one ends.

    Returns:
        ``None`` if the file would be larger than :data:`LITTLE`, or take more than a quarter of what the folder for
        temporary files has free; or if the records do not say what they are read from.
    """
    try:
        records = with_sources(dataset.records)
        _ = records.reading, records.columns  # records made of others raise only when asked for these
    except ConfigurationError:
        return None
    try:
        # on Windows, what is mapped cannot be deleted before the process ends
        with TemporaryDirectory(prefix="facelightning-", ignore_cleanup_errors=True) as folder:
            file = CacheFile(Path(folder) / "decoded", dataset.transform.fitted(records[0]), len(records), 0)
            if file.end > min(LITTLE, shutil.disk_usage(folder).free // 4):
                return None
            _make(dataset, records, file, f"decoding {_bytes(file.end)} of images once")
            file.mapped()
    except OSError:  # there is no such folder, or it is full: the images are read from their own files
        return None
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


class _Making(Dataset[Bytes]):
    """A data set whose records are packed when a loader, with its processes, reads them."""

    def __init__(self, dataset: FaceDataset, records: FileRecords, file: CacheFile) -> None:
        self.dataset, self.records, self.file = dataset, records, file

    def __getitem__(self, batch: range) -> Bytes:
        fitted = [self.dataset.transform.fitted(self.records[index]) for index in batch]
        return self.file.packed(fitted, [self.records.sources(index) for index in batch])


def _make(dataset: FaceDataset, records: FileRecords, file: CacheFile, what: str | None = None) -> None:
    """Write the file beside its place, and move it there once it is complete; ``what`` is said meanwhile."""
    part = copy(file)
    part.path = file.path.with_suffix(".part")
    part.path.unlink(missing_ok=True)
    some = range(0, file.count, -(-file.count // SOME))
    needed = part.needed([dataset.transform.fitted(records[index]) for index in some])
    free = shutil.disk_usage(part.path.parent).free
    if needed > free:
        smaller = "" if isinstance(part, JpegCacheFile) else ", take data.cache=jpeg"
        raise ConfigurationError(
            f"cache: {ending(part.path.parent)} has {_bytes(free)} free, but the images take {_bytes(needed)}: "
            f"free some space, name another data.cache_folder{smaller}, or leave data.cache out"
        )
    batches = [range(file.count)[place : place + BATCH] for place in range(0, file.count, BATCH)]
    processes = min(os.cpu_count() or 1, file.count // IMAGES_FOR_A_PROCESS)
    own = torch.Generator()  # or else a loader draws from the run's, and a network would begin with other weights
    loader = DataLoader(
        _Making(dataset, records, part),
        None,
        sampler=batches,
        num_workers=processes,
        worker_init_fn=single_threaded,
        generator=own,
    )
    delay = 0 if what is None else 1  # seconds; what nobody asked for is said if it takes long
    what = what or f"caching {_bytes(needed)} in {ending(part.path.parent)}"
    try:
        with part.path.open("wb") as opened:
            opened.write(part.header)
            opened.truncate(part.end)
        with tqdm(total=file.count, desc=what, unit="image", delay=delay) as progress:
            for batch, packed in zip(batches, loader, strict=True):
                part.add(batch[0], len(batch), packed.numpy())
                progress.update(len(batch))
        part.path.replace(file.path)
    finally:
        part.path.unlink(missing_ok=True)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
