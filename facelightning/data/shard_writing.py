"""Writing the samples of a data module as shards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from facelightning.data.cache import single_threaded
from facelightning.data.datamodule import FaceDataModule
from facelightning.data.encoding import encoded, own_bytes
from facelightning.data.files import SPLITS, FileRecords, Split
from facelightning.data.shard_format import INDEX, Shard, ShardIndex, packed
from facelightning.data.transforms import FaceDataset


def write_shards(data: FaceDataModule, folder: Path, images_per_shard: int) -> tuple[ShardIndex, int]:
    """Write all splits of a data module into a folder: its index, and how many images are not their file's own bytes.

    A sample is what the network would see, before augmentation. If an image file, decoded, is exactly that, its bytes
    are kept; else the image is a JPEG of quality 95 with colours at full resolution, whose pixels differ a little. The
    training images are shuffled once, so that a shard is not of one person or category; others stay in order. The
    index is written last.

    Args:
        data: The data module, prepared. Its ``num_workers`` write, each a shard at a time.
        folder: An empty folder.
        images_per_shard: Images of a tar file; the last one of a split may have fewer.
    """
    datasets = {split: data.dataset(split) for split in SPLITS}  # all are opened before anything is written
    splits, not_own = dict[Split, tuple[Shard, ...]](), 0
    for split, dataset in datasets.items():
        order = np.arange(len(dataset))
        if split == "train":
            np.random.default_rng(0).shuffle(order)
        writing = _Writing(dataset, order, images_per_shard, folder, split)
        workers = min(data.workers, len(writing))
        loader = DataLoader(writing, None, num_workers=workers, worker_init_fn=single_threaded)
        shards = list[Shard]()
        with tqdm(total=len(dataset), desc=f"writing {split}", unit="image") as progress:
            for shard, others in loader:
                progress.update(shard.images)
                shards.append(shard)
                not_own += others
        splits[split] = tuple(shards)
    index = ShardIndex(data.facts, splits)
    part = folder / f"{INDEX}.part"
    part.write_text(index.text(), encoding="utf-8")
    part.replace(folder / INDEX)
    return index, not_own


class _Writing(Dataset[tuple[Shard, int]]):
    """A data set whose shards are written when a loader, with its processes, reads them."""

    def __init__(
        self, dataset: FaceDataset, order: npt.NDArray[np.int64], images: int, folder: Path, split: Split
    ) -> None:
        self.dataset, self.folder, self.split = dataset, folder, split
        self.parts = [order[begin : begin + images] for begin in range(0, len(order), images)]
        self.images = images

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[Shard, int]:
        """The shard, and how many of its images are not their file's own bytes."""
        others = list[str]()
        path = self.folder / f"{self.split}-{number:06}.tar"
        samples = enumerate(self._samples(self.parts[number].tolist(), others), start=number * self.images)
        return Shard.written(path, samples), len(others)

    def _samples(self, part: list[int], others: list[str]) -> Iterator[dict[str, bytes]]:
        for index in part:
            fitted = self.dataset.transform.fitted(self.dataset.records[index])
            records = self.dataset.records
            own = own_bytes(fitted["image"], records.sources(index)[:1]) if isinstance(records, FileRecords) else None
            if own is None:
                others.append(fitted["name"])
            suffix, content = own or ("jpg", encoded(fitted["image"]))
            yield packed(fitted, content, suffix)
