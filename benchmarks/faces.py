"""How fast faces are found and described, and what the interweaved operation saves.

    python benchmarks/faces.py --cascade runs/faces/version_0/checkpoints/best.ckpt --threads 2 --output faces.json

The cascade runs on drawn scenes of one face each, of 300×300 pixels, which are drawn before the clock starts. If the
checkpoint has no describer, an ANet of random weights takes its place, which takes the same time as a trained one. ANet
then evaluates 5×5 placements on one map, and as 25 crops, whose equality is checked. The two take turns, so that
whatever else the machine does befalls both.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from facelightning.data import SyntheticScenesDataModule
from facelightning.models import ANetwork
from facelightning.models.cascade import CascadeNetwork
from facelightning.models.finding import LNetFinder
from facelightning.tasks import CascadeNet, load_model

PLACEMENTS = 5
"""Along each side."""


def peak_memory() -> float:
    """Of this process until now, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """The seconds that modules have taken, by name."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.seconds = dict.fromkeys(modules, 0.0)
        for name, module in modules.items():
            module.register_forward_pre_hook(lambda *_, name=name: self._add(name, -time.perf_counter()))
            module.register_forward_hook(lambda *_, name=name: self._add(name, time.perf_counter()))

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] += seconds


def scenes(count: int, side: int) -> Tensor:
    """Drawn scenes, ``(count, 3, side, side)``."""
    with TemporaryDirectory() as folder:
        size = (side, side)
        data = SyntheticScenesDataModule(
            f"{folder}/scenes", (0, 0, count), (0, 0, 0), scene_size=size, image_size=size, num_workers=0
        )
        data.prepare_data()
        return torch.stack([data.dataset("test")[index, 0]["image"] for index in range(count)])


def cascade_of(path: str) -> CascadeNetwork:
    """The network of a checkpoint, with a describer."""
    task = load_model(path)
    assert isinstance(task, CascadeNet) and isinstance(task.network, CascadeNetwork), f"{path} holds no cascade"
    assert isinstance(task.network.finder, LNetFinder), f"{path} finds faces without LNet"
    if task.network.describer is not None:
        return task.network
    describer = ANetwork(40)
    return CascadeNetwork(task.network.finder, describer, describer.image_size, margin=1.8)


def time_cascade(network: CascadeNetwork, images: Tensor, batch_size: int, rounds: int) -> dict[str, Any]:
    """Images a second, and the shares of its parts."""
    assert isinstance(network.finder, LNetFinder) and network.describer is not None
    parts: dict[str, nn.Module] = dict(
        zip(("LNet_o", "LNet_s"), (s.encoder for s in network.finder.stages), strict=False)
    )
    batches = images.split(batch_size)
    network(batches[0])  # the first call prepares kernels
    clock = Clock({**parts, "describer": network.describer})
    rates, shares, faces = [], [], 0
    for _ in range(rounds):
        before, start = dict(clock.seconds), time.perf_counter()
        faces = sum(len(network(batch)["faces"].boxes) for batch in batches)
        seconds = time.perf_counter() - start
        rates.append(len(images) / seconds)
        taken = {name: (clock.seconds[name] - before[name]) / seconds for name in before}
        shares.append({**taken, "the rest": 1 - sum(taken.values())})
    return {
        "images": len(images),
        "faces": faces,
        "images_per_second": rates,
        "shares": {name: median(share[name] for share in shares) for name in shares[0]},
    }


@torch.no_grad()
def time_placements(width: int, cell: int, rounds: int) -> dict[str, Any]:
    """Seconds for all placements of an ANet of random weights, on one map and as crops."""
    network = ANetwork(40, width, cell).eval()
    side, reach = network.image_size[0], network.stride * PLACEMENTS
    image = torch.rand(1, 3, side + reach - network.stride, side + reach - network.stride)
    starts = range(0, reach, network.stride)

    def crops() -> Tensor:
        return network.placements(torch.cat([image[..., y : y + side, x : x + side] for y in starts for x in starts]))

    def whole() -> Tensor:
        return network.placements(image)

    torch.testing.assert_close(whole().flatten(0, 2), crops().flatten(0, 2), rtol=1e-4, atol=1e-5)
    pairs = [(seconds(crops), seconds(whole)) for _ in range(rounds)]
    ratios = [slow / quick for slow, quick in pairs]
    return {
        "width": width,
        "placements": [PLACEMENTS, PLACEMENTS],
        "cropping_ms": 1000 * median(slow for slow, _ in pairs),
        "interweaved_ms": 1000 * median(quick for _, quick in pairs),
        "ratio": median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
    }


def seconds(call: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cascade", required=True, help="checkpoint of a CascadeNet of LNets")
    parser.add_argument("--size", type=int, default=300, help="height and width of the scenes in pixels")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--widths", type=int, nargs="+", default=(16, 64), help="of ANet: filters of its first layer")
    parser.add_argument("--cell", type=int, default=4, help="of ANet: outputs along a side of a cell")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="file for the numbers as JSON")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    network, images, before = cascade_of(args.cascade), scenes(args.images, args.size), peak_memory()
    cascade = time_cascade(network, images, args.batch_size, args.rounds)
    cascade |= {"size": args.size, "batch_size": args.batch_size, "memory_mib": [before, peak_memory()]}
    placements = [time_placements(width, args.cell, args.rounds) for width in args.widths]

    rates = cascade["images_per_second"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in cascade["shares"].items())
    print(f"cascade at {args.size}×{args.size}, {args.threads} threads: {median(rates):.1f} images a second", end=" ")
    print(f"({min(rates):.1f} to {max(rates):.1f}); {cascade['faces']} faces in {len(images)} images")
    print(f"  {shares}")
    print(f"  peak memory {peak_memory():.0f} MiB, {before:.0f} before")
    print(f"{'ANet width':>10} {'placements':>11} {'cropping ms':>12} {'interweaved ms':>15} {'ratio':>6}  spread")
    for row in placements:
        low, high = row["ratio_spread"]
        times = f"{row['cropping_ms']:>12.1f} {row['interweaved_ms']:>15.1f} {row['ratio']:>6.1f}"
        print(f"{row['width']:>10} {PLACEMENTS:>9}×{PLACEMENTS} {times}  {low:.1f} to {high:.1f}")
    if args.output is not None:
        numbers = {"threads": args.threads, "cascade": cascade, "placements": placements}
        args.output.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
