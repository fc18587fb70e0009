"""Attributes learned by distances: a face's own cluster lies nearer than others, and its class nearer than the other.

LMLE of Huang, Li, Loy, Tang, "Learning Deep Representation for Imbalanced Classification", CVPR 2016.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torchmetrics.utilities.distributed import gather_all_tensors

from facelightning.errors import ConfigurationError
from facelightning.objectives.attributes import Attributes
from facelightning.objectives.base import Batch, Output


def quintuplet_loss(embeddings: Tensor, targets: Tensor, clusters: Tensor, margins: Sequence[float]) -> Tensor:
    """The triple-header hinge loss of LMLE, over the quintuplets of a batch.

    Each image is an anchor. With D the squared distances to it, its quintuplet are itself and

    - p+: the farthest image of its own cluster;
    - p-: the nearest of its class, but of another cluster;
    - p--: the farthest of its class and of another cluster;
    - n: the nearest of the other class;

    and its loss is [g₁ + D(p+) - D(p-)]₊ + [g₂ + D(p-) - D(p--)]₊ + [g₃ + D(p--) - D(n)]₊, without the terms for
    which the batch has no images; where it has one cluster of the class only, the last is [g₃ + D(p+) - D(n)]₊. Both
    classes of an attribute weigh the same, however many anchors they have: the paper draws as many of each, which
    cannot be had for many attributes at once. It searches quintuplets in the whole training data.

    Args:
        embeddings: Of each attribute.
        targets: 0, 1, or NaN where the label is unknown; such an image belongs to no quintuplet of the attribute.
        clusters: The cluster of each image within its class.
        margins: g₁, g₂, g₃.

    Shape:
        - embeddings: ``(B, A, D)``; the arithmetic is in float32 at least.
        - targets: ``(B, A)``.
        - clusters: ``(B, A)``, int64.
        - return: ``()``; 0 with a zero gradient where there is no quintuplet.

    Example:
        >>> places = torch.tensor([0.0, 1.0, 3.0, 5.0]).reshape(4, 1, 1)
        >>> targets = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
        >>> quintuplet_loss(places, targets, torch.tensor([[0], [0], [1], [0]]), (0.0, 0.0, 0.0))
        tensor(1.6667)
    """
    vectors = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)).transpose(0, 1)  # (A, B, D)
    truth, cluster = targets.T, clusters.T
    known = ~truth.isnan()
    squares = vectors.square().sum(dim=2)
    with torch.autocast(vectors.device.type, enabled=False):  # a difference of squares needs all digits
        distances = squares.unsqueeze(2) + squares.unsqueeze(1) - 2 * vectors @ vectors.transpose(1, 2)  # (A, B, B)
    alike = truth.unsqueeze(2) == truth.unsqueeze(1)
    together = alike & (cluster.unsqueeze(2) == cluster.unsqueeze(1))
    together &= ~torch.eye(truth.shape[1], dtype=torch.bool, device=truth.device)
    apart = alike & (cluster.unsqueeze(2) != cluster.unsqueeze(1))
    other = known.unsqueeze(2) & known.unsqueeze(1) & ~alike

    own, far = (distances.masked_fill(~those, -torch.inf).amax(dim=2) for those in (together, apart))
    near, foreign = (distances.masked_fill(~those, torch.inf).amin(dim=2) for those in (apart, other))
    has_own, has_apart, has_other = (those.any(dim=2) for those in (together, apart, other))
    same = torch.where(has_apart, far, own)
    terms = (
        (margins[0] + own - near, has_own & has_apart),
        (margins[1] + near - far, has_apart),
        (margins[2] + same - foreign, (has_own | has_apart) & has_other),
    )
    losses = sum((torch.where(there, value, 0).relu() for value, there in terms), torch.zeros_like(own))  # (A, B)
    counted = torch.stack([there for _, there in terms]).any(dim=0)

    means, present = [], []
    for value in (0, 1):
        anchors = counted & (truth == value)
        means.append((losses * anchors).sum(dim=1) / anchors.sum(dim=1).clamp(min=1))
        present.append(anchors.any(dim=1))
    return torch.stack(means).sum() / torch.stack(present).sum().clamp(min=1)


class QuintupletAttributes(Attributes):
    """Attributes of a network with a :class:`~facelightning.models.heads.ClusterHead`, learned by quintuplets (LMLE).

    See :func:`quintuplet_loss`. Between rounds of 5,000 steps the paper clusters all training images anew, by k-means.
    Here centres follow the training step by step: an image belongs to the nearest centre of its class, and a centre is
    the mean of its images, among about the last ``memory`` images of the training. A cluster of less than half an image
    is empty, and begins anew at the next image of its class that comes. Images of all processes count, so that centres
    are the same everywhere.

    An evaluated set has the cross-entropy of the logits as its loss, because a quintuplet needs other images.

    Args:
        names: The attributes, in the order of the columns.
        weight: Weight of its loss in the total loss.
        margins: g₁, g₂, g₃ between squared distances of vectors of length 1; ours.
        memory: Images after which a centre has forgotten 63 % of what it was; ours.

    Raises:
        ConfigurationError: If a number is out of its range; when a task is built, if its head is another.
    """

    def __init__(
        self,
        names: Sequence[str],
        weight: float = 1.0,
        margins: tuple[float, float, float] = (0.1, 0.1, 0.2),
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
        loss = quintuplet_loss(embeddings, targets, nearest(output, targets), self.margins)
        with torch.autocast(embeddings.device.type, enabled=False):  # small moves of a centre would be lost
            self._follow(embeddings.detach(), targets, output)
        return loss

    @torch.no_grad()
    def _follow(self, embeddings: Tensor, targets: Tensor, output: Output) -> None:
        """Move the centres to a batch."""
        if distributed.is_available() and distributed.is_initialized():
            parts = gather_all_tensors(torch.cat([embeddings, targets.unsqueeze(2)], dim=2))
            places = [len(parts) * torch.arange(len(part)) + rank for rank, part in enumerate(parts)]
            both = torch.cat(parts)[torch.cat(places).argsort()]  # the images in order, as one process has them
            embeddings, targets = both[..., :-1], both[..., -1]
        embeddings = embeddings.to(output["centres"].dtype)
        targets = targets.where(embeddings.isfinite().all(dim=2), torch.nan)  # an error names the image of others
        embeddings = embeddings.nan_to_num(0, 0, 0)
        centres, sizes = output["centres"], output["sizes"]
        kinds = torch.stack([targets == 0, targets == 1], dim=2)  # (B, A, 2)

        sizes *= max(0.0, 1 - len(targets) / self.memory)
        sizes[sizes < 0.5] = 0
        empty = sizes == 0
        # the first images of a class go to its empty clusters, one each
        order, slot = kinds.cumsum(dim=0).unsqueeze(3), empty.cumsum(dim=2).unsqueeze(0)  # each from 1 on
        starts = (kinds.unsqueeze(3) & empty & (order == slot)).to(embeddings.dtype)  # (B, A, 2, K)
        centres[empty] = torch.einsum("bask,bad->askd", starts, embeddings)[empty]
        begun = empty & starts.any(dim=0)

        away = torch.cdist(embeddings.transpose(0, 1).unsqueeze(1), centres).permute(2, 0, 1, 3)  # (B, A, 2, K)
        closest = away.masked_fill((sizes == 0) & ~begun, torch.inf).argmin(dim=3, keepdim=True)
        mine = torch.zeros_like(away).scatter_(3, closest, 1.0) * kinds.unsqueeze(3)
        number = mine.sum(dim=0)
        total = sizes + number
        sums = sizes.unsqueeze(3) * centres + torch.einsum("bask,bad->askd", mine, embeddings)
        centres.copy_(torch.where((total > 0).unsqueeze(3), sums / total.clamp(min=1e-9).unsqueeze(3), 0))
        sizes.copy_(total)


def nearest(output: Output, targets: Tensor) -> Tensor:
    """The nearest cluster of each image's own class, ``(B, A)``, int64; any where its class is unknown."""
    distances: Tensor = output["distances"].detach()
    kinds = targets.nan_to_num(0).long()[..., None, None].expand(-1, -1, 1, distances.shape[3])
    return distances.gather(2, kinds).squeeze(2).argmin(dim=2)
