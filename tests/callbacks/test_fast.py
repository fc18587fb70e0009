"""A training is computed as fast as the machine can where that pays; else as ever; and goes on as it began."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from facelightning.__main__ import prepare
from facelightning.callbacks import Compile, Fast, fast
from facelightning.callbacks.fast import LONG, TRIALS, Speed, choose, has_bfloat16, idle_cores, operations
from facelightning.errors import CheckpointError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7
from facelightning.models.blocks import ConvBlock
from facelightning.models.gating import SemanticGating
from facelightning.models.parser import ParserRegions
from facelightning.tasks import AttributeNet, SegNet
from tests.conftest import SIZE
from tests.models.conftest import make_parser
from tests.tasks.tiny import QUIET, Watch, loader, make_task, make_trainer, samples, training_loader

pytestmark = QUIET


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any machine can do all, and tiny trainings are long."""
    monkeypatch.setattr(fast, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(fast, "SHORT", 0)
    monkeypatch.setattr(fast, "SMALL", 0)


def test_operations_are_those_of_a_step() -> None:
    """By hand: of each layer forward, of its weights' gradients, and of its input's, unless that is the image."""
    task = AttributeNet(width=3).build(DataFacts((20, 16), attributes=ATTRIBUTES)).train()
    batch = {"image": torch.zeros(2, 3, 20, 16)}
    sizes, hooks = list[tuple[int, int]](), []

    def count(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        weights = next(layer.parameters()).numel()
        sizes.append((2 * weights * output[:, 0].numel(), len(sizes)))

    for module in task.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            hooks.append(module.register_forward_hook(count))
    with torch.no_grad():
        task.network(batch["image"])
    for hook in hooks:
        hook.remove()
    state = {name: value.clone() for name, value in task.state_dict().items()}
    assert operations(task, batch) == sum(size * (2 if first == 0 else 3) for size, first in sizes)
    assert task.training and all(torch.equal(state[name], value) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())


def test_what_is_stored_does_not_decide(tmp_path: Path) -> None:
    """The parser's operations count as well once its masks are stored, so that equal trainings stay equal."""
    batch = {"image": torch.zeros(2, 3, *SIZE, dtype=torch.uint8)}
    regions = partial(ParserRegions, make_parser().settings["checkpoint"], store=str(tmp_path / "masks.sqlite"))
    task = AttributeNet(width=2, gate=SemanticGating, regions=regions).build(DataFacts(SIZE, attributes=ATTRIBUTES))
    before = operations(task, batch)
    task.eval().network(batch["image"])
    assert (tmp_path / "masks.sqlite").is_file()
    assert operations(task, batch) == before
    assert task.network.regions.store is not None


def test_what_pays_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fast, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(fast, "trial", lambda device: None)
    task = AttributeNet(width=4).build(DataFacts((40, 33), attributes=ATTRIBUTES))
    batch = {"image": torch.zeros(2, 3, 40, 33)}
    work = operations(task, batch)
    long = LONG["cpu"] / work
    monkeypatch.setattr(fast, "fastest", lambda *_: 1)
    assert choose(task, batch, 1.1 * long, 3) == Speed(bfloat16=True, compiled=True, threads=1)
    assert choose(task, batch, 0.9 * long, None) == Speed(bfloat16=True)
    assert choose(task, batch, float("inf"), None) == Speed(bfloat16=True, compiled=True)
    assert choose(task, batch, 99, 1) == Speed(threads=1)
    assert choose(task, {"image": torch.zeros(2, 3, 40, 32)}, 100, None) == Speed()
    monkeypatch.setattr(fast, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(fast, "trial", lambda device: "no compiler")
    assert choose(task, batch, 100, 3) == Speed(threads=1)
    monkeypatch.setattr(fast, "FEW", 0.9 * work / len(list(task.network.parameters())))
    assert choose(task, batch, 1.1 * long, 3) == Speed(threads=3)


def test_narrow_networks_try_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[tuple[int, bool]]()
    monkeypatch.setattr(fast, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(fast, "fastest", lambda task, batch, threads, bfloat16: tried.append((threads, bfloat16)) or 1)
    for task, images, size, trial in (
        (AttributeNet(width=8), 16, (64, 52), True),
        (AttributeNet(width=16), 16, (109, 89), False),
        (SegNet(width=8), 8, (109, 89), True),  # has more layers, so less work in each
    ):
        task.build(DataFacts(size, HELEN7, ATTRIBUTES))
        batch = {"image": torch.zeros(images, 3, *size)}
        assert choose(task, batch, 100, 2).threads == (1 if trial else 2)
        assert [choose(task, batch, 100, idle).threads for idle in (None, 1)] == [None, 1]
        assert tried == [(2, True)] * trial
        tried.clear()


@pytest.mark.parametrize(("slower", "expected"), [(1.3, 3), (1.01, 1), (0.7, 1)])
def test_more_threads_are_taken_where_they_are_faster(
    slower: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first steps of both, and single ones later, are slow for other reasons."""
    threads, steps = [7], list[int]()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    now, pace = 0.0, 0.01

    def step(task: Any, batch: Any) -> None:
        nonlocal now
        steps.append(threads[-1])
        now += pace * (slower if threads[-1] == 1 else 1) * (9 if len(steps) in (1, 2, 8) else 1)

    monkeypatch.setattr(fast, "_step", step)
    monkeypatch.setattr(fast.time, "perf_counter", lambda: now)
    task = AttributeNet(width=2).build(DataFacts(SIZE, attributes=ATTRIBUTES))
    assert fast.fastest(task, {}, 3, False) == expected
    assert steps == TRIALS[-1] * [1, 3] and threads[-1] == 7
    steps.clear()
    pace = 1  # of long steps, few
    assert fast.fastest(task, {}, 3, False) == expected
    assert steps == TRIALS[0] * [1, 3]


def test_to_try_threads_changes_nothing_else() -> None:
    task = AttributeNet(width=2).build(DataFacts(SIZE, attributes=ATTRIBUTES)).train()
    state = {name: value.clone() for name, value in task.state_dict().items()}
    before, drawn = torch.get_num_threads(), torch.get_rng_state()
    assert fast.fastest(task, {"image": torch.zeros(2, 3, *SIZE)}, 2, True) in (1, 2)
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), drawn) and task.training
    assert all(torch.equal(state[name], value) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())


def test_waiting_threads_soon_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in ({}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        found = {"MALLOC_ARENA_MAX": "1"} | asked  # memory is left as it is
        monkeypatch.setattr(os, "environ", found)
        prepare("fit")
        spins = int(found.get("GOMP_SPINCOUNT", -1))
        # to sleep at once halves the speed of narrow networks; to spin on takes a core from other processes
        assert spins == -1 if asked else found["OMP_WAIT_POLICY"] == "PASSIVE" and 1000 <= spins <= 10000


def test_instructions_are_the_processors_own() -> None:
    flags = Path("/proc/cpuinfo")
    if flags.exists() and hasattr(torch.cpu, "get_capabilities"):
        assert has_bfloat16("cpu") == any(flag in flags.read_text() for flag in ("avx512_bf16", "amx_bf16"))


@pytest.mark.usefixtures("able")
def test_training_rounds_and_evaluation_does_not(tmp_path: Path) -> None:
    task, watch, kinds = make_task("attributenet-avg", tmp_path), Watch(), list[torch.dtype]()
    block = next(module for module in task.modules() if isinstance(module, ConvBlock))
    convolution = next(each for each in block.modules() if isinstance(each, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda *found: kinds.append(found[2].dtype))
    trainer = make_trainer(2, watch, chosen := Fast())
    trainer.fit(task, training_loader(task), loader(samples("attributes")))
    assert chosen.speed == Speed(bfloat16=True)
    assert kinds.count(torch.bfloat16) == 2 and kinds[-1] == torch.float32
    assert trainer.precision == "bf16-mixed" and fast.speed_of(trainer) == "bf16-mixed, not compiled, 1 thread"
    assert all(parameter.dtype == torch.float32 for parameter in task.parameters())
    inside = trainer.test(task, loader(samples("attributes")), verbose=False)
    assert inside == make_trainer().test(task, loader(samples("attributes")), verbose=False)

    again, resumed = make_task("attributenet-avg", tmp_path), Fast()
    resumed.load_state_dict({"bfloat16": False, "compiled": False, "threads": None})
    trainer = make_trainer(1, resumed)
    trainer.fit(again, training_loader(again))
    assert trainer.precision == "32-true" and resumed.state_dict() == {**chosen.state_dict(), "bfloat16": False}


@pytest.mark.usefixtures("able")
def test_what_is_said_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A precision of one's own, the callback Compile, and the number of threads."""
    begun = list[Compile]()
    monkeypatch.setattr(Compile, "on_fit_start", lambda self, *_: begun.append(self))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail("OMP_NUM_THREADS is set"))
    for own, times in (([], 1), ([Compile()], 1)):
        task, chosen = make_task("attributenet-avg", tmp_path), Fast()
        chosen.load_state_dict({"bfloat16": True, "compiled": True, "threads": 7})
        trainer = make_trainer(1, chosen, *own)
        trainer.fit(task, training_loader(task))
        assert len(begun) == times and ", compiled" in fast.speed_of(trainer)
        begun.clear()


def test_threads_are_as_before_once_a_training_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    asked, chosen, before = list[int](), Fast(), torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    chosen.load_state_dict({"bfloat16": False, "compiled": False, "threads": 7})
    task, trainer = make_task("attributenet-avg", tmp_path), make_trainer(1, chosen)
    trainer.fit(task, training_loader(task))
    trainer.test(task, loader(samples("attributes")), verbose=False)
    assert asked == [7, before]
    assert fast.speed_of(trainer) == "32-true, not compiled, 7 threads"


def test_damaged_state_is_one_sentence() -> None:
    whole = {"bfloat16": True, "compiled": False, "threads": 2}
    for change in ({"bfloat16": 1}, {"threads": -1}, {"threads": 10**9}, {"more": 0}):
        with pytest.raises(CheckpointError, match="does not say how fast"):
            Fast().load_state_dict(whole | change)


def test_idle_cores_are_counted() -> None:
    found = idle_cores(0.05)
    assert found is None or 1 <= found <= (os.cpu_count() or 1)
