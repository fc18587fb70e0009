"""Relations of attributes against loops in float64: correlations pair by pair, the loss over all pairs, gradients."""

import math

import pytest
import torch
from torch import Tensor

from facelightning.losses import relation_losses
from facelightning.objectives.related import correlations, pair_sums


def pearson(first: list[float], second: list[float]) -> float:
    """The correlation of what both know; NaN where one of both is constant."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if a == a and b == b]
    if not both:
        return math.nan
    means = [sum(side) / len(both) for side in zip(*both, strict=True)]
    xs, ys = ([pair[side] - means[side] for pair in both] for side in (0, 1))
    scale = math.sqrt(sum(x * x for x in xs)) * math.sqrt(sum(y * y for y in ys))
    return sum(x * y for x, y in zip(xs, ys, strict=True)) / scale if scale else math.nan


def labels(generator: torch.Generator, images: int, attributes: int, unknown: float = 0.1) -> Tensor:
    """Random ones: rare, frequent and constant attributes, and unknown entries."""
    rates = torch.rand(attributes, generator=generator) ** 2
    targets = (torch.rand(images, attributes, generator=generator) < rates).float()
    return targets.masked_fill(torch.rand(images, attributes, generator=generator) < unknown, torch.nan)


@pytest.mark.parametrize("images", [1, 2, 7, 33])
def test_correlations_are_those_of_the_definition(images: int) -> None:
    targets = labels(torch.Generator().manual_seed(images), images, 6)
    columns = targets.T.double().tolist()
    expected = torch.tensor([[pearson(first, second) for second in columns] for first in columns])
    torch.testing.assert_close(correlations(pair_sums(targets)), expected, equal_nan=True)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    targets = labels(torch.Generator().manual_seed(0), 50, 40)
    parts = sum(pair_sums(part) for part in targets.split(9))
    assert torch.equal(parts, pair_sums(targets))


def test_loss_is_the_triple_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(5, 7, generator=generator, dtype=torch.float64)
    attract, repel = (torch.rand(7, 7, generator=generator) < 0.3 for _ in range(2))
    rows = probabilities.tolist()
    expected = []
    for row in rows:
        squares = [[(a - b) ** 2 for b in row] for a in row]
        total = sum(
            bool(attract[i, j]) * squares[i][j] + bool(repel[i, j]) * (1 - squares[i][j]) ** 2
            for i in range(7)
            for j in range(7)
        )
        expected.append(total / (2 * 7**2))
    assert relation_losses(probabilities, attract, repel).tolist() == pytest.approx(expected, rel=1e-12)


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    attract, repel = (torch.rand(5, 5, generator=generator) < 0.4 for _ in range(2))
    assert torch.autograd.gradcheck(lambda p: relation_losses(p, attract, repel), probabilities)
