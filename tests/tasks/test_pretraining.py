"""IdentityNet and ANet: pre-training by identities, exact resuming, scores of new identities, and fine-tuning."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import albumentations as A
import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from facelightning.callbacks.report import score_table
from facelightning.checkpoint import Checkpoint
from facelightning.data import CelebADataModule
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.losses import similarity_loss
from facelightning.metrics.retrieval import RetrievalScores
from facelightning.models.heads import LocalizationHead
from facelightning.objectives import BalancedAttributes, Identities
from facelightning.tasks import ANet, FaceTask, IdentityNet, SegNet, load_model
from tests.tasks.tiny import FACTS as TINY
from tests.tasks.tiny import QUIET, Watch, assert_equal, make_trainer, save
from tests.test_resume import assert_same

pytestmark = QUIET

SIZE = (129, 129)
NUMBERS = (7, 40, 99, 1000, 10_176, 2**40)
FACTS = DataFacts(SIZE, attributes=ATTRIBUTES, identities=NUMBERS)


@pytest.fixture(scope="module")
def celeba(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic faces, with other numbers for identities: large ones, in another order."""
    return renumbered(faces / "celeba", tmp_path_factory.mktemp("celeba"), lambda number: 10**9 + 856 * number % 1009)


def renumbered(celeba: Path, folder: Path, number: Any) -> Path:
    """The same images and tables, but for the numbers of the identities; none if there is no number."""
    for path in celeba.glob("*/*"):
        target = folder / path.relative_to(celeba)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name != "identity_CelebA.txt":
            target.symlink_to(path)
        elif number is not None:
            rows = map(str.split, path.read_text().splitlines())
            target.write_text("".join(f"{name} {number(int(old))}\n" for name, old in rows))
    return folder


def make_data(celeba: Path, **options: Any) -> CelebADataModule:
    settings: dict[str, Any] = {
        "image_size": SIZE,
        "batch_size": 4,
        "num_workers": 0,
        "seed": 0,
        "images_per_identity": 2,
    }
    return CelebADataModule(str(celeba), **(settings | options))


def make_identities(**settings: Any) -> IdentityNet:
    torch.manual_seed(0)
    return IdentityNet(width=2, cell=3, **settings)


def make_attributes(**settings: Any) -> ANet:
    torch.manual_seed(1)
    return ANet(width=2, cell=3, **settings)


def trained_for(steps: int, task: IdentityNet | ANet, celeba: Path, folder: Path) -> Path:
    """The checkpoint of a short training."""
    trainer = make_trainer(steps)
    trainer.fit(task, datamodule=make_data(celeba))
    trainer.save_checkpoint(folder / "trained.ckpt")
    return folder / "trained.ckpt"


