"""The contract of objectives, kept by each; and what is each one's own."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import HELEN7, HELEN11, IGNORE_INDEX
from facelightning.losses import attribute_loss
from facelightning.objectives import Attributes, BalancedAttributes, Objective, Parsing, SummedAttributes

NAN = float("nan")
NAMES = ("Bald", "Male", "Young")
RATES = (0.02, 0.5, 0.77)
COUNT = 6


def parsing_output(classes: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 2), (4, 3), (8, 6))
    return {"parsing": [torch.randn(COUNT, classes, *size, generator=generator) for size in sizes]}


def parsing_batch(classes: int, known: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.randint(classes, (COUNT, 8, 6), generator=generator)
    for number in range(COUNT):
        mask[number, : 2 if known else number] = IGNORE_INDEX
    return {"mask": mask}


def attribute_output() -> dict[str, Any]:
    return {"attributes": torch.randn(COUNT, len(NAMES), generator=torch.Generator().manual_seed(0))}


def attribute_batch(known: bool) -> dict[str, Tensor]:
    targets = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]]).float()
    if not known:
        targets[1, :2], targets[4, 0] = NAN, NAN
    return {"attributes": targets}


def balanced() -> Attributes:
    objective = BalancedAttributes(NAMES)
    objective.prepare(DataFacts((8, 6), attributes=NAMES, positive_rates=RATES))
    return objective


@dataclass
class Case:
    """An objective, and what a network says of batches whose samples count alike, or do not."""

    make: Callable[[], Objective]
    output: Callable[[], dict[str, Any]]
    batch: Callable[[bool], dict[str, Tensor]]
    scalars: tuple[str, ...]

    def tensors(self, output: dict[str, Any]) -> list[Tensor]:
        return [tensor for value in output.values() for tensor in (value if isinstance(value, list) else [value])]


MEANS = ("mean_iou", "mean_f1", "overall_f1")
CASES = {
    "parsing": Case(lambda: Parsing(HELEN7), lambda: parsing_output(7), lambda known: parsing_batch(7, known), MEANS),
    "parsing-11": Case(
        lambda: Parsing(HELEN11), lambda: parsing_output(11), lambda known: parsing_batch(11, known), MEANS
    ),
    "attributes": Case(
        lambda: Attributes(NAMES), attribute_output, attribute_batch, ("error", "mean_ap", "balanced_accuracy")
    ),
    "summed": Case(
        lambda: SummedAttributes(NAMES), attribute_output, attribute_batch, ("error", "mean_ap", "balanced_accuracy")
    ),
    "balanced": Case(balanced, attribute_output, attribute_batch, ("error", "mean_ap", "balanced_accuracy")),
}


def part(values: dict[str, Any], chosen: slice) -> dict[str, Any]:
    """Some samples of an output or of a batch."""
    return {
        key: [one[chosen] for one in value] if isinstance(value, list) else value[chosen]
        for key, value in values.items()
    }


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


class TestContract:
    @pytest.mark.parametrize("known", [True, False])
    def test_loss_is_a_number_with_a_gradient(self, known: bool, case: Case) -> None:
        objective, output = case.make(), case.output()
        leaves = [tensor.requires_grad_() for tensor in case.tensors(output)]
        loss = objective.loss(output, case.batch(known))
        assert loss.shape == ()
        assert loss > 0
        gradients = torch.autograd.grad(loss, leaves)
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)

    def test_loss_falls_along_its_gradient(self, case: Case) -> None:
        objective, output, batch = case.make(), case.output(), case.batch(False)
        leaves = [tensor.requires_grad_() for tensor in case.tensors(output)]
        before = objective.loss(output, batch)
        with torch.no_grad():
            for leaf, gradient in zip(leaves, torch.autograd.grad(before, leaves), strict=True):
                leaf -= 0.5 * gradient
        assert objective.loss(output, batch) < before

    @pytest.mark.parametrize("known", [True, False])
    def test_sample_loss_is_that_of_each_sample_alone(self, known: bool, case: Case) -> None:
        objective, output, batch = case.make(), case.output(), case.batch(known)
        losses = objective.sample_loss(output, batch)
        assert losses.shape == (COUNT,)
        alone = [
            objective.loss(part(output, slice(i, i + 1)), part(batch, slice(i, i + 1))).item() for i in range(COUNT)
        ]
        assert losses.tolist() == pytest.approx(alone, abs=1e-6)
        assert len(set(alone)) == COUNT

    def test_a_sum_over_attributes_is_the_mean_over_images(self) -> None:
        output, batch = attribute_output(), attribute_batch(True)
        expected = binary_cross_entropy_with_logits(output["attributes"], batch["attributes"], reduction="sum") / COUNT
        torch.testing.assert_close(SummedAttributes(NAMES).loss(output, batch), expected)

    def test_loss_is_the_mean_of_samples_that_count_alike(self, case: Case) -> None:
        objective, output = case.make(), case.output()
        alike, others = case.batch(True), case.batch(False)
        torch.testing.assert_close(objective.loss(output, alike), objective.sample_loss(output, alike).mean())
        assert abs(objective.loss(output, others) - objective.sample_loss(output, others).mean()) > 1e-4

    def test_weight_is_left_to_the_task(self, case: Case) -> None:
        objective, output, batch = case.make(), case.output(), case.batch(True)
        assert objective.weight == 1
        expected = objective.loss(output, batch)
        objective.weight = 3
        assert torch.equal(objective.loss(output, batch), expected)

    def test_is_known_where_both_sides_are(self, case: Case) -> None:
        objective, output, batch = case.make(), case.output(), case.batch(True)
        assert output.keys() == {objective.key}
        assert batch.keys() == {objective.truth}
        assert objective.is_known(output, {**batch, "image": torch.zeros(1)})
        assert not objective.is_known(output, {"image": torch.zeros(1)})
        assert not objective.is_known({"features": torch.zeros(1)}, batch)

    def test_scores_do_not_depend_on_batches(self, case: Case) -> None:
        objective, output, batch = case.make(), case.output(), case.batch(False)
        whole, parts = objective.scores(), objective.scores()
        assert whole is not parts
        objective.count(whole, output, batch)
        for chosen in (slice(0, 1), slice(1, 5), slice(5, COUNT)):
            objective.count(parts, part(output, chosen), part(batch, chosen))
        assert repr(whole.compute()) == repr(parts.compute())

    def test_perfect_predictions_score_perfectly(self, case: Case) -> None:
        objective, batch = case.make(), case.batch(False)
        truth = batch[objective.truth]
        if isinstance(objective, Parsing):
            known = truth.where(truth != IGNORE_INDEX, 0)
            one_hot = torch.nn.functional.one_hot(known, len(objective.label_space))
            output: dict[str, Any] = {"parsing": [torch.zeros(COUNT, 1, 2, 2), one_hot.movedim(-1, 1).float()]}
        else:
            output = {"attributes": 2 * truth.nan_to_num(0) - 1}
        scores = objective.scores()
        objective.count(scores, output, batch)
        values = objective.scalars(scores.compute())
        assert {name: values[name] for name in case.scalars} == {
            name: 0 if name == "error" else 100 for name in case.scalars
        }

    def test_scalars_and_report_are_of_the_scores(self, case: Case) -> None:
        objective, scores = case.make(), case.make().scores()
        objective.count(scores, case.output(), case.batch(False))
        computed = scores.compute()
        values = objective.scalars(computed)
        assert values.keys() >= set(case.scalars)
        assert all(type(value) is float and 0 <= value <= 100 for value in values.values())
        assert all(values[name] == computed[name] for name in case.scalars)
        lines = objective.report(computed)
        assert all(isinstance(line, str) and "\n" not in line for line in lines)
        assert all(f"{value:.2f}" in "\n".join(lines) for value in values.values())
        assert lines[0].split()[0] == objective.key

    def test_prediction_is_what_is_scored(self, case: Case) -> None:
        objective, output, batch = case.make(), case.output(), case.batch(False)
        predicted, truth = objective.predict(output), batch[objective.truth]
        scores = objective.scores()
        objective.count(scores, output, batch)
        computed = scores.compute()
        if objective.columns:
            assert objective.columns == NAMES
            assert predicted.shape == (COUNT, len(objective.columns))
            assert ((predicted > 0) & (predicted < 1)).all()
            known = ~truth.isnan()
            wrong = ((predicted > 0.5) != (truth > 0.5)) & known
            assert computed["error"] == pytest.approx(float((100 * wrong.sum(0) / known.sum(0)).mean()), rel=1e-6)
        else:
            assert predicted.shape == truth.shape
            assert predicted.dtype == torch.int64
            counted = truth != IGNORE_INDEX
            for index, (name, iou) in enumerate(computed["iou"].items()):
                ours, theirs = (predicted == index) & counted, truth == index
                assert iou == pytest.approx(float(100 * (ours & theirs).sum() / (ours | theirs).sum())), name

    def test_facts_without_rates_change_no_plain_loss(self, case: Case) -> None:
        objective = case.make()
        if isinstance(objective, Attributes) and objective.positive_rates is not None:
            pytest.skip("balanced: see below")
        expected = objective.loss(case.output(), case.batch(False))
        for rates in (None, RATES):
            objective.prepare(DataFacts((8, 6), attributes=NAMES, positive_rates=rates))
            assert torch.equal(objective.loss(case.output(), case.batch(False)), expected)
        assert not objective.state_dict()

    def test_is_a_module_that_travels(self, case: Case) -> None:
        """A copy with the same state has the same loss: what it knows lies in its buffers."""
        objective, output, batch = case.make(), case.output(), case.batch(False)
        fresh = copy.deepcopy(objective)
        for buffer in fresh.buffers():
            buffer.zero_()
        fresh.load_state_dict(objective.state_dict())
        assert torch.equal(fresh.loss(output, batch), objective.loss(output, batch))
        assert not list(objective.parameters())


class TestBalanced:
    FACTS = DataFacts((8, 6), attributes=NAMES, positive_rates=RATES)

    def test_rates_are_those_of_the_data(self) -> None:
        objective, output, batch = BalancedAttributes(NAMES), attribute_output(), attribute_batch(False)
        objective.prepare(self.FACTS)
        losses = []
        for logits, targets in zip(output["attributes"].tolist(), batch["attributes"].tolist(), strict=True):
            for logit, target, rate in zip(logits, targets, RATES, strict=True):
                if target == target:
                    weight = 1 / (2 * rate) if target else 1 / (2 * (1 - rate))
                    losses.append(weight * math.log1p(math.exp(-logit if target else logit)))
        assert objective.loss(output, batch).item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)

    def test_before_the_data_is_known_it_is_plain(self) -> None:
        output, batch = attribute_output(), attribute_batch(False)
        loss = BalancedAttributes(NAMES).loss(output, batch)
        torch.testing.assert_close(loss, attribute_loss(output["attributes"], batch["attributes"]))

    def test_data_that_does_not_count_is_refused(self) -> None:
        objective = BalancedAttributes(NAMES)
        with pytest.raises(ConfigurationError, match="balanced loss needs data that counts its attributes"):
            objective.prepare(DataFacts((8, 6), attributes=NAMES))

    def test_rates_are_kept(self) -> None:
        objective, fresh = BalancedAttributes(NAMES), BalancedAttributes(NAMES)
        objective.prepare(self.FACTS)
        fresh.load_state_dict(objective.state_dict())
        assert fresh.positive_rates is not None
        assert fresh.positive_rates.tolist() == pytest.approx(list(RATES))


def test_absent_classes_are_not_logged() -> None:
    """They have no score; the report says nan."""
    objective = Parsing(HELEN7)
    scores = objective.scores()
    mask = torch.tensor([[[0, 1], [2, 2]]])
    objective.count(scores, {"parsing": [torch.nn.functional.one_hot(mask, 7).movedim(-1, 1).float()]}, {"mask": mask})
    computed = scores.compute()
    logged = {name.removeprefix("iou_") for name in objective.scalars(computed) if name.startswith("iou_")}
    assert logged == {"background", "hair", "face_skin"}
    assert "nose nan" in objective.report(computed)[1]


def test_undefined_attributes_are_reported() -> None:
    objective = Attributes(tuple(f"An_Attribute_Of_Long_Name_{number}" for number in range(9)))
    scores = objective.scores()
    objective.count(scores, {"attributes": torch.ones(2, 9)}, {"attributes": torch.ones(2, 9)})
    first, *rest = objective.report(scores.compute())
    assert "error 0.00 %" in first
    assert "left out of a mean, for want of positives or negatives: An_Attribute" in rest[0]
    assert all(len(line) <= 100 for line in rest)
    assert all(name in " ".join(rest) for name in objective.names)
