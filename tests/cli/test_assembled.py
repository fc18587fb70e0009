"""A task that is made of trained checkpoints: there is nothing to train, and ``test`` leaves its checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelightning.data import CelebADataModule
from facelightning.tasks import load_model
from tests.cli.conftest import AVG, BBOX, SEGNET
from tests.conftest import SIZE
from tests.test_configs import small_overlay

ENSEMBLE = "runs/ssp_ssg/version_0/checkpoints/best.ckpt"
MEMBERS = ("--config=ssp_ssg.yaml", f"--model.members=[{AVG},{BBOX}]")


def results(version: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(f"runs/ssp_ssg/version_{version}/test_results.json").read_text())
    return content["attributes"]


@pytest.fixture
def data(faces: Path) -> list[str]:
    return [f"--data.root={faces / 'celeba'}", "--data.num_workers=0"]


def mean_of_members(faces: Path) -> tuple[dict[str, Any], Tensor]:
    """The test images as one batch, and the mean of both members' probabilities, ``(B, 40)``."""
    module = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=20, num_workers=0)
    (batch,) = module.test_dataloader()
    with torch.no_grad():
        outputs = [load_model(path).network(batch["image"], batch["landmarks"]) for path in (AVG, BBOX)]
    return batch, torch.stack([output["attributes"].double().sigmoid() for output in outputs]).mean(dim=0)


def test_it_is_tested_without_training(command: Callable[..., None], runs: Path, data: list[str], faces: Path) -> None:
    """At the size of its members' images, and written as one checkpoint that holds them."""
    command("test", *MEMBERS, *data)
    files = {path.relative_to("runs/ssp_ssg/version_0").as_posix() for path in Path("runs/ssp_ssg").rglob("*.*")}
    assert {"config.yaml", "test_results.json", "checkpoints/best.ckpt"} <= files

    batch, mean = mean_of_members(faces)
    wrong = (mean > 0.5) != (batch["attributes"] > 0.5)
    assert results(0)["error"] == pytest.approx(100 * float(wrong.double().mean()))
    for path in (AVG, BBOX):
        Path(path).unlink()
    with torch.no_grad():
        output, _ = load_model(ENSEMBLE).predict_batch(batch)
    torch.testing.assert_close(output["attributes"].double().sigmoid(), mean, rtol=1e-4, atol=1e-6)


def test_its_checkpoint_needs_nothing_else(
    command: Callable[..., None], runs: Path, data: list[str], faces: Path
) -> None:
    command("test", *MEMBERS, *data)
    batch, mean = mean_of_members(faces)
    for path in (AVG, BBOX):
        Path(path).unlink()
    command("predict", f"--ckpt_path={ENSEMBLE}")
    lines = Path("runs/ssp_ssg/version_1/predictions/attributes.csv").read_text().splitlines()[1:]
    table = {name: np.array(values, float) for name, *values in (line.split(",") for line in lines)}
    for name, expected in zip(batch["name"], mean.numpy(), strict=True):
        np.testing.assert_allclose(table[name], expected, rtol=1e-4)
    command("test", f"--ckpt_path={ENSEMBLE}", *data)
    assert results(2) == results(0)


def test_its_checkpoint_is_read_beside_its_configuration(
    command: Callable[..., None], runs: Path, data: list[str]
) -> None:
    """Whose members need not be there."""
    command("test", *MEMBERS, *data)
    command("test", "--config=ssp_ssg.yaml", f"--ckpt_path={ENSEMBLE}", *data)
    assert results(1) == results(0)


def test_members_are_scored_at_another_size_if_asked(command: Callable[..., None], runs: Path, data: list[str]) -> None:
    command("test", *MEMBERS, *data)
    command("test", *MEMBERS, *data, "--data.image_size=[64,48]")
    assert results(1) != results(0)


def test_validating_and_predicting_need_no_checkpoint_either(
    command: Callable[..., None], runs: Path, data: list[str]
) -> None:
    command("validate", *MEMBERS, *data)
    command("predict", *MEMBERS, *data)
    assert "val/mean_ap" in Path("runs/ssp_ssg/version_0/metrics.csv").read_text()
    assert Path("runs/ssp_ssg/version_1/predictions/attributes.csv").is_file()


def test_it_has_nothing_to_learn(
    command: Callable[..., None], refused: Callable[..., str], runs: Path, data: list[str]
) -> None:
    for words in (["--config=ssp_ssg.yaml"], MEMBERS):
        assert "EnsembleNet has nothing to learn: `facelightning test`" in refused("fit", *words)
    command("test", *MEMBERS, *data)
    for words in ([], ["--config=ssp_ssg.yaml"], MEMBERS):
        assert "EnsembleNet has nothing to learn" in refused("fit", f"--ckpt_path={ENSEMBLE}", *words)
    assert not Path("runs/ssp_ssg/version_1").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--model.members=[]"], ["`members` must name checkpoints"]),
        (["--model.members=[gone.ckpt]"], ["gone.ckpt does not exist"]),
        ([f"--model.members=[{AVG},gone.ckpt]"], ["gone.ckpt does not exist"]),
        ([], ["runs/ssp/version_0/checkpoints/best.ckpt does not exist"]),
        ([f"--model.members=[{SEGNET}]"], [SEGNET, "holds SegNet", "AttributeNet"]),
        ([f"--model.members=[{AVG},{SEGNET}]"], [SEGNET, "holds SegNet", "AttributeNet"]),
        ([f"--model.members=[{AVG},large.ckpt]"], ["40×32", "64×48"]),
        ([f"--model.members={AVG}"], ["members", "list"]),
    ],
)
def test_members_that_cannot_be(
    words: list[str], found: list[str], refused: Callable[..., str], runs: Path, data: list[str]
) -> None:
    content = torch.load(AVG, weights_only=True)
    content["facelightning"]["facts"]["image_size"] = [64, 48]
    torch.save(content, "large.ckpt")
    message = refused("test", "--config=ssp_ssg.yaml", *data, *words)
    for word in found:
        assert word in message


def test_a_configuration_of_another_size_than_the_members(
    refused: Callable[..., str], runs: Path, faces: Path, tmp_path: Path
) -> None:
    Path(small_overlay("avg.yaml", faces, tmp_path)).rename("other.yaml")
    Path("other.yaml").write_text("data: {init_args: {image_size: [64, 48]}}\n")
    message = refused("test", *MEMBERS, "--config=other.yaml")
    assert f"{AVG} was trained on images of 40×32, but the configuration says 64×48" in message
