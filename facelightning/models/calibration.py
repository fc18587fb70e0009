"""Probabilities that mean what they say, and thresholds for decisions, fitted to held-out images."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from facelightning.models.blocks import Frozen

Criterion = Literal["balanced_accuracy", "f1", "cost"]
"""What a threshold makes as good as it can be; ``cost`` makes as small as it can be."""

STEEPEST = 20.0
"""Bound of a temperature and of its inverse: held-out images that a logit tells apart without error name none."""


class Calibration(nn.Module):
    """A temperature and a threshold for each attribute (temperature scaling: Guo et al., ICML 2017).

    Args:
        num_attributes: A.

    Shape:
        - logits: ``(B, A)``.
        - return: logits of calibrated probabilities, and decisions, positive above 0; both ``(B, A)``.

    Example:
        >>> calibration = Calibration(1)
        >>> calibration.slopes.fill_(0.5), calibration.thresholds.fill_(-1.0)
        (tensor([0.5000]), tensor([-1.]))
        >>> calibration(torch.tensor([[-1.0]]))
        (tensor([[-0.5000]]), tensor([[0.5000]]))
    """

    slopes: Tensor
    """``(A,)``, the inverse temperatures; 0 until fitted."""
    thresholds: Tensor
    """``(A,)``, of the calibrated logits."""

    def __init__(self, num_attributes: int) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.zeros(num_attributes))
        self.register_buffer("thresholds", torch.zeros(num_attributes))

    @property
    def fitted(self) -> bool:
        """Whether it can be used."""
        return bool(self.slopes.any())

    def fit(self, logits: Tensor, targets: Tensor, criterion: Criterion, miss_cost: float) -> None:
        """Fit it to held-out images; see :func:`fit_slopes` and :func:`fit_thresholds`."""
        slopes = fit_slopes(logits, targets)
        self.slopes.copy_(slopes)
        self.thresholds.copy_(fit_thresholds(logits.double() * slopes, targets, criterion, miss_cost))

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        calibrated = logits.float() * self.slopes
        return calibrated, calibrated - self.thresholds


def fit_slopes(logits: Tensor, targets: Tensor) -> Tensor:
    """The factor of each attribute's logits that makes its cross-entropy smallest: its inverse temperature.

    An attribute that is always or never there keeps its logits, with factor 1.

    Shape:
        - logits: ``(n, A)``, of any floating type.
        - targets: ``(n, A)``: 0, 1, or NaN where unknown.
        - return: ``(A,)``, float64, from 1 / 20 to 20.

    Example:
        >>> logits = torch.tensor([[4.0], [4.0], [4.0], [-4.0]])  # sure of the third, and wrong
        >>> fit_slopes(logits, torch.tensor([[1.0], [1.0], [0.0], [0.0]]))
        tensor([0.2747], dtype=torch.float64)
    """
    known, z = ~targets.isnan(), logits.double()
    signs = torch.where(targets == 1, -1.0, 1.0).double()
    low = torch.full((z.shape[1],), 1 / STEEPEST, dtype=torch.float64)
    high = torch.full_like(low, STEEPEST)
    for _ in range(60):  # the loss is convex in the factor, so its derivative has one sign on each side: bisect
        middle = (low * high).sqrt()
        rises = (signs * z * (signs * z * middle).sigmoid()).where(known, 0).sum(dim=0) > 0
        low, high = low.where(rises, middle), middle.where(rises, high)
    both = ((targets == 1).any(dim=0)) & ((targets == 0).any(dim=0))
    return middle.where(both, 1)


def fit_thresholds(logits: Tensor, targets: Tensor, criterion: Criterion, miss_cost: float = 1.0) -> Tensor:
    """The threshold of each attribute that is best on held-out images; of equally good ones, the nearest to 0.

    A threshold lies midway between two neighbouring logits. One for an attribute that is always or never there is 0.

    Args:
        logits: Of each image.
        targets: Which attributes each image has.
        criterion: ``balanced_accuracy``, ``f1``, or ``cost``: the number of false alarms, plus that of misses times
            ``miss_cost``.
        miss_cost: What a miss costs, if a false alarm costs 1.

    Shape:
        - logits: ``(n, A)``, of any floating type.
        - targets: ``(n, A)``: 0, 1, or NaN where unknown.
        - return: ``(A,)``, float64.

    Example:
        >>> logits, targets = torch.tensor([[-3.0], [-2.0], [-1.0], [1.0]]), torch.tensor([[0.0], [1.0], [0.0], [1.0]])
        >>> fit_thresholds(logits, targets, "balanced_accuracy"), fit_thresholds(logits, targets, "cost", 3)
        (tensor([0.], dtype=torch.float64), tensor([-2.5000], dtype=torch.float64))
    """
    pairs = zip(logits.double().T, targets.T, strict=True)
    return torch.stack([_threshold(z[~y.isnan()], y[~y.isnan()] == 1, criterion, miss_cost) for z, y in pairs])


def _threshold(logits: Tensor, positive: Tensor, criterion: Criterion, miss_cost: float) -> Tensor:
    positives, negatives = positive.sum(), (~positive).sum()
    if positives == 0 or negatives == 0:
        return logits.new_zeros(())
    values, order = logits.sort()
    ends = torch.stack([values[0] - 1, values[-1] + 1])
    cuts = torch.cat([ends[:1], (values[1:] + values[:-1]) / 2, ends[1:], values.new_zeros(1)])  # 0 may be as good
    below = torch.searchsorted(values, cuts, right=True)  # a decision must be above its threshold
    missed = torch.cat([positives.new_zeros(1), positive[order].cumsum(0)])[below]
    alarms = negatives - (below - missed)
    hits = (positives - missed).double()
    quality = {
        "balanced_accuracy": hits / positives - alarms / negatives,
        "f1": 2 * hits / (hits + positives + alarms),
        "cost": -(alarms + miss_cost * missed),
    }[criterion]
    best = quality >= quality.max() - 1e-12
    return cuts[best][cuts[best].abs().argmin()]


class CalibratedNetwork(Frozen):
    """A trained network with its calibration; it is frozen, and always in evaluation mode.

    Args:
        network: The network.
        num_attributes: A.
        logits: Makes logits ``(B, A)`` of the network's output.

    Shape:
        - images, others: as the network takes them.
        - return: the network's output, in which ``"attributes"`` are calibrated logits ``(B, A)``; beside them
          ``"decisions"``, positive above 0, and ``"uncalibrated"``, what the network says itself.
    """

    def __init__(self, network: nn.Module, num_attributes: int, logits: Callable[[Mapping[str, Any]], Tensor]) -> None:
        super().__init__()
        self.network, self.logits = network, logits
        self.calibration = Calibration(num_attributes)
        self.freeze()

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the places that ``"region_weights"`` weigh."""
        places: Any = self.network.places
        return tuple(places)

    def forward(self, *inputs: Any, **options: Any) -> dict[str, Any]:
        return self.calibrated(self.network(*inputs, **options))

    def calibrated(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """The network's output, calibrated; as it is, if it has no attributes."""
        if "attributes" not in output:
            return dict(output)
        calibrated, decisions = self.calibration(self.logits(output))
        return {**output, "attributes": calibrated, "decisions": decisions, "uncalibrated": output["attributes"]}
