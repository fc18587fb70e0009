"""Maps of frozen networks in a file, so that no image goes through such a network twice."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facelightning.errors import ConfigurationError, ending

TABLE = "CREATE TABLE IF NOT EXISTS maps (key BLOB PRIMARY KEY, type TEXT, shape TEXT, numbers BLOB, digest BLOB)"

Maps = dict[bytes, Tensor]


class MapStore:
    """A file of feature maps, each under its network's weights and the bytes of the image that it was computed of.

    So a flipped image has a map of its own, and another network too. A map comes back to the bit as it was computed
    first. Trainings may share the file, one after another or at once. It only grows: delete it once it is not needed,
    or if the code of a network has changed. Images that augmentation makes new in every epoch gain nothing from it.

    Args:
        path: The SQLite file, which is created.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     store = MapStore(Path(folder, "maps.sqlite"))
        ...     images = torch.zeros(2, 3, 4, 4)
        ...     first = store.maps("a network", images, lambda new: new + 1)
        ...     store.maps("a network", images, lambda new: new + 2).equal(first)
        True
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch is only partly typed
    def maps(self, network: str, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The maps of images ``(B, ...)``, ``(B, C, h, w)``; those that are not in the file are computed.

        Args:
            network: What tells the network from all others; the precision of autocast is added to it.
            images: The images.
            compute: The network.

        Raises:
            ConfigurationError: If the file cannot be read or written, or is no such file.
        """
        device = images.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        keys = _keys(f"{network} {precision}", images)
        with self._open() as file:
            found = _read(file, keys)
        missing = [place for place, key in enumerate(keys) if key not in found]
        if missing:
            new = compute(images[missing])
            found |= dict(zip([keys[place] for place in missing], new.cpu(), strict=True))
            with self._open() as file:
                _write(file, {keys[place]: found[keys[place]] for place in missing})
        return torch.stack([found[key] for key in keys]).to(images.device)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # opened anew for every batch: a connection must not be shared with another process
            with closing(sqlite3.connect(self.path, timeout=600)) as file, file:
                file.execute("PRAGMA synchronous = OFF")  # what a power cut destroys is computed again
                file.execute(TABLE)
                yield file
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(
                f"the file of maps {ending(self.path)} cannot be used ({error}): delete it, or name another one"
            ) from None


def _keys(network: str, images: Tensor) -> list[bytes]:
    """What tells each image's map from all others: the network, and the image with its type and shape."""
    common = sha256(f"{network} {images.dtype} {tuple(images.shape[1:])} ".encode())
    keys = []
    for numbers in _numbers(images).reshape(len(images), -1):
        key = common.copy()
        key.update(numbers.data)
        keys.append(key.digest()[:16])
    return keys


def _numbers(values: Tensor) -> npt.NDArray[np.uint8]:
    return values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _read(file: sqlite3.Connection, keys: Sequence[bytes]) -> Maps:
    marks = ", ".join("?" * len(keys))
    rows = file.execute(f"SELECT key, type, shape, numbers, digest FROM maps WHERE key IN ({marks})", keys)
    found: Maps = {}
    for key, kind, shape, numbers, digest in rows:
        if _digest(key, kind, shape, numbers) != digest:
            raise sqlite3.DatabaseError("a map in it is damaged")
        values = torch.frombuffer(bytearray(numbers), dtype=getattr(torch, kind))
        found[key] = values.reshape([*map(int, shape.split())])
    return found


def _write(file: sqlite3.Connection, maps: Maps) -> None:
    rows = [
        (key, str(x.dtype).removeprefix("torch."), " ".join(map(str, x.shape)), _numbers(x).tobytes())
        for key, x in maps.items()
    ]
    # another process may have been faster
    file.executemany("INSERT OR IGNORE INTO maps VALUES (?, ?, ?, ?, ?)", [(*row, _digest(*row)) for row in rows])


def _digest(key: bytes, kind: str, shape: str, numbers: bytes | None) -> bytes:
    digest = sha256(repr((key, kind, shape)).encode())
    digest.update(numbers or b"")
    return digest.digest()[:16]
