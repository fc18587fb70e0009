"""Scores of categories."""

import torch
from torch import Tensor
from torchmetrics import Metric


class CategoryScores(Metric):
    """How often the true category has the largest score, or one of the five largest, as ImageNet counts.

    Of equal scores, that of the earlier category comes first.

    - ``top_1``, ``top_5``: percent of the images.

    Shape:
        - logits: ``(B, K)``, of any floating type.
        - categories: ``(B,)``, int64, below K.

    Example:
        >>> scores = CategoryScores()
        >>> scores.update(torch.tensor([[2.0, -1.0], [0.5, 0.1]]), torch.tensor([0, 1]))
        >>> scores.compute()
        {'top_1': 50.0, 'top_5': 100.0}
    """

    full_state_update = False
    hits: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, categories: Tensor) -> None:
        """Count the images of a batch."""
        truth = categories.unsqueeze(1)
        true, earlier = logits.gather(1, truth), torch.arange(logits.shape[1], device=logits.device) < truth
        before = ((logits > true) | ((logits == true) & earlier)).sum(dim=1)
        self.hits += torch.stack([(before < rank).sum() for rank in (1, 5)])
        self.total += len(before)

    def compute(self) -> dict[str, float]:
        """``top_1``, ``top_5``, in percent."""
        return dict(zip(("top_1", "top_5"), (100 * self.hits.double() / self.total).tolist(), strict=True))
