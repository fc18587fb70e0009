"""The contract of all objectives: a loss, scores, a prediction."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from facelightning.facts import DataFacts

Batch = Mapping[str, Any]
"""What a data loader gives."""
Output = Mapping[str, Any]
"""What a network says of a batch."""


class Objective(nn.Module):
    """One thing that is learned.

    Args:
        weight: Of its loss in the sum of all.
    """

    key: str
    """Its entry in a network's output."""
    truth: str
    """Its entry in a batch."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def is_known(self, output: Output, batch: Batch) -> bool:
        """Whether a network predicts it and a batch has the truth."""
        return self.key in output and self.truth in batch

    def prepare(self, facts: DataFacts) -> None:
        """Take from the training data what the loss needs, before the first step."""

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Of the batch, ``()``."""
        raise NotImplementedError

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        """Of each sample alone, ``(B,)``."""
        raise NotImplementedError

    def scores(self) -> Metric:
        """A new metric, whose ``compute`` gives all that is scored, in percent."""
        raise NotImplementedError

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        """Add a batch to such a metric."""
        raise NotImplementedError

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        """Those of the computed scores that are logged."""
        raise NotImplementedError

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        """The computed scores as lines of text."""
        raise NotImplementedError

    def predict(self, output: Output) -> Tensor:
        """What is handed to the user: numbers ``(B, A)`` for ``columns``, or a class for each pixel, ``(B, H, W)``."""
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that it predicts; none for an image."""
        return ()
