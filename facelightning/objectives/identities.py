"""Identities as an objective: it pre-trains features, which are scored on identities that were not trained."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from facelightning.losses import similarity_loss, softmax_loss, softmax_sample_losses
from facelightning.objectives.base import Batch, Objective, Output, check_weight
from facelightning.retrieval import RetrievalScores


class Identities(Objective):
    """Features that tell identities apart (Liu et al., ICCV 2015, §4: softmax and similarity losses).

    The softmax has a class for each identity of the training data. An image of any other adds nothing to the loss of a
    batch. The loss of an evaluated set is the mean of the softmax losses, 0 for an identity without a class, and the
    similarity loss of the whole set: where no identity was trained, as in CelebA's val and test, the latter alone.

    Args:
        identities: Their numbers in the training data, ascending.
        num_features: D.
        similarity_weight: Weight of the similarity loss; that of the softmax is 1.
        weight: Weight of the sum in the total loss.

    Raises:
        ConfigurationError: If a weight is negative or not finite.

    Example:
        >>> objective = Identities((3, 12, 40), num_features=2)
        >>> objective.classes(torch.tensor([40, 3, 5]))  # 5 is not among them
        tensor([ 2,  0, -1])
    """

    key, truth = "identity", "identity"
    identities: Tensor

    def __init__(
        self, identities: Sequence[int], num_features: int, similarity_weight: float = 0.001, weight: float = 1.0
    ) -> None:
        super().__init__(weight)
        self.num_features, self.similarity_weight = num_features, check_weight(similarity_weight)
        self.register_buffer("identities", torch.tensor(identities, dtype=torch.int64))

    def classes(self, identities: Tensor) -> Tensor:
        """The class of each identity, ``(B,)``; -1 for one without."""
        found = identities.unsqueeze(1) == self.identities  # (B, I)
        return found.byte().argmax(dim=1).where(found.any(dim=1), -1)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        classes = self.classes(batch["identity"])
        similarity = similarity_loss(output["features"], classes)
        return softmax_loss(output["identity"], classes) + self.similarity_weight * similarity

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        """Of the softmax alone: a sample has no other to be compared with."""
        return softmax_sample_losses(output["identity"], self.classes(batch["identity"]))

    def set_loss(self, mean: float, scores: Mapping[str, Any]) -> float:
        """Also the similarity loss, of all pairs of the set."""
        return mean + self.similarity_weight * cast(float, scores["distance"])

    def scores(self) -> Metric:
        return RetrievalScores()

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(output["features"], batch["identity"])

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        return {key: scores[key] for key in ("rank_1", "distance")}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        return [
            f"  identity     rank-1 retrieval {scores['rank_1']:.2f} % of {scores['images']} images   "
            f"mean squared distance of an identity's images {scores['distance']:.2f}"
        ]

    def predict(self, output: Output) -> Tensor:
        """The features: they are what new faces are compared by."""
        return cast(Tensor, output["features"].float())

    @property
    def columns(self) -> tuple[str, ...]:
        """The features, by number."""
        return tuple(f"feature_{number}" for number in range(self.num_features))
