"""How a training ends: with a validation, with an error where it diverges, and later than planned."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from facelightning.errors import ConfigurationError, DivergenceError
from facelightning.tasks import AttributeNet, FaceTask, JointNet, SegNet
from facelightning.tasks.scoring import Scoring
from tests.tasks.tiny import FACTS, QUIET, loader, samples

pytestmark = QUIET


class Noting(L.Callback):
    """Notes when it is validated, and the learning rate of each step."""

    def __init__(self) -> None:
        self.validated: list[int] = []
        self.rates: list[float] = []

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated.append(trainer.global_step)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(task: FaceTask, folder: Path, resume: Path | None = None, **settings: Any) -> Noting:
    """Four batches an epoch; the best and the last checkpoint."""
    noting = Noting()
    best = ModelCheckpoint(folder, monitor="val/loss", filename="best", enable_version_counter=False)
    last = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=[noting, best, last],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    data = samples("mask", "attributes", count=8)
    trainer.fit(task.build(FACTS), loader(data, 2), loader(data, 2), ckpt_path=resume)
    return noting


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({"max_steps": 6, "val_check_interval": 4}, [4, 6]),
        ({"max_steps": 8, "val_check_interval": 4}, [4, 8]),
        ({"max_epochs": 1, "val_check_interval": 500}, [4]),
        ({"max_epochs": 2, "val_check_interval": 3}, [3, 6, 8]),
        ({"max_steps": 3, "val_check_interval": 500, "accumulate_grad_batches": 2}, [3]),
    ],
)
def test_a_training_ends_with_a_validation(settings: dict[str, Any], validated: list[int], tmp_path: Path) -> None:
    assert fit(SegNet(width=2), tmp_path, check_val_every_n_epoch=None, **settings).validated == validated
    assert (tmp_path / "best.ckpt").is_file()


@pytest.mark.parametrize("task", [SegNet, AttributeNet, JointNet])
def test_a_training_that_diverges_is_an_error(task: type[Any], tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match=r"loss is not finite in epoch 0, step \d+, at image \d\.jpg: .* lower"):
        fit(task(width=2, optimizer="adamw", learning_rate=1e6, weight_decay=1e5), tmp_path, max_epochs=30)
    assert not (tmp_path / "best.ckpt").is_file()


@pytest.mark.parametrize("key", ["parsing", "attributes"])
def test_one_image_that_is_not_finite_is_an_error(key: str) -> None:
    task = JointNet(width=2).build(FACTS)
    with torch.no_grad():
        output, truth = task.predict_batch(torch.utils.data.default_collate(samples("mask", "attributes")))
    values = output[key][-1] if key == "parsing" else output[key]
    values[2] = math.nan
    with pytest.raises(DivergenceError, match=f"the {key} loss is not finite in epoch 1, at image 2.jpg"):
        Scoring(task.objectives).update(output, truth, "in epoch 1")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate must lie in"),
        ({"learning_rate": math.nan}, "learning_rate must lie in"),
        ({"learning_rate": 1e30}, "learning_rate must lie in"),
        ({"weight_decay": -0.1}, "weight_decay must lie in"),
        ({"width": 0}, r"width must lie in 1...1024, not 0"),
        ({"width": 100_000}, "width must lie in"),
    ],
)
def test_an_option_out_of_range_is_refused_at_once(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SegNet(**option)


ONE_CYCLE: dict[str, Any] = {"width": 2, "optimizer": "adamw", "schedule": "one_cycle", "learning_rate": 0.01}


class TestOneCycle:
    def rates(self, steps: int) -> list[float]:
        optimizer = torch.optim.AdamW([Tensor([0.0]).requires_grad_()])
        schedule, rates = OneCycleLR(optimizer, 0.01, steps), []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    def test_is_torchs(self, tmp_path: Path) -> None:
        assert fit(SegNet(**ONE_CYCLE), tmp_path, max_epochs=2).rates == self.rates(8)

    def test_an_interrupted_training_follows_the_longer_plan(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        fit(SegNet(**ONE_CYCLE), tmp_path, max_epochs=2, limit_train_batches=2)  # planned for 4
        longer = fit(SegNet(**ONE_CYCLE), tmp_path / "b", tmp_path / "last.ckpt", max_epochs=4, limit_train_batches=2)
        assert longer.rates == self.rates(8)[4:]
        assert "of 4 steps had ended: it restarts warm at step 4 of a plan of 8 steps" in caplog.text
        assert longer.validated == [6, 8]

    def test_amid_the_plan(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        class Stop(L.Callback):
            def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
                trainer.should_stop = True

        task = SegNet(**ONE_CYCLE)
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=3, callbacks=[Stop()], logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip
        data = samples("mask", count=8)
        trainer.fit(task.build(FACTS), loader(data, 2), loader(data, 2))
        trainer.save_checkpoint(tmp_path / "early.ckpt")
        longer = fit(SegNet(**ONE_CYCLE), tmp_path / "b", tmp_path / "early.ckpt", max_epochs=4)
        assert longer.rates == self.rates(16)[4:]
        assert "of 12 steps goes on at step 4 of a plan of 16 steps" in caplog.text
