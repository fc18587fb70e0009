"""Checkpoints of the tasks: one file is enough, and other data or another network is a sentence, never a score."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from facelightning.checkpoint import FORMAT, Checkpoint
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11
from facelightning.models.encoders import TorchvisionEncoder
from facelightning.models.heads import LocalizationHead
from facelightning.models.parser import ParserRegions
from facelightning.models.pooling import PyramidPooling
from facelightning.models.regions import LandmarkBoxes
from facelightning.objectives import BalancedAttributes
from facelightning.tasks import AttributeNet, FaceTask, JointNet, SegNet, load_model
from tests.tasks.test_training import Data
from tests.tasks.tiny import (
    BACKBONE,
    FACTS,
    HEIGHT,
    KINDS,
    QUIET,
    SSP,
    WIDTH,
    Watch,
    assert_equal,
    loader,
    make_task,
    make_trainer,
    parser_of,
    predictions,
    samples,
    save,
    save_again,
    trained,
    training_loader,
)

pytestmark = QUIET
SIZE = (HEIGHT, WIDTH)


class TestCheckpoint:
    @pytest.mark.parametrize("kind", KINDS)
    def test_one_file_is_enough(self, kind: str, parser: Path, tmp_path: Path) -> None:
        """Saved, loaded, saved and loaded again, after the parser's own file is gone."""
        task = make_task(kind, parser)
        first = save(task, tmp_path / "first.ckpt")
        parser.unlink()
        loaded = load_model(first)
        assert type(loaded) is type(task)
        assert not any(module.training for module in loaded.modules())
        assert_equal(predictions(loaded), predictions(task))
        again = load_model(save_again(loaded, tmp_path / "second.ckpt"))
        assert_equal(predictions(again), predictions(task))
        assert again.settings == task.settings
        assert again.facts == task.facts == FACTS

    def test_weights_alone_are_enough(self, parser: Path, tmp_path: Path) -> None:
        """As ``ModelCheckpoint(save_weights_only=True)`` writes them."""
        task, path = make_task("attributenet-ssp", parser), tmp_path / "weights.ckpt"
        trained(task).save_checkpoint(path, weights_only=True)
        assert_equal(predictions(load_model(path)), predictions(task))

    @pytest.mark.parametrize("kind", ["segnet", "attributenet-bbox", "attributenet-backbone", "jointnet-ssp"])
    def test_says_in_plain_words_what_it_is(self, kind: str, parser: Path, tmp_path: Path) -> None:
        task = make_task(kind, parser, learning_rate=0.25)
        about = torch.load(save(task, tmp_path / "task.ckpt"), weights_only=True)["facelightning"]
        assert_plain(about)
        assert about.keys() == {"format", "task", "settings", "facts"}
        assert (about["format"], about["task"]) == (FORMAT, type(task).__name__)
        facts = {"image_size": [*SIZE], "label_space": "helen7", "attributes": [*ATTRIBUTES]}
        assert about["facts"] == facts | {"identities": None, "categories": None}
        assert about["settings"] == task.settings
        assert (about["settings"]["width"], about["settings"]["learning_rate"]) == (2, 0.25)
        assert str(parser) not in repr(about)

    def test_names_its_parts(self, parser: Path, tmp_path: Path) -> None:
        checkpoint = Checkpoint.read(save(make_task("attributenet-backbone", parser), tmp_path / "task.ckpt"))
        parts = {key: value for key, value in checkpoint.settings.items() if isinstance(value, dict)}
        assert parts == {
            "encoder": {
                "class_path": "facelightning.models.encoders.TorchvisionEncoder",
                "init_args": {"name": "mobilenet_v3_small"},
            },
            "gate": {"class_path": "facelightning.models.gating.SemanticGating", "init_args": {}},
            "pooling": {"class_path": "facelightning.models.pooling.SemanticPooling", "init_args": {}},
            "head": {"class_path": "facelightning.models.heads.LocalizationHead", "init_args": {}},
            "regions": {
                "class_path": "facelightning.models.parser.ParserRegions",
                "init_args": {"checkpoint": json.dumps(Checkpoint.read(parser).description), "store": None},
            },
            "objective": {"class_path": "facelightning.objectives.attributes.Attributes", "init_args": {}},
        }

    @pytest.mark.parametrize("boxes", [partial(LandmarkBoxes, side=20), partial(LandmarkBoxes, 20)])
    def test_arguments_of_parts_are_kept(self, boxes: Any, tmp_path: Path) -> None:
        task = AttributeNet(width=2, **SSP, regions=boxes).build(FACTS)
        loaded = load_model(save(task, tmp_path / "task.ckpt"))
        assert isinstance(loaded, AttributeNet)
        assert isinstance(loaded.network.regions, LandmarkBoxes)
        assert loaded.network.regions.side == 20
        assert_equal(predictions(loaded), predictions(task))

    @pytest.mark.parametrize("kind", KINDS)
    def test_loaded_task_learns_on(self, kind: str, parser: Path, tmp_path: Path) -> None:
        loaded = load_model(save(make_task(kind, parser), tmp_path / "task.ckpt"))
        before = [p.clone() for p in loaded.network.parameters() if p.requires_grad]
        statistics = {name: value.clone() for name, value in loaded.network.named_buffers() if "running" in name}
        trained(loaded)
        after = [p for p in loaded.network.parameters() if p.requires_grad]
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        still = {
            name for name, value in loaded.network.named_buffers() if torch.equal(value, statistics.get(name, value))
        }
        assert {name for name in still & statistics.keys() if not name.startswith("regions.")} == set()

    @pytest.mark.parametrize("kind", ["segnet", "attributenet-avg", "attributenet-ssp+ssg", "jointnet-backbone"])
    def test_trainer_loads_it(self, kind: str, parser: Path, tmp_path: Path) -> None:
        task = make_task(kind, parser)
        path = save(task, tmp_path / "task.ckpt")
        other = make_task(kind, parser)
        make_trainer().validate(other, loader(samples("mask", "attributes")), ckpt_path=path, verbose=False)
        assert_equal(predictions(other), predictions(task))

    def test_weights_to_begin_with_are_of_no_account_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A backbone that began with others' weights is the same network as one that began with random ones."""
        make = torchvision.models.get_model
        monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: make(name))  # nothing to download
        name = "mobilenet_v3_small"
        begun = SegNet(width=2, encoder=partial(TorchvisionEncoder, name=name, weights="IMAGENET1K_V1")).build(FACTS)
        first = save(begun, tmp_path / "first.ckpt")
        second = save_again(load_model(first), tmp_path / "second.ckpt")
        for path in (first, second):
            assert "IMAGENET1K_V1" not in repr(Checkpoint.read(path).settings)
            for weights in (None, "IMAGENET1K_V1", "IMAGENET1K_V2"):
                task = SegNet(width=2, encoder=partial(TorchvisionEncoder, name=name, weights=weights)).build(FACTS)
                make_trainer().validate(task, loader(samples("mask")), ckpt_path=path, verbose=False)
                assert_equal(predictions(task), predictions(begun))

    def test_its_own_parser_wins(self, parser: Path, tmp_path: Path) -> None:
        """Over another of the same settings."""
        task = make_task("attributenet-ssp", parser)
        path = save(task, tmp_path / "task.ckpt")
        torch.manual_seed(7)
        other = make_task("attributenet-ssp", save(SegNet(width=2).build(FACTS), tmp_path / "other.ckpt"))
        theirs = parser_of(other).network.encoder.state_dict()
        assert not all(
            torch.equal(theirs[name], value) for name, value in parser_of(task).network.encoder.state_dict().items()
        )
        make_trainer().validate(other, loader(samples("attributes")), ckpt_path=path, verbose=False)
        assert_equal(predictions(other), predictions(task))


