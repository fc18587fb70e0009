"""Where shards are: in a folder, or behind a URL, from which they are fetched when they are needed."""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from filelock import FileLock

from facelightning.data.files import check_file, existing_root
from facelightning.data.shard_format import INDEX, Shard, ShardIndex
from facelightning.errors import (
    ConfigurationError,
    DataFormatError,
    DataNotFoundError,
    ending,
    quoted,
    reading,
)

INCOMPLETE = "holds no shards, or writing them was interrupted: write them anew with `facelightning shard`"


class ShardSource(Protocol):
    """A place of shards."""

    @property
    def hint(self) -> str:
        """What to do about a damaged shard."""

    def index(self) -> ShardIndex:
        """What is there."""

    def open(self, shard: Shard) -> BinaryIO:
        """A file of its bytes, which its reader compares with its checksum."""


class ShardFolder:
    """Shards in a folder, read where they are.

    Raises:
        DataNotFoundError: If there is no such folder.
    """

    hint = "copy it there again, or write the shards anew"

    def __init__(self, root: str | None) -> None:
        self.root = existing_root(root, "Shards", f"{INDEX} and tar files, as `facelightning shard` writes them")

    def index(self) -> ShardIndex:
        """What its index says.

        Raises:
            DataNotFoundError: If there is none, because writing was not completed.
            DataFormatError: If it is damaged.
        """
        path = self.root / INDEX
        if not path.exists():
            raise DataNotFoundError(f"{ending(self.root)} {INCOMPLETE}")
        check_file(path)
        with reading(path):
            return ShardIndex.of(path.read_bytes(), ending(path))

    def open(self, shard: Shard) -> BinaryIO:
        """The file itself."""
        path = self.root / shard.file
        check_file(path)
        with reading(path):
            return path.open("rb")


class FetchedShards:
    """Shards behind a URL, of which the last ones that were read are kept on a disk, for all processes of a machine.

    Args:
        url: Such as ``s3://bucket/folder`` or ``https://host/folder``: what fsspec takes.
        folder: Where fetched shards are; they may be deleted at any time.
        limit: Bytes that they may take. Those opened longest ago make room.
    """

    hint = "delete it, and it will be fetched anew"

    def __init__(self, url: str, folder: Path, limit: int) -> None:
        self.url, self.limit = url.rstrip("/"), limit
        self.folder = folder / "shards" / sha256(self.url.encode()).hexdigest()[:16]

    def index(self) -> ShardIndex:
        """What the index there says; it is fetched each time.

        Raises:
            DataNotFoundError: If it cannot be fetched.
            DataFormatError: If it is damaged.
        """
        with self._reached(INDEX) as (files, place):
            text = files.cat_file(place)
        return ShardIndex.of(text, quoted(f"{self.url}/{INDEX}", 150))

    def open(self, shard: Shard) -> BinaryIO:
        """The fetched file; another process may delete it meanwhile, but not what is open.

        Raises:
            DataNotFoundError: If it cannot be fetched.
            DataFormatError: If other bytes come than those that were written.
        """
        # its checksum in its name: other shards at the same address are other files
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{shard.checksum:08x}-{shard.file}"
        while True:
            with suppress(FileNotFoundError):
                file = path.open("rb")
                os.utime(file.fileno())  # it was opened now
                return file
            try:
                with FileLock(path.with_suffix(".lock")):
                    if not path.exists():  # another process may have fetched it meanwhile
                        self._make_room(shard.size)
                        self._fetch_whole(shard, path)
            except NotImplementedError:
                hint = "name a folder on another disk as data.cache_folder"
                raise ConfigurationError(f"shards: no file in {ending(self.folder)} can be locked: {hint}") from None

    def _fetch_whole(self, shard: Shard, path: Path) -> None:
        part = path.with_suffix(".part")
        try:
            with self._reached(shard.file) as (files, place):
                files.get_file(place, str(part))
            whole = part.stat().st_size == shard.size
            if whole:
                with part.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    whole = shard.is_in(content)
            if not whole:
                where = quoted(f"{self.url}/{shard.file}", 150)
                raise DataFormatError(f"{where} is damaged, or did not come whole: try again, or copy it there again")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _reached(self, name: str) -> Iterator[tuple[Any, str]]:
        """The storage and a file's place in it, reached by this process: connections do not outlive the start of one.

        Raises:
            ConfigurationError: If the storage needs a package that is not installed.
            DataNotFoundError: If what is done within fails.
        """
        import fsspec  # here, because only URLs need it

        url = quoted(f"{self.url}/{name}", 150)
        try:
            yield fsspec.core.url_to_fs(f"{self.url}/{name}")
        except ImportError as error:
            hint = "for s3:// that is pip install 'facelightning[shards]'"
            raise ConfigurationError(f"{url}: {quoted(str(error))}, then try again; {hint}") from None
        except FileNotFoundError:
            what = f"{quoted(self.url, 150)} {INCOMPLETE}" if name == INDEX else f"{url} is not there"
            raise DataNotFoundError(what) from None
        except Exception as error:  # each kind of storage has its own
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # the disk here
                raise
            reason = quoted(f"{type(error).__name__}: {error}", 150)
            raise DataNotFoundError(f"cannot fetch {url} ({reason}): check the address and your access") from None

    def _make_room(self, needed: int) -> None:
        found: list[tuple[int, int, Path]] = []
        for path in self.folder.glob("*.tar"):
            with suppress(FileNotFoundError):  # another process makes room too
                said = path.stat()
                found.append((said.st_mtime_ns, said.st_size, path))
        total = sum(size for _, size, _ in found) + needed
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size


def shard_source(root: str | None, cache_folder: str, limit: int) -> ShardSource:
    """The place that ``root`` names."""
    if root is None or "://" not in root:
        return ShardFolder(root)
    return FetchedShards(root, Path(cache_folder).expanduser(), limit)
