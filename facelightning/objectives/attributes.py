"""Facial attributes as an objective."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.losses import (
    adapted_sample_losses,
    attribute_loss,
    attribute_sample_losses,
    domain_weights,
    effective_rates,
    focal_sample_losses,
)
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
        if shares := scores.get("contradictions"):
            lines.append(
                f"{' ' * 15}contradictions, such as No_Beard with Goatee: predicted in {shares['predicted']:.2f} %, "
                f"labelled in {shares['labelled']:.2f} % of the images"
            )
        for name, division in scores.get("subgroups", {}).items():
            lines += subgroup_table(name, division)
        return lines

    def predict(self, output: Output) -> Tensor:
        return cast(Tensor, output["attributes"].float().sigmoid())

    def logits(self, output: Output) -> Tensor:
        """The logits of the predicted probabilities, ``(B, A)``."""
        return cast(Tensor, output["attributes"].float())

    def decide(self, output: Output) -> Tensor:
        """Whether each image has each attribute, ``(B, A)``, bool: the one place where probabilities are decided."""
        return self.predict(output) > 0.5

    @property
    def columns(self) -> tuple[str, ...]:
        """The attributes."""
        return self.names


class SummedAttributes(Attributes):
    """Attributes whose losses are added over the attributes, as Caffe and Wang, Su, Zhao (equation 4) do, not averaged.

    The optimisers do not see the scale of a loss; AdaGrad's L2 penalty does: beside a sum it weighs as many times less
    as there are attributes. Unknown entries count as the mean of the known ones. Its arguments are those of
    :class:`Attributes`.

    Example:
        >>> output, batch = {"attributes": torch.zeros(2, 3)}, {"attributes": torch.ones(2, 3)}
        >>> SummedAttributes(("Bald", "Male", "Young")).loss(output, batch)  # 3 log 2
        tensor(2.0794)
    """

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return len(self.names) * super().loss(output, batch)

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        return len(self.names) * super().sample_loss(output, batch)


class DecidedAttributes(Attributes):
    """Attributes of a network with ``"decisions"``: they are scored; loss and prediction are of the probabilities.

    Its arguments are those of :class:`Attributes`.
    """

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(output["decisions"], batch["attributes"])

    def decide(self, output: Output) -> Tensor:
        return cast(Tensor, output["decisions"] > 0)


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
        self.positive_rates.copy_(positive_rates(facts))


class ClassBalancedAttributes(BalancedAttributes):
    """Attributes whose positives and negatives have equal total weight, by their effective numbers of images.

    Cui et al., CVPR 2019: see :func:`~facelightning.losses.effective_rates`. It is milder than
    :class:`BalancedAttributes`: a rare attribute weighs less, because many images of a frequent one are alike.

    Args:
        names: The attributes, in the order of the columns.
        weight: Weight of its loss in the total loss.
        beta: β, in [0, 1): 1 / (1 - β) is the largest effective number.

    Raises:
        ConfigurationError: If a number is out of its range.
    """

    def __init__(self, names: Sequence[str], weight: float = 1.0, beta: float = 0.9999) -> None:
        super().__init__(names, weight)
        if not 0 <= beta < 1:
            raise ConfigurationError(f"ClassBalancedAttributes: beta must lie in [0, 1), not {beta}")
        self.beta = beta

    def prepare(self, facts: DataFacts) -> None:
        """Take the attributes' effective rates; raises :class:`ConfigurationError` if the facts lack their rates."""
        rates = positive_rates(facts)
        assert facts.images is not None  # counted together
        self.positive_rates.copy_(effective_rates(rates, facts.images, self.beta))


