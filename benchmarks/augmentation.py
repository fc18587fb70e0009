"""Milliseconds that an image takes: ``BatchAugmentation`` on the processor, ``DeviceAugmentation`` on a device.

    python benchmarks/augmentation.py --device cuda --threads 1 --output augmentation.json

The two take turns in one process, so that whatever else the machine does befalls both. They get equal batches of random
images and masks, equal seeds, and the ranges that the documentation names; by how much their pixels differ is written,
too. Reading and the way to the device are not timed.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from facelightning.data.batch_augmentation import Affine, BatchAugmentation, Color, Erasing
from facelightning.data.device_augmentation import DeviceAugmentation

PARTS: dict[str, Any] = {
    "affine": Affine(0.8, (0.4, 1.1), (-0.15, 0.15), (-15, 15)),
    "color": Color(0.8, (0.6, 1.4), (0.6, 1.4), (0.4, 1.6)),
    "erasing": Erasing(0.5, (1, 6), (0.1, 0.4), (0.1, 0.4)),
    "outside": 0,
}


def compare(size: tuple[int, int], batch_size: int, device: torch.device, rounds: int) -> dict[str, Any]:
    """The median milliseconds an image of both, the ratio's median and extremes, and how much pixels differ."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch_size, 3, *size), dtype=torch.uint8, generator=generator)
    masks = torch.randint(7, (batch_size, *size), generator=generator)
    arrays = np.moveaxis(images.numpy(), 1, -1), masks.numpy().astype(np.uint8)
    there = images.to(device), masks.to(device)
    on_processor, on_device = BatchAugmentation(**PARTS), DeviceAugmentation(**PARTS)
    times: dict[str, list[float]] = {"processor": [], "device": []}
    differences = []
    for number in range(rounds + 1):
        seeds = range(number * batch_size, (number + 1) * batch_size)
        began = time.perf_counter()
        expected, _ = on_processor(*arrays, seeds)
        between = time.perf_counter()
        found, _ = on_device.augmented(*there, seeds)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended = time.perf_counter()
        differences.append(np.abs(np.moveaxis(found.cpu().numpy(), 1, -1).astype(int) - expected))
        if number > 0:  # the first round is slower
            times["processor"].append(1000 * (between - began) / batch_size)
            times["device"].append(1000 * (ended - between) / batch_size)
    ratios = sorted(ours / theirs for ours, theirs in zip(times["device"], times["processor"], strict=True))
    return {
        "device": str(device),
        "milliseconds_an_image": {name: median(each) for name, each in times.items()},
        "ratio": median(ratios),
        "ratio_spread": [ratios[0], ratios[-1]],
        "mean_difference": float(np.mean(differences)),
        "largest_difference": int(np.max(differences)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--size", type=int, nargs=2, default=(218, 178), help="height and width in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    text = json.dumps(compare((args.size[0], args.size[1]), args.batch_size, args.device, args.rounds), indent=2)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
