"""SVMs on a trained network's features: ``test`` fits them and leaves their checkpoint."""

import json
import urllib.error
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from facelightning.data import CelebADataModule
from facelightning.data.synthetic import write_scenes
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.models.lnet import LNet
from facelightning.models.pooling import LogSumExpPooling
from facelightning.models.svm import SVMNetwork
from facelightning.tasks import AttributeNet, load_model
from tests.cli.conftest import AVG, JOINT, SEGNET
from tests.conftest import SIZE
from tests.models.conftest import settle
from tests.tasks.tiny import save_again
from tests.test_processes import run_on

SVM = "runs/svm/version_0/checkpoints/best.ckpt"
FITTED = ("test", "--config=svm.yaml", "--trainer.accelerator=cpu")


@pytest.fixture
def data(faces: Path) -> list[str]:
    return [f"--data.root={faces / 'celeba'}", "--data.num_workers=0"]


def results(version: int | str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(f"runs/svm/version_{version}/test_results.json").read_text())
    return content["attributes"]


@torch.no_grad()
def features(faces: Path, split: str) -> tuple[Tensor, dict[str, Any]]:
    """Of the images of a split, by the network alone; and the images as one batch."""
    module = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=20, num_workers=0)
    (batch,) = getattr(module, f"{split}_dataloader")()
    return load_model(AVG).network(batch["image"])["features"].mean(dim=(2, 3)), batch


def test_its_checkpoint_is_all_that_is_needed(
    command: Callable[..., None], runs: Path, data: list[str], faces: Path
) -> None:
    """To score the same, and to predict calibrated probabilities."""
    command(*FITTED, f"--model.network={AVG}", *data)
    of_test, batch = features(faces, "test")
    Path(AVG).unlink()
    command("test", f"--ckpt_path={SVM}", *data)
    command("test", "--config=svm.yaml", f"--ckpt_path={SVM}", *data)
    assert results(0) == results(1) == results(2)
    command("predict", f"--ckpt_path={SVM}", "--trainer.logger.version=predicted")

    task = load_model(SVM)
    svms = cast(SVMNetwork, task.network).svms
    decisions = svms(of_test)
    wrong = (decisions > 0) != (batch["attributes"] > 0.5)
    assert results(0)["error"] == pytest.approx(100 * float(wrong.double().mean()))
    slope, offset = svms.coefficients[:, -2:].T
    expected = (decisions * slope + offset).sigmoid()
    lines = Path("runs/svm/predicted/predictions/attributes.csv").read_text().splitlines()
    assert lines[0].split(",") == ["name", *ATTRIBUTES]
    table = {name: np.array(values, float) for name, *values in (line.split(",") for line in lines[1:])}
    for name, row in zip(batch["name"], expected.numpy(), strict=True):
        np.testing.assert_allclose(table[name], row, rtol=1e-3, atol=1e-6)


def finding_faces() -> list[str]:
    """The command that fits the least response of a face, of a localiser that has learned nothing."""
    write_scenes(Path("scenes"), scenes=(1, 7, 5), faceless=(0, 1, 1), size=(64, 64), seed=0)
    torch.manual_seed(0)
    encoder = partial(LNet, width=3, kernel_size=7, stride=2)
    lnet_o = AttributeNet(encoder=encoder, pooling=LogSumExpPooling).build(DataFacts((64, 64), attributes=ATTRIBUTES))
    settle(lnet_o.network, torch.rand(4, 3, 64, 64))
    save_again(lnet_o.eval(), Path("lnet_o.ckpt"))
    words = ["--model.stages=[lnet_o.ckpt]", "--data.root=scenes", "--data.image_size=[64,64]", "--data.num_workers=0"]
    return ["test", "--config=faces.yaml", *words, "--trainer.accelerator=cpu"]


def test_processes_fit_the_same(command: Callable[..., None], runs: Path, data: list[str], faces: Path) -> None:
    """SVMs to 11 images and 40 attributes, the least response of a face to 8: three processes share none evenly."""
    commands = [[*FITTED, f"--model.network={AVG}", *data], finding_faces()]
    for words in commands:
        command(*words, "--trainer.devices=1", "--trainer.logger.version=version_1")
    run_on(3, [[*words, "--trainer.logger.version=version_3"] for words in commands])
    assert results(1) == results(3)
    found = [Path(f"runs/faces/version_{n}/test_results.json").read_text() for n in (1, 3)]
    assert found[0] == found[1]
    least = [load_model(f"runs/faces/version_{n}/checkpoints/best.ckpt").settings["least"] for n in (1, 3)]
    assert least[0] == least[1] > 0
    one, three = (load_model(f"runs/svm/version_{n}/checkpoints/best.ckpt").network.svms.coefficients for n in (1, 3))
    torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-5)


def test_it_is_fitted_by_a_test_alone(
    command: Callable[..., None], refused: Callable[..., str], runs: Path, data: list[str]
) -> None:
    words = ("--config=svm.yaml", f"--model.network={AVG}", *data)
    for other in ("validate", "predict"):
        message = refused(other, *words)
        assert f"SVMNet is fitted by `facelightning test`, which writes a checkpoint: {other} needs that" in message
    assert "SVMNet has nothing to learn: `facelightning test`" in refused("fit", *words)
    assert not Path("runs/svm").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--model.network=gone.ckpt"], ["gone.ckpt does not exist"]),
        ([f"--model.network={SEGNET}"], [SEGNET, "holds SegNet", "EmbeddingNet or IdentityNet or JointNet"]),
        (["--model.network=null"], ["SVMNet needs the checkpoint of a `network`"]),
        ([f"--model.network={AVG}", "--model.encoder=TorchvisionEncoder", "--model.encoder.name=resnet18"], ["needs"]),
    ],
)
def test_networks_that_cannot_be(
    words: list[str], found: list[str], refused: Callable[..., str], runs: Path, data: list[str]
) -> None:
    message = refused("test", "--config=svm.yaml", *data, *words)
    for word in found:
        assert word in message
    assert not Path("runs/svm").exists()


def test_joint_data_has_validation_images_for_it(command: Callable[..., None], runs: Path, faces: Path) -> None:
    drawn = ("--data=SyntheticDataModule", f"--data.root={faces}", "--data.faces=[21,11,13]", "--data.masks=[9,5,7]")
    command(*FITTED, f"--model.network={JOINT}", *drawn, "--data.num_workers=0")
    assert cast(SVMNetwork, load_model(SVM).network).svms.fitted
    assert 0 <= results(0)["error"] <= 100


def test_weights_that_cannot_be_downloaded(
    refused: Callable[..., str], data: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    message = refused("test", "--config=off_the_shelf.yaml", *data)
    assert "TorchvisionEncoder: no weights DEFAULT for resnet18 (<urlopen error no network in this test>)" in message
    assert not Path("runs").exists()
