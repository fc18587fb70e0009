"""The contract of all objectives: a loss, scores, a prediction."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts

Batch = Mapping[str, Any]
"""What a data loader yields."""
Output = Mapping[str, Any]
"""A network's output for a batch."""


def check_weight(weight: float) -> float:
    """The weight of a loss; raises :class:`ConfigurationError` if it is negative or not finite."""
    if not 0 <= weight < math.inf:
        raise ConfigurationError(f"the weight of a loss must not be negative: {weight}")
    return weight


class Objective(nn.Module):
    """One thing that is learned.

    Args:
        weight: Weight of its loss in the total loss.
    """

    key: str
    """The key of its logits in a network's output."""
    truth: str
    """The key of its ground truth in a batch."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = check_weight(weight)

    def is_known(self, output: Output, batch: Batch) -> bool:
        """Whether the network predicts it and the batch has its ground truth."""
        return self.key in output and self.truth in batch

    def prepare(self, facts: DataFacts) -> None:
        """Take what the loss needs from the training data's facts, before the first step."""

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The loss of a batch, ``()``."""
        raise NotImplementedError

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        """The loss of each sample, ``(B,)``."""
        raise NotImplementedError

    def set_loss(self, mean: float, scores: Mapping[str, Any]) -> float:
        """The loss of an evaluated set, from the mean of :meth:`sample_loss` and the computed scores."""
        return mean

    def scores(self) -> Metric:
        """A new metric, whose ``compute`` returns all scores, in percent."""
        raise NotImplementedError

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        """Add a batch to the metric."""
        raise NotImplementedError

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        """The computed scores to log, by name."""
        raise NotImplementedError

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        """The computed scores as lines of text."""
        raise NotImplementedError

    def predict(self, output: Output) -> Tensor:
        """The prediction for the user: numbers ``(B, A)`` for ``columns``, or a class for each pixel, ``(B, H, W)``."""
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the predicted numbers; empty if it predicts a mask."""
        return ()
