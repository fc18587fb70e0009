"""Identities as an objective: it pre-trains features, which are scored on identities that were not trained."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, distributed
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from facelightning.errors import ConfigurationError
from facelightning.losses import similarity_loss, softmax_loss, softmax_sample_losses
from facelightning.metrics.retrieval import RetrievalScores
from facelightning.models.blocks import Exact
from facelightning.objectives.base import Batch, Objective, Output, check_weight


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
        return {key: scores[key] for key in ("rank_1", "true_accepts", "distance")}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        return [
            f"  identity     rank-1 retrieval {scores['rank_1']:.2f} % of {scores['images']} images   "
            f"mean squared distance of an identity's images {scores['distance']:.2f}",
            f"               verification {scores['true_accepts']:.2f} % true accepts at 1 % false accepts",
        ]

    def predict(self, output: Output) -> Tensor:
        """The features: they are what new faces are compared by."""
        return cast(Tensor, output["features"].float())

    @property
    def columns(self) -> tuple[str, ...]:
        """The features, by number."""
        return tuple(f"feature_{number}" for number in range(self.num_features))


class CentredIdentities(Exact, Identities):
    """Features that lie near the centre of their identity: softmax and center loss (Wang, Su, Zhao, §II-A).

    Center loss is that of Wen, Zhang, Li, Qiao, "A Discriminative Feature Learning Approach for Deep Face Recognition",
    ECCV 2016: ½ ‖f_i - c_i‖², where c_i is the centre of the identity of image i. Both losses are means over the images
    of a batch whose identity was trained; the paper adds both, which gives them the same weights. Its weight and the
    rate are those of Wen et al., because Wang et al. name none.

    Centres begin at 0 (ours) and have no gradient. After each training batch, whose loss is by the old centres, those
    of its identities move by their own rate α: c_j ← c_j - α Σ (c_j - f_i) / (1 + n_j), where the sum is over the n_j
    images of identity j. These are the images of all processes, so that centres are the same everywhere.

    Args:
        identities: Their numbers in the training data, ascending.
        num_features: D.
        center_weight: Weight of the center loss; that of the softmax is 1.
        rate: α, in [0, 1].
        weight: Weight of the sum in the total loss.

    Raises:
        ConfigurationError: If a number is out of its range.

    Example:
        >>> objective = CentredIdentities((3, 12), num_features=2, center_weight=1.0)
        >>> output = {"identity": torch.zeros(2, 2), "features": torch.tensor([[3.0, 4.0], [3.0, 0.0]])}
        >>> objective.loss(output, {"identity": torch.tensor([12, 12])})  # log 2 + (25 + 9) / 4
        tensor(9.1931)
        >>> objective.centres  # the old ones, 0, and half of (6, 4) / (1 + 2)
        tensor([[0.0000, 0.0000],
                [1.0000, 0.6667]])
    """

    centres: Tensor

    def __init__(
        self,
        identities: Sequence[int],
        num_features: int,
        center_weight: float = 0.003,
        rate: float = 0.5,
        weight: float = 1.0,
    ) -> None:
        super().__init__(identities, num_features, 0.0, weight)
        if not 0 <= rate <= 1:
            raise ConfigurationError(f"CentredIdentities: rate {rate} must lie in [0, 1]")
        self.center_weight, self.rate = check_weight(center_weight), rate
        self.register_buffer("centres", torch.zeros(len(self.identities), num_features))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        classes = self.classes(batch["identity"])
        center = self._center_losses(output["features"], classes).sum() / (classes >= 0).sum().clamp(min=1)
        self._move(output["features"].detach(), classes)
        return softmax_loss(output["identity"], classes) + self.center_weight * center

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        """Both losses; 0 for an identity that was not trained."""
        classes = self.classes(batch["identity"])
        center = self._center_losses(output["features"], classes)
        return softmax_sample_losses(output["identity"], classes) + self.center_weight * center

    def set_loss(self, mean: float, scores: Mapping[str, Any]) -> float:
        """The mean alone."""
        return mean

    def _center_losses(self, features: Tensor, classes: Tensor) -> Tensor:
        """½ ‖f_i - c_i‖² of each image, ``(B,)``; 0 where there is no centre."""
        known = (classes >= 0).unsqueeze(1)
        # both before the difference: 0 x NaN would be NaN
        away = features.to(self.centres.dtype).where(known, 0) - self.centres[classes.clamp(min=0)].where(known, 0)
        return away.square().sum(dim=1) / 2

    @torch.no_grad()
    def _move(self, features: Tensor, classes: Tensor) -> None:
        if distributed.is_available() and distributed.is_initialized():
            both = torch.cat([features.float(), classes.unsqueeze(1)], dim=1)  # exact for 2^24 classes
            gathered = torch.cat(gather_all_tensors(both))
            features, classes = gathered[:, :-1], gathered[:, -1].long()
        features = features.to(self.centres.dtype)
        known = (classes >= 0) & features.isfinite().all(dim=1)  # an error names the image of others
        # only rows of the batch's identities are touched: there may be 100,000 others
        rows, which, counts = torch.unique(classes[known], return_inverse=True, return_counts=True)
        sums = torch.zeros_like(self.centres[rows]).index_add_(0, which, features[known])
        old, number = self.centres[rows], counts.unsqueeze(1)
        self.centres[rows] = old - self.rate * (number * old - sums) / (1 + number)
