"""Scores of boxes around faces."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

OVERLAPS = tuple(percent / 100 for percent in range(5, 100, 5))
"""The overlaps of the curve of recall."""


class LocalizationScores(Metric):
    """Recall of the true faces against overlap (Liu et al., ICCV 2015, Figure 7).

    A face is found if a found box of its image overlaps its box (intersection over union) by at least a threshold. In
    an image with several faces the true box is the largest one's. Other found boxes cost nothing.

    - ``recall``: overlap, 0.05 to 0.95 → recall; ``recall_50``, ``recall_70``: at 0.5 and 0.7.
    - ``mean_overlap``: of each true box with the best found one, times 100.
    - ``no_face``: share of the images in which none was found.

    Shape:
        - overlaps: best overlap of each image, ``(B,)`` in [0, 1]; NaN where the true box is unknown, which does not
          count for recall; on the CPU.
        - counts: how many faces were found in each image, ``(B,)``; on the CPU.

    Example:
        >>> scores = LocalizationScores()
        >>> scores.update(torch.tensor([0.6, 0.0]), torch.tensor([2, 0]))
        >>> result = scores.compute()
        >>> result["recall_50"], result["recall_70"], result["no_face"]
        (50.0, 0.0, 50.0)
    """

    full_state_update = False
    found: Tensor
    known: Tensor
    total: Tensor
    images: Tensor
    empty: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("found", torch.zeros(len(OVERLAPS), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("known", "images", "empty"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, overlaps: Tensor, counts: Tensor) -> None:
        """Count the images of a batch."""
        best = overlaps[~overlaps.isnan()].double()
        self.found += (best >= torch.tensor(OVERLAPS, dtype=torch.double)[:, None]).sum(1).to(self.found.device)
        self.known += len(best)
        # whole millionths: their sum does not depend on the order
        self.total += int((best * 1_000_000).round().sum())
        self.images += len(counts)
        self.empty += int((counts == 0).sum())

    def compute(self) -> dict[str, Any]:
        """``recall``, ``recall_50``, ``recall_70``, ``mean_overlap``, ``no_face``, in percent."""
        shares = (100 * self.found.double() / self.known).tolist()
        recall = dict(zip(OVERLAPS, shares, strict=True))
        return {
            "recall": {f"{overlap:.2f}": share for overlap, share in recall.items()},
            "recall_50": recall[0.5],
            "recall_70": recall[0.7],
            "mean_overlap": (self.total.double() / self.known / 10_000).item(),
            "no_face": (100 * self.empty.double() / self.images).item(),
        }
