"""What SSP and SSG add to a training step of Avg. Pooling, with the parser run in each step and with stored masks.

    python benchmarks/gating.py --threads 1 --output gating.json

Each has a process of its own, as in a training, and they take turns of a few steps, so that whatever else the machine
does slows all of them; each is compared with Avg. Pooling of the same round. A step is forward, loss and backward on
images that the file of masks holds, without optimiser and data. Times are those of the processor with one thread; with
more, those of the clock, for which the machine must be idle. The networks have learned nothing: a negative slope or
scale would make SSG slower where it is not compiled. "All maps at once" is SSG as it is written down, with N·C maps.
The peak of memory is that of a step after the first, as PyTorch counts it, without what weights and images take.
"""

import argparse
import json
import time
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.profiler import ProfilerActivity, profile

from facelightning.__main__ import prepare
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

STEPS = 5
"""Steps of a turn: of them the fastest counts, as whatever else the machine does only adds to the others."""

WARM = 1
"""Turns that do not count: a network is compiled in the first step, and its masks are stored."""


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


CASE: Case
NETWORK: AttributeNetwork
"""Those of this process."""


def begin(way: str, threads: int, *arguments: Any) -> None:
    """What each process does first."""
    global CASE, NETWORK
    prepare("gating")
    torch.set_num_threads(threads)
    CASE = Case(*arguments)
    NETWORK = CASE.network(way)


def turn(precision: torch.dtype) -> float:
    """Take a few steps; how many milliseconds the fastest took."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(STEPS):
        began = clock()
        CASE.step(NETWORK, precision)
        times.append(1000 * (clock() - began))
    return min(times)


def growth(precision: torch.dtype) -> float:
    """By how many megabytes a step takes more, at its peak, than there was before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        CASE.step(NETWORK, precision)
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held) / 1e6


def compare(precision: torch.dtype, pools: dict[str, Pool], rounds: int) -> dict[str, Any]:
    """Milliseconds of a step of each way, their ratios to Avg. Pooling's (quartiles), and the growth of memory."""
    taken: dict[str, list[float]] = {way: [] for way in pools}
    for number in range(WARM + rounds):
        for way in list(pools)[:: 1 if number % 2 else -1]:
            taken[way].append(pools[way].apply(turn, (precision,)))
    steps = {}
    for way in pools:
        times, basis = taken[way][WARM:], taken["Avg. Pooling"][WARM:]
        ratios = [one / other for one, other in zip(times, basis, strict=True)]
        quartiles = [round(value, 3) for value in quantiles(ratios, n=4, method="inclusive")]
        steps[way] = {"ms": round(median(times), 1), "ratio_quartiles": quartiles}
    peaks = {way: round(pool.apply(growth, (precision,)), 1) for way, pool in pools.items()}
    return {"steps": steps, "peak_megabytes": peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="filters of the first layer")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="beside Avg. Pooling")
    parser.add_argument("--compiled", action="store_true", help="compile the networks, as long trainings do")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    ways = [way for way in WAYS if way in ("Avg. Pooling", *asked.ways)]
    results: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        arguments = (Path(folder), asked.width, tuple(asked.size), asked.batch_size, asked.compiled)
        Case(*arguments)  # the parser, once
        start = partial(get_context("spawn").Pool, 1, begin)
        for precision in (torch.float32, torch.bfloat16):
            name = str(precision).removeprefix("torch.")
            with ExitStack() as stack:
                pools = {way: stack.enter_context(start((way, asked.threads, *arguments))) for way in ways}
                results[name] = compare(precision, pools, asked.rounds)
            print(name, json.dumps(results[name], indent=2), flush=True)
    if asked.output is not None:
        asked.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
