"""Ages: the loss against float64, unknown ages, years that are predicted, scored and printed."""

import math

import pytest
import torch

from facelightning.objectives import Ages
from facelightning.objectives.ages import AgeScores

SAID = 2 * torch.randn(9, 1, generator=torch.Generator().manual_seed(0))
AGES = torch.tensor([31.5, 80, math.nan, 0, 16, 44, 116, math.nan, 25])
OUTPUT, BATCH = {"age": SAID}, {"age": AGES}


def test_loss_is_the_definition() -> None:
    pairs = zip(SAID.squeeze(1).tolist(), AGES.tolist(), strict=True)
    losses = [0.0 if age != age else (said - (age - 40) / 20) ** 2 / 2 for said, age in pairs]
    assert Ages().sample_loss(OUTPUT, BATCH).tolist() == pytest.approx(losses, rel=1e-5)
    assert Ages().loss(OUTPUT, BATCH).item() == pytest.approx(sum(losses) / 7, rel=1e-6)
    assert Ages().loss({"age": SAID.bfloat16()}, BATCH).dtype == torch.float32


def test_an_unknown_age_teaches_nothing() -> None:
    said = SAID.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Ages().loss({"age": said}, BATCH), said)
    assert (gradient.squeeze(1) == 0).tolist() == AGES.isnan().tolist()
    nobody = Ages().loss({"age": said}, {"age": torch.full((9,), math.nan)})
    assert nobody.item() == 0
    assert not torch.autograd.grad(nobody, said)[0].any()


def test_years_are_predicted_scored_and_printed() -> None:
    objective = Ages()
    years = objective.predict(OUTPUT)
    assert years.shape == (9, 1) and objective.columns == ("age",)
    torch.testing.assert_close((years - 40) / 20, SAID)
    scores = objective.scores()
    for part in torch.arange(9).split(4):
        objective.count(scores, {"age": SAID[part]}, {"age": AGES[part]})
    found = scores.compute()
    errors = [abs(a - b) for a, b in zip(years.squeeze(1).tolist(), AGES.tolist(), strict=True) if b == b]
    assert found["age_error"] == pytest.approx(sum(errors) / 7, rel=1e-6)
    assert (found["within_5"], found["images"]) == (100 * sum(error <= 5 for error in errors) / 7, 7)
    assert objective.scalars(found) == {key: found[key] for key in ("age_error", "within_5")}
    (line,) = objective.report(found)
    assert line.split()[0] == objective.key == "age"
    assert f"{found['age_error']:.2f} years" in line and f"{found['within_5']:.2f} % of 7 images" in line


def test_the_order_is_of_no_account_and_nothing_is_not_a_number() -> None:
    years, ages, found = 50 + 9 * torch.randn(500), torch.rand(500) * 90, set()
    for seed in range(4):
        order, scores = torch.randperm(500, generator=torch.Generator().manual_seed(seed)), AgeScores()
        for part in order.split(40 + seed):
            scores.update(years[part], ages[part])
        found.add(tuple(scores.compute().values()))
    assert len(found) == 1
    scores = AgeScores()
    scores.update(torch.ones(2), torch.full((2,), math.nan))
    assert repr(scores.compute()) == repr({"age_error": math.nan, "within_5": math.nan, "images": 0})
    scores.update(torch.tensor([35.0, 44.5, 45.5]), torch.full((3,), 40.0))
    assert scores.compute() == {"age_error": 5.0, "within_5": 100 * 2 / 3, "images": 3}
