"""Identities: the loss against float64, of known and of new identities; scores and predictions of features."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from facelightning.errors import ConfigurationError
from facelightning.objectives import Identities

NUMBERS = (3, 12, 40, 2**53)
COUNT, DIMENSIONS = 6, 5


def make(similarity_weight: float = 0.3) -> Identities:
    return Identities(NUMBERS, DIMENSIONS, similarity_weight)


def output() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "identity": torch.randn(COUNT, len(NUMBERS), generator=generator),
        "features": torch.randn(COUNT, DIMENSIONS, generator=generator),
    }


def batch(*identities: int) -> dict[str, Tensor]:
    return {"identity": torch.tensor(identities)}


KNOWN = batch(12, 40, 12, 2**53, 40, 12)
MIXED = batch(12, 41, 12, -1, 41, 3)
NEW = batch(7, 8, 7, 8, 7, 9)


def softmax(logits: list[float], truth: int) -> float:
    return math.log(sum(map(math.exp, logits))) - logits[truth]


def distances(features: Tensor, identities: list[int]) -> list[float]:
    """Squared distances of all ordered pairs of one identity."""
    rows = features.double().tolist()
    return [
        math.dist(rows[i], rows[j]) ** 2
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j and identities[i] == identities[j]
    ]


@pytest.mark.parametrize("truth", [KNOWN, MIXED], ids=["known", "mixed"])
def test_loss_is_the_definition(truth: dict[str, Tensor]) -> None:
    """Softmax and similarity, over the images whose identity was trained."""
    said, numbers = output(), truth["identity"].tolist()
    known = [i for i, number in enumerate(numbers) if number in NUMBERS]
    cross_entropy = [softmax(said["identity"][i].double().tolist(), NUMBERS.index(numbers[i])) for i in known]
    pairs = distances(said["features"][known], [numbers[i] for i in known])
    expected = sum(cross_entropy) / len(known) + 0.3 * sum(pairs) / len(pairs)
    assert make().loss(said, truth).item() == pytest.approx(expected, rel=1e-6)
    assert make(0).loss(said, truth).item() == pytest.approx(sum(cross_entropy) / len(known), rel=1e-6)


def test_new_identities_teach_nothing() -> None:
    said = {key: value.requires_grad_() for key, value in output().items()}
    loss = make().loss(said, NEW)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, list(said.values())))


def test_loss_falls_along_its_gradient() -> None:
    said = {key: value.requires_grad_() for key, value in output().items()}
    before = make().loss(said, KNOWN)
    gradients = torch.autograd.grad(before, list(said.values()))
    assert all(gradient.any() for gradient in gradients)
    after = {key: value - 0.1 * gradient for (key, value), gradient in zip(said.items(), gradients, strict=True)}
    assert make().loss(after, KNOWN) < before


def test_sample_loss_is_that_of_each_sample_alone() -> None:
    said, losses = output(), make().sample_loss(output(), MIXED)
    for i in range(COUNT):
        alone = {key: value[i : i + 1] for key, value in said.items()}
        assert losses[i].item() == pytest.approx(make().loss(alone, batch(int(MIXED["identity"][i]))).item(), abs=1e-6)
    assert [loss > 0 for loss in losses] == [number in NUMBERS for number in MIXED["identity"]]


def scored(truth: dict[str, Tensor], step: int = COUNT) -> dict[str, Any]:
    objective, said = make(), output()
    scores = objective.scores()
    for start in range(0, COUNT, step):
        chosen = slice(start, start + step)
        objective.count(scores, {"features": said["features"][chosen]}, batch(*truth["identity"][chosen].tolist()))
    found: dict[str, Any] = scores.compute()
    return found


@pytest.mark.parametrize("truth", [KNOWN, MIXED, NEW], ids=["known", "mixed", "new"])
def test_the_loss_of_a_set_has_the_distances_of_all_its_pairs(truth: dict[str, Tensor]) -> None:
    said, numbers = output(), truth["identity"].tolist()
    pairs = distances(said["features"], numbers)
    for step in (1, 4, COUNT):  # no two images of an identity need to be in one batch
        loss = make().set_loss(0.7, scored(truth, step))
        assert loss == pytest.approx(0.7 + 0.3 * sum(pairs) / len(pairs), rel=1e-6)


def test_class_of_a_number() -> None:
    objective = make()
    assert objective.classes(torch.tensor([2**53, 3, 0, 12, 40, -1, 2**53 - 1])).tolist() == [3, 0, -1, 1, 2, -1, -1]


def test_numbers_are_in_the_state() -> None:
    fresh = Identities((0,) * len(NUMBERS), DIMENSIONS, 0.3)
    fresh.load_state_dict(make().state_dict())
    assert torch.equal(fresh.loss(output(), KNOWN), make().loss(output(), KNOWN))
    assert torch.equal(copy.deepcopy(fresh).identities, torch.tensor(NUMBERS))
    assert not list(fresh.parameters())


def test_scalars_and_report_are_of_the_scores() -> None:
    objective, found = make(), scored(MIXED)
    assert objective.scalars(found) == {key: found[key] for key in ("rank_1", "true_accepts", "distance")}
    first, second = objective.report(found)
    assert first.split()[0] == objective.key == "identity"
    assert all(f"{found[key]:.2f}" in first for key in ("rank_1", "distance"))
    assert f"of {found['images']} images" in first
    assert f"{found['true_accepts']:.2f} % true accepts at 1 % false accepts" in second


def test_prediction_is_what_is_compared() -> None:
    predicted = make().predict({key: value.bfloat16() for key, value in output().items()})
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted, output()["features"].bfloat16().float())
    assert make().columns == ("feature_0", "feature_1", "feature_2", "feature_3", "feature_4")


def test_is_known_where_both_sides_are() -> None:
    assert make().is_known(output(), KNOWN)
    assert not make().is_known(output(), {"attributes": torch.zeros(1)})
    assert not make().is_known({"attributes": torch.zeros(1)}, KNOWN)


@pytest.mark.parametrize("weights", [(-0.1, 1), (math.inf, 1), (1, -1), (math.nan, 1)])
def test_a_negative_weight_is_an_error(weights: tuple[float, float]) -> None:
    with pytest.raises(ConfigurationError, match="weight of a loss must not be negative"):
        Identities(NUMBERS, DIMENSIONS, *weights)
