"""Losses for rare attributes, against loops, torchvision and cases worked by hand."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.losses import domain_weights
from facelightning.objectives import (
    AdaptedAttributes,
    Attributes,
    BalancedAttributes,
    ClassBalancedAttributes,
    FocalAttributes,
)

NAMES = ("a", "b", "c", "d")


def made(unknown: bool = True) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(9, 4, generator=generator)
    targets = (torch.rand(9, 4, generator=generator) < 0.4).float()
    if unknown:
        targets[2] = targets[4, 1] = torch.nan
    return {"attributes": logits}, {"attributes": targets}


def asymmetric(logit: float, truth: float, positive: float, negative: float, margin: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    if truth == 1:
        return float(-((1 - p) ** positive) * math.log(p))
    p = max(p - margin, 0)
    return float(-(p**negative) * math.log(1 - p))


@pytest.mark.parametrize("options", [(2.0, 2.0, 0.0), (0.0, 4.0, 0.05), (1.0, 3.0, 0.3)])
def test_asymmetric_loss_is_the_definition(options: tuple[float, float, float]) -> None:
    output, batch = made()
    expected = []
    for logits, truth in zip(output["attributes"].tolist(), batch["attributes"].tolist(), strict=True):
        known = [asymmetric(x, y, *options) for x, y in zip(logits, truth, strict=True) if y == y]
        expected.append(sum(known) / max(len(known), 1))
    objective = FocalAttributes(NAMES, 1.0, *options)
    assert objective.sample_loss(output, batch).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert objective.loss(output, batch).item() == pytest.approx(sum(expected) / 9, rel=1e-5)


def test_focal_loss_is_torchvisions() -> None:
    output, batch = made(unknown=False)
    expected = sigmoid_focal_loss(output["attributes"], batch["attributes"], alpha=-1, gamma=2).mean(dim=1)
    torch.testing.assert_close(FocalAttributes(NAMES).sample_loss(output, batch), expected)


def test_without_focus_it_is_cross_entropy() -> None:
    output, batch = made()
    plain = Attributes(NAMES).sample_loss(output, batch)
    torch.testing.assert_close(FocalAttributes(NAMES, 1.0, 0, 0).sample_loss(output, batch), plain)


@pytest.mark.parametrize("options", [(0.0, 4.0, 0.05), (1.0, 1.0, 0.0), (2.0, 2.0, 0.9)])
def test_gradients_are_finite_far_from_the_truth_and_at_it(options: tuple[float, float, float]) -> None:
    logits = torch.tensor([[-200.0, 200, -20, 20]] * 2, requires_grad=True)
    targets = torch.tensor([[0.0, 1, 1, 0], [1, 0, torch.nan, torch.nan]])
    loss = FocalAttributes(NAMES, 1.0, *options).loss({"attributes": logits}, {"attributes": targets})
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and gradient.isfinite().all()
    assert not gradient[1, 2:].any()


def test_weights_by_hand() -> None:
    """Eight of ten are positive: a quarter of their weight makes both count 2; the target may be lopsided, too."""
    source, target = torch.tensor([0.8, 0.2, 0.5, 0.0, 1.0, 0.5]), torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.75])
    expected = [[1, 0.25, 1, 1, 1, 1 / 3], [0.25, 1, 1, 1, 1, 1]]  # of negatives, of positives
    torch.testing.assert_close(domain_weights(source, target), torch.tensor(expected))
    weights = domain_weights(source, target)
    positive, negative = source * weights[1], (1 - source) * weights[0]
    torch.testing.assert_close((positive / (positive + negative))[[0, 1, 2, 5]], target[[0, 1, 2, 5]])


def test_adapted_loss_is_the_definition() -> None:
    output, batch = made()
    objective = AdaptedAttributes(NAMES, target_rate=0.5)
    objective.prepare(DataFacts((8, 8), attributes=NAMES, positive_rates=(0.8, 0.2, 0.5, 0.1)))
    weights = [[1, 0.25, 1, 1 / 9], [0.25, 1, 1, 1]]
    expected = []
    for outputs, truth in zip(output["attributes"].tolist(), batch["attributes"].tolist(), strict=True):
        both = [(x, int(y), i) for i, (x, y) in enumerate(zip(outputs, truth, strict=True)) if y == y]
        expected.append(sum(weights[y][i] * (x - (2 * y - 1)) ** 2 for x, y, i in both) / max(len(both), 1))
    assert objective.sample_loss(output, batch).tolist() == pytest.approx(expected, rel=1e-5)
    assert AdaptedAttributes(NAMES).weights.eq(1).all()
    probabilities = objective.predict({"attributes": torch.tensor([[-3.0, -1, 0, 0.5]])})
    assert probabilities.tolist() == [[0, 0, 0.5, 0.75]]


def test_class_balanced_loss_is_the_definition() -> None:
    """A class weighs by 1 / E, up to a factor for each attribute; E by adding up the shares that n images add."""
    rates, images, beta = (0.8, 0.2, 0.5, 0.1), 10, 0.9
    objective = ClassBalancedAttributes(NAMES, beta=beta)
    objective.prepare(DataFacts((8, 8), attributes=NAMES, positive_rates=rates, images=images))
    numbers = [[round(images * share) for share in (1 - rate, rate)] for rate in rates]
    effective = [[sum(beta**k for k in range(n)) for n in pair] for pair in numbers]  # of negatives, of positives
    output, batch = made()
    expected = []
    for logits, truth in zip(output["attributes"].tolist(), batch["attributes"].tolist(), strict=True):
        terms = [
            asymmetric(x, y, 0, 0, 0) * sum(effective[i]) / (2 * effective[i][int(y)])
            for i, (x, y) in enumerate(zip(logits, truth, strict=True))
            if y == y
        ]
        expected.append(sum(terms) / max(len(terms), 1))
    assert objective.sample_loss(output, batch).tolist() == pytest.approx(expected, rel=1e-4)


def test_class_balanced_loss_lies_between_plain_and_balanced() -> None:
    output, batch = made()
    facts = DataFacts((8, 8), attributes=NAMES, positive_rates=(0.8, 0.0, 1.0, 0.1), images=1000)
    ends = ((0.0, Attributes(NAMES)), (1 - 1e-9, BalancedAttributes(NAMES)))
    for beta, other in ends:
        objective = ClassBalancedAttributes(NAMES, beta=beta)
        for each in (objective, other):
            each.prepare(facts)
        found, expected = (each.sample_loss(output, batch) for each in (objective, other))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="positive_focus"):
        FocalAttributes(NAMES, positive_focus=0.5)
    with pytest.raises(ConfigurationError, match="target_rate"):
        AdaptedAttributes(NAMES, target_rate=1.0)
    with pytest.raises(ConfigurationError, match="beta"):
        ClassBalancedAttributes(NAMES, beta=1.0)
    with pytest.raises(ConfigurationError, match="counts its attributes"):
        AdaptedAttributes(NAMES, target_rate=0.5).prepare(DataFacts((8, 8), attributes=NAMES))
