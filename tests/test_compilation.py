"""Compiled training: it is compiled, it is the same, and it ends with the training."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch._dynamo.utils import counters  # torch counts compiled graphs nowhere else

from facelightning.compilation import Compile
from facelightning.data import CelebADataModule, SyntheticDataModule
from facelightning.errors import ConfigurationError
from facelightning.tasks import AttributeNet, FaceTask, JointNet
from tests.conftest import SIZE


def make(kind: str, faces: Path) -> tuple[FaceTask, L.LightningDataModule]:
    torch.manual_seed(0)
    if kind == "attributes":
        data = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=4, num_workers=0, seed=0)
        return AttributeNet(width=2), data
    sizes: dict[str, Any] = {"faces": (21, 11, 13), "masks": (9, 5, 7), "batch_size": 4, "mask_batch_size": 3}
    return JointNet(width=2), SyntheticDataModule(str(faces), **sizes, image_size=SIZE, num_workers=0, seed=0)


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


@pytest.mark.parametrize("kind", ["attributes", "joint"])
def test_training_is_compiled_and_the_same(kind: str, faces: Path) -> None:
    """Equal weights but for rounding, and names of weights as without; evaluation is not compiled."""
    states, losses, graphs = [], [], []
    for callbacks in ([], [Compile()]):
        task, data = make(kind, faces)
        trainer = make_trainer(*callbacks)
        torch.compiler.reset()
        counters.clear()
        trainer.fit(task, datamodule=data)
        graphs.append(counters["stats"]["unique_graphs"])
        losses.append(trainer.test(task, datamodule=data, verbose=False)[0])
        assert counters["stats"]["unique_graphs"] == graphs[-1]
        assert not {"forward", "forward_pair"} & vars(task.network).keys()
        states.append(task.state_dict())
    assert graphs[0] == 0
    assert graphs[1] > 1  # the trial is one
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-4)
    for name in (name for name in losses[0] if "loss" in name):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-3)


def test_without_a_compiler(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    task, data = make("attributes", faces)
    with pytest.raises(ConfigurationError, match=r"torch\.compile does not work on this machine .* train without"):
        make_trainer(Compile()).fit(task, datamodule=data)
