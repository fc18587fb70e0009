"""EmbeddingNet and AgeNet: learn from people, resume with centres, keep what they know, begin with other filters."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from facelightning.callbacks.report import score_table
from facelightning.data import FaceTableDataModule, SyntheticPeopleDataModule
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.lnet import LNet
from facelightning.models.pooling import GridPooling
from facelightning.objectives import CentredIdentities, Identities
from facelightning.tasks import AgeNet, CategoryNet, EmbeddingNet, load_model
from tests.tasks.tiny import QUIET, Watch, assert_equal, make_trainer
from tests.test_resume import assert_same

pytestmark = QUIET

PERSONS, FACES, SIZE = (6, 2, 2), 2, (40, 32)
ENCODER = partial(LNet, width=3, kernel_size=7, stride=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = make_data(tmp_path_factory.mktemp("people") / "people")
    data.prepare_data()
    return Path(data.root)


def make_data(root: Path, **options: Any) -> SyntheticPeopleDataModule:
    settings = {"image_size": SIZE, "batch_size": 4, "num_workers": 0, "seed": 0} | options
    return SyntheticPeopleDataModule(str(root), persons=PERSONS, faces_per_person=FACES, **settings)


def make_embedding(**options: Any) -> EmbeddingNet:
    torch.manual_seed(0)
    return EmbeddingNet(encoder=ENCODER, pooling=partial(GridPooling, cells=2), num_features=8, **options)


def test_the_first_step_is_by_the_files(root: Path) -> None:
    """The loss and the centres after it, of what the network says before."""
    data, task, watch = make_data(root), make_embedding(), Watch()
    data.setup("fit")
    network = copy.deepcopy(task.build(data.facts).network).train()
    make_trainer(1, watch).fit(task, datamodule=data)
    (batch,) = watch.batches
    persons = [int(name.split("/")[1]) - 1 for name in batch["name"]]
    with torch.no_grad():
        output = network(batch["image"])
    truth = torch.tensor(persons)
    expected = torch.nn.functional.cross_entropy(output["identity"], truth)
    expected = expected + 0.003 * output["features"].square().sum(dim=1).mean() / 2  # centres begin at 0
    assert watch.losses == [pytest.approx(expected.item(), rel=1e-5)]
    objective = task.objectives["identity"]
    assert isinstance(objective, CentredIdentities)
    for person in range(PERSONS[0]):
        mine = output["features"][truth == person]
        torch.testing.assert_close(objective.centres[person], 0.5 * mine.sum(dim=0) / (1 + len(mine)))


def test_resuming_continues_bit_identically(root: Path, tmp_path: Path) -> None:
    """Amid an epoch: centres too."""

    def trained(folder: str, resume: Path | None = None) -> dict[str, Any]:
        L.seed_everything(5, verbose=False)
        keep = ModelCheckpoint(tmp_path / folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=6,
            callbacks=[keep],
            logger=False,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        task = make_embedding(optimizer="adamw", learning_rate=0.01)
        trainer.fit(task, datamodule=make_data(root, seed=None), ckpt_path=resume)
        content: dict[str, Any] = torch.load(tmp_path / folder / "step=6.ckpt", weights_only=True)
        return content

    whole = trained("whole")
    assert_same(trained("resumed", tmp_path / "whole/step=2.ckpt")["state_dict"], whole["state_dict"])
    early = torch.load(tmp_path / "whole/step=2.ckpt", weights_only=True)["state_dict"]
    centres = "objectives.identity.centres"
    assert whole["state_dict"][centres].any() and not torch.equal(early[centres], whole["state_dict"][centres])


def test_one_file_is_enough_and_new_identities_are_scored(root: Path, tmp_path: Path) -> None:
    trainer, task = make_trainer(2), make_embedding()
    trainer.fit(task, datamodule=make_data(root))
    trainer.save_checkpoint(tmp_path / "embedding.ckpt")
    again = load_model(tmp_path / "embedding.ckpt")
    assert again.facts is not None and again.facts.identities == tuple(range(6))
    assert_equal(dict(again.state_dict()), dict(task.state_dict()))
    make_trainer().test(again, datamodule=make_data(root), verbose=False)
    found = again.results["test"]["identity"]
    assert found["images"] == 4 and 0 <= found["true_accepts"] <= 100
    assert "true accepts at 1 % false accepts" in score_table("test", again, again.results["test"])
    (predicted,) = make_trainer().predict(again, datamodule=make_data(root)) or []
    assert isinstance(predicted, dict) and predicted["identity"].shape == (4, 8)
    with pytest.raises(ConfigurationError, match="EmbeddingNet is built for 6 identities, but the data has other"):
        again.check(DataFacts(SIZE, identities=(1, 2)), "the data")
    with pytest.raises(ConfigurationError, match="EmbeddingNet cannot learn identities: the data has none; use Cel"):
        make_embedding().build(DataFacts(SIZE))


def test_other_losses_and_other_encoders_fit() -> None:
    facts = DataFacts(SIZE, identities=(3, 12, 40))
    task = EmbeddingNet(width=2, num_features=5, objective=partial(Identities, similarity_weight=0.1)).build(facts)
    output = task(torch.rand(2, 3, *SIZE))
    assert (output["features"].shape, output["identity"].shape) == ((2, 5), (2, 3))
    assert type(task.objectives["identity"]) is Identities


def test_ages_are_learned_scored_and_predicted(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task, trainer, watch = AgeNet(encoder=ENCODER, optimizer="adamw", learning_rate=0.01), make_trainer(20), Watch()
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]  # a list
    trainer.fit(task, datamodule=make_data(root, batch_size=12, augmentations=[]))
    assert sum(watch.losses[-4:]) < 0.5 * sum(watch.losses[:4])
    trainer.save_checkpoint(tmp_path / "age.ckpt")
    again, data = load_model(tmp_path / "age.ckpt"), make_data(root)
    make_trainer().test(again, datamodule=data, verbose=False)
    (predicted,) = make_trainer().predict(again, datamodule=make_data(root)) or []
    (batch,) = data.test_dataloader()
    assert isinstance(predicted, dict) and predicted["name"] == batch["name"]
    error = (predicted["age"].squeeze(1) - batch["age"]).abs().mean()
    assert again.results["test"]["age"]["age_error"] == pytest.approx(float(error), rel=1e-5)
    with pytest.raises(ConfigurationError, match="AgeNet: the val data has nothing that this task predicts"):
        make_trainer().fit(again, datamodule=make_data(root, columns=["race"]))


def test_a_score_that_nothing_measures_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first checkpoint would stay the best one."""
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((*SIZE, 3), number, np.uint8))
    (tmp_path / "faces.csv").write_text("file,age,split\n0.png,3,train\n1.png,4,train\n2.png,,val\n3.png,,val\n")
    data = FaceTableDataModule(str(tmp_path), image_size=SIZE, batch_size=2, num_workers=0, seed=0)
    keep = ModelCheckpoint(tmp_path / "kept", monitor="val/age_error")
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[keep],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        trainer.fit(AgeNet(encoder=ENCODER), datamodule=data)
    assert caplog.text.count("val/age_error is not a number, so it cannot tell which checkpoint is the best") == 1


def test_all_begin_with_the_filters_of_one_net(root: Path, tmp_path: Path) -> None:
    trainer, first = make_trainer(1), CategoryNet(encoder=ENCODER)
    trainer.fit(first, datamodule=make_data(root))
    assert first.facts is not None and first.facts.categories == ("dark", "light")  # nobody is medium
    trainer.save_checkpoint(tmp_path / "net.ckpt")
    encoder = partial(ENCODER, weights=str(tmp_path / "net.ckpt"))
    facts = DataFacts(SIZE, identities=(1, 2))
    for task in (EmbeddingNet(encoder=encoder), AgeNet(encoder=encoder)):
        assert_equal(task.build(facts).network.encoder.state_dict(), first.network.encoder.state_dict())
