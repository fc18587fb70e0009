"""Facial attributes as an objective."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.losses import attribute_loss, attribute_sample_losses
from facelightning.metrics import AttributeScores
from facelightning.objectives.base import Batch, Objective, Output


class Attributes(Objective):
    """A probability for each attribute.

    Args:
        names: The attributes, in the order of the columns.
        weight: Weight of its loss in the total loss.
    """

    key, truth = "attributes", "attributes"
    positive_rates: Tensor | None

    def __init__(self, names: Sequence[str], weight: float = 1.0) -> None:
        super().__init__(weight)
        self.names = tuple(names)
        self.register_buffer("positive_rates", None)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return attribute_loss(output["attributes"], batch["attributes"], self.positive_rates)

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        return attribute_sample_losses(output["attributes"], batch["attributes"], self.positive_rates)

    def scores(self) -> Metric:
        return AttributeScores(self.names)

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(output["attributes"], batch["attributes"])

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        return {key: scores[key] for key in ("error", "mean_ap", "balanced_accuracy")}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        lines = [
            f"  attributes   error {scores['error']:.2f} %   mean AP {scores['mean_ap']:.2f} %   "
            f"balanced accuracy {scores['balanced_accuracy']:.2f} %"
        ]
        if scores["undefined"]:
            note = f"left out of a mean, for want of positives or negatives: {', '.join(scores['undefined'])}"
            lines += wrap(note, 100, initial_indent=" " * 15, subsequent_indent=" " * 15)
        return lines

    def predict(self, output: Output) -> Tensor:
        return cast(Tensor, output["attributes"].float().sigmoid())

    @property
    def columns(self) -> tuple[str, ...]:
        """The attributes."""
        return self.names


class DecidedAttributes(Attributes):
    """Attributes of a network with ``"decisions"``: they are scored; loss and prediction are of the probabilities.

    Its arguments are those of :class:`Attributes`.
    """

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(output["decisions"], batch["attributes"])


class BalancedAttributes(Attributes):
    """Attributes whose positives and negatives have equal total weight, by their rates in the training data.

    Kalayeh et al. fine-tune with it for balanced accuracy (CVPR 2017, §4.3.1); see
    :func:`facelightning.losses.attribute_loss`. Its arguments are those of :class:`Attributes`.
    """

    positive_rates: Tensor

    def __init__(self, names: Sequence[str], weight: float = 1.0) -> None:
        super().__init__(names, weight)
        # a rate of 1/2 changes nothing: used until the training data is known
        self.positive_rates = torch.full((len(self.names),), 0.5)

    def prepare(self, facts: DataFacts) -> None:
        """Take the attributes' positive rates; raises :class:`ConfigurationError` if the facts lack them."""
        if facts.positive_rates is None:
            raise ConfigurationError("a balanced loss needs data that counts its attributes, such as CelebADataModule")
        self.positive_rates.copy_(torch.tensor(facts.positive_rates))
