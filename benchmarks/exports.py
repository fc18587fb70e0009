"""Exports of one network side by side: size, images a second, and by how much each differs from the network.

    facelightning export CHECKPOINT --output=exports/model.onnx --int8
    python benchmarks/exports.py --checkpoint CHECKPOINT --onnx exports/model.onnx --images /path/to/photographs

The network, its ONNX file, and the one with weights of eight bits take turns on the same batches of photographs, each
of which is taken for the cut around one face. Network and files use the same number of threads.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch

from facelightning.commands.export import Portable, difference
from facelightning.data.files import read_image
from facelightning.tasks import load_model

BATCH_SIZE = 32


def photographs(folder: Path, count: int, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The first photographs of a folder, ``(n, 3, H, W)``."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))[:count]
    images = [cv2.resize(read_image(path), size[::-1], interpolation=cv2.INTER_AREA) for path in files]
    return np.stack(images).transpose(0, 3, 1, 2).copy()


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(checkpoint: Path, onnx: Path, folder: Path, count: int, rounds: int, threads: int) -> dict[str, Any]:
    """For the network and each file: megabytes, images a second (median of the rounds), and the differences."""
    task = load_model(checkpoint)
    assert task.facts is not None
    network, images = Portable(task).eval(), photographs(folder, count, task.facts.image_size)
    batches = np.array_split(images, range(BATCH_SIZE, len(images), BATCH_SIZE))
    files = [path for path in (onnx, onnx.with_suffix(".int8.onnx")) if path.is_file()]
    sessions = {path.name: session(path, threads) for path in files}
    ways = {"network": network.arrays}
    for name, each in sessions.items():
        ways[name] = lambda batch, each=each: dict(
            zip(network.names, each.run(network.names, {"images": batch}), strict=True)
        )
    said = {name: [way(batch) for batch in batches] for name, way in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            for batch in batches:
                ways[name](batch)
            taken[name].append(len(images) / (time.perf_counter() - began))
    whole = {
        name: {key: np.concatenate([part[key] for part in parts]) for key in network.names}
        for name, parts in said.items()
    }
    sizes = {path.name: path.stat().st_size / 1e6 for path in files}
    return {
        name: {
            "megabytes": round(sizes.get(name, sum(value.nbytes for value in task.state_dict().values()) / 1e6), 2),
            "images_a_second": round(median(rates), 1),
            "slowest_and_fastest": [round(min(rates), 1), round(max(rates), 1)],
            "differences": difference(whole["network"], whole[name]),
        }
        for name, rates in taken.items()
    }


def main() -> None:
    """Compare, print, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--onnx", type=Path, required=True, help="what `facelightning export` wrote of it")
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = compare(given.checkpoint, given.onnx, given.images, given.count, given.rounds, given.threads)
    print(json.dumps(found, indent=2))
    if given.output is not None:
        given.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
