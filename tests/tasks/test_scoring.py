"""Scores and predictions: exact whatever the batches, named as the data names them, of what is known alone."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from facelightning.callbacks.report import score_table
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11, IGNORE_INDEX
from facelightning.objectives import Attributes, Output, Parsing
from facelightning.tasks import AttributeNet, JointNet, SegNet, load_model
from facelightning.tasks.scoring import Scoring
from tests.tasks.tiny import (
    FACTS,
    HEIGHT,
    KINDS,
    QUIET,
    SSP,
    WIDTH,
    flat,
    loader,
    make_task,
    make_trainer,
    predictions,
    samples,
    trained,
)

NAN = float("nan")
pytestmark = QUIET


def make_scoring() -> Scoring:
    return Scoring({"parsing": Parsing(HELEN7), "attributes": Attributes(ATTRIBUTES)})


class TestScoring:
    @staticmethod
    def output_and_truth(count: int = 7) -> tuple[Output, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        parsing = [torch.randn(count, 7, *size, generator=generator) for size in ((2, 2), (4, 3), (8, 6))]
        mask = torch.randint(7, (count, 8, 6), generator=generator)
        for number in range(count):
            mask[number, :number] = IGNORE_INDEX  # another count of pixels in every image
        attributes = torch.randint(2, (count, 40), generator=generator).float()
        attributes[torch.rand(count, 40, generator=generator) < 0.3] = NAN
        logits = torch.randn(count, 40, generator=generator)
        return {"parsing": parsing, "attributes": logits}, {"mask": mask, "attributes": attributes}

    @staticmethod
    def part(output: Output, truth: Mapping[str, Tensor], chosen: slice) -> tuple[Output, dict[str, Tensor]]:
        parsing = [logits[chosen] for logits in output["parsing"]]
        return {"parsing": parsing, "attributes": output["attributes"][chosen]}, {
            key: value[chosen] for key, value in truth.items()
        }

    def test_does_not_depend_on_batches(self) -> None:
        everything = self.output_and_truth()
        whole, parts = make_scoring(), make_scoring()
        whole.update(*everything)
        parts.update(*self.part(*everything, slice(0, 3)))
        parts.update(*self.part(*everything, slice(3, 7)))
        (losses, scores), (other_losses, other_scores) = whole.compute(), parts.compute()
        assert losses == pytest.approx(other_losses, rel=0, abs=1e-6)
        assert losses.keys() == {"parsing", "attributes"}
        assert flat(scores) == pytest.approx(flat(other_scores), rel=0, abs=1e-6, nan_ok=True)

    def test_losses_are_the_means_of_the_samples_own(self) -> None:
        output, truth = self.output_and_truth()
        scoring = make_scoring()
        scoring.update(output, truth)
        parsing, attributes = [], []
        for mask, targets, logits, *scales in zip(
            truth["mask"], truth["attributes"], output["attributes"].double(), *output["parsing"], strict=True
        ):
            loss = 0.0
            for scale in scales:
                resized = F.interpolate(mask[None, None].double(), scale.shape[-2:], mode="nearest-exact")[0, 0].long()
                log_probabilities = scale.double().log_softmax(dim=0)
                pixels = [
                    -float(log_probabilities[label, i, j])
                    for i, row in enumerate(resized.tolist())
                    for j, label in enumerate(row)
                    if label != IGNORE_INDEX
                ]
                loss += sum(pixels) / len(pixels)
            parsing.append(loss)
            entries = [
                math.log1p(math.exp(-score if target else score))
                for score, target in zip(logits.tolist(), targets.tolist(), strict=True)
                if target == target
            ]
            attributes.append(sum(entries) / len(entries))
        losses, _ = scoring.compute()
        assert losses == pytest.approx({"parsing": sum(parsing) / 7, "attributes": sum(attributes) / 7}, abs=1e-6)

    def test_starts_afresh(self) -> None:
        everything = self.output_and_truth()
        scoring = make_scoring()
        scoring.update(*everything)
        scoring.compute()
        scoring.update(*self.part(*everything, slice(0, 3)))
        other = make_scoring()
        other.update(*self.part(*everything, slice(0, 3)))
        (losses, scores), (other_losses, other_scores) = scoring.compute(), other.compute()
        assert flat(scores) == pytest.approx(flat(other_scores), nan_ok=True)
        assert losses == pytest.approx(other_losses)

    def test_counts_what_is_known_alone(self) -> None:
        output, truth = self.output_and_truth()
        scoring = make_scoring()
        scoring.update(output, {"mask": truth["mask"]})
        losses, scores = scoring.compute()
        assert losses.keys() == scores.keys() == {"parsing"}

    @pytest.mark.parametrize("kind", KINDS)
    def test_evaluation_does_not_depend_on_batches(self, kind: str, parser: Path) -> None:
        task = make_task(kind, parser)
        trained(task, steps=5)
        task.double()  # else scores that are nearly equal change places with the rounding of a CPU
        logged = []
        for batch_size in (7, 3):
            trainer = make_trainer()
            trainer.validate(task, loader(samples("mask", "attributes", count=7), batch_size), verbose=False)
            logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        assert logged[0] == pytest.approx(logged[1], rel=0, abs=1e-5)
        parsing = {"val/loss_parsing", "val/mean_iou", "val/mean_f1", "val/overall_f1", "val/iou_background"}
        attributes = {"val/loss_attributes", "val/error", "val/mean_ap", "val/balanced_accuracy"}
        expected = {"segnet": parsing, "attributenet": attributes, "jointnet": parsing | attributes}[kind.split("-")[0]]
        assert logged[0].keys() - {f"val/iou_{name}" for name in HELEN7.classes[1:]} == expected | {"val/loss"}

    def test_total_is_weighted(self, parser: Path) -> None:
        task, trainer = make_task("jointnet-avg", parser, parsing_weight=0.5, attribute_weight=3.0), make_trainer()
        trainer.validate(task, loader(samples("mask", "attributes")), verbose=False)
        losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
        expected = 0.5 * losses["val/loss_parsing"] + 3 * losses["val/loss_attributes"]
        assert losses["val/loss"] == pytest.approx(expected, rel=1e-6)

    def test_jointnet_scores_each_data_set_by_what_it_knows(self, parser: Path) -> None:
        task, trainer = make_task("jointnet-ssp", parser), make_trainer()
        trainer.test(task, [loader(samples("mask", count=5)), loader(samples("attributes", count=6))], verbose=False)
        apart = dict(task.results["test"])
        trainer.test(task, loader(samples("mask", count=5)), verbose=False)
        assert flat(task.results["test"]) == pytest.approx(flat({"parsing": apart["parsing"]}), nan_ok=True)
        trainer.test(task, loader(samples("attributes", count=6)), verbose=False)
        assert flat(task.results["test"]) == pytest.approx(flat({"attributes": apart["attributes"]}), nan_ok=True)

    def test_jointnet_computes_what_is_known_alone(self, parser: Path) -> None:
        """Or all, where nothing is: to predict."""
        task = make_task("jointnet-avg", parser).eval()
        for keys, expected in (
            (("mask",), {"parsing"}),
            (("attributes",), {"attributes"}),
            (("mask", "attributes"), {"parsing", "attributes"}),
            ((), {"parsing", "attributes"}),
        ):
            with torch.no_grad():
                output, _ = task.predict_batch(next(iter(loader(samples(*keys)))))
            assert output.keys() & {"parsing", "attributes"} == expected

    def test_nothing_to_score_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match="val data has nothing"):
            make_trainer().validate(SegNet(width=2).build(FACTS), loader(samples("attributes")), verbose=False)

    def test_an_interrupted_evaluation_is_forgotten(self) -> None:
        task = AttributeNet(width=2).build(FACTS).eval()
        trainer, batches = make_trainer(), loader(samples("attributes"))
        for name, scoring, evaluate in (
            ("val", task.validation, trainer.validate),
            ("test", task.testing, trainer.test),
        ):
            evaluate(task, batches, verbose=False)
            expected = repr(task.results[name])  # as text, in which one NaN is like another
            with torch.inference_mode():
                scoring.update(*task.predict_batch(next(iter(loader(samples("attributes", count=3))))))
            evaluate(task, batches, verbose=False)
            assert repr(task.results[name]) == expected


def test_other_attributes_and_classes(tmp_path: Path) -> None:
    """Three attributes and eleven classes: trained, scored by their names, reported, saved, loaded, scored again."""
    facts = DataFacts((HEIGHT, WIDTH), HELEN11, ("Bald", "Male", "Young"))
    batches = loader(samples("mask", "attributes", classes=11, attributes=3, count=12))
    torch.manual_seed(0)
    task, trainer = JointNet(width=2, **SSP, learning_rate=0.01).build(facts), make_trainer(20)
    trainer.fit(task, batches)
    trainer.save_checkpoint(tmp_path / "joint.ckpt")
    results = []
    for each in (task, load_model(tmp_path / "joint.ckpt")):
        assert each.facts == facts
        make_trainer().test(each, batches, verbose=False)
        results.append(each.results["test"])
    assert repr(results[0]) == repr(results[1])
    scores = results[0]
    assert list(scores["attributes"]["per_attribute"]) == ["Bald", "Male", "Young"]
    assert list(scores["parsing"]["iou"]) == list(scores["parsing"]["f1"]) == list(HELEN11.classes)
    report = score_table("test", task, scores)
    assert all(f"{name} " in report for name in HELEN11.classes)
    assert task.places == HELEN11.classes
    assert predictions(task)["region_weights"].shape == (4, 11, 3)


class TestPrediction:
    @pytest.mark.parametrize("kind", KINDS)
    def test_says_what_the_task_knows(self, kind: str, parser: Path) -> None:
        """Also what the batch, here with masks alone, holds no truth for."""
        task = make_task(kind, parser)
        trained(task, steps=5)
        (batch,) = make_trainer().predict(task, loader(samples("mask"))) or []
        assert isinstance(batch, dict)
        assert batch.pop("name") == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
        raw = predictions(task)
        expected = {}
        if "attributenet" not in kind:
            expected["parsing"] = raw["parsing"][-1].argmax(dim=1)
            assert expected["parsing"].shape == (4, HEIGHT, WIDTH)
        if "segnet" not in kind:
            expected["attributes"] = 1 / (1 + (-raw["attributes"]).exp())
            assert expected["attributes"].shape == (4, len(ATTRIBUTES))
        torch.testing.assert_close(batch, expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_weighs_regions_with_semantic_pooling_alone(self, kind: str, parser: Path) -> None:
        task = make_task(kind, parser)
        output = predictions(task)
        if "region_weights" not in output:
            assert not kind.endswith(("ssp", "ssp+ssg", "bbox", "backbone"))
            return
        torch.testing.assert_close(output["region_weights"].sum(dim=1), torch.ones(4, len(ATTRIBUTES)))
        assert output["region_weights"].shape[1] == len(task.places)
        if "bbox" not in kind:
            assert task.places == HELEN7.classes
