"""How fast images are read and trained on: clocks, memory, and what the machine could do at best."""

import logging
import resource
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader

from facelightning.callbacks.fast import speed_of
from facelightning.tasks import FaceTask

WARM = 2
"""Steps that are made before the clock starts: the first ones allocate memory, and compile."""


def images_in(batch: Any) -> int:
    """The number of images in a batch, which may hold two.

    Example:
        >>> images_in({"parsing_batch": {"image": torch.zeros(2, 3, 4, 5)}, "attribute_batch": {"image": [1]}})
        3
    """
    if not isinstance(batch, dict):
        return 0
    return len(batch["image"]) if "image" in batch else sum(map(images_in, batch.values()))


class Clock(Callback):
    """When each step of a training began and ended, and how many images it had."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.images: list[int] = []
        self.began = time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, _: int) -> None:
        """The batch is there."""
        self.starts.append(time.perf_counter())
        self.images.append(images_in(batch))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """The step is done, on a GPU too."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of all steps but the first ones."""
        return self.ends[-1] - self.ends[WARM - 1]

    @property
    def rate(self) -> float:
        """Images a second, without the first steps."""
        return sum(self.images[WARM:]) / self.seconds

    @property
    def waiting(self) -> float:
        """The share of the time, in percent, between a step's end and the next one's beginning."""
        pauses = zip(self.ends[WARM - 1 :], self.starts[WARM:], strict=False)
        return 100 * sum(start - end for end, start in pauses) / self.seconds

    @property
    def first(self) -> float:
        """Seconds of the first step, which compiles if anything does."""
        return self.ends[0] - self.starts[0]


@contextmanager
def silent() -> Iterator[None]:
    """Lightning says nothing: a measurement trains again and again."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def train(task: FaceTask, source: Any, steps: int, options: dict[str, Any], *callbacks: Callback) -> tuple[Clock, str]:
    """Train so many steps after the first ones, and write nothing; the clock, and how it computed.

    Args:
        task: What is trained.
        source: A data module, or batches.
        steps: Steps that are timed.
        options: Of the trainer.
        callbacks: Of the trainer.
    """
    clock = Clock()
    with silent():
        trainer = L.Trainer(
            **options,
            max_steps=WARM + steps,
            max_epochs=-1,
            devices=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            callbacks=[*callbacks, clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        given = {"datamodule": source} if isinstance(source, L.LightningDataModule) else {"train_dataloaders": source}
        trainer.fit(task, **given)
    return clock, speed_of(trainer)


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader, epoch after epoch."""
    while True:
        for batch in loader:
            yield batch[0] if isinstance(loader, CombinedLoader) else batch


def loading_rate(loader: Iterable[Any], steps: int, ahead: int) -> float:
    """Images a second that a loader gives to one who does nothing with them.

    Args:
        loader: A loader of batches.
        steps: Batches that are timed.
        ahead: Batches that it reads in advance, which are not timed.
    """
    batches = endless(loader)
    for _ in islice(batches, WARM + ahead):
        pass
    start = time.perf_counter()
    images = sum(images_in(batch) for batch in islice(batches, steps))
    return images / (time.perf_counter() - start)


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Floating-point operations a second of the product of two large square matrices: the best of several."""
    side = 8192 if device.type == "cuda" else 1024
    first, second = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    times, until = list[float](), time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        start = time.perf_counter()
        first @ second
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(times)


def peak_memory(device: torch.device) -> int:
    """Bytes at the highest so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes
