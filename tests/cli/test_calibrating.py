"""``calibrate`` fits a checkpoint's probabilities and decisions to the validation split, and leaves its checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from facelightning.__main__ import main
from facelightning.callbacks.report import _without_nan
from facelightning.data import CelebADataModule
from facelightning.errors import ConfigurationError
from facelightning.metrics import CalibratedScores
from facelightning.models.calibration import fit_slopes, fit_thresholds
from facelightning.tasks import CalibratedNet, load_model
from tests.cli.conftest import AVG, JOINT, SEGNET
from tests.conftest import SIZE

CALIBRATED = "runs/calibrated/version_0/checkpoints/best.ckpt"


def results(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path, "test_results.json").read_text())
    return content


@torch.no_grad()
def logits(faces: Path, split: str) -> tuple[torch.Tensor, dict[str, Any]]:
    """Of the images of a split, by the network alone; and the images as one batch."""
    module = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=20, num_workers=0)
    (batch,) = getattr(module, f"{split}_dataloader")()
    return load_model(AVG).network(batch["image"])["attributes"], batch


def test_its_checkpoint_is_all_that_is_needed(command: Callable[..., None], runs: Path, faces: Path) -> None:
    """It scores the same, decides by the thresholds, and predicts calibrated probabilities."""
    command("test", f"--ckpt_path={AVG}")
    command("calibrate", AVG, "--model.criterion=f1")
    (of_val, val), (of_test, test) = logits(faces, "val"), logits(faces, "test")
    Path(AVG).unlink()
    command("test", f"--ckpt_path={CALIBRATED}", "--trainer.logger.version=again")
    found = results("runs/calibrated/version_0")["attributes"]
    assert found == results("runs/calibrated/again")["attributes"]
    before = results("runs/avg/version_1")["attributes"]
    assert found["before"]["balanced_accuracy"] == before["balanced_accuracy"]
    assert cv2.imread("runs/calibrated/version_0/figures/reliability.png") is not None

    slopes = fit_slopes(of_val, val["attributes"])
    decisions = of_test * slopes > fit_thresholds(of_val * slopes, val["attributes"], "f1")
    wrong = decisions != (test["attributes"] > 0.5)
    assert found["error"] == pytest.approx(100 * float(wrong.double().mean()))
    task = load_model(CALIBRATED)
    batch = {"image": test["image"], "name": test["name"]}
    with torch.no_grad():
        predicted = task.predict_step(batch, 0)["attributes"]
    torch.testing.assert_close(predicted, (of_test * slopes).sigmoid().float())


def test_parsing_stays_as_it_is(command: Callable[..., None], runs: Path) -> None:
    command("test", f"--ckpt_path={JOINT}", "--trainer.logger.version=plain")
    command("calibrate", JOINT)
    plain, calibrated = results("runs/joint/plain"), results("runs/calibrated/version_0")
    assert plain["parsing"] == calibrated["parsing"]
    assert plain["attributes"]["balanced_accuracy"] == calibrated["attributes"]["before"]["balanced_accuracy"]


def test_mistakes_are_sentences(refused: Callable[..., str], runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "calibrate needs a checkpoint" in refused("calibrate")
    assert "checkpoint missing.ckpt does not exist" in refused("calibrate", "missing.ckpt")
    assert "CalibratedNet's network" in refused("calibrate", SEGNET)
    assert "miss_cost belongs to the criterion cost" in refused("calibrate", AVG, "--model.miss_cost=2")
    assert "miss_cost must be positive" in refused("calibrate", AVG, "--model.criterion=cost", "--model.miss_cost=0")
    assert "is fitted by `facelightning test`" in refused("validate", "--config=calibrated.yaml")
    assert not (runs / "calibrated").exists()
    assert main(["calibrate", "--help"]) == 0
    assert "usage: facelightning calibrate CHECKPOINT" in capsys.readouterr().out


def test_scores_do_not_depend_on_the_order_of_the_images() -> None:
    """Nor do their intervals: so they are the same on any number of processes."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.rand(20, 3, generator=generator) for _ in range(4)]
    values.append((values[0] > 0.5).float().index_put((torch.tensor([3]), torch.tensor([1])), torch.tensor(torch.nan)))
    order = torch.randperm(20, generator=generator)
    computed = []
    for rows in (torch.arange(20), order):
        scores = CalibratedScores(["a", "b", "c"])
        scores.update(*(each[rows] for each in values))
        computed.append(scores.compute())
    assert computed[0] == computed[1]


def test_what_no_image_tells_is_undefined() -> None:
    """And written as null."""
    scores = CalibratedScores(["a"])
    half = torch.full((2, 1), 0.5)
    scores.update(half, half, half, half, torch.ones(2, 1))
    found = json.loads(json.dumps(_without_nan(scores.compute()), allow_nan=False))
    assert found["before"] == {"error": 0, "balanced_accuracy": None, "calibration_error": 50}
    assert found["change"] == {"balanced_accuracy": [None] * 3, "calibration_error": [0, 0, 0]}


def test_it_has_nothing_to_train(runs: Path) -> None:
    with pytest.raises(Exception, match="CalibratedNet has nothing to learn"):
        CalibratedNet(AVG).configure_optimizers()


def test_it_says_nothing_before_it_is_fitted(runs: Path) -> None:
    with pytest.raises(ConfigurationError, match="not calibrated yet: `facelightning calibrate` fits it"):
        CalibratedNet(AVG).predict_batch({"image": torch.zeros(1, 3, *SIZE)})
