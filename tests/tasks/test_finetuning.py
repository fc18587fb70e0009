"""Training that starts from trained weights, and balanced loss by the rates of the training data."""

import copy
import math
from pathlib import Path

import pytest
import torch

from facelightning.data import CelebADataModule, FolderDataModule
from facelightning.errors import CheckpointError, ConfigurationError, FacelightningError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.objectives import Attributes, BalancedAttributes
from facelightning.tasks import AttributeNet, EnsembleNet, FaceTask, load_model
from tests.conftest import SIZE
from tests.tasks.tiny import (
    FACTS,
    QUIET,
    Watch,
    assert_equal,
    loader,
    make_task,
    make_trainer,
    predictions,
    samples,
    save,
    save_again,
    trained,
)

pytestmark = QUIET


class TestFineTuning:
    @pytest.mark.parametrize("kind", ["attributenet-avg", "attributenet-ssp+ssg", "attributenet-backbone"])
    def test_starts_from_the_weights(self, kind: str, parser: Path, tmp_path: Path) -> None:
        path = save(make_task(kind, parser), tmp_path / "trained.ckpt")
        tuned = make_task(kind, parser, weights=str(path))
        assert_equal(predictions(tuned), predictions(load_model(path)))
        again = save_again(tuned, tmp_path / "tuned.ckpt")
        path.unlink()
        assert_equal(predictions(load_model(again)), predictions(tuned))

    def test_learns_on(self, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-avg", parser), tmp_path / "trained.ckpt")
        tuned = make_task("attributenet-avg", parser, weights=str(path))
        trained(tuned)
        expected = load_model(path)
        trained(expected)
        assert_equal(predictions(tuned), predictions(expected))

    def test_other_settings_are_refused(self, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-avg", parser), tmp_path / "trained.ckpt")
        with pytest.raises(CheckpointError, match=r"trained\.ckpt"):
            AttributeNet(width=3, weights=str(path)).build(FACTS)

    def test_other_attributes_are_refused(self, tmp_path: Path) -> None:
        """As many in another order, too: each column would start with another one's weights."""
        facts = DataFacts(SIZE, attributes=("Bald", "Male", "Young"))
        trainer = make_trainer()
        trainer.fit(AttributeNet(width=2).build(facts), loader(samples("attributes", attributes=3)))
        trainer.save_checkpoint(tmp_path / "trained.ckpt")
        for names in (("Bald", "Male"), ("Bald", "Young", "Male")):
            with pytest.raises(FacelightningError, match=r"trained\.ckpt|weights"):
                task = AttributeNet(width=2, weights=str(tmp_path / "trained.ckpt"))
                task.build(DataFacts(SIZE, attributes=names))

    def test_other_tasks_are_refused(self, parser: Path) -> None:
        with pytest.raises(CheckpointError, match=r"weights: .*parser\.ckpt holds SegNet, not AttributeNet"):
            AttributeNet(width=2, weights=str(parser)).build(FACTS)


def read_labels(celeba: Path) -> dict[str, dict[str, bool]]:
    """Image → attribute → whether it has it, as the training split of the file says."""
    split = dict(line.split() for line in (celeba / "Eval/list_eval_partition.txt").read_text().splitlines())
    _, header, *lines = (celeba / "Anno/list_attr_celeba.txt").read_text().splitlines()
    rows = {name: labels for name, *labels in map(str.split, lines)}
    return {
        name: {attribute: label == "1" for attribute, label in zip(header.split(), labels, strict=True)}
        for name, labels in rows.items()
        if split[name] == "0"
    }


def rates_of(task: FaceTask) -> torch.Tensor:
    objective = task.objectives["attributes"]
    assert isinstance(objective, Attributes)
    assert objective.positive_rates is not None
    return objective.positive_rates


class TestBalanced:
    @pytest.fixture
    def data(self, faces: Path) -> CelebADataModule:
        return CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=8, num_workers=0, seed=0)

    def test_training_is_by_the_rates_of_its_data(self, data: CelebADataModule, tmp_path: Path) -> None:
        """The first step's loss, against a float64 loop with rates counted by hand."""
        labels = read_labels(Path(data.root or ""))
        rates = {name: sum(row[name] for row in labels.values()) / len(labels) for name in ATTRIBUTES}
        assert len(labels) == 21
        assert 0 in rates.values()  # none of these has it: it weighs 1
        assert max(abs(rate - 0.5) for rate in rates.values() if 0 < rate < 1) > 0.4

        torch.manual_seed(0)
        task, watch = AttributeNet(width=2, objective=BalancedAttributes).build(data.facts), Watch()
        network = copy.deepcopy(task.network).train()
        trainer = make_trainer(1, watch)
        trainer.fit(task, datamodule=data)

        assert rates_of(task).tolist() == pytest.approx(list(rates.values()), abs=1e-6)
        (batch,) = watch.batches
        assert set(batch["name"]) <= labels.keys()
        with torch.no_grad():
            logits = network(batch["image"])["attributes"].double().tolist()
        balanced, plain = [], []
        for image, row in zip(batch["name"], logits, strict=True):
            for name, logit in zip(ATTRIBUTES, row, strict=True):
                has, rate = labels[image][name], rates[name]
                weight = 1.0 if rate in (0, 1) else 1 / (2 * rate) if has else 1 / (2 * (1 - rate))
                plain.append(math.log1p(math.exp(-logit if has else logit)))
                balanced.append(weight * plain[-1])
        assert len(plain) == 8 * len(ATTRIBUTES)
        expected = sum(balanced) / len(balanced)
        assert watch.losses == [pytest.approx(expected, rel=1e-5)]
        assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)
        assert watch.losses != [pytest.approx(sum(plain) / len(plain), rel=0.01)]

        trainer.save_checkpoint(tmp_path / "balanced.ckpt")
        loaded = load_model(tmp_path / "balanced.ckpt")
        assert torch.equal(rates_of(loaded), rates_of(task))
        ensemble = EnsembleNet([str(tmp_path / "balanced.ckpt")])
        torch.testing.assert_close(predictions(ensemble)["attributes"], predictions(loaded)["attributes"])

    def test_scores_have_the_same_loss(self, data: CelebADataModule, tmp_path: Path) -> None:
        """A loaded task's loss on other data is by the rates of its training, not by those of that data."""
        trainer = make_trainer(1)
        trainer.fit(AttributeNet(width=2, objective=BalancedAttributes), datamodule=data)
        trainer.save_checkpoint(tmp_path / "balanced.ckpt")
        task, test = load_model(tmp_path / "balanced.ckpt"), make_trainer()
        rates = rates_of(task).clone()
        test.test(task, datamodule=data, verbose=False)
        assert torch.equal(rates_of(task), rates)
        losses = []
        for batch in data.test_dataloader():
            with torch.no_grad():
                output, _ = task.predict_batch(batch)
            weights = torch.where(batch["attributes"] > 0, 0.5 / rates, 0.5 / (1 - rates))
            weights = weights.where((rates > 0) & (rates < 1), 1)
            signs = 1 - 2 * batch["attributes"]
            losses += (weights * (signs * output["attributes"]).exp().log1p()).mean(dim=1).tolist()
        assert len(losses) == 13
        assert float(test.callback_metrics["test/loss"]) == pytest.approx(sum(losses) / 13, rel=1e-5)

    def test_fine_tuning_starts_from_a_plain_network(self, data: CelebADataModule, tmp_path: Path) -> None:
        trainer = make_trainer(1)
        trainer.fit(AttributeNet(width=2), datamodule=data)
        trainer.save_checkpoint(tmp_path / "plain.ckpt")
        tuned = AttributeNet(width=2, objective=BalancedAttributes, weights=str(tmp_path / "plain.ckpt")).build(
            data.facts
        )
        assert_equal(predictions(tuned), predictions(load_model(tmp_path / "plain.ckpt")))
        make_trainer(1).fit(tuned, datamodule=data)
        assert rates_of(tuned).unique().numel() > 3

    def test_needs_data_that_counts(self, faces: Path) -> None:
        with pytest.raises(ConfigurationError, match="balanced loss needs data that counts"):
            make_trainer().fit(
                AttributeNet(width=2, objective=BalancedAttributes).build(FACTS), loader(samples("attributes"))
            )
        task = AttributeNet(width=2, objective=BalancedAttributes).build(FACTS)
        make_trainer().validate(task, loader(samples("attributes")), verbose=False)  # nothing is learned from
        folder = FolderDataModule(str(faces / "celeba" / "Img"), image_size=(36, 28), batch_size=8, num_workers=0)
        make_trainer().predict(task, datamodule=folder)