def score(task: FaceTask, facts: DataFacts, path: Path) -> None:
    data = Data(facts, "mask", "attributes", attributes=len(facts.attributes or ()))
    make_trainer().test(task, datamodule=data, ckpt_path=path, verbose=False)


class TestMismatch:
    """A fresh task, built for its data, and the checkpoint of another."""

    @pytest.mark.parametrize(
        ("facts", "values"),
        [
            (DataFacts((20, 18), HELEN7, ATTRIBUTES), "image size 20×18, but the checkpoint has 36×28"),
            (DataFacts(SIZE, HELEN11, ATTRIBUTES), "label space helen11, but the checkpoint has helen7"),
            (DataFacts(SIZE, HELEN7, ATTRIBUTES[:3]), r"attributes 3 names .*, but the checkpoint has 40 names"),
        ],
    )
    def test_other_data(self, facts: DataFacts, values: str, tmp_path: Path) -> None:
        path = save(JointNet(width=2).build(FACTS), tmp_path / "task.ckpt")
        with pytest.raises(ConfigurationError, match=f"JointNet is built for {values}") as caught:
            score(JointNet(width=2), facts, path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("facts", "values"),
        [
            (DataFacts((20, 18), HELEN7, ATTRIBUTES), "image size 36×28, but the data has 20×18"),
            (DataFacts(SIZE, HELEN11, ATTRIBUTES), "label space helen7, but the data has helen11"),
        ],
    )
    @pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
    def test_other_data_for_a_loaded_task(self, stage: str, facts: DataFacts, values: str, tmp_path: Path) -> None:
        task = load_model(save(JointNet(width=2).build(FACTS), tmp_path / "task.ckpt"))
        with pytest.raises(ConfigurationError, match=f"JointNet is built for {values}"):
            getattr(make_trainer(), stage)(task, datamodule=Data(facts, "mask", "attributes"))

    def test_an_older_checkpoint_knows_fewer_options(self, parser: Path, tmp_path: Path) -> None:
        """Options that have come since, such as a parser's store and what decays, are at their defaults."""
        content = torch.load(save(make_task("attributenet-ssp", parser), tmp_path / "task.ckpt"), weights_only=True)
        settings = content["facelightning"]["settings"]
        del settings["regions"]["init_args"]["store"], settings["decayed"], settings["rate_scaling"]
        make_task("attributenet-ssp", parser).on_load_checkpoint(content)
        settings["regions"]["init_args"]["temperature"] = 0.5
        with pytest.raises(CheckpointError, match="regions"):
            make_task("attributenet-ssp", parser).on_load_checkpoint(content)

    def test_any_size_lets_another_size_through(self, tmp_path: Path) -> None:
        """And nothing else."""
        trained_for = DataFacts((50, 40), HELEN7, ATTRIBUTES)
        path = save(JointNet(width=2).build(trained_for), tmp_path / "task.ckpt")
        with pytest.raises(ConfigurationError, match="36×28, but the checkpoint has 50×40"):
            score(JointNet(width=2), FACTS, path)
        fresh, loaded = JointNet(width=2), load_model(path)
        fresh.any_size = loaded.any_size = True
        score(fresh, FACTS, path)
        make_trainer().test(loaded, datamodule=Data(FACTS, "mask", "attributes"), verbose=False)
        assert repr(fresh.results) == repr(loaded.results)
        other = JointNet(width=2)
        other.any_size = True
        with pytest.raises(ConfigurationError, match="label space helen11, but the checkpoint has helen7"):
            score(other, DataFacts(SIZE, HELEN11, ATTRIBUTES), path)

    @pytest.mark.parametrize(
        ("settings", "values"),
        [
            ({"width": 3}, r"width 2 \(here 3\)"),
            ({"pooling": PyramidPooling}, r"pooling .*AveragePooling.* \(here .*PyramidPooling.*\)"),
            ({"head": LocalizationHead}, r"head .*LinearHead.* \(here .*LocalizationHead.*\)"),
            ({"encoder": BACKBONE}, r"encoder None \(here .*TorchvisionEncoder.*\)"),
            ({"objective": BalancedAttributes}, r"objective .*Attributes.* \(here .*BalancedAttributes.*\)"),
            ({"width": 3, "pooling": PyramidPooling}, r"width 2 \(here 3\) and pooling .*PyramidPooling"),
        ],
    )
    def test_another_network(self, settings: dict[str, Any], values: str, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-avg", parser), tmp_path / "task.ckpt")
        task = AttributeNet(**({"width": 2} | settings)).build(FACTS)
        with pytest.raises(CheckpointError, match=f"the checkpoint was trained with {values}") as caught:
            score(task, FACTS, path)
        assert "\n" not in str(caught.value)

    def test_another_parser(self, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-ssp", parser), tmp_path / "task.ckpt")
        wider = save(SegNet(width=3).build(FACTS), tmp_path / "wider.ckpt")
        with pytest.raises(CheckpointError) as caught:
            score(make_task("attributenet-ssp", wider), FACTS, path)
        found = re.search(r"trained with regions (.*) \(here (.*)\): ", str(caught.value))
        assert found is not None
        assert found[1] != found[2]  # one sees what differs
        with pytest.raises(CheckpointError, match="trained with regions"):
            boxes = AttributeNet(width=2, **SSP, regions=LandmarkBoxes).build(FACTS)
            score(boxes, FACTS, path)

    def test_another_task(self, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-avg", parser), tmp_path / "task.ckpt")
        with pytest.raises(CheckpointError, match="holds AttributeNet, not JointNet"):
            score(make_task("jointnet-avg", parser), FACTS, path)

    def test_training_may_go_on_otherwise(self, parser: Path, tmp_path: Path) -> None:
        """How a network is trained is not what it is."""
        path = save(make_task("jointnet-avg", parser), tmp_path / "task.ckpt")
        otherwise = {"parsing_weight": 2.0, "attribute_weight": 5.0}
        task, watch = make_task("jointnet-avg", parser, **otherwise), Watch()
        trainer = make_trainer(2, watch)
        trainer.fit(task, training_loader(task), ckpt_path=path)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        expected = 2 * logged["train/loss_parsing"] + 5 * logged["train/loss_attributes"]
        assert watch.losses == [pytest.approx(expected, rel=1e-6)]
        about = Checkpoint.read(save_again(task, tmp_path / "again.ckpt"))
        assert about.settings.items() >= otherwise.items()

    @pytest.mark.parametrize(
        ("setting", "values"),
        [
            ({"optimizer": "adamw"}, "optimizer adagrad .*adamw"),
            ({"schedule": "one_cycle"}, "schedule constant .*one_cycle"),
            ({"learning_rate": 0.5}, "learning_rate 0.001 .*0.5"),
            ({"weight_decay": 0.1}, "weight_decay 0.0005 .*0.1"),
            ({"decayed": "kernels"}, "decayed all .*kernels"),
            ({"rate_scaling": "linear"}, "rate_scaling none .*linear"),
        ],
    )
    def test_another_optimizer_scores_but_cannot_go_on(
        self, setting: dict[str, Any], values: str, parser: Path, tmp_path: Path
    ) -> None:
        """What the optimiser and the schedule have seen is of no use to others."""
        path = save(make_task("segnet", parser), tmp_path / "task.ckpt")
        score(make_task("segnet", parser, **setting), FACTS, path)
        task = make_task("segnet", parser, **setting)
        with pytest.raises(CheckpointError, match=values):
            make_trainer(3).fit(task, training_loader(task), ckpt_path=path)

    def test_older_and_newer_files(self, parser: Path, tmp_path: Path) -> None:
        content = torch.load(parser, weights_only=True)
        newer = content | {"facelightning": content["facelightning"] | {"format": FORMAT + 1}}
        older = {key: value for key, value in content.items() if key != "facelightning"} | {
            "facelightning_task": "SegNet"
        }
        for changed, words in ((newer, f"has format {FORMAT + 1}.*reads {FORMAT}"), (older, "older version")):
            path = tmp_path / "changed.ckpt"
            torch.save(changed, path)
            for use in (
                load_model,
                lambda path: score(SegNet(width=2), FACTS, path),
                lambda path: ParserRegions(str(path)),
            ):
                with pytest.raises(CheckpointError, match=words) as caught:
                    use(path)
                assert "\n" not in str(caught.value)


def assert_plain(value: Any) -> None:
    assert value is None or type(value) in (bool, int, float, str, list, dict), type(value)
    for inner in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_plain(inner)