@pytest.fixture(scope="module")
def pretrained(celeba: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_for(2, make_identities(), celeba, tmp_path_factory.mktemp("pretrained"))


@pytest.fixture(scope="module")
def tagged(celeba: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_for(1, make_attributes(), celeba, tmp_path_factory.mktemp("tagged"))


def identities_of(celeba: Path, split: str) -> dict[str, int]:
    """Image → number of the identity, as the files say."""
    splits = dict(map(str.split, (celeba / "Eval/list_eval_partition.txt").read_text().splitlines()))
    numbers = map(str.split, (celeba / "Anno/identity_CelebA.txt").read_text().splitlines())
    return {name: int(number) for name, number in numbers if splits[name] == split}


@torch.no_grad()
def features(task: FaceTask, data: CelebADataModule, split: str = "val") -> Mapping[str, Tensor]:
    """Image → what the network says of it, as it is tested."""
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    found = [(batch["name"], task.eval().predict_batch(batch)[0]["features"]) for batch in loader]
    return {name: row for names, rows in found for name, row in zip(names, rows, strict=True)}


class TestPreTraining:
    def test_the_first_step_is_by_the_numbers_in_the_file(self, celeba: Path) -> None:
        """Its loss, against a float64 loop over the images of the batch."""
        numbers = identities_of(celeba, "0")
        classes = sorted(set(numbers.values()))
        assert len(classes) == 6
        assert list(dict.fromkeys(numbers.values())) != classes
        data, task, watch = make_data(celeba), make_identities(similarity_weight=0.2), Watch()
        data.setup("fit")
        network = copy.deepcopy(task.build(data.facts).network).train()
        trainer = make_trainer(1, watch)
        trainer.fit(task, datamodule=data)
        (batch,) = watch.batches
        persons = [numbers[name] for name in batch["name"]]
        assert sorted(map(persons.count, persons)) == [2, 2, 2, 2]
        with torch.no_grad():
            output = network(batch["image"])
        total = 0.0
        for logits, person in zip(output["identity"].double().tolist(), persons, strict=True):
            total += (math.log(sum(map(math.exp, logits))) - logits[classes.index(person)]) / 4
        rows = output["features"].double().tolist()
        for i, j in ((i, j) for i in range(4) for j in range(4) if i != j and persons[i] == persons[j]):
            total += 0.2 * math.dist(rows[i], rows[j]) ** 2 / 4
        assert watch.losses == [pytest.approx(total, rel=1e-5)]
        assert float(trainer.callback_metrics["train/loss_identity"]) == pytest.approx(total, rel=1e-5)

    def test_learns_the_identities(self, celeba: Path) -> None:
        task, watch = make_identities(optimizer="adamw", learning_rate=0.01), Watch()
        make_trainer(30, watch).fit(task, datamodule=make_data(celeba, batch_size=8))
        assert sum(watch.losses[-4:]) < 0.6 * sum(watch.losses[:4])

    @pytest.mark.parametrize("step", [2, 4, 5])
    def test_resuming_continues_bit_identically(self, step: int, celeba: Path, tmp_path: Path) -> None:
        """Amid the first epoch, at its end, amid the second; a batch holds two images of each of two identities."""

        def trained(folder: str, resume: Path | None = None) -> dict[str, Any]:
            L.seed_everything(5, verbose=False)
            shake = [A.HorizontalFlip(), A.Affine(translate_percent=(-0.05, 0.05), rotate=(-5, 5))]
            keep = ModelCheckpoint(tmp_path / folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
            trainer = L.Trainer(
                accelerator="cpu",
                max_epochs=2,
                callbacks=[keep],
                logger=False,
                use_distributed_sampler=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            task = IdentityNet(width=2, cell=3, optimizer="adamw", schedule="one_cycle")
            trainer.fit(task, datamodule=make_data(celeba, seed=None, augmentations=shake), ckpt_path=resume)
            assert trainer.global_step == 8
            content: dict[str, Any] = torch.load(tmp_path / folder / "step=8.ckpt", weights_only=True)
            return content

        whole = trained("whole")
        resumed = trained("resumed", tmp_path / f"whole/step={step}.ckpt")
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "facelightning"):
            assert_same(resumed[part], whole[part])

    def test_other_identities_are_refused(self, celeba: Path, pretrained: Path, tmp_path: Path) -> None:
        """As many, too: each class would go on as another one's."""
        other = renumbered(celeba, tmp_path / "other", lambda number: number + 1)
        with pytest.raises(
            ConfigurationError, match=r"built for 6 identities, but the checkpoint has other ones \(6\)"
        ):
            make_trainer(4).fit(make_identities(), datamodule=make_data(other), ckpt_path=pretrained)
        with pytest.raises(
            ConfigurationError, match=r"built for 6 identities, but the data has other ones \(6\); give"
        ):
            make_trainer(4).fit(load_model(pretrained), datamodule=make_data(other))

    def test_another_weight_of_similarity_goes_on(self, celeba: Path, pretrained: Path) -> None:
        task = make_identities(similarity_weight=0.7)
        make_trainer(3).fit(task, datamodule=make_data(celeba), ckpt_path=pretrained)
        with pytest.raises(CheckpointError, match="trained with views 1 "):
            make_trainer(3).fit(make_identities(views=5), datamodule=make_data(celeba), ckpt_path=pretrained)

    def test_data_without_identities_is_an_error(self, faces: Path, tmp_path: Path) -> None:
        data = make_data(renumbered(faces / "celeba", tmp_path, None), images_per_identity=1)
        with pytest.raises(
            ConfigurationError, match="IdentityNet cannot learn identities: the data has none; use Cel"
        ) as e:
            make_trainer().fit(make_identities(), datamodule=data)
        assert "\n" not in str(e.value)


class TestNewIdentities:
    @pytest.mark.parametrize("batch_size", [2, 8])
    def test_are_scored_by_features_and_cost_their_distances(
        self, batch_size: int, celeba: Path, pretrained: Path
    ) -> None:
        task, data = load_model(pretrained), make_data(celeba, batch_size=batch_size)
        numbers, trainer = identities_of(celeba, "1"), make_trainer()
        assert not set(numbers.values()) & set(identities_of(celeba, "0").values())
        trainer.validate(task, datamodule=data, verbose=False)
        described = features(task, data)
        rows = torch.stack([described[name] for name in numbers])
        persons, expected = torch.tensor(list(numbers.values())), RetrievalScores()
        expected.update(rows, persons)
        found = task.results["val"]["identity"]
        assert (found["rank_1"], found["images"]) == (expected.compute()["rank_1"], 11)
        distance = float(similarity_loss(rows.double(), persons))
        assert distance > 0
        assert found["distance"] == pytest.approx(distance, rel=1e-5)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert logged["val/loss"] == logged["val/loss_identity"] == pytest.approx(0.001 * distance, rel=1e-5)
        assert logged["val/rank_1"] == pytest.approx(found["rank_1"])
        assert "rank-1 retrieval" in score_table("val", task, task.results["val"])

    def test_where_the_identities_were_trained_the_softmax_counts(self, celeba: Path, pretrained: Path) -> None:
        task, data, trainer = load_model(pretrained), make_data(celeba, augmentations=[]), make_trainer()
        loader = data.train_dataloader()
        trainer.validate(task, loader, verbose=False)
        losses, rows, persons = [], [], []
        for batch in data.train_dataloader():
            with torch.no_grad():
                output, _ = task.predict_batch(batch)
            losses += task.objectives["identity"].sample_loss(output, batch).tolist()
            rows.append(output["features"])
            persons.append(batch["identity"])
        assert min(losses) > 0
        expected = sum(losses) / len(losses) + 0.001 * float(similarity_loss(torch.cat(rows), torch.cat(persons)))
        assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-5)

    def test_predicts_the_features(self, celeba: Path, pretrained: Path) -> None:
        task, data = load_model(pretrained), make_data(celeba)
        batches = make_trainer().predict(task, datamodule=data) or []
        expected, seen = features(task, data, "test"), 0
        for batch in batches:
            assert isinstance(batch, dict)
            assert batch["identity"].shape[1] == len(task.objectives["identity"].columns) == 16
            for name, row in zip(batch["name"], batch["identity"], strict=True):
                torch.testing.assert_close(row, expected[name])
                seen += 1
        assert seen == len(expected) == 13


class TestCheckpoint:
    def test_one_file_is_enough(self, celeba: Path, pretrained: Path, tmp_path: Path) -> None:
        first = load_model(pretrained)
        assert isinstance(first, IdentityNet)
        assert first.facts is not None
        assert first.facts.identities == tuple(sorted(set(identities_of(celeba, "0").values())))
        objective = first.objectives["identity"]
        assert isinstance(objective, Identities)
        assert objective.identities.tolist() == list(first.facts.identities)
        trainer = make_trainer()
        trainer.validate(first, datamodule=make_data(celeba), verbose=False)
        trainer.save_checkpoint(tmp_path / "again.ckpt")
        second = load_model(tmp_path / "again.ckpt")
        assert second.facts == first.facts
        assert_equal(dict(second.state_dict()), dict(first.state_dict()))
        assert_equal(features(second, make_data(celeba)), features(first, make_data(celeba)))

    def test_attributes_come_back(self, celeba: Path, tmp_path: Path) -> None:
        task = make_attributes(views=5, head=LocalizationHead, objective=BalancedAttributes)
        trainer = make_trainer(2)
        trainer.fit(task, datamodule=make_data(celeba))
        trainer.save_checkpoint(tmp_path / "anet.ckpt")
        again = load_model(tmp_path / "anet.ckpt")
        assert_equal(dict(again.state_dict()), dict(task.state_dict()))
        assert again.places == ("centre", "upper left", "upper right", "lower left", "lower right")
        results = []
        for each in (task, again):
            make_trainer().test(each, datamodule=make_data(celeba), verbose=False)
            results.append(each.results["test"]["attributes"])
        assert repr(results[0]) == repr(results[1])


class TestFineTuning:
    @pytest.mark.parametrize("start", ["pretrained", "tagged"])
    @pytest.mark.parametrize("names", [ATTRIBUTES, ("Bald", "A_New_One")])
    def test_starts_from_all_layers_but_the_head(
        self, names: tuple[str, ...], start: str, request: pytest.FixtureRequest
    ) -> None:
        """The head is as without a start: new attributes, or the same ones, are learned from there."""
        path, facts = request.getfixturevalue(start), DataFacts(SIZE, attributes=names)
        tuned, fresh = make_attributes(weights=str(path)).build(facts), make_attributes().build(facts)
        theirs = {name: value for name, value in Checkpoint.read(path).weights.items() if name.startswith("network.")}
        ours, initial = tuned.state_dict(), fresh.state_dict()
        loaded = {name for name in ours if not name.startswith("network.head.")}
        assert {name for name in theirs if not name.startswith("network.head.")} == loaded
        for name, value in ours.items():
            assert torch.equal(value, theirs[name] if name in loaded else initial[name]), name
        assert sum(not torch.equal(initial[name], ours[name]) for name in loaded) >= 14

    def test_learns_on_and_needs_no_start_any_more(self, celeba: Path, pretrained: Path, tmp_path: Path) -> None:
        start = tmp_path / "start.ckpt"
        start.write_bytes(pretrained.read_bytes())
        task, watch = make_attributes(weights=str(start), optimizer="adamw", learning_rate=0.01), Watch()
        trainer = make_trainer(20, watch)
        trainer.fit(task, datamodule=make_data(celeba, images_per_identity=1))
        assert sum(watch.losses[-5:]) < 0.8 * sum(watch.losses[:5])
        trainer.save_checkpoint(tmp_path / "tuned.ckpt")
        start.unlink()
        assert_equal(
            features(load_model(tmp_path / "tuned.ckpt"), make_data(celeba)), features(task, make_data(celeba))
        )

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"width": 3}, "width 2, not 3"),
            ({"cell": 4}, "cell 3, not 4"),
            ({"views": 5}, "views 1, not 5"),
        ],
    )
    def test_other_sizes_are_refused(self, settings: dict[str, Any], said: str, pretrained: Path) -> None:
        with pytest.raises(CheckpointError, match=rf"ANet's weights: .*trained\.ckpt was trained with {said}$"):
            ANet(**({"width": 2, "cell": 3} | settings), weights=str(pretrained)).build(FACTS)

    def test_other_tasks_and_missing_files_are_refused(self, tmp_path: Path) -> None:
        parser = save(SegNet(width=2).build(TINY), tmp_path / "parser.ckpt")
        with pytest.raises(
            CheckpointError, match=r"parser\.ckpt holds SegNet, not IdentityNet or ANet; train one with"
        ):
            make_attributes(weights=str(parser)).build(FACTS)
        with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist; train one with: .*anet_identity\.yaml"):
            make_attributes(weights=str(tmp_path / "gone.ckpt")).build(FACTS)


class TestImages:
    def test_a_larger_image_is_aligned(self) -> None:
        task = make_attributes().build(FACTS).eval()
        images = torch.randint(256, (2, 3, 145, 161), dtype=torch.uint8)
        output, _ = task.predict_batch({"image": images})
        places = zip(images, output["placement"].tolist(), strict=True)
        crops = [image[:, top : top + 129, left : left + 129] for image, (top, left) in places]
        alone = task.predict_batch({"image": torch.stack(crops)})[0]
        torch.testing.assert_close(output["attributes"], alone["attributes"])

    @pytest.mark.parametrize("task", [ANet, IdentityNet])
    def test_too_small_images_are_an_error(self, task: Any, celeba: Path) -> None:
        data = make_data(celeba, image_size=(128, 129))
        with pytest.raises(ConfigurationError, match=r"images of 128 × 129 are smaller than its 129 × 129; give"):
            make_trainer().fit(task(width=2, cell=3), datamodule=data)

    def test_data_without_attributes_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match="ANet cannot learn attributes: the data has none"):
            make_attributes().build(DataFacts(SIZE, identities=NUMBERS))
