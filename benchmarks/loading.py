"""Images a second: from files and both kinds of cache, beside a torchvision data set.

    python benchmarks/loading.py --celeba /path/to/celeba --size 109 89 --rounds 5 --output loading.json

They take turns in one process, with each number of workers, so that whatever else the machine does befalls all.
Each gives batches of 32: image, resized and every other one mirrored, and 40 attributes. The start of workers and
the first batch are not timed. CelebA in its official layout: ``Anno``, ``Eval``, ``Img/img_align_celeba``.

Before that it times how annotation files of CelebA's size are read. ``curves.py`` times the making of caches.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from facelightning.data import CelebADataModule
from facelightning.data.celeba import POINTS, read_attributes, read_identities, read_landmarks, read_partition
from facelightning.labels import ATTRIBUTES

BATCH_SIZE = 32


class TorchvisionCelebA(Dataset[tuple[Tensor, Tensor]]):
    """The training split as a tutorial reads it: Pillow decodes, torchvision resizes and mirrors."""

    def __init__(self, root: Path, size: tuple[int, int]) -> None:
        partition = dict(line.split() for line in (root / "Eval/list_eval_partition.txt").read_text().splitlines())
        lines = (root / "Anno/list_attr_celeba.txt").read_text().splitlines()[2:]
        rows = [row for row in map(str.split, lines) if partition[row[0]] == "0"]
        folder = root / "Img/img_align_celeba"
        files = {path.stem: path for path in folder.iterdir()}
        self.paths = [files[name.rpartition(".")[0]] for name, *_ in rows]
        self.labels = torch.tensor([[label == "1" for label in labels] for _, *labels in rows]).float()
        self.transform = transforms.Compose(
            [transforms.Resize(size), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.labels[index]


def images_per_second(loader: DataLoader[Any]) -> float:
    """One pass, from the first batch on."""
    ends = [time.perf_counter() for _ in loader]
    return (len(loader.dataset) - BATCH_SIZE) / (ends[-1] - ends[0])  # type: ignore[arg-type]  # a sized data set


def compare(root: Path, size: tuple[int, int], folder: Path, workers: list[int], rounds: int) -> list[dict[str, Any]]:
    """For each number of workers, the median of each way's rounds, the spread, and the ratios to the peer's."""
    peer, results = TorchvisionCelebA(root, size), []
    for count in workers:
        options: dict[str, Any] = {"image_size": size, "batch_size": BATCH_SIZE, "num_workers": count, "seed": 0}
        files = CelebADataModule(str(root), **options)
        cache = CelebADataModule(str(root), cache=True, cache_folder=str(folder), **options)
        jpegs = CelebADataModule(str(root), cache="jpeg", cache_folder=str(folder), **options)
        for data in (files, cache, jpegs):
            data.setup("fit")
        loaders: dict[str, DataLoader[Any]] = {
            "peer": DataLoader(peer, BATCH_SIZE, shuffle=True, num_workers=count, persistent_workers=count > 0),
            "files": files.train_dataloader(),
            "cache": cache.train_dataloader(),
            "cache of JPEG": jpegs.train_dataloader(),
        }
        rates: dict[str, list[float]] = {way: [] for way in loaders}
        for number in range(rounds + 1):
            for way, loader in loaders.items():
                rate = images_per_second(loader)
                if number > 0:  # the first round brings files into memory, and compares checksums
                    rates[way].append(rate)
        result: dict[str, Any] = {"workers": count}
        for way, found in rates.items():
            ratios = sorted(ours / theirs for ours, theirs in zip(found, rates["peer"], strict=True))
            result[way] = {
                "images_per_second": median(found),
                "ratio": median(ratios),
                "ratio_spread": [ratios[0], ratios[-1]],
            }
        results.append(result)
    return results


def annotations(rows: int) -> dict[str, float]:
    """Processor seconds and memory to read the attributes, partition, landmarks and identities of so many images."""
    names = [f"{number:06d}.jpg" for number in range(1, rows + 1)]
    generator = np.random.default_rng(0)
    tables = {
        "attributes": ([str(rows), " ".join(ATTRIBUTES)], generator.choice([-1, 1], (rows, len(ATTRIBUTES)))),
        "partition": ([], generator.integers(0, 3, (rows, 1))),
        "landmarks": ([str(rows), " ".join(POINTS)], generator.integers(30, 180, (rows, len(POINTS)))),
        "identities": ([], generator.integers(1, 10178, (rows, 1))),
    }
    with TemporaryDirectory() as name:
        paths = {kind: Path(name) / f"{kind}.txt" for kind in tables}
        for kind, (head, values) in tables.items():
            with paths[kind].open("w") as file:
                file.writelines(f"{line}\n" for line in head)
                file.writelines(
                    f"{image} {' '.join(map(str, row.tolist()))}\n" for image, row in zip(names, values, strict=True)
                )
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        stems, _ = read_attributes(paths["attributes"])
        read_partition(paths["partition"])
        read_landmarks(paths["landmarks"], stems)
        read_identities(paths["identities"], stems)
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return {"rows": rows, "seconds": time.process_time() - began, "megabytes": taken / 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, required=True, help="root folder of CelebA")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width in pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=202_599, help="rows of the annotation files")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    size = (args.size[0], args.size[1])
    found: dict[str, Any] = {"annotations": annotations(args.rows)}
    with TemporaryDirectory() as folder:
        found["loading"] = compare(args.celeba, size, Path(folder), args.workers, args.rounds)
    text = json.dumps(found, indent=2)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
