"""Scores of features on identities that no network was trained on: are faces of one identity alike, and only they?"""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from facelightning.errors import DivergenceError

GRID = 2**18
"""Steps of a vector's largest number: as whole numbers of them, products of up to 2^17 numbers have exact sums."""

ROWS = 256
"""Images compared with all others at once."""

STEPS = 2**17
"""Steps of a cosine from 0 to 1: two pairs of images that differ by less are alike to verification."""

FALSE_ACCEPTS = 100
"""Of so many pairs of two identities verification may take one for one identity."""


class RetrievalScores(Metric):
    """Retrieval and verification: whether images are more alike within an identity than between identities.

    All images of the set are compared, by the cosine of their features. Retrieval asks whether an image's nearest other
    image is of the same identity. An image without another of its identity does not count, but may be found. If an
    image of another identity is as near as the nearest of its own, that is a miss. Verification takes two images for
    one identity if their cosine reaches a threshold: the lowest at which no more than 1 % of all pairs of two
    identities do.

    Cosines come from features rounded to whole numbers, whose sums are exact: the order of samples and the number of
    processes change no rank. They change ``distance`` by no more than float64 rounds.

    - ``rank_1``: share of the images whose nearest other image is of the same identity, in percent; NaN if none counts.
    - ``images``: how many count.
    - ``true_accepts``: share of all pairs of one identity that reach the threshold, in percent; NaN without a pair of
      one identity, or without one of two.
    - ``distance``: :func:`~facelightning.losses.similarity_loss` of the whole set, the mean squared distance between
      two images of one identity; 0 if there is no pair.

    Shape:
        - features: ``(B, D)``, of any floating type, D at most 2^17; 4 D bytes a sample are kept.
        - identities: ``(B,)``, int64: any numbers.

    Raises:
        ValueError: If there is not one identity for each vector.
        DivergenceError: When computing, if a feature is not finite.

    Example:
        >>> scores = RetrievalScores()
        >>> scores.update(torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 1.0]]), torch.tensor([7, 7, 8]))
        >>> scores.compute()
        {'rank_1': 100.0, 'images': 2, 'true_accepts': 100.0, 'distance': 2.0}
    """

    full_state_update = False
    features: list[Tensor]
    identities: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("identities", [], dist_reduce_fx="cat")

    @property
    def dtype(self) -> torch.dtype:
        """float32, even inside a module of lower precision: all processes must exchange the same type."""
        return torch.float32

    def update(self, features: Tensor, identities: Tensor) -> None:
        """Keep the images of a batch."""
        if features.ndim != 2 or identities.shape != features.shape[:1]:
            raise ValueError(
                f"Features must be (B, D) and identities (B,); found {tuple(features.shape)} and "
                f"{tuple(identities.shape)}."
            )
        # Kept flat, and numbers as the bits of two float32: for a process without samples, torchmetrics gathers an
        # empty one-dimensional tensor of the metric's own type.
        self.features.append(features.detach().float().flatten())
        self.identities.append(identities.detach().long().contiguous().view(torch.float32))

    def compute(self) -> dict[str, Any]:
        """``rank_1`` and ``true_accepts`` in percent, ``images``, ``distance``."""
        if not len(self.features):
            return {"rank_1": math.nan, "images": 0, "true_accepts": math.nan, "distance": 0.0}
        _, identities = torch.unique(dim_zero_cat(self.identities).cpu().view(torch.int64), return_inverse=True)
        features = dim_zero_cat(self.features).cpu().view(len(identities), -1).double()
        if not features.isfinite().all():
            raise DivergenceError(
                "a face's features are not finite: the training has diverged, lower the learning rate"
            )
        counts = identities.bincount()[identities]
        hits, same, other = _compare(features, identities)
        hits = hits[counts > 1]
        return {
            "rank_1": (100 * hits.double().mean()).item(),  # of nothing is NaN
            "images": len(hits),
            "true_accepts": _true_accepts(same, other),
            "distance": _distance(features, identities, counts),
        }


def _compare(features: Tensor, identities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All images with one another.

    Returns:
        Whether the nearest other image is of the same identity, ``(N,)``, False without another of it; and how many
        ordered pairs of one identity, and of two, have each cosine from -1 to 1, ``(2 STEPS + 1,)`` each.
    """
    largest = features.abs().amax(dim=1, keepdim=True)
    whole = (features / largest.where(largest > 0, 1) * GRID).round()
    norms = whole.square().sum(dim=1).sqrt().clamp(min=1)  # 0 for a vector of zeros alone, whose cosines are 0
    found, pairs = [], torch.zeros(2, 2 * STEPS + 1, dtype=torch.int64)
    for rows in torch.split(torch.arange(len(identities)), ROWS):
        cosines = whole[rows] @ whole.T / norms  # times the row's own norm, which changes no order
        same = identities[rows, None] == identities
        others = cosines.masked_fill(same, -torch.inf).amax(dim=1)
        steps = (cosines / norms[rows, None] * STEPS).round().long().clamp(-STEPS, STEPS) + STEPS
        pairs[1] += _counts(steps.flatten()) - _counts(steps[same])
        same[torch.arange(len(rows)), rows] = False
        pairs[0] += _counts(steps[same])
        found.append(cosines.masked_fill(~same, -torch.inf).amax(dim=1) > others)
    return torch.cat(found), *pairs


def _counts(steps: Tensor) -> Tensor:
    return steps.bincount(minlength=2 * STEPS + 1)


def _true_accepts(same: Tensor, other: Tensor) -> float:
    """The share of pairs of one identity, in percent, at the threshold that :data:`FALSE_ACCEPTS` allows."""
    reached = other.flip(0).cumsum(0).flip(0)  # pairs of two identities with this cosine or a larger one
    accepted = same[FALSE_ACCEPTS * reached <= reached[0]].sum()
    return (100 * accepted.double() / same.sum()).item() if reached[0] else math.nan


def _distance(features: Tensor, identities: Tensor, counts: Tensor) -> float:
    """The mean squared distance of all ordered pairs of one identity, by the distances to its mean."""
    sums = features.new_zeros(int(identities.max()) + 1, features.shape[1]).index_add(0, identities, features)
    from_mean = (features - sums[identities] / counts.unsqueeze(1)).square().sum(dim=1)
    return ((2 * counts * from_mean).sum() / (counts - 1).sum().clamp(min=1)).item()
