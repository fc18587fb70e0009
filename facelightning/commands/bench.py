"""``facelightning bench``: how fast a configuration trains on this machine, and what its speed hangs on."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from facelightning.callbacks import Compile, Fast
from facelightning.callbacks.fast import choose, idle_cores, operations
from facelightning.cli import FaceCLI
from facelightning.commands.measuring import (
    WARM,
    Clock,
    endless,
    images_in,
    loading_rate,
    matrix_peak,
    peak_memory,
    train,
)
from facelightning.commands.peers import Peer, peers
from facelightning.data import FaceDataModule, JointDataModule
from facelightning.errors import ConfigurationError
from facelightning.figures import rates_figure, save_image
from facelightning.runs import RunFolder
from facelightning.tasks import FaceTask

LOADER, STEP, BOTH = "loader alone", "step alone", "both together"

ENOUGH = 0.95
"""The share of the best rate for which a smaller batch and fewer workers are recommended."""

CLIPPING = ("gradient_clip_val", "gradient_clip_algorithm")

Rates = dict[str, list[float]]
"""Images a second in each round, by name."""


class BenchCLI(FaceCLI):
    """The options of a training, and those of the measurement."""

    own_command = "bench"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of `fit`, and more."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--steps", type=int, default=20, help="Steps that each measurement times.")
        parser.add_argument("--rounds", type=int, default=3, help="How often all is measured, in turns.")
        parser.add_argument("--compare", type=bool, default=False, help="Train by hand, and with Lightning, beside it.")
        parser.add_argument("--batch_sizes", type=list[int], default=[], help="Batch sizes to try.")
        parser.add_argument("--workers", type=list[int], default=[], help="Numbers of reading processes to try.")


@dataclass
class Bench:
    """The measurements of one configuration.

    Args:
        task: What is trained, built.
        data: Its data, opened.
        device: Where it is trained.
        trainer: Options of the trainer.
        steps: Steps of a measurement.
        speed: Chooses precision, compilation and threads, if the configuration leaves that open.
        compiled: The configuration's own callback.
        decide: Chooses ``speed`` for batches as they are now.
    """

    task: FaceTask
    data: FaceDataModule | JointDataModule
    device: torch.device
    trainer: dict[str, Any]
    steps: int
    speed: Fast | None = None
    compiled: Compile | None = None
    decide: Callable[[], None] = lambda: None
    speed_now: str = field(default="", init=False)

    @property
    def parts(self) -> list[FaceDataModule]:
        """One data module, or two; the last one's batches have the attributes."""
        return list(self.data.parts.values()) if isinstance(self.data, JointDataModule) else [self.data]

    def loader(self) -> Any:
        """The loader of the training data."""
        found = self.data.train_dataloader()
        return CombinedLoader(found, "max_size_cycle") if isinstance(found, dict) else found

    def batch(self) -> Any:
        """A training batch as the task gets it, but for its device."""
        return self.data.on_after_batch_transfer(next(endless(self.loader())), 0)

    def fit(self, source: Any) -> Clock:
        """Train on batches or on the data."""
        callbacks = [each for each in (self.speed, self.compiled) if each is not None]
        clock, self.speed_now = train(self.task, source, self.steps, self.trainer, *callbacks)
        return clock

    def load(self) -> float:
        """Images a second of the loader alone."""
        return loading_rate(self.loader(), self.steps, 2 * max(part.workers for part in self.parts))

    def resize(self, batch_size: int, workers: int) -> None:
        """Other batches from now on; where there are two in a step, both in proportion."""
        before = self.parts[-1].batch_size
        for part in self.parts:
            part.batch_size, part.num_workers = max(1, round(part.batch_size * batch_size / before)), workers
        self.decide()


