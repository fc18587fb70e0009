"""Shards on disk: tar files in WebDataset's layout, and an index that says what is in them.

A sample is a few files beside one another: ``000000012.jpg`` the image, ``000000012.mask.png`` its mask if there is
one, ``000000012.json`` everything else.
"""

import io
import json
import mmap
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Self, cast
from zlib import crc32

import cv2
import numpy as np

from facelightning.data.encoding import AS_STORED
from facelightning.data.files import SPLITS, Split, decode_image, is_file_name
from facelightning.data.samples import Fitted
from facelightning.errors import DataFormatError, FacelightningError, ending
from facelightning.facts import DataFacts

FORMAT = 1
"""Another number for every change of what the files hold."""

INDEX = "shards.json"
"""Written last: a folder without it is not complete."""

FLOATS = ("attributes", "landmarks", "box", "age", "frame")
"""Labels that are float32; NaN is ``null`` in JSON."""

UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, RecursionError)
"""What reading JSON raises that says something else than expected."""

BLOCK = 512
"""A tar file's headers and contents begin at multiples of so many bytes."""


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Args:
        file: Its name.
        images: The samples in it, at least one.
        size: Its bytes.
        checksum: Their CRC-32.
    """

    file: str
    images: int
    size: int
    checksum: int

    def __post_init__(self) -> None:
        numbers = (self.images, self.size, self.checksum)
        if not is_file_name(self.file) or any(type(each) is not int for each in numbers) or min(numbers[:2]) < 1:
            raise ValueError(self)

    @classmethod
    def written(cls, path: Path, samples: Iterable[tuple[int, Mapping[str, bytes]]]) -> Self:
        """Write numbered samples, each a content by suffix; the same samples give the same bytes."""
        images = 0
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
            for images, (number, sample) in enumerate(samples, start=1):  # noqa: B007  # the last one is their count
                for suffix, content in sample.items():
                    member = tarfile.TarInfo(f"{number:09}.{suffix}")
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
        with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return cls(path.name, images, len(mapped), crc32(mapped))

    def is_in(self, content: mmap.mmap | bytes) -> bool:
        """Whether these are the bytes of the file."""
        return len(content) == self.size and crc32(content) == self.checksum


@dataclass(frozen=True)
class ShardIndex:
    """All that must be known to read a folder of shards.

    Args:
        facts: What a task must know of the data, the training split included.
        splits: The shards of each split, in their order.
    """

    facts: DataFacts
    splits: Mapping[Split, tuple[Shard, ...]]

    def text(self) -> str:
        """The index as JSON."""
        facts = self.facts.plain() | {"positive_rates": self.facts.positive_rates, "images": self.facts.images}
        splits = {split: [asdict(shard) for shard in shards] for split, shards in self.splits.items()}
        return json.dumps({"format": FORMAT, "facts": facts, "splits": splits}, indent=1) + "\n"

    @classmethod
    def of(cls, text: bytes, place: str) -> Self:
        """The inverse of :meth:`text`.

        Raises:
            DataFormatError: If it is no index, or of another version; the message names ``place``.
        """
        try:
            said = json.loads(text)
            if said["format"] != FORMAT:
                hint = f"this version reads {FORMAT}: write the shards anew"
                raise DataFormatError(f"{place} is of format {said['format']!s:.20}, but {hint}")
            rates, images = said["facts"]["positive_rates"], said["facts"]["images"]
            facts = DataFacts.of(said["facts"])
            facts = replace(facts, positive_rates=rates and tuple(map(float, rates)), images=images and int(images))
            return cls(facts, {split: tuple(Shard(**each) for each in said["splits"][split]) for split in SPLITS})
        except FacelightningError:
            raise
        except UNREADABLE:
            raise DataFormatError(f"{place} is no index of shards, or is damaged: copy it again") from None


class OpenShard:
    """A shard mapped into memory, whose samples are read in any order.

    Args:
        file: The open file, which is closed here.
        shard: What it must be.
        hint: What to do if it is not.

    Raises:
        DataFormatError: If its bytes are others.
    """

    def __init__(self, file: BinaryIO, shard: Shard, hint: str) -> None:
        self.path, self.hint = Path(file.name), hint
        with file:
            whole = file.seek(0, io.SEEK_END) == shard.size  # nothing of no bytes can be mapped
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if whole else b""
        # its pixels alone would not show every damage; and all of it is soon needed in memory
        if not shard.is_in(self._content):
            raise self._damaged()
        try:
            self._samples = self._found()
        except UNREADABLE:
            raise self._damaged() from None
        if len(self._samples) != shard.images:
            raise self._damaged()

    def _damaged(self) -> DataFormatError:
        return DataFormatError(f"{ending(self.path)} is damaged: {self.hint}")

    def _found(self) -> list[dict[str, slice]]:
        """Where the contents of each sample are, by suffix; ``tarfile`` takes ten times as long to say it."""
        samples: dict[str, dict[str, slice]] = {}
        place, content = 0, self._content
        while name := content[place : place + 100].rstrip(b"\0").decode("ascii"):
            begin = place + BLOCK
            size = int(content[place + 124 : place + 135], 8)
            if not 0 <= size <= len(content) - begin:
                raise ValueError(size)
            key, _, suffix = name.partition(".")
            samples.setdefault(key, {})[suffix] = slice(begin, begin + size)
            place = begin + -(-size // BLOCK) * BLOCK
        return list(samples.values())

    def __getitem__(self, place: int) -> Fitted:
        """One sample, at the network's size.

        Raises:
            DataFormatError: If it is none of this library's.
        """
        contents = {suffix: self._content[where] for suffix, where in self._samples[place].items()}
        try:
            labels = json.loads(contents.pop("json"))
            known = {key: _read(key, value) for key, value in labels.items()}
            mask = contents.pop("mask.png", None)
            ((suffix, image),) = contents.items()
        except UNREADABLE:
            raise self._damaged() from None
        where = self.path / f"{place}.{suffix}"
        known["image"], _ = decode_image(image, where, AS_STORED)  # a warning of damage was given when it was written
        if mask is not None:
            known["mask"], _ = decode_image(mask, where, cv2.IMREAD_GRAYSCALE)
        return cast(Fitted, known)


def packed(fitted: Fitted, image: bytes, suffix: str) -> dict[str, bytes]:
    """A sample's contents by suffix; ``image`` are the bytes of its image file."""
    labels = {key: _plain(value) for key, value in fitted.items() if key not in ("image", "mask")}
    contents = {suffix: image, "json": json.dumps(labels, allow_nan=False).encode()}
    if "mask" in fitted:
        contents["mask.png"] = cv2.imencode(".png", fitted["mask"])[1].tobytes()
    return contents


def _plain(value: Any) -> Any:
    """A label as JSON has it."""
    array = np.asarray(value)
    plain = array.astype(object)
    if array.dtype.kind == "f":
        plain[np.isnan(array)] = None
    return plain.tolist()


def _read(key: str, value: Any) -> Any:
    """A label as it was."""
    return np.array(value, np.float32) if key in FLOATS else np.array(value) if key == "size" else value
