"""Trained attribute networks as one: the mean of their probabilities, in one file, with nothing to learn."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from facelightning.checkpoint import Checkpoint
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.tasks import AttributeNet, EnsembleNet, load_model
from tests.tasks.test_training import Data
from tests.tasks.tiny import (
    FACTS,
    HEIGHT,
    QUIET,
    WIDTH,
    assert_equal,
    loader,
    make_task,
    make_trainer,
    predictions,
    samples,
    save,
    save_again,
)

pytestmark = QUIET


@pytest.fixture
def members(parser: Path, tmp_path: Path) -> list[str]:
    kinds = ("avg", "ssp+ssg", "bbox")
    return [str(save(make_task(f"attributenet-{kind}", parser), tmp_path / f"{kind}.ckpt")) for kind in kinds]


def test_is_the_mean_of_its_members_probabilities(members: list[str]) -> None:
    each = [predictions(load_model(path))["attributes"].double().sigmoid() for path in members]
    for count in (1, 2, 3):
        ensemble = EnsembleNet(members[:count])
        torch.testing.assert_close(
            predictions(ensemble)["attributes"].double().sigmoid(), torch.stack(each[:count]).mean(dim=0)
        )


def test_extreme_predictions_stay_finite(members: list[str]) -> None:
    ensemble = EnsembleNet(members[:2])
    for number, member in enumerate(ensemble.network.members):
        classifier = next(module for module in member.modules() if isinstance(module, nn.Linear))
        nn.init.constant_(classifier.bias, 1e4 * (-1) ** number)
    assert predictions(ensemble)["attributes"].isfinite().all()


def test_one_file_is_enough(members: list[str], tmp_path: Path) -> None:
    ensemble = EnsembleNet(members)
    expected = predictions(ensemble)
    path = save_again(ensemble, tmp_path / "ensemble.ckpt")
    for member in members:
        Path(member).unlink()
    loaded = load_model(path)
    assert isinstance(loaded, EnsembleNet)
    assert_equal(predictions(loaded), expected)
    assert loaded.settings == ensemble.settings
    assert_equal(predictions(load_model(save_again(loaded, tmp_path / "again.ckpt"))), expected)


def test_a_checkpoint_of_it_tests_another(members: list[str], tmp_path: Path) -> None:
    """With weights of the same kinds, which the checkpoint's replace."""
    path = save_again(EnsembleNet(members), tmp_path / "ensemble.ckpt")
    expected = predictions(load_model(path))
    other = EnsembleNet(members)
    nn.init.constant_(other.network.members[0].head.classifier.bias, 3.0)
    make_trainer().test(other, datamodule=Data(FACTS, "attributes"), ckpt_path=path, verbose=False)
    assert_equal(predictions(other), expected)
    with pytest.raises(CheckpointError, match="trained with members"):
        make_trainer().test(
            EnsembleNet(members[:1]), datamodule=Data(FACTS, "attributes"), ckpt_path=path, verbose=False
        )


def test_scores_as_any_task(members: list[str]) -> None:
    """Built for what its members are for, and on no other data."""
    ensemble = EnsembleNet(members)
    assert ensemble.facts is not None
    assert (ensemble.facts.image_size, ensemble.facts.attributes) == ((HEIGHT, WIDTH), ATTRIBUTES)
    make_trainer().test(ensemble, datamodule=Data(FACTS, "attributes"), verbose=False)
    assert 0 <= ensemble.results["test"]["attributes"]["error"] <= 100
    with pytest.raises(ConfigurationError, match="EnsembleNet is built for image size 36×28, but the data has 20×18"):
        make_trainer().test(ensemble, datamodule=Data(DataFacts((20, 18), None, ATTRIBUTES), "attributes"))


def test_fit_is_refused(members: list[str], tmp_path: Path) -> None:
    """In one sentence, also of a loaded one; and nothing has changed."""
    ensemble = EnsembleNet(members)
    loaded = load_model(save_again(ensemble, tmp_path / "ensemble.ckpt"))
    for task in (ensemble, loaded):
        before = {name: value.clone() for name, value in task.network.state_dict().items()}
        with pytest.raises(ConfigurationError, match=r"EnsembleNet has nothing to learn.*test"):
            make_trainer(2).fit(task, loader(samples("attributes")))
        assert_equal(dict(task.network.state_dict()), before)


def test_refuses_what_is_no_attributenet(parser: Path, members: list[str]) -> None:
    with pytest.raises(CheckpointError, match=r"member.*parser\.ckpt holds SegNet, not AttributeNet"):
        EnsembleNet([*members, str(parser)])
    with pytest.raises(ConfigurationError, match="members"):
        EnsembleNet([])


@pytest.mark.parametrize(
    ("facts", "values"),
    [
        (DataFacts((20, 18), None, ATTRIBUTES), "image size 36×28, but another member has 20×18"),
        (DataFacts((HEIGHT, WIDTH), None, ATTRIBUTES[:3]), r"40 names .*, but another member has 3 names"),
    ],
)
def test_members_are_for_the_same_data(facts: DataFacts, values: str, members: list[str], tmp_path: Path) -> None:
    data = Data(facts, "attributes", attributes=len(facts.attributes or ()))
    trainer = make_trainer()
    trainer.fit(AttributeNet(width=2), datamodule=data)
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ConfigurationError, match=f"EnsembleNet is built for .*{values}"):
        EnsembleNet([*members, str(tmp_path / "other.ckpt")])


def test_describes_its_members(members: list[str], tmp_path: Path) -> None:
    settings = Checkpoint.read(save_again(EnsembleNet(members), tmp_path / "ensemble.ckpt")).settings
    assert settings == {"members": [json.dumps(Checkpoint.read(path).description) for path in members]}
