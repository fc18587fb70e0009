"""Batches from shards: for data that fits no disk, or a disk that is slow with many small files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import inf
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from facelightning.data.datamodule import FaceDataModule
from facelightning.data.fetching import FetchedShards, ShardSource, shard_source
from facelightning.data.files import Split
from facelightning.data.samples import Fitted
from facelightning.data.sampling import ShardSampler, TrainSampler
from facelightning.data.shard_format import OpenShard, Shard, ShardIndex
from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.facts import DataFacts, shown


class ShardRecords(Dataset[Fitted]):
    """One split in shards, as records that are at the network's size already.

    Args:
        source: Where the shards are.
        shards: Those of the split.
        image_size: Height and width of their images, in pixels.
        kept: How many a process keeps open.
    """

    def __init__(
        self, source: ShardSource, shards: Sequence[Shard], image_size: tuple[int, int], kept: int = 1
    ) -> None:
        self.source, self.shards, self.image_size, self.kept = source, shards, image_size, kept
        self._ends = list(accumulate(shard.images for shard in shards))
        self._open: dict[int, OpenShard] = {}  # in the order in which they were opened

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}  # a process maps the files itself

    @property
    def names(self) -> list[str]:
        """The place of each image, which is its name as long as its shard is not open."""
        return [f"{shard.file}/{place}" for shard in self.shards for place in range(shard.images)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Fitted:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._opened(number)
        fitted = shard[index - (self._ends[number] - self.shards[number].images)]
        for size in [fitted["image"].shape[:2], *([fitted["mask"].shape] if "mask" in fitted else [])]:
            if size != self.image_size:
                found, expected = shown(list(size)), shown(list(self.image_size))
                raise DataFormatError(f"{shard.path} has an image of {found}, not of {expected}: write the shards anew")
        return fitted

    def _opened(self, number: int) -> OpenShard:
        if number not in self._open:
            if len(self._open) == self.kept:
                del self._open[next(iter(self._open))]
            shard = self.shards[number]
            self._open[number] = OpenShard(self.source.open(shard), shard, self.source.hint)
        return self._open[number]


@dataclass(eq=False)
class ShardsDataModule(FaceDataModule):
    """Batches from shards that ``facelightning shard`` has written from another data module.

    Everything else is as there: labels, augmentation by (seed, epoch, sample), exact scores on any number of processes
    and exact resuming amid an epoch. Only the order in which training images come is another:
    :class:`~facelightning.data.sampling.ShardSampler` says how random it is. Batches by identity are not made.

    A shard behind a URL is fetched when its first image is needed, into ``cache_folder``. Each machine fetches all
    shards in every epoch, except those that it still has: then two processes take the same images as one.

    Args:
        root: The folder that was written, or its URL, such as ``s3://bucket/folder``: what fsspec takes.
        window: How many shards are read in turns while training: more are more random.
        gigabytes: What fetched shards may take on the disk, for each ``root``: at least those of two windows.

    Raises:
        ConfigurationError: If a number is wrong.
    """

    root: str | None = None
    window: int = 8
    gigabytes: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1 or not 0 < self.gigabytes < inf:
            raise ConfigurationError(
                f"ShardsDataModule: window {self.window} and gigabytes {self.gigabytes} must be positive"
            )
        if self.cache:
            raise ConfigurationError("ShardsDataModule: shards are decoded as they are read: leave data.cache out")

    @cached_property
    def source(self) -> ShardSource:
        """Where the shards are."""
        return shard_source(self.root, self.cache_folder, int(1e9 * self.gigabytes))

    @cached_property
    def index(self) -> ShardIndex:
        """What is there, read on first use."""
        index = self.source.index()
        needed = 2 * self.window * max((each.size for shards in index.splits.values() for each in shards), default=0)
        if isinstance(self.source, FetchedShards) and needed > self.source.limit:
            raise ConfigurationError(
                f"ShardsDataModule: two windows of shards are {needed / 1e9:.2g} GB, but gigabytes is "
                f"{self.gigabytes:g}, so that each shard would be fetched many times: raise it, or make window smaller"
            )
        return index

    @property
    def facts(self) -> DataFacts:
        """Those of the data module that was written.

        Raises:
            ConfigurationError: If the images were written at another size.
        """
        written, asked = self.index.facts.image_size, self.image_size
        if written != asked:
            raise ConfigurationError(
                f"the shards in {self.root} are of {shown(list(written))} pixels, but image_size is "
                f"{shown(list(asked))}: write them anew, or pass --data.image_size=[{written[0]},{written[1]}]"
            )
        return self.index.facts

    def records(self, split: Split) -> ShardRecords:
        """One split."""
        # while one shard is read, only those are opened that begin less than a window before or after it
        kept = 2 * self.window if split == "train" else 1
        return ShardRecords(self.source, self.index.splits[split], self.facts.image_size, kept)

    def train_sampler(self, seed: int) -> TrainSampler:
        """A few shards at a time."""
        sizes = [shard.images for shard in self.index.splits["train"]]
        return ShardSampler(sizes, self.window, seed, *self._process())