def measure(bench: Bench, rounds: int, others: dict[str, Peer]) -> tuple[Rates, dict[str, Any]]:
    """The rates of loader, step, both and peers, in turns; and what the first round says of the rest."""
    batch = bench.batch()
    # Lightning takes a list of batches for many loaders
    repeated: DataLoader[Any] = DataLoader([batch] * (WARM + bench.steps), batch_size=None)  # type: ignore[arg-type]  # a list is a data set
    rates: Rates = {name: [] for name in (LOADER, STEP, BOTH, *others)}
    first, waiting = 0.0, list[float]()
    found: dict[str, Any] = {}
    for number in range(rounds):
        alone = bench.fit(repeated)
        first = first or alone.first
        both = bench.fit(bench.data)
        waiting.append(both.waiting)
        if number == 0:  # before the peers need memory
            found["peak_memory_bytes"] = peak_memory(bench.device)
        for name, rate in ((LOADER, bench.load()), (STEP, alone.rate), (BOTH, both.rate)):
            rates[name].append(rate)
        for name, peer in others.items():
            rates[name].append(peer())
    images = images_in(batch)
    flops = operations(bench.task, batch) / images
    return rates, found | {
        "images_a_step": images,
        "first_step_seconds": first,
        "waiting_percent": waiting,
        "flop_an_image": flops,
        "flop_a_second": flops * median(rates[STEP]),
    }


def sweep(bench: Bench, rounds: int, batch_sizes: Sequence[int], workers: Sequence[int]) -> Rates:
    """Images a second of each batch size with each number of workers, in turns."""
    own = bench.parts[-1]
    pairs = [
        (size, count) for size in sorted(batch_sizes) or [own.batch_size] for count in sorted(workers) or [own.workers]
    ]
    names = {pair: "{} images, {} workers".format(*pair) for pair in pairs}
    rates: Rates = {name: [] for name in names.values()}
    for _ in range(rounds):
        for pair, name in names.items():
            bench.resize(*pair)
            rates[name].append(bench.fit(bench.data).rate)
    return rates


def recommended(rates: Rates) -> str:
    """The first way, of those with the smallest batches and fewest workers, that is nearly as fast as the best.

    Example:
        >>> recommended({"16 images, 0 workers": [80.0], "32 images, 0 workers": [97.0], "64 images, 1 workers": [99]})
        '32 images, 0 workers'
    """
    best = max(median(rounds) for rounds in rates.values())
    return next(name for name, rounds in rates.items() if median(rounds) >= ENOUGH * best)


def table(rates: Rates) -> str:
    """Medians and extremes as lines of text; beside peers, how many times as fast the library is, round by round.

    Example:
        >>> print(table({"both together": [100.0, 90.0, 110.0], "plain loop": [50.0, 60.0, 50.0]}))
          both together     100.0 images/s (90.0–110.0)
          plain loop         50.0 images/s (50.0–60.0)  facelightning is 2.00 times as fast (1.50–2.20)
    """
    width, lines = max(map(len, rates)), []
    for name, rounds in rates.items():
        line = f"  {name:{width}} {median(rounds):9.1f} images/s ({min(rounds):.1f}–{max(rounds):.1f})"
        if name not in (LOADER, STEP, BOTH) and BOTH in rates:
            ratios = [ours / theirs for ours, theirs in zip(rates[BOTH], rounds, strict=True)]
            spread = f"({min(ratios):.2f}–{max(ratios):.2f})"
            line = f"{line:{width + 34}} facelightning is {median(ratios):.2f} times as fast {spread}"
        lines.append(line)
    return "\n".join(lines)


def planned(trainer: Any, batches: int) -> float:
    """The batches of the whole training that a configuration describes."""
    if trainer.max_steps is not None and trainer.max_steps > 0:
        return float(trainer.max_steps * trainer.accumulate_grad_batches)
    return float("inf") if trainer.max_epochs in (None, -1) else float(trainer.max_epochs * batches)


