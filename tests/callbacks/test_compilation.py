"""Compiled training: it is compiled, it is the same, and it ends with the training."""

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters  # torch counts compiled graphs nowhere else
from torch._inductor import config as inductor

from facelightning.__main__ import main
from facelightning.callbacks import Compile
from facelightning.data import SyntheticDataModule
from facelightning.models.blocks import ConvBlock
from facelightning.models.encoders import Encoder, Input, Tail
from facelightning.models.regions import Regions
from facelightning.tasks import JointNet
from tests.conftest import SIZE
from tests.processes import FORKS
from tests.test_configs import small_overlay


class Shallow(Encoder):
    """One layer: to compile all of the paper's takes minutes."""

    channels, strides = (2,), (1,)

    def __init__(self, image_input: Input) -> None:
        super().__init__()
        self.input, self.layer = image_input, ConvBlock(image_input.channels, 2)

    def tail(self) -> Tail:
        return Tail(channels=2, stride=1)

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        return [self.layer(self.input(images, regions))]


def make(faces: Path) -> tuple[JointNet, SyntheticDataModule]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"faces": (21, 11, 13), "masks": (9, 5, 7), "batch_size": 4, "mask_batch_size": 3}
    return JointNet(width=2, encoder=Shallow), SyntheticDataModule(
        str(faces), **sizes, image_size=SIZE, num_workers=0, seed=0
    )


def make_trainer(*callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )


class Validated(L.Callback):
    """How many graphs there were before and after the validation that Lightning tries before training."""

    def __init__(self) -> None:
        self.graphs: list[int] = []

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.graphs.append(counters["stats"]["unique_graphs"])

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.graphs.append(counters["stats"]["unique_graphs"])


def test_training_is_compiled_and_the_same(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal weights but for rounding, and names of weights as without; evaluation is not compiled.

    The graphs are the same whatever runs them: to write them as C++, as ``overlays/fast.yaml`` does, takes long.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    states, losses, graphs = [], [], []
    for callbacks in ([], [Compile()]):
        task, data = make(faces)
        validated = Validated()
        trainer = make_trainer(*callbacks, validated)
        torch.compiler.reset()
        counters.clear()
        trainer.fit(task, datamodule=data)
        graphs.append(counters["stats"]["unique_graphs"])
        assert validated.graphs == 2 * [len(callbacks)]  # the trial is one
        losses.append(trainer.test(task, datamodule=data, verbose=False)[0])
        assert counters["stats"]["unique_graphs"] == graphs[-1]
        assert "forward" not in vars(task.network)
        states.append(task.state_dict())
    assert graphs[0] == 0
    assert graphs[1] > 1
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-4)
    for name in (name for name in losses[0] if "loss" in name):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-3)


def begin_without_a_compiler(words: list[str], folder: Path) -> None:
    """In a process of its own: torch keeps in mind what it found of compilers."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
    inductor.cpp.cxx = (None, "/no/compiler")
    with (folder / "err").open("w") as sys.stderr:
        sys.exit(main(words))


def test_without_a_compiler(faces: Path, tmp_path: Path) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    words = ["fit", "--config", "avg.yaml", "--config", "overlays/fast.yaml", "--config", small]
    process = FORKS.Process(target=begin_without_a_compiler, args=(words, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 1
    found = (tmp_path / "err").read_text()
    assert re.fullmatch(
        r"facelightning: torch\.compile does not work on this machine \(.*/no/compiler.*Compile", found.splitlines()[-1]
    )
    assert "Traceback" not in found
