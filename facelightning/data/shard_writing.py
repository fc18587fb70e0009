"""Writing the samples of a data module as shards."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from facelightning.data.cache import single_threaded
from facelightning.data.datamodule import FaceDataModule
from facelightning.data.decoding import promised_size
from facelightning.data.files import SPLITS, FileRecords, Split, decode_image
from facelightning.data.shard_format import INDEX, Shard, ShardIndex, packed
from facelightning.data.transforms import FaceDataset, Fitted
from facelightning.errors import DataFormatError, reading

QUALITY = (
    cv2.IMWRITE_JPEG_QUALITY, 95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,  # colours at full resolution
)  # fmt: skip


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
    data.setup("fit")
    data.setup("test")
    splits, encoded = dict[Split, tuple[Shard, ...]](), 0
    for split in SPLITS:
        dataset = data.dataset(split)
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
                encoded += others
        splits[split] = tuple(shards)
    index = ShardIndex(data.facts, splits)
    part = folder / f"{INDEX}.part"
    part.write_text(index.text(), encoding="utf-8")
    part.replace(folder / INDEX)
    return index, encoded


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
        encoded = list[str]()
        path = self.folder / f"{self.split}-{number:06}.tar"
        samples = enumerate(self._samples(self.parts[number].tolist(), encoded), start=number * self.images)
        return Shard.written(path, samples), len(encoded)

    def _samples(self, part: list[int], encoded: list[str]) -> Iterator[dict[str, bytes]]:
        for index in part:
            fitted = self.dataset.transform.fitted(self.dataset.records[index])
            own = _own_bytes(self.dataset, index, fitted)
            if own is None:
                encoded.append(fitted["name"])
                picture = cv2.cvtColor(fitted["image"], cv2.COLOR_RGB2BGR)
                own = "jpg", cv2.imencode(".jpg", picture, QUALITY)[1].tobytes()
            suffix, content = own
            yield packed(fitted, content, suffix)


def _own_bytes(dataset: FaceDataset, index: int, fitted: Fitted) -> tuple[str, bytes] | None:
    """Suffix and bytes of an image's file, if it decodes to exactly this image."""
    records, image = dataset.records, fitted["image"]
    if not isinstance(records, FileRecords):
        return None
    path = records.sources(index)[0]
    with reading(path):
        content = path.read_bytes()
    if promised_size(content) != image.shape[1::-1]:  # most do not need a second decoding
        return None
    try:
        found, _ = decode_image(content, path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except DataFormatError:
        return None
    return (path.suffix[1:].lower(), content) if np.array_equal(found, image) else None
