"""Temperatures and thresholds against a search by hand."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import f1_score
from torch import Tensor

from facelightning.models.calibration import CalibratedNetwork, fit_slopes, fit_thresholds
from facelightning.objectives import AdaptedAttributes


def data(count: int = 80, attributes: int = 6) -> tuple[Tensor, Tensor]:
    """Logits that are too sure or not sure enough of attributes that are rare or frequent; some are unknown."""
    rng = np.random.default_rng(0)
    offsets, scales = np.linspace(-3, 2, attributes), 2.0 ** np.arange(-2, attributes - 2)
    hidden = rng.normal(size=(count, attributes)) * 2 + offsets
    truth = (rng.random(hidden.shape) < 1 / (1 + np.exp(-hidden))).astype(float)
    truth[rng.random(hidden.shape) < 0.1] = np.nan
    logits = (hidden * scales).round(1)  # some are equal
    return torch.from_numpy(logits).float(), torch.from_numpy(truth)


def test_slopes_make_the_cross_entropy_smallest() -> None:
    logits, targets = data()
    for z, y, slope in zip(logits.double().T.numpy(), targets.T.numpy(), fit_slopes(logits, targets), strict=True):
        known, sign = ~np.isnan(y), np.where(y == 1, -1, 1)

        def loss(log_slope: float, z: np.ndarray = z, known: np.ndarray = known, sign: np.ndarray = sign) -> float:
            return float(np.logaddexp(0, (sign * z * math.exp(log_slope))[known]).sum())

        best = math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x)
        assert float(slope) == pytest.approx(best, rel=1e-3)


def quality(z: np.ndarray, y: np.ndarray, threshold: float, criterion: str, cost: float) -> float:
    said = z > threshold
    if criterion == "f1":
        return float(f1_score(y, said, zero_division=0))
    if criterion == "cost":
        return -float((said & ~y).sum() + cost * (~said & y).sum())
    return float(said[y].mean() + (~said)[~y].mean())


@pytest.mark.parametrize(("criterion", "cost"), [("balanced_accuracy", 1.0), ("f1", 1.0), ("cost", 1.0), ("cost", 7.0)])
def test_no_threshold_is_better_nor_nearer_to_zero(
    criterion: Literal["balanced_accuracy", "f1", "cost"], cost: float
) -> None:
    logits, targets = data()
    for z, y, threshold in zip(
        logits.double().T.numpy(), targets.T.numpy(), fit_thresholds(logits, targets, criterion, cost), strict=True
    ):
        z, y = z[~np.isnan(y)], y[~np.isnan(y)] == 1
        found = quality(z, y, float(threshold), criterion, cost)
        values = np.unique(z)
        cuts = [0.0, values[0] - 1, values[-1] + 1, *(values[1:] + values[:-1]) / 2, *values]
        scores = [quality(z, y, cut, criterion, cost) for cut in cuts]
        assert found == pytest.approx(max(scores))
        middles = cuts[: -len(values)]
        nearest = min(abs(cut) for cut, score in zip(middles, scores, strict=False) if score >= max(scores) - 1e-9)
        assert abs(float(threshold)) == pytest.approx(nearest)


def test_one_class_keeps_what_the_network_says() -> None:
    logits = torch.tensor([[3.0, -2.0, 1.0], [1.0, 5.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0, math.nan], [1.0, 0.0, math.nan]])
    assert fit_slopes(logits, targets).tolist() == [1, 1, 1]
    assert fit_thresholds(logits, targets, "f1").tolist() == [0, 0, 0]


def test_what_gives_no_logits_is_calibrated_as_probabilities() -> None:
    """MOON's outputs are no logits: an attribute that held-out images never have keeps its probability, nearly 0."""
    objective, output = AdaptedAttributes(("Bald",)), {"attributes": torch.tensor([[-1.0], [-0.98], [0.4]])}
    logits = objective.logits(output)
    torch.testing.assert_close(logits.sigmoid(), objective.predict(output).clamp(1e-4), atol=1e-6, rtol=0)
    network = CalibratedNetwork(torch.nn.Identity(), 1, objective.logits)
    network.calibration.fit(logits, torch.zeros(3, 1), "balanced_accuracy", 1.0)
    found = network.calibrated(output)
    torch.testing.assert_close(found["attributes"], logits)
    assert found["decisions"].gt(0).flatten().tolist() == [False, False, True]


def test_what_can_be_told_apart_names_no_endless_slope() -> None:
    logits, targets = torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    assert fit_slopes(logits, targets).item() == pytest.approx(20)
    assert fit_slopes(logits, 1 - targets).item() == pytest.approx(1 / 20)
