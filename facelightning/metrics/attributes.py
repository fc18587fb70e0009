"""Scores of attributes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from facelightning.errors import ConfigurationError
from facelightning.labels import CONTRADICTIONS


class AttributeScores(Metric):
    """Error, average precision and balanced accuracy, per attribute and on average (Kalayeh et al., CVPR 2017, §4.2).

    An entry is predicted positive where its logit is above 0; unknown entries do not count. Average precision is
    undefined without positives, balanced accuracy without positives or without negatives, error without known entries.
    An undefined score is NaN and left out of its mean; ``undefined`` names its attribute.

    - ``error``, ``mean_ap``, ``balanced_accuracy``: means over the attributes.
    - ``per_attribute``: name → ``error``, ``ap``, ``balanced_accuracy``.
    - ``undefined``: names of the attributes that lack a score.
    - ``contradictions``: the share of the images of which two attributes are predicted that exclude each other (see
      :data:`~facelightning.labels.CONTRADICTIONS`), and of those of which both are known to be true; left out for
      attributes without such a pair.

    Args:
        names: The attributes in the order of the columns; each takes 8 bytes per sample.

    Shape:
        - logits: ``(B, A)``, of any floating type.
        - targets: ``(B, A)``: 0, 1, or NaN where unknown.

    Raises:
        ValueError: If shapes do not match; when computing, if a target is not 0, 1 or NaN, or a logit is NaN.

    Example:
        >>> scores = AttributeScores(["Smiling", "Bald"])
        >>> scores.update(torch.tensor([[2.0, -1.0], [-1.0, -3.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        >>> result = scores.compute()
        >>> result["error"], result["mean_ap"], result["undefined"]
        (25.0, 100.0, ['Smiling', 'Bald'])
        >>> result["per_attribute"]["Smiling"]
        {'error': 50.0, 'ap': 100.0, 'balanced_accuracy': nan}
    """

    full_state_update = False
    logits: list[Tensor]
    targets: list[Tensor]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    @property
    def dtype(self) -> torch.dtype:
        """float32, even inside a module of lower precision: all processes must exchange the same type."""
        return torch.float32

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Keep the entries of a batch."""
        if logits.shape != targets.shape or logits.ndim != 2 or logits.shape[1] != len(self.names):
            raise ValueError(
                f"Logits and targets must both be (B, {len(self.names)}), one column per attribute; "
                f"found {tuple(logits.shape)} and {tuple(targets.shape)}."
            )
        # Kept flat: for a process without samples, torchmetrics gathers an empty *one*-dimensional tensor.
        self.logits.append(logits.detach().float().flatten())
        self.targets.append(targets.detach().float().flatten())

    def compute(self) -> dict[str, Any]:
        """``error``, ``mean_ap``, ``balanced_accuracy``, ``per_attribute``, ``undefined``; scores in percent."""
        flat = (dim_zero_cat(entries) if len(entries) else torch.empty(0) for entries in (self.logits, self.targets))
        logits, targets = (entries.cpu().view(-1, len(self.names)) for entries in flat)
        true, false, positive = targets == 1, targets == 0, logits > 0
        num_true, num_false, known = true.sum(0), false.sum(0), (true | false).sum(0)  # (A,), as are all below
        hits, rejections = (true & positive).sum(0).double(), (false & ~positive).sum(0).double()
        scores = {
            "error": 100 * ((known - hits - rejections) / known),  # 0 / 0 is NaN: nothing is known
            "ap": 100 * average_precision(logits, targets),
            "balanced_accuracy": 50 * (hits / num_true + rejections / num_false),
        }
        rows = dict(zip(self.names, torch.stack(list(scores.values()), dim=1).tolist(), strict=True))
        pairs = [(self.names.index(a), self.names.index(b)) for a, b in CONTRADICTIONS if {a, b} <= set(self.names)]
        both = {
            key: (each[:, [a for a, _ in pairs]] & each[:, [b for _, b in pairs]]).any(1)
            for key, each in (("predicted", positive), ("labelled", true))
        }
        shares = {key: 100 * each.double().mean().item() for key, each in both.items()}
        return {
            "error": scores["error"].nanmean().item(),
            "mean_ap": scores["ap"].nanmean().item(),
            "balanced_accuracy": scores["balanced_accuracy"].nanmean().item(),
            "per_attribute": {name: dict(zip(scores, row, strict=True)) for name, row in rows.items()},
            "undefined": [name for name, row in rows.items() if any(map(math.isnan, row))],
            **({"contradictions": shares} if pairs else {}),
        }


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """Average precision Σₙ (Rₙ - Rₙ₋₁) Pₙ over the distinct scores as thresholds, without interpolation.

    Equal scores share one threshold, so the order of samples does not matter; scikit-learn's
    ``average_precision_score`` gives the same.

    Args:
        scores: Larger means more likely positive; ``(n,)``, or ``(n, A)`` for A columns at once.
        targets: Of the same shape: 0, 1, or NaN where unknown; unknown entries do not count.

    Returns:
        ``()`` or ``(A,)``, float64 in [0, 1]; NaN for a column without a positive.

    Raises:
        ValueError: If the shapes differ, a target is not 0, 1 or NaN, or a score is NaN.

    Example:
        >>> average_precision(torch.tensor([0.9, 0.8, 0.1]), torch.tensor([1.0, 0.0, 1.0]))
        tensor(0.8333, dtype=torch.float64)
    """
    if scores.shape != targets.shape:
        raise ValueError(f"Scores {tuple(scores.shape)} and targets {tuple(targets.shape)} must have one shape.")
    if not ((targets == 0) | (targets == 1) | targets.isnan()).all():
        raise ValueError("Targets must be 0, 1, or NaN where unknown; convert labels of -1 and 1 first.")
    if scores.isnan().any():
        raise ConfigurationError("A score is NaN and cannot be ranked: training has diverged; lower the learning rate.")
    scores, targets = scores.movedim(0, -1).contiguous(), targets.movedim(0, -1).contiguous()  # (A, n): sorts faster
    ranked, order = _ranked(scores)  # includes unknown entries, which add to no count below
    retrieved = (~targets.isnan()).gather(-1, order).cumsum(-1)
    hits = (targets == 1).gather(-1, order).cumsum(-1)
    is_threshold = torch.ones_like(ranked, dtype=torch.bool)
    is_threshold[..., :-1] = ranked[..., :-1] != ranked[..., 1:]  # the last entry of each run of equal scores
    hits_above = torch.zeros_like(hits)  # at the previous threshold
    hits_above[..., 1:] = hits.where(is_threshold, 0).cummax(-1).values[..., :-1]
    terms = (hits - hits_above) * hits.double() / retrieved.clamp(min=1)
    return terms.where(is_threshold, 0).sum(-1) / (targets == 1).sum(-1)


def _ranked(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Each row from its largest score to its smallest, and their places; equal ones in any order."""
    if scores.device.type != "cpu" or scores.dtype not in (torch.float32, torch.float64):
        return torch.sort(scores, descending=True)
    order = torch.from_numpy(np.argsort(scores.detach().numpy(), axis=-1)).flip(-1)  # four times as fast as torch's
    return scores.gather(-1, order), order
