"""Attributes whose relations are learned from the labels, and kept by the predictions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, distributed
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from facelightning.errors import ConfigurationError
from facelightning.losses import attribute_loss, attribute_sample_losses, relation_losses
from facelightning.metrics import AttributeScores
from facelightning.objectives.attributes import Attributes
from facelightning.objectives.base import Batch, Output, check_weight


class RelatedAttributes(Attributes):
    """Attributes with the Online Batch Relation Loss (OBRL; Wang, Su, Zhao, §II-C), for any network.

    Each training batch's correlations of labels enter an exponential moving mean R (equation 1). The loss (equation 2)
    draws the probabilities of related attributes together, and those of opposite ones apart. Cross-entropy is added
    over the attributes, as in equation (4): a mean would make the relations' share of the gradient as many times larger
    as there are attributes.

    What the paper leaves open is decided so. R is of labels, not of predictions. Its thresholds, 0.8 and 0.2, are
    symmetric around 1/2, so R is (1 + correlation) / 2: on 9,043 of CelebA's label rows 2 of the 780 pairs attract, and
    2 repel; with the raw correlation, 0 attract and 712 repel. A pair that is constant in a batch, or known to none of
    its images, has no correlation there: its mean stays what it was, and before its first one it has no relation.

    On several processes, R is that of the whole batch: counts are added, not matrices. Both losses are means over the
    whole batch, too, also where the processes have unequal shares of it.

    Args:
        names: The attributes, in the order of the columns.
        weight: Weight of both losses in the total loss.
        relation_weight: α, the weight of the relation loss beside cross-entropy.
        decay: λ, of the moving mean, in (0, 1].
        attract: r_p; pairs whose relation is at least this attract each other.
        repel: r_n; pairs whose relation is at most this repel each other.
        relation: ``"shifted"``, (1 + correlation) / 2; or the raw ``"correlation"``.
        divide_by: The sum over pairs is divided by the number of ``"all"`` pairs as in the paper, A², or by that of the
            ``"selected"`` ones, which makes the loss larger: of CelebA's 1,560 ordered pairs 8 are selected.

    Raises:
        ConfigurationError: If a number is out of its range.

    Example:
        >>> objective = RelatedAttributes(("Male", "Mustache", "Wearing_Lipstick"))
        >>> batch = {"attributes": torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]])}
        >>> _ = objective.loss({"attributes": torch.zeros(4, 3)}, batch)
        >>> objective.relations()
        tensor([[1., 1., 0.],
                [1., 1., 0.],
                [0., 0., 1.]])
    """

    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        names: Sequence[str],
        weight: float = 1.0,
        relation_weight: float = 0.5,
        decay: float = 0.99,
        attract: float = 0.8,
        repel: float = 0.2,
        relation: Literal["shifted", "correlation"] = "shifted",
        divide_by: Literal["all", "selected"] = "all",
    ) -> None:
        super().__init__(names, weight)
        if not (0 < decay <= 1 and -1 <= repel < attract <= 1):
            raise ConfigurationError(
                f"RelatedAttributes: decay {decay} must lie in (0, 1], and repel {repel} below attract {attract}, both "
                "in [-1, 1]"
            )
        self.relation_weight, self.decay = check_weight(relation_weight), decay
        self.attract, self.repel, self.relation, self.divide_by = attract, repel, relation, divide_by
        size = len(self.names)
        self.register_buffer("sums", torch.zeros(size, size))  # R_sb
        self.register_buffer("counts", torch.zeros(size, size))  # S, of each pair

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Keep float32 in a network of lower precision, where a moving sum would stand still."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch is only partly typed
        self.sums, self.counts = self.sums.float(), self.counts.float()
        return self

    def relations(self) -> Tensor:
        """R, ``(A, A)``; NaN for a pair without a correlation so far."""
        return self.sums / self.counts

    def correlations(self) -> Tensor:
        """The mean correlations that R is made of, ``(A, A)``, in [-1, 1]; NaN where R is."""
        return 2 * self.relations() - 1 if self.relation == "shifted" else self.relations()

    def _learn(self, targets: Tensor) -> None:
        found = correlations(_all_processes(pair_sums(targets)))
        if self.relation == "shifted":
            found = (1 + found) / 2
        defined = ~found.isnan()
        # in place: DDP and checkpoints hold these very buffers
        self.sums.copy_(torch.where(defined, self.decay * self.sums + found, self.sums))
        self.counts.copy_(torch.where(defined, self.decay * self.counts + 1, self.counts))

    def _relation_losses(self, logits: Tensor) -> Tensor:
        """α times the relation loss of each image, ``(B,)``."""
        relations = self.relations()
        attract, repel = relations >= self.attract, relations <= self.repel  # NaN is neither
        losses = relation_losses(logits.sigmoid(), attract, repel)
        if self.divide_by == "selected":
            off = ~torch.eye(len(self.names), dtype=torch.bool, device=logits.device)
            losses = losses * len(self.names) ** 2 / ((attract | repel) & off).sum().clamp(min=1)
        return self.relation_weight * losses

    def loss(self, output: Output, batch: Batch) -> Tensor:
        logits, targets = _exact(output["attributes"]), batch["attributes"]
        with torch.no_grad():
            self._learn(targets)
            known = (~targets.isnan()).sum()
            here = torch.stack([torch.full_like(known, len(logits)), known, torch.ones_like(known)])
            images, entries, processes = _all_processes(here)
        # shares of the whole batch's means, times the processes, over which DDP averages
        cross_entropy = attribute_loss(logits, targets) * known * processes / entries.clamp(min=1)
        relation = self._relation_losses(logits).sum() * processes / images
        loss: Tensor = len(self.names) * cross_entropy + relation
        return loss

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        logits = _exact(output["attributes"])
        cross_entropy = len(self.names) * attribute_sample_losses(logits, batch["attributes"])
        return cross_entropy + self._relation_losses(logits)

    def gradient_share(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The squared norm of each loss's gradient at an image's logits, ``(B, 2)``: cross-entropy's and relations'."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf, truth = logits.detach().clone().float().requires_grad_(), targets.clone()  # no longer of inference
            parts = (len(self.names) * attribute_sample_losses(leaf, truth), self._relation_losses(leaf))
            gradients = [torch.autograd.grad(part.sum(), leaf)[0] for part in parts]
        return torch.stack([gradient.square().sum(dim=1) for gradient in gradients], dim=1)

    def scores(self) -> Metric:
        return RelatedScores(self.names)

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        logits, targets = output["attributes"], batch["attributes"]
        scores.update(logits, targets, self.gradient_share(logits, targets))

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        return super().scalars(scores) | {"relation_share": scores["relation_share"]}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        share = f"relations: {scores['relation_share']:.3g} % of cross-entropy's gradient at the logits"
        return [*super().report(scores), " " * 15 + share]


class RelatedScores(AttributeScores):
    """:class:`~facelightning.metrics.AttributeScores`, and ``relation_share``.

    The latter is the norm of the relation loss's gradient at the logits of all images, α included, in percent of that
    of cross-entropy, to three digits.
    """

    squares: list[Tensor]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.add_state("squares", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, targets: Tensor, squares: Tensor) -> None:  # type: ignore[override]  # one more
        """Add a batch, with the squared norms ``(B, 2)`` of :meth:`RelatedAttributes.gradient_share`."""
        super().update(logits, targets)
        # as the bits of two float32, for a process without samples: see AttributeScores
        self.squares.append(squares.double().flatten().view(torch.float32))

    def compute(self) -> dict[str, Any]:
        """The scores of the attributes, and ``relation_share``."""
        flat = dim_zero_cat(self.squares) if len(self.squares) else torch.empty(0)
        columns = flat.cpu().view(torch.float64).view(-1, 2).T.tolist()
        # exact sums do not depend on the order of the images
        cross_entropy, relation = (math.sqrt(math.fsum(column)) for column in columns)
        share = 100 * relation / cross_entropy if cross_entropy else 0.0
        # more digits would depend on the batches, by which networks round differently
        return {**super().compute(), "relation_share": float(f"{share:.3g}")}


def pair_sums(targets: Tensor) -> Tensor:
    """What the correlations of attributes follow from; the sums of several batches may be added.

    Args:
        targets: ``(B, A)``: 0, 1, or NaN where unknown. An unknown entry leaves out the pairs that it is in.

    Returns:
        ``(4, A, A)``, float32: for each pair (i, j) over the images that know both, their number, the sum of i, that of
        i², and that of i·j. Exact for up to 2²⁴ images.
    """
    known = (~targets.isnan()).float()
    values = targets.float().nan_to_num()
    with torch.autocast(targets.device.type, enabled=False):  # counts in bfloat16 would be rounded from 257 on
        return torch.stack([known.T @ known, values.T @ known, values.square().T @ known, values.T @ values])


def correlations(sums: Tensor) -> Tensor:
    """Pearson's correlation of each pair of attributes.

    Args:
        sums: Of :func:`pair_sums`, ``(4, A, A)``.

    Returns:
        ``(A, A)``, in [-1, 1]; NaN where one of both is constant, or too few images know both.

    Example:
        >>> targets = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
        >>> correlations(pair_sums(targets))
        tensor([[ 1., -1., nan],
                [-1.,  1., nan],
                [nan, nan, nan]])
    """
    number, first, squares, products = sums
    variance = number * squares - first.square()
    scale = (variance * variance.T).sqrt()
    covariance = number * products - first * first.T
    return torch.where(scale > 0, covariance / scale, torch.nan).clamp(-1, 1)


def _exact(logits: Tensor) -> Tensor:
    """Logits in float32 at least, for both losses: in bfloat16, the sum of their gradients would lose the smaller."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _all_processes(values: Tensor) -> Tensor:
    """The sum over all processes; the values themselves if there is only one."""
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values)
    return values
