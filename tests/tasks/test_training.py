"""The tasks with a real Trainer on tiny images: the loss falls, what is frozen stays, and clear refusals."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.optim import Adagrad, AdamW
from torch.utils.data import DataLoader

from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11
from facelightning.models.gating import SemanticGating
from facelightning.models.parser import ParserRegions
from facelightning.models.regions import LandmarkBoxes
from facelightning.tasks import AttributeNet, JointNet, SegNet, load_model
from tests.tasks.tiny import (
    FACTS,
    HEIGHT,
    KINDS,
    QUIET,
    SSP,
    WIDTH,
    Sample,
    Watch,
    assert_equal,
    loader,
    make_task,
    make_trainer,
    parser_of,
    predictions,
    samples,
    save,
    trained,
    training_loader,
)

pytestmark = QUIET


class TestTraining:
    @pytest.mark.parametrize("kind", KINDS)
    def test_loss_falls_on_one_batch(self, kind: str, parser: Path) -> None:
        task, watch = make_task(kind, parser, learning_rate=0.01), Watch()
        make_trainer(20, watch).fit(task, training_loader(task))
        assert len(watch.losses) == 20
        assert watch.losses[-1] < 0.8 * watch.losses[0]

    @pytest.mark.parametrize("kind", ["segnet", "attributenet-ssp+ssg", "jointnet-ssp"])
    def test_logs_the_weighted_sum(self, kind: str, parser: Path) -> None:
        weights = {"parsing_weight": 0.5, "attribute_weight": 3.0} if "jointnet" in kind else {}
        task = make_task(kind, parser, **weights)
        logged = {name: float(value) for name, value in trained(task).callback_metrics.items()}
        expected = {"segnet": {"parsing"}, "attributenet": {"attributes"}, "jointnet": {"parsing", "attributes"}}
        assert logged.keys() == {"train/loss"} | {f"train/loss_{key}" for key in expected[kind.split("-")[0]]}
        total = sum(
            weight * logged.pop(f"train/loss_{key}", 0.0)
            for key, weight in zip(("parsing", "attributes"), weights.values() or (1, 1), strict=True)
        )
        assert logged == {"train/loss": pytest.approx(total, rel=1e-6)}

    def test_parser_is_untouched(self, parser: Path) -> None:
        task = make_task("attributenet-ssp", parser, learning_rate=1.0, weight_decay=1.0)
        before = {name: value.clone() for name, value in parser_of(task).state_dict().items()}
        trained(task, steps=3)
        assert_equal(dict(parser_of(task).state_dict()), before)

    def test_parser_is_the_trained_segnet(self, parser: Path) -> None:
        task, segnet = make_task("attributenet-ssp", parser), load_model(parser)
        assert_equal(dict(parser_of(task).network.state_dict()), dict(segnet.network.state_dict()))

    def test_one_data_set_may_have_both(self, parser: Path) -> None:
        """Each image then teaches both, in one step on the sum of the losses."""
        task, watch = make_task("jointnet-ssp", parser), Watch()
        truth = next(iter(loader(samples("mask", "attributes"))))
        with torch.no_grad():
            output, _ = make_task("jointnet-ssp", parser).train().predict_batch(truth)
            expected = sum(float(objective.loss(output, truth)) for objective in task.objectives.values())
        before = [p.clone() for p in task.network.parameters()]
        make_trainer(1, watch).fit(task, loader(samples("mask", "attributes")))
        assert watch.losses == [pytest.approx(expected, rel=1e-6)]
        assert not any(torch.equal(a, b) for a, b in zip(before, task.network.parameters(), strict=True))

    def test_all_that_is_learned_must_be_known(self, parser: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"JointNet cannot learn attributes.*image, mask"):
            make_trainer().fit(make_task("jointnet-avg", parser), loader(samples("mask")))

    def test_what_the_data_lacks_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match=r"SegNet cannot learn parsing.*image, attributes"):
            make_trainer().fit(SegNet(width=2).build(FACTS), loader(samples("attributes")))


@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"schedule": "onecycle"}])
@pytest.mark.parametrize("task", [SegNet, AttributeNet, JointNet])
def test_a_misspelt_choice_is_an_error(task: Any, settings: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"must be .* or .*, not '(adam|onecycle)'"):
        task(width=2, **settings)


class TestRegions:
    @pytest.mark.parametrize(
        ("parts", "named"), [(SSP, "SemanticPooling"), ({"gate": SemanticGating}, "SemanticGating")]
    )
    def test_parts_that_need_them(self, parts: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"{named} needs regions.*ParserRegions.*LandmarkBoxes"):
            AttributeNet(width=2, **parts).build(FACTS)

    def test_that_no_part_needs(self, parser: Path) -> None:
        for regions, name in ((partial(ParserRegions, str(parser)), "ParserRegions"), (LandmarkBoxes, "LandmarkBoxes")):
            with pytest.raises(ConfigurationError, match=f"no part of this network needs regions.*{name}"):
                AttributeNet(width=2, regions=regions).build(FACTS)

    def test_of_a_parser_that_is_gone(self) -> None:
        task = AttributeNet(width=2, **SSP, regions=partial(ParserRegions, checkpoint="missing.ckpt"))
        with pytest.raises(CheckpointError, match=r"missing\.ckpt does not exist; train one with: .*segnet\.yaml"):
            task.build(FACTS)

    def test_of_another_task(self, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-avg", parser), tmp_path / "attributes.ckpt")
        with pytest.raises(CheckpointError, match=r"attributes\.ckpt holds AttributeNet, not SegNet"):
            AttributeNet(width=2, **SSP, regions=partial(ParserRegions, checkpoint=str(path))).build(FACTS)

    def test_boxes_need_landmarks(self, parser: Path) -> None:
        batch = {key: value for key, value in samples("attributes")[0].items() if key != "landmarks"}
        with pytest.raises(ConfigurationError, match="LandmarkBoxes draws boxes around five landmarks"):
            make_trainer().fit(make_task("attributenet-bbox", parser), loader([batch, batch]))


class Data(L.LightningDataModule):
    """The samples as a data module that says what they are."""

    def __init__(self, facts: DataFacts, *keys: str, **options: int) -> None:
        super().__init__()
        self.facts, self.keys, self.options = facts, keys, options

    def train_dataloader(self) -> DataLoader[Sample]:
        return loader(samples(*self.keys, **self.options))

    def val_dataloader(self) -> DataLoader[Sample]:
        return loader(samples(*self.keys, **self.options))

    test_dataloader = predict_dataloader = val_dataloader


class TestFacts:
    SIZE = (HEIGHT, WIDTH)

    def test_a_task_is_built_for_its_data(self) -> None:
        task = JointNet(width=2)
        assert task.facts is None
        facts = DataFacts(self.SIZE, HELEN11, ("Bald", "Male", "Young"))
        make_trainer().fit(task, datamodule=Data(facts, "mask", "attributes", classes=11, attributes=3))
        assert task.facts == facts
        output = predictions(task)
        assert output["attributes"].shape == (4, 3)
        assert output["parsing"][-1].shape == (4, 11, *self.SIZE)

    def test_averaged_weights_are_of_all_that_is_built(self, tmp_path: Path) -> None:
        """A callback that copies the task before ``setup`` finds its network, as in each process after the first."""
        task, trainer = SegNet(width=2), make_trainer(2, EMAWeightAveraging(decay=0.5))
        trainer.fit(task, datamodule=Data(FACTS, "mask"))
        trainer.save_checkpoint(tmp_path / "task.ckpt")
        saved = torch.load(tmp_path / "task.ckpt", weights_only=True)["state_dict"]
        assert saved.keys() == task.state_dict().keys()

    def test_weights_follow_the_seed(self) -> None:
        """Built by setup as built by hand."""
        built = []
        for by_hand in (True, False):
            torch.manual_seed(3)
            task = SegNet(width=2)
            if by_hand:
                task.build(FACTS)
            make_trainer().validate(task, datamodule=Data(FACTS, "mask"), verbose=False)
            built.append(dict(task.network.state_dict()))
        assert_equal(*built)

    def test_without_facts_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match=r"SegNet does not know its data.*build\(DataFacts"):
            make_trainer().fit(SegNet(width=2), loader(samples("mask")))

    @pytest.mark.parametrize(
        ("facts", "values"),
        [
            (DataFacts((20, 18), HELEN7, ATTRIBUTES), r"image size 36×28, but the data has 20×18"),
            (DataFacts(SIZE, HELEN11, ATTRIBUTES), r"label space helen7, but the data has helen11"),
            (DataFacts(SIZE, HELEN7, ATTRIBUTES[:3]), r"attributes 40 names .*, but the data has 3 names"),
        ],
    )
    @pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
    def test_other_data_is_refused(self, stage: str, facts: DataFacts, values: str) -> None:
        task = JointNet(width=2).build(FACTS)
        with pytest.raises(ConfigurationError, match=f"JointNet is built for {values}") as caught:
            getattr(make_trainer(), stage)(task, datamodule=Data(facts, "mask", "attributes"))
        assert "\n" not in str(caught.value)

    def test_attributes_in_another_order_are_refused_with_both_orders(self) -> None:
        task = AttributeNet(width=2).build(DataFacts(self.SIZE, attributes=("Bald", "Male", "Young")))
        other = DataFacts(self.SIZE, attributes=("Bald", "Young", "Male"))
        with pytest.raises(ConfigurationError) as caught:
            make_trainer().fit(task, datamodule=Data(other, "attributes", attributes=3))
        ours, theirs = (
            str(caught.value).removeprefix("AttributeNet is built for attributes ").split(", but the data has ")
        )
        assert ours != theirs.removesuffix("; give both one")

    def test_data_may_have_less(self) -> None:
        """Such as a folder of images to predict on, or one of the two sets of a joint network."""
        task = JointNet(width=2).build(FACTS)
        for facts, keys in ((DataFacts(self.SIZE), ()), (DataFacts(self.SIZE, HELEN7), ("mask",))):
            (batch,) = make_trainer().predict(task, datamodule=Data(facts, *keys)) or []
            assert isinstance(batch, dict)
            assert batch.keys() == {"name", "parsing", "attributes"}

    def test_any_size(self) -> None:
        task = SegNet(width=2).build(DataFacts((50, 40), HELEN7))
        task.any_size = True
        make_trainer().test(task, datamodule=Data(FACTS, "mask"), verbose=False)
        assert task.results["test"]["parsing"]["mean_iou"] >= 0
        with pytest.raises(ConfigurationError, match="label space helen7, but the data has helen11"):
            make_trainer().test(task, datamodule=Data(DataFacts((9, 9), HELEN11), "mask"), verbose=False)

    @pytest.mark.parametrize(
        ("task", "facts", "lacks"),
        [
            (SegNet, DataFacts(SIZE, None, ATTRIBUTES), "SegNet cannot learn parsing: the data has no masks"),
            (AttributeNet, DataFacts(SIZE, HELEN7), "AttributeNet cannot learn attributes: the data has none"),
            (JointNet, DataFacts(SIZE, HELEN7), "JointNet cannot learn attributes: the data has none"),
            (JointNet, DataFacts(SIZE, None, ATTRIBUTES), "JointNet cannot learn parsing: the data has no masks"),
        ],
    )
    def test_what_the_data_lacks_is_said_before_the_first_batch(self, task: Any, facts: DataFacts, lacks: str) -> None:
        with pytest.raises(ConfigurationError, match=lacks):
            make_trainer().fit(task(width=2), datamodule=Data(facts))


class TestOptimizer:
    @pytest.mark.parametrize("kind", KINDS)
    def test_defaults_are_the_papers(self, kind: str, parser: Path) -> None:
        optimizer = make_task(kind, parser).configure_optimizers()
        assert isinstance(optimizer, Adagrad)
        assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.001, 0.0005)]

    def test_adamw(self, parser: Path) -> None:
        task = make_task("segnet", parser, optimizer="adamw", learning_rate=0.003, weight_decay=0.02)
        optimizer = task.configure_optimizers()
        assert isinstance(optimizer, AdamW)
        assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.003, 0.02)]

    @pytest.mark.parametrize("optimizer", ["adagrad", "adamw"])
    def test_only_kernels_decay_if_asked(self, optimizer: str, parser: Path) -> None:
        """PReLU's slopes where the loss says nothing; AdaGrad shrinks them thousands of times as fast."""
        slopes, kernels = [], []
        for decayed in ("all", "kernels"):
            task = make_task("segnet", parser, optimizer=optimizer, learning_rate=0.01, decayed=decayed)
            stepping = task.configure_optimizers()
            assert isinstance(stepping, Adagrad | AdamW)
            for _ in range(20):
                for parameter in task.network.parameters():
                    parameter.grad = torch.zeros_like(parameter)
                stepping.step()
            slopes.append([m.weight for m in task.network.modules() if isinstance(m, nn.PReLU)])
            kernels.append([m.weight for m in task.network.modules() if isinstance(m, nn.Conv2d)])
        fresh = [m.weight for m in make_task("segnet", parser).network.modules() if isinstance(m, nn.Conv2d)]
        assert all(a.equal(b) and (a.abs() <= c.abs()).all() for a, b, c in zip(*kernels, fresh, strict=True))
        assert all((slope == 0.25).all() for slope in slopes[1])
        left = torch.cat(slopes[0])
        if optimizer == "adamw":
            torch.testing.assert_close(left, torch.full_like(left, 0.25 * (1 - 0.01 * 0.0005) ** 20))
        else:  # whatever the decay: a penalty is divided by the root of the sum of all its squares, which is a bit less
            assert 0.25 - sum(0.01 / t**0.5 for t in range(1, 21)) < left.min() <= left.max() < 0.18

    @pytest.mark.parametrize("kind", KINDS)
    def test_has_all_but_the_frozen_parameters(self, kind: str, parser: Path) -> None:
        task = make_task(kind, parser)
        optimizer = task.configure_optimizers()
        assert isinstance(optimizer, Adagrad)
        optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
        names = {name for name, p in task.network.named_parameters() if id(p) not in optimized}
        assert names == {name for name, _ in task.network.named_parameters() if name.startswith("regions.")}
        assert bool(names) == (kind.startswith("attributenet") and not kind.endswith(("avg", "spp", "bbox")))

    @pytest.mark.parametrize("optimizer", ["adagrad", "adamw"])
    def test_one_cycle_spans_the_training(self, optimizer: str, parser: Path) -> None:
        settings = {"optimizer": optimizer, "schedule": "one_cycle", "learning_rate": 0.01}
        task, watch = make_task("segnet", parser, **settings), Watch()
        make_trainer(20, watch).fit(task, training_loader(task))
        assert watch.rates[0] == pytest.approx(0.01 / 25)
        assert watch.rates[round(0.3 * 20) - 1] == max(watch.rates) == pytest.approx(0.01)
        assert watch.rates[-1] < 1e-6

    def test_one_cycle_needs_an_end(self, parser: Path) -> None:
        task = make_task("segnet", parser, schedule="one_cycle")
        with pytest.raises(ConfigurationError, match="one_cycle schedule needs an end"):
            make_trainer(-1).fit(task, training_loader(task))
