"""Attributes learned by distances: a face's own cluster lies nearer than others, and its class nearer than the other.

LMLE of Huang, Li, Loy, Tang, "Learning Deep Representation for Imbalanced Classification", CVPR 2016.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torchmetrics.utilities.distributed import gather_all_tensors

from facelightning.errors import ConfigurationError
from facelightning.models.heads import LEAST, means, squared_distances
from facelightning.objectives.attributes import Attributes
from facelightning.objectives.base import Batch, Output


def quintuplet_loss(
    embeddings: Tensor, targets: Tensor, centres: Tensor, sizes: Tensor, margins: Sequence[float]
) -> Tensor:
    """The triple-header hinge loss of LMLE, of images and clusters.

    Each image is an anchor. With D the squared distances to it, the others of its quintuplet are

    - p+: its cluster, the nearest of its class;
    - p-: the next nearest of its class;
    - p--: the farthest of its class;
    - n: the nearest of the other class;

    and its loss is [g₁ + D(p+) - D(p-)]₊ + [g₂ + D(p-) - D(p--)]₊ + [g₃ + D(p--) - D(n)]₊. Where its class has two
    clusters, p- is p--; where it has one, only the last term is left, with p+ in place of p--; where the other class
    has none, only the first two.

    The four are centres of clusters. The paper's are images: the farthest of its cluster, the nearest and the farthest
    of its class outside it, and the nearest of the other class. A batch has few images of a rare attribute, and from
    its extremes networks here learned next to nothing.

    Both classes of an attribute weigh the same, however many images they have: the paper draws as many of each, which
    cannot be had for many attributes at once.

    Args:
        embeddings: Of each attribute, vectors of length 1.
        targets: 0, 1, or NaN where the label is unknown; such an entry adds neither loss nor gradient.
        centres: Of the clusters of both classes.
        sizes: Of the clusters; one of less than half an image is empty.
        margins: g₁, g₂, g₃.

    Shape:
        - embeddings: ``(B, A, D)``.
        - targets: ``(B, A)``.
        - centres: ``(A, 2, K, D)``; those without the attribute first.
        - sizes: ``(A, 2, K)``.
        - return: ``()``; 0 with a zero gradient where there is no other cluster.

    Example:
        >>> centres = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -0.5]]).reshape(1, 2, 2, 2)
        >>> loss = quintuplet_loss(
        ...     torch.tensor([[[0.6, 0.8]]]), torch.tensor([[1.0]]), centres, torch.ones(1, 2, 2), (0.0, 0.0, 0.0)
        ... )
        >>> loss  # to the farther one of its own class 1.25 + 0.8, to the nearer one of the other 2 - 1.2
        tensor(1.2500)
    """
    distances = squared_distances(embeddings, centres)
    kinds = targets.nan_to_num(0).long()[..., None, None].expand(-1, -1, 1, distances.shape[3])
    there = (sizes >= LEAST).expand(distances.shape)
    (own, own_there), (other, other_there) = (
        tuple(each.gather(2, which).squeeze(2) for each in (distances, there)) for which in (kinds, 1 - kinds)
    )
    mine = own.masked_fill(~own_there, torch.inf).argmin(dim=2, keepdim=True)
    apart = own_there.scatter(2, mine, False)
    nearest = own.gather(2, mine).squeeze(2)
    next_nearest, foreign = (
        each.masked_fill(~those, torch.inf).amin(dim=2) for each, those in ((own, apart), (other, other_there))
    )
    farthest = own.masked_fill(~apart, -torch.inf).amax(dim=2)
    has_own, has_apart, has_other = (those.any(dim=2) for those in (own_there, apart, other_there))
    last = torch.where(has_apart, farthest, nearest)
    terms = (
        (margins[0] + nearest - next_nearest, has_apart),
        (margins[1] + next_nearest - farthest, has_apart),
        (margins[2] + last - foreign, has_own & has_other),
    )
    losses = torch.stack([torch.where(counts, value, 0).relu() for value, counts in terms]).sum(dim=0)  # (B, A)
    counted = torch.stack([counts for _, counts in terms]).any(dim=0)
    anchors = torch.stack([counted & (targets == value) for value in (0, 1)])  # (2, B, A)
    average = (losses * anchors).sum(dim=1) / anchors.sum(dim=1).clamp(min=1)
    return average.sum() / anchors.any(dim=1).sum().clamp(min=1)


class QuintupletAttributes(Attributes):
    """Attributes of a network with a :class:`~facelightning.models.heads.ClusterHead`, learned by quintuplets (LMLE).

    See :func:`quintuplet_loss`. Between rounds of 5,000 steps the paper clusters all training images anew, by k-means.
    Here centres follow the training step by step: an image belongs to the nearest centre of its class, and a centre is
    the mean of its images, among about the last ``memory`` images of the training. A cluster of less than half an image
    is empty, and begins anew at the next image of its class. Images of all processes count, so that centres
    are the same everywhere.

    An evaluated set has the cross-entropy of the logits as its loss.

    Args:
        names: The attributes, in the order of the columns.
        weight: Weight of its loss in the total loss.
        margins: g₁, g₂, g₃ between squared distances of vectors of length 1; ours, chosen on val.
        memory: Images after which a centre has forgotten 63 % of what it was; ours.

    Raises:
        ConfigurationError: If a number is out of its range; when a task is built, if its head is another.

    Example:
        >>> from facelightning.models import AttributeNetwork, ClusterHead
        >>> network, objective = AttributeNetwork(2, width=2, head=ClusterHead), QuintupletAttributes(("Bald", "Male"))
        >>> batch = {"attributes": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}
        >>> objective.loss(network(torch.rand(2, 3, 16, 16)), batch).item()  # there are no clusters yet
        0.0
        >>> network.head.sizes.sum(dim=2)
        tensor([[1., 1.],
                [2., 0.]])
    """

    def __init__(
        self,
        names: Sequence[str],
        weight: float = 1.0,
        margins: Sequence[float] = (0.05, 0.05, 0.5),
        memory: int = 2000,
    ) -> None:
        super().__init__(names, weight)
        if len(margins) != 3 or not all(0 <= margin <= 4 for margin in margins) or memory < 1:
            raise ConfigurationError(
                f"QuintupletAttributes: margins {list(margins)} must be three in 0 to 4, and memory {memory} positive"
            )
        self.margins, self.memory = tuple(margins), memory

    def loss(self, output: Output, batch: Batch) -> Tensor:
        embeddings, targets = output["embeddings"], batch["attributes"]
        centres = means(output["sums"], output["sizes"])
        loss = quintuplet_loss(embeddings, targets, centres, output["sizes"], self.margins)
        with torch.autocast(embeddings.device.type, enabled=False):  # small moves of a centre would be lost
            self._follow(embeddings.detach(), targets, output["sums"], output["sizes"])
        return loss

    @torch.no_grad()
    def _follow(self, embeddings: Tensor, targets: Tensor, sums: Tensor, sizes: Tensor) -> None:
        """Add a batch to the clusters, which forget others."""
        if distributed.is_available() and distributed.is_initialized():
            parts = gather_all_tensors(torch.cat([embeddings, targets.unsqueeze(2)], dim=2))
            places = [len(parts) * torch.arange(len(part)) + rank for rank, part in enumerate(parts)]
            both = torch.cat(parts)[torch.cat(places).argsort()]  # the images in order, as one process has them
            embeddings, targets = both[..., :-1], both[..., -1]
        if len(targets) > self.memory:
            raise ConfigurationError(
                f"QuintupletAttributes: a memory of {self.memory} images is smaller than a batch of {len(targets)}"
            )
        embeddings = embeddings.to(sums.dtype)
        targets = targets.where(embeddings.isfinite().all(dim=2), torch.nan)  # an error names the image of others
        embeddings = embeddings.nan_to_num(0, 0, 0)
        kinds = torch.stack([targets == 0, targets == 1], dim=2)  # (B, A, 2)

        for each in (sums, sizes):
            each *= 1 - len(targets) / self.memory
        empty = sizes < LEAST
        sums[empty], sizes[empty] = 0, 0
        centres = means(sums, sizes)
        # the first images of a class go to its empty clusters, one each
        order, slot = kinds.cumsum(dim=0).unsqueeze(3), empty.cumsum(dim=2).unsqueeze(0)  # each from 1 on
        starts = (kinds.unsqueeze(3) & empty & (order == slot)).to(embeddings.dtype)  # (B, A, 2, K)
        centres += torch.einsum("bask,bad->askd", starts, embeddings)

        away = torch.cdist(embeddings.transpose(0, 1).unsqueeze(1), centres).permute(2, 0, 1, 3)  # (B, A, 2, K)
        # never one that is still empty: then each image has begun a cluster, its nearest
        mine = torch.zeros_like(away).scatter_(3, away.argmin(dim=3, keepdim=True), 1.0) * kinds.unsqueeze(3)
        sums += torch.einsum("bask,bad->askd", mine, embeddings)
        sizes += mine.sum(dim=0)