class FocalAttributes(Attributes):
    """Attributes whose loss looks away from what is already right: :func:`~facelightning.losses.focal_sample_losses`.

    The defaults are the focal loss. The asymmetric loss has ``positive_focus`` 0, ``negative_focus`` 4 and ``margin``
    0.05 in its paper.

    Args:
        names: The attributes, in the order of the columns.
        weight: Weight of its loss in the total loss.
        positive_focus: γ₊: 0, or from 1 on; between both its gradient has no bound.
        negative_focus: γ₋: likewise.
        margin: In [0, 1); a negative of this probability or less loses nothing.

    Raises:
        ConfigurationError: If a number is out of its range.
    """

    def __init__(
        self,
        names: Sequence[str],
        weight: float = 1.0,
        positive_focus: float = 2.0,
        negative_focus: float = 2.0,
        margin: float = 0.0,
    ) -> None:
        super().__init__(names, weight)
        focuses = (positive_focus, negative_focus)
        if not (all(focus == 0 or 1 <= focus <= 100 for focus in focuses) and 0 <= margin < 1):
            raise ConfigurationError(
                f"FocalAttributes: positive_focus, negative_focus {focuses} must be 0 or lie in 1...100, and margin "
                f"{margin} in [0, 1)"
            )
        self.focus = (positive_focus, negative_focus, margin)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return self.sample_loss(output, batch).mean()

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        return focal_sample_losses(output["attributes"], batch["attributes"], *self.focus)


class AdaptedAttributes(Attributes):
    """Attributes learned by squared distances to ±1, as if they were as frequent as in another domain (MOON).

    Rudd, Günther, Boult, ECCV 2016: see :func:`~facelightning.losses.domain_weights`. What the network gives is no
    logit: its sign decides, and the predicted probability is (1 + output) / 2, within [0, 1].

    Args:
        names: The attributes, in the order of the columns.
        weight: Weight of its loss in the total loss.
        target_rate: How often each attribute occurs in that domain, in (0, 1): 0.5 is MOON's balanced network; as often
            as in the training data if not given, which is MOON without adaptation.

    Raises:
        ConfigurationError: If a number is out of its range.
    """

    weights: Tensor

    def __init__(self, names: Sequence[str], weight: float = 1.0, target_rate: float | None = None) -> None:
        super().__init__(names, weight)
        if target_rate is not None and not 0 < target_rate < 1:
            raise ConfigurationError(f"AdaptedAttributes: target_rate must lie in (0, 1), not {target_rate}")
        self.target_rate = target_rate
        self.register_buffer("weights", torch.ones(2, len(self.names)))

    def prepare(self, facts: DataFacts) -> None:
        """Take the attributes' positive rates; raises :class:`ConfigurationError` if the facts lack them."""
        if self.target_rate is not None:
            source = positive_rates(facts)
            self.weights.copy_(domain_weights(source, torch.full_like(source, self.target_rate)))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return self.sample_loss(output, batch).mean()

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        return adapted_sample_losses(output["attributes"], batch["attributes"], self.weights)

    def predict(self, output: Output) -> Tensor:
        return cast(Tensor, ((1 + output["attributes"].float()) / 2).clamp(0, 1))

    def logits(self, output: Output) -> Tensor:
        return self.predict(output).clamp(1e-4, 1 - 1e-4).logit()  # no probability is certain


def positive_rates(facts: DataFacts) -> Tensor:
    """How often each attribute occurs in the training data; raises :class:`ConfigurationError` if that is unknown."""
    if facts.positive_rates is None:
        raise ConfigurationError("a balanced loss needs data that counts its attributes, such as CelebADataModule")
    return torch.tensor(facts.positive_rates)


def subgroup_table(name: str, division: Mapping[str, Any]) -> list[str]:
    """The scores of a division into subgroups as lines of text; see :class:`~facelightning.metrics.SubgroupScores`."""
    row = " " * 15 + "{:30} {:>7}   {:24} {}"
    lines = [row.format(f"by {name}", "images", "error %", "balanced accuracy %")]
    for group, scores in division["groups"].items():
        cells = ("{:.2f} [{:.2f}, {:.2f}]".format(*scores[key]) for key in ("error", "balanced_accuracy"))
        lines.append(row.format(group, scores["images"], *cells))
    if gap := division["largest_gap"]:
        (first, second), (high, low) = gap["groups"], gap["balanced_accuracy"]
        interval = "{:.2f} [{:.2f}, {:.2f}]".format(*gap["difference"])
        text = f"largest gap: {gap['attribute']}, {high:.2f} % ({first}) and {low:.2f} % ({second}): {interval}"
        lines.append(" " * 15 + text)
    return lines
