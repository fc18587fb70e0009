"""What SSP and SSG add to a training step of Avg. Pooling, with the parser run in each step and with stored masks.

    python benchmarks/gating.py --threads 1 --output gating.json

All take turns in one process, so that whatever else the machine does befalls all alike, and each is compared with Avg.
Pooling of the same round. A step is forward, loss and backward on images that the file of masks holds, without
optimiser and data; times are those of the processor, not of the clock. The networks have learned nothing: it makes no
difference. "All maps at once" is SSG as it is written down, with N·C maps. The peak of memory is that of one step in a
process of its own.
"""

import argparse
import json
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.gating import SemanticGating
from facelightning.models.heads import LocalizationHead
from facelightning.models.parser import ParserRegions
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import Regions
from facelightning.tasks import SegNet


class AllMapsAtOnce(SemanticGating):
    """The definition: one BatchNorm, PReLU, pooling and 1×1 convolution of N·C maps."""

    def forward(self, x: Tensor, regions: Regions | None) -> Tensor:
        gated = self.masks(x, regions).unsqueeze(2) * self.convolution(x).unsqueeze(1)
        maps: Tensor = self.restore(self.pool(self.activation(self.norm(gated.flatten(1, 2)))))
        return maps


SSP: dict[str, Any] = {"pooling": SemanticPooling, "head": LocalizationHead}
WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "Avg. Pooling": ({}, False),
    "SSP, parser run": (SSP, False),
    "SSP, masks stored": (SSP, True),
    "SSG, parser run": ({"gate": SemanticGating}, False),
    "SSG, masks stored": ({"gate": SemanticGating}, True),
    "SSG, masks stored, all maps at once": ({"gate": AllMapsAtOnce}, True),
}
"""The parts of each network, and whether its masks are stored."""


class Case:
    """A step of each way, on the same images.

    Args:
        folder: Where the parser and its masks are kept.
        width: Filters of the first layer, of the parser too.
        size: Height and width of the images.
        batch_size: Their number.
        compiled: Whether the networks are compiled, as long trainings are.
    """

    def __init__(self, folder: Path, width: int, size: tuple[int, int], batch_size: int, compiled: bool) -> None:
        torch.manual_seed(0)
        self.folder, self.width, self.compiled = folder, width, compiled
        self.images = torch.randint(256, (batch_size, 3, *size), dtype=torch.uint8)
        self.truth = torch.randint(2, (batch_size, len(ATTRIBUTES))).float()
        self.parser = folder / "segnet.ckpt"
        if not self.parser.exists():
            task = SegNet(width=width).build(DataFacts(size, HELEN7))
            content: dict[str, Any] = {"state_dict": task.state_dict()}
            task.on_save_checkpoint(content)
            torch.save(content, self.parser)

    def network(self, way: str) -> AttributeNetwork:
        parts, stored = WAYS[way]
        if parts:
            store = str(self.folder / "masks.sqlite") if stored else None
            parts = parts | {"regions": partial(ParserRegions, str(self.parser), store=store)}
        network = AttributeNetwork(len(ATTRIBUTES), self.width, **parts).train()
        if self.compiled:
            network.compile(dynamic=False)
        return network

    def step(self, network: AttributeNetwork, precision: torch.dtype) -> None:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            logits = network(self.images)["attributes"]
        loss = binary_cross_entropy_with_logits(logits.float(), self.truth)
        loss.backward()  # type: ignore[no-untyped-call]  # torch is only partly typed


def time_steps(case: Case, precision: torch.dtype, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step of each way, and their ratios to Avg. Pooling's: median and quartiles."""
    networks = {way: case.network(way) for way in WAYS}
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for network in networks.values():
        case.step(network, precision)
    for number in range(rounds):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            began = time.process_time()
            case.step(networks[way], precision)
            taken[way].append(1000 * (time.process_time() - began))
    found = {}
    for way, times in taken.items():
        ratios = [one / other for one, other in zip(times, taken["Avg. Pooling"], strict=True)]
        quartiles = [round(value, 3) for value in quantiles(ratios, n=4, method="inclusive")]
        found[way] = {"ms": round(median(times), 1), "ratio_quartiles": quartiles}
    return found


def memory(which: str) -> float:
    """Megabytes of this process on Linux: ``VmRSS`` now, ``VmHWM`` at most so far."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def growth_of_memory(way: str, precision: torch.dtype, *arguments: Any) -> float:
    """By how many megabytes a step of a way takes this process, at its peak, above what it had before."""
    torch.set_num_threads(1)
    case = Case(*arguments)
    network = case.network(way)
    before = memory("VmRSS")
    case.step(network, precision)
    return memory("VmHWM") - before


def peaks(precision: torch.dtype, *arguments: Any) -> dict[str, float]:
    """The growth of each way's memory, each in a process of its own."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {
            way: round(pool.apply(growth_of_memory, (way, precision, *arguments)), 1)
            for way in WAYS
            if not way.endswith("run")
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="filters of the first layer")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="compile the networks, as long trainings do")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch._dynamo.config.recompile_limit = 2 * len(WAYS)  # of one function, in both precisions
    results: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        arguments = (Path(folder), asked.width, tuple(asked.size), asked.batch_size, asked.compiled)
        case = Case(*arguments)
        for precision in (torch.float32, torch.bfloat16):
            name = str(precision).removeprefix("torch.")
            results[name] = {"steps": time_steps(case, precision, asked.rounds)}
            results[name]["peak_megabytes"] = peaks(precision, *arguments)
            print(name, json.dumps(results[name], indent=2), flush=True)
    if asked.output is not None:
        asked.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