def prepared(cli: FaceCLI) -> Bench:
    """Open the data, build the task, and choose its speed as its training would."""
    trainer, device = cli.settings.trainer, cli.trainer.strategy.root_device
    cli.datamodule.trainer = cli.trainer  # whose length decides how images are read: those of a measurement are short
    cli.before_fit()
    cli.model.to(device)
    computing = {key: trainer[key] for key in ("accelerator", "precision", *CLIPPING) if trainer[key] is not None}
    own = next((each for each in cli.trainer.callbacks if isinstance(each, Compile)), None)  # type: ignore[attr-defined]  # Lightning declares it nowhere
    bench = Bench(cli.model, cli.datamodule, device, computing, cli.config["steps"], compiled=own)
    if cli.settings["speed"] == "auto":
        bench.speed, idle = (fast := Fast()), None if "OMP_NUM_THREADS" in os.environ else idle_cores()

        def decide() -> None:
            batch = cli.trainer.strategy.batch_to_device(bench.batch(), device)
            batches = max(len(part.train_dataloader()) for part in bench.parts)
            fast.speed = choose(bench.task, batch, planned(trainer, batches), idle)

        bench.decide = decide
        decide()
    return bench


def main(args: Sequence[str]) -> None:
    """Measure, print, and write ``bench.json`` and a picture into a run folder."""
    words = list(args)
    if words and not words[0].startswith("-"):
        words = [f"--config={words[0]}", *words[1:]]
    cli = BenchCLI(words)
    config = cli.config
    sizes, workers = config["batch_sizes"], config["workers"]
    if min(config["steps"], config["rounds"], *sizes) < 1 or min([0, *workers]) < 0:
        raise ConfigurationError("bench: steps, rounds and batch_sizes must be positive, workers not negative")
    if not cli.trainer.logger:
        raise ConfigurationError("bench writes into the run folder: leave out --trainer.logger=false")
    if cli.trainer.world_size > 1 or cli.trainer.accumulate_grad_batches != 1:
        raise ConfigurationError("bench measures one process and whole steps: leave out devices and accumulation")
    bench = prepared(cli)
    images = len(bench.parts[-1].dataset("train"))
    if sizes and max(sizes) > images:
        raise ConfigurationError(
            f"bench: no batch can have {max(sizes)} images, because the training data has {images}"
        )
    others = peers(bench.task, bench.data, bench.device, bench.steps) if config["compare"] else {}
    rates, found = measure(bench, config["rounds"], dict(others))
    tried = sweep(bench, config["rounds"], sizes, workers) if sizes or workers else {}
    found |= {"command": ["bench", *args], "images_a_second": rates, "tried": tried}
    folder = RunFolder.of(cli.trainer)
    assert folder is not None
    print("\n".join(report(bench, rates, found)))
    if tried:
        print(f"{table(tried)}\nrecommended: {recommended(tried)}")
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.bench.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    picture = folder.figures / "bench.png"
    save_image(picture, rates_figure(rates | tried, (LOADER, STEP, BOTH, *tried)))
    print(f"written: {folder.bench}\nwritten: {picture}")


def report(bench: Bench, rates: Rates, found: dict[str, Any]) -> list[str]:
    """What was measured, as lines of text; completes what is written."""
    precision = str(bench.speed_now)
    dtype = torch.bfloat16 if "bf16" in precision else torch.float16 if "16" in precision else torch.float32
    peak = matrix_peak(bench.device, dtype)
    share = 100 * found["flop_a_second"] / peak
    found |= {"speed": precision, "matrix_product_flop_a_second": peak, "share_of_peak_percent": share}
    memory, waits = found["peak_memory_bytes"] / 2**20, found["waiting_percent"]
    return [
        f"{type(bench.task).__name__}, {found['images_a_step']} images a step; {precision}",
        table(rates),
        f"  waiting for data: {median(waits):.1f} % ({min(waits):.1f}–{max(waits):.1f}) of the time of both together",
        f"  first step: {found['first_step_seconds']:.1f} s; peak memory: {memory:,.0f} MiB",
        f"  {found['flop_an_image'] / 1e9:.3f} GFLOP an image; {found['flop_a_second'] / 1e9:,.1f} GFLOP/s, "
        f"{share:.0f} % of {peak / 1e9:,.1f} of a matrix product",
    ]
