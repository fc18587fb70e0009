"""What a plan for many machines needs: bytes that each step sends, bytes of an image, images a processor second.

    python benchmarks/scale.py --celeba /path/to/celeba --size 218 178 --images 2000 --output scale.json

Networks are counted exactly, without data, at full width: the gradients that DDP sums in each step, and the buffers
that it sends from the first process. The frozen parser of SSP and SSG has no gradients; its buffers are those of the
SegNet. Images are read, decoded, resized and mirrored in one thread of this process, by turns from files and from the
cache. Processor seconds are counted, so that other work on the machine matters less. The first turn, which brings files
into memory and compares checksums, is not.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from facelightning.data import CelebADataModule
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7
from facelightning.models.gating import SemanticGating
from facelightning.models.heads import LocalizationHead
from facelightning.models.known_masks import KnownMasks
from facelightning.models.pooling import SemanticPooling
from facelightning.tasks import AttributeNet, FaceTask, JointNet, SegNet

NETWORKS: dict[str, FaceTask] = {
    "segnet": SegNet(),
    "avg": AttributeNet(),
    "ssp": AttributeNet(pooling=SemanticPooling, head=LocalizationHead, regions=KnownMasks),
    "ssg": AttributeNet(gate=SemanticGating, regions=KnownMasks),
    "jointnet": JointNet(),
}
"""The networks of the configurations with these names; known masks stand for a frozen parser."""

BATCH_SIZE = 32


def sent(task: FaceTask) -> dict[str, int]:
    """Parameters that are learned, and the bytes of their gradients and of all buffers."""
    with torch.device("meta"):
        task.build(DataFacts((218, 178), HELEN7, ATTRIBUTES))
    learned = [each for each in task.parameters() if each.requires_grad]
    return {
        "parameters": sum(each.numel() for each in learned),
        "gradient_bytes": sum(each.nbytes for each in learned),
        "buffer_bytes": sum(each.nbytes for each in task.buffers()),
        "batch_norms": sum(isinstance(each, torch.nn.BatchNorm2d) for each in task.modules()),
    }


def images_per_processor_second(loader: DataLoader[Any]) -> float:
    """One pass."""
    began = time.process_time()
    count = sum(len(batch["image"]) for batch in loader)
    return count / (time.process_time() - began)


def reading(root: Path, size: tuple[int, int], images: int, rounds: int) -> dict[str, float]:
    """The mean bytes of a file and of a cached image, and the median rates from both."""
    with TemporaryDirectory() as folder:
        options: dict[str, Any] = {"image_size": size, "batch_size": BATCH_SIZE, "train_images": images, "seed": 0}
        files = CelebADataModule(str(root), num_workers=0, **options)
        cache = CelebADataModule(str(root), num_workers=0, cache=True, cache_folder=folder, **options)
        for data in (files, cache):
            data.loaded("train")
        records = files.records("train")
        sizes = [path.stat().st_size for index in range(len(records)) for path in records.sources(index)]
        (cached,) = Path(folder).glob("*.npy")
        rates: dict[str, list[float]] = {"files": [], "cache": []}
        for number in range(rounds + 1):
            for name, data in (("files", files), ("cache", cache)):
                rate = images_per_processor_second(data.train_dataloader())
                if number > 0:
                    rates[name].append(rate)
        return {
            "images": len(records),
            "file_bytes": mean(sizes),
            "cached_bytes": cached.stat().st_size / len(records),
            **{f"{name}_images_per_processor_second": median(found) for name, found in rates.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, required=True, help="root folder of CelebA")
    parser.add_argument("--size", type=int, nargs=2, default=(218, 178), help="height and width in pixels")
    parser.add_argument("--images", type=int, default=2000, help="training images that are read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    found = {name: sent(task) for name, task in NETWORKS.items()}
    results = {"sent": found, "read": reading(options.celeba, tuple(options.size), options.images, options.rounds)}
    text = json.dumps(results, indent=2)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
