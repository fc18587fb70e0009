"""Fast without asking: what this machine is good at, where a training is long enough to gain from it."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from facelightning.callbacks.compilation import Compile, trial
from facelightning.errors import CheckpointError
from facelightning.models.stored_maps import MapStore
from facelightning.objectives import Batch
from facelightning.tasks import FaceTask

SHORT = 100
"""Batches below which a training is left as it is: it would take longer to choose."""

SMALL = 32
"""Pixels of a side up to which products stay in float32 on a processor: there, convolutions of stride 2 in bfloat16, on
maps of one or two columns, read memory that nobody wrote (oneDNN 3.13 with AMX)."""

LONG = {"cpu": 50e12, "cuda": 10e15}
"""Operations of a training above which compiling wins: on two cores, some minutes."""

FEW = 250e6
"""Operations of a batch, for each tensor that learns, below which it is tried whether several threads are faster than
one: they wait for each other after every layer."""

TRIALS = range(2, 5)
"""The fewest and the most steps that are tried with several threads, and with one."""

GAIN = 1.03
"""Several threads are taken if they are more than so many times as fast as one, which leaves cores to others."""


@dataclass(frozen=True)
class Speed:
    """How a training computes.

    Args:
        bfloat16: Products in bfloat16, instead of all in float32.
        compiled: The network is compiled.
        threads: Threads that compute; of ``None`` the number stays as it is.
    """

    bfloat16: bool = False
    compiled: bool = False
    threads: int | None = None


class Fast(Callback):
    """Trains as fast as this machine can, where that changes a training no more than rounding does.

    Precision and compiling depend on the machine and on what the training computes, counted before its first step, not
    on a clock: the same training chooses alike each time. The number of threads depends on what else runs. The rules,
    measured on processors; a training of less than :data:`SHORT` batches is left as it is, but for its threads:

    - bfloat16, if the machine has instructions for it; on a processor, of images larger than :data:`SMALL` only.
    - Compiling, if it works here, and the training has more than :data:`LONG` operations.
    - As many threads as cores were idle before the training; for narrow networks and small batches, whose layers have
      few operations (:data:`FEW`), only if that is faster than one. ``OMP_NUM_THREADS`` wins.

    A precision of the trainer's own, and the callback :class:`~facelightning.callbacks.Compile`, stay as they are. A
    resumed training takes what it began with. Evaluation stays in float32 and is not compiled, so that the scores
    are those of a test of the checkpoint.

    Example:
        On the command line: ``facelightning fit --config=avg.yaml --speed=auto``; ``--speed=plain`` is the contrary.
    """

    def __init__(self) -> None:
        self.speed: Speed | None = None
        """What was chosen, once the training has begun."""
        self._idle: int | None = None
        self._compile: Compile | None = None
        self._threads: int | None = None
        self._began = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Look at the machine before this training keeps it busy."""
        self._began = False
        if stage == "fit" and self.speed is None and trainer.world_size == 1 and "OMP_NUM_THREADS" not in os.environ:
            self._idle = idle_cores()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, _: int) -> None:
        """Choose, with the first batch at hand; say so; and prepare."""
        if self._began or not isinstance(pl_module, FaceTask):
            return
        self._began = True
        if self.speed is None:
            batches = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
            # one choice for all: their machines may differ
            self.speed = trainer.strategy.broadcast(choose(pl_module, batch, batches, self._idle))
        self.apply(trainer, pl_module, self.speed)
        rank_zero_info(f"speed: {speed_of(trainer)}")

    def apply(self, trainer: L.Trainer, task: FaceTask, speed: Speed) -> None:
        """Compute so from now on."""
        if speed.threads is not None and "OMP_NUM_THREADS" not in os.environ:
            self._threads = torch.get_num_threads()
            torch.set_num_threads(speed.threads)
        if speed.bfloat16 and trainer.precision == "32-true":
            trainer.strategy.precision_plugin = TrainingInBFloat16("bf16-mixed", task.device.type)
        if speed.compiled and not any(isinstance(each, Compile) for each in _callbacks(trainer)):
            self._compile = Compile()
            self._compile.on_fit_start(trainer, task)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the network's own ``forward``, and the number of threads."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)
            self._threads = None
        if self._compile is not None:
            self._compile.teardown(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {} if self.speed is None else asdict(self.speed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it; raises :class:`CheckpointError` if it is not what was written."""
        kinds = {"bfloat16": bool, "compiled": bool, "threads": int | None}
        if not isinstance(state_dict, dict) or (
            state_dict
            and not (
                state_dict.keys() == {field.name for field in fields(Speed)}
                and all(isinstance(state_dict[name], kind) for name, kind in kinds.items())
                and (state_dict["threads"] or 1) in range(1, 1025)
            )
        ):
            raise CheckpointError("the checkpoint does not say how fast its training was: it is damaged")
        self.speed = Speed(**state_dict) if state_dict else None


def speed_of(trainer: L.Trainer) -> str:
    """How a trainer computes, in words: its precision by Lightning's name, whether it compiles, and its threads."""
    callbacks = _callbacks(trainer)
    chosen = [each.speed for each in callbacks if isinstance(each, Fast) and each.speed is not None]
    compiled = any(isinstance(each, Compile) for each in callbacks) or any(speed.compiled for speed in chosen)
    asked = [speed.threads for speed in chosen if speed.threads is not None and "OMP_NUM_THREADS" not in os.environ]
    threads = asked[0] if asked else torch.get_num_threads()  # also once the training has ended
    return f"{trainer.precision}, {'' if compiled else 'not '}compiled, {threads} thread{'s' * (threads != 1)}"


def _callbacks(trainer: L.Trainer) -> list[Callback]:
    found: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning declares it nowhere
    return found


class TrainingInBFloat16(MixedPrecision):
    """Lightning's ``bf16-mixed`` for training steps; evaluation stays in float32."""

    def val_step_context(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator's, in Lightning
        """Plain."""
        return nullcontext()

    def test_step_context(self) -> AbstractContextManager[None]:  # type: ignore[override]  # likewise
        """Plain."""
        return nullcontext()

    def predict_step_context(self) -> AbstractContextManager[None]:  # type: ignore[override]  # likewise
        """Plain."""
        return nullcontext()


def choose(task: FaceTask, batch: Batch, batches: float, idle: int | None) -> Speed:
    """What pays for so many batches like this one.

    Args:
        task: A task on its device.
        batch: A training batch.
        batches: The batches of the whole training, perhaps infinitely many.
        idle: The number of idle cores, if it is known and no one else decides about threads.
    """
    device = task.device.type
    if batches < SHORT or device not in LONG:
        return Speed(threads=idle)
    bfloat16 = has_bfloat16(device) and (device != "cpu" or smallest_side(batch) > SMALL)
    work = operations(task, batch)
    learning = sum(each.requires_grad for each in task.network.parameters())
    narrow = device == "cpu" and work < FEW * learning
    threads = fastest(task, batch, idle, bfloat16) if idle and idle > 1 and narrow else idle
    return Speed(bfloat16, work * batches > LONG[device] and trial(task.device) is None, threads)


def fastest(task: FaceTask, batch: Batch, threads: int, bfloat16: bool) -> int:
    """So many threads, or one if they hardly make a step faster; changes nothing.

    A few steps of both in turns, for about a second: forward and backward, not compiled, with all frozen parts.
    """
    before, seconds = torch.get_num_threads(), {1: math.inf, threads: math.inf}
    end = time.perf_counter() + 1
    try:
        for turn in range(TRIALS[-1]):
            if turn >= TRIALS[0] and time.perf_counter() > end:
                break
            for number in seconds:
                torch.set_num_threads(number)
                began = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    _step(task, batch)
                seconds[number] = min(seconds[number], time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return threads if GAIN * seconds[threads] < seconds[1] else 1


def operations(task: FaceTask, batch: Batch) -> int:
    """The floating-point operations of matrix products and convolutions, forward and backward; changes nothing.

    Example:
        >>> from facelightning import DataFacts, SegNet
        >>> from facelightning.labels import HELEN7
        >>> task = SegNet(width=2).build(DataFacts((40, 32), HELEN7))
        >>> one, two = (operations(task, {"image": torch.zeros(n, 3, 40, 32)}) for n in (1, 2))
        >>> one, two == 2 * one
        (6652800, True)
    """
    from torch.utils.flop_counter import FlopCounterMode  # which imports Triton

    with FlopCounterMode(display=False) as counter:
        _step(task, batch)
    return int(counter.get_total_flops())


def _step(task: FaceTask, batch: Batch) -> None:
    """Forward and backward, without a loss; changes nothing."""
    modes = {module: module.training for module in task.modules()}
    # what is stored already must not decide
    stores = {module: module.store for module in modes if isinstance(getattr(module, "store", None), MapStore)}
    parameters = [each for each in task.network.parameters() if each.requires_grad]
    task.eval()  # statistics stay as they are
    try:
        for module in stores:
            vars(module)["store"] = None
        with torch.enable_grad():
            output, _ = task.predict_batch(batch)
            total = sum(each.float().sum() for each in _tensors(output) if each.requires_grad)
            if isinstance(total, Tensor):
                torch.autograd.grad(total, parameters, allow_unused=True)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, store in stores.items():
            vars(module)["store"] = store


def smallest_side(batch: Any) -> float:
    """The smaller of height and width, in pixels, of the images in a batch, which may hold two.

    Example:
        >>> smallest_side({"parsing_batch": {"image": torch.zeros(2, 3, 4, 5)}, "name": []})
        4
    """
    if not isinstance(batch, dict):
        return math.inf
    own = min(batch["image"].shape[-2:]) if "image" in batch else math.inf
    return min(own, *map(smallest_side, batch.values()))


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict | list | tuple):
        for each in output.values() if isinstance(output, dict) else output:
            yield from _tensors(each)


def has_bfloat16(device: str) -> bool:
    """Whether a processor, or the GPU, has instructions for products in bfloat16."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has it since 2.9
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def idle_cores(seconds: float = 0.25) -> int | None:
    """How many of this process's cores nothing else uses, one at least; ``None`` where the system does not count."""
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else set()

    def ticks() -> tuple[int, int]:
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        counts = [[int(cell) for cell in cells[:8]] for name, *cells in rows if name in cores]
        return sum(row[3] + row[4] for row in counts), sum(map(sum, counts))  # idle and waiting for a disk, and all

    try:
        idle, total = ticks()
        time.sleep(seconds)
        later, end = ticks()
    except (OSError, ValueError, IndexError):
        return None
    return max(1, round(len(cores) * (later - idle) / (end - total))) if end > total else None
