"""Scores: of face parsing, of attributes, of boxes around faces, of categories.

Every score is computed once, from integer counts over the whole set: it does not depend on the batches, the order of
samples or the number of processes. All results are Python floats in percent.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from facelightning.errors import ConfigurationError
from facelightning.labels import IGNORE_INDEX, LabelSpace


class ParsingScores(Metric):
    """IoU and F1 per class from one confusion matrix over the whole set.

    Pixels with ground truth 255 do not count. A class in neither ground truth nor prediction scores NaN and is left
    out of the means; one that is only predicted scores 0.

    - ``iou``: class → intersection over union.
    - ``mean_iou``: over all classes, background included (Kalayeh et al., CVPR 2017, Table 4).
    - ``f1``: class → F1.
    - ``mean_f1``: over the classes other than background.
    - ``overall_f1``: F1 of all ``labels.parts`` (eyes, brows, nose, mouth) merged into one (Smith et al., CVPR 2013).

    Args:
        labels: The label space of ground truth and prediction.

    Shape:
        - prediction: class indices ``(B, H, W)``, or logits ``(B, K, H, W)``.
        - mask: ``(B, H, W)``, class indices or 255.

    Raises:
        ValueError: If shapes do not match, or a class index is outside the label space.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> scores = ParsingScores(HELEN7)
        >>> scores.update(torch.tensor([[[0, 1], [2, 2]]]), torch.tensor([[[0, 2], [2, 255]]]))
        >>> scores.compute()["iou"]
        {'background': 100.0, 'hair': 0.0, 'face_skin': 50.0, 'eyes': nan, 'eyebrows': nan, 'mouth': nan, 'nose': nan}
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.labels = labels
        confusion = torch.zeros(len(labels), len(labels), dtype=torch.int64)  # truth x prediction
        self.add_state("confusion", confusion, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Count the pixels of a batch."""
        num_classes = len(self.labels)
        if prediction.ndim == mask.ndim + 1 and prediction.shape[1] == num_classes:
            prediction = prediction.max(1).indices  # several times faster than argmax on a CPU
        if prediction.shape != mask.shape or prediction.is_floating_point():
            raise ValueError(
                f"A prediction for masks {tuple(mask.shape)} must be class indices of the same shape or logits with "
                f"{num_classes} channels ({self.labels.name}); found {tuple(prediction.shape)}, {prediction.dtype}."
            )
        counted = mask != IGNORE_INDEX
        truth, predicted = mask.where(counted, 0).long(), prediction.where(counted, 0).long()
        for name, indices in (("mask", truth), ("prediction", predicted)):
            if indices.numel() and (indices.min() < 0 or indices.max() >= num_classes):
                raise ValueError(
                    f"Class indices of {self.labels.name} lie in 0...{num_classes - 1}; the {name} holds "
                    f"{int(indices.min())}...{int(indices.max())}."
                )
        # Ignored pixels go to a bin of their own: on a CPU much faster than selecting the counted ones.
        pairs = (truth * num_classes + predicted).where(counted, num_classes**2)
        counts = torch.bincount(pairs.flatten(), minlength=num_classes**2 + 1)[:-1]
        self.confusion += counts.reshape(num_classes, num_classes)

    def compute(self) -> dict[str, Any]:
        """``iou``, ``mean_iou``, ``f1``, ``mean_f1``, ``overall_f1``, in percent."""
        confusion = self.confusion.cpu()
        hits, truth, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
        iou = 100 * hits.double() / (truth + predicted - hits)  # 0 / 0 is NaN: a class that does not occur
        f1 = 200 * hits.double() / (truth + predicted)
        parts = list(self.labels.part_indices)
        merged_hits = confusion[parts][:, parts].sum()
        return {
            "iou": dict(zip(self.labels.classes, iou.tolist(), strict=True)),
            "mean_iou": iou.nanmean().item(),
            "f1": dict(zip(self.labels.classes, f1.tolist(), strict=True)),
            "mean_f1": f1[1:].nanmean().item(),
            "overall_f1": (200 * merged_hits.double() / (truth[parts].sum() + predicted[parts].sum())).item(),
        }


class AttributeScores(Metric):
    """Error, average precision and balanced accuracy, per attribute and on average (Kalayeh et al., CVPR 2017, §4.2).

    An entry is predicted positive where its logit is above 0; unknown entries do not count. Average precision is
    undefined without positives, balanced accuracy without positives or without negatives, error without known entries.
    An undefined score is NaN and left out of its mean; ``undefined`` names its attribute.

    - ``error``, ``mean_ap``, ``balanced_accuracy``: means over the attributes.
    - ``per_attribute``: name → ``error``, ``ap``, ``balanced_accuracy``.
    - ``undefined``: names of the attributes that lack a score.

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
        return {
            "error": scores["error"].nanmean().item(),
            "mean_ap": scores["ap"].nanmean().item(),
            "balanced_accuracy": scores["balanced_accuracy"].nanmean().item(),
            "per_attribute": {name: dict(zip(scores, row, strict=True)) for name, row in rows.items()},
            "undefined": [name for name, row in rows.items() if any(map(math.isnan, row))],
        }


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
    ranked, order = scores.sort(descending=True)  # includes unknown entries, which add to no count below
    retrieved = (~targets.isnan()).gather(-1, order).cumsum(-1)
    hits = (targets == 1).gather(-1, order).cumsum(-1)
    is_threshold = torch.ones_like(ranked, dtype=torch.bool)
    is_threshold[..., :-1] = ranked[..., :-1] != ranked[..., 1:]  # the last entry of each run of equal scores
    hits_above = torch.zeros_like(hits)  # at the previous threshold
    hits_above[..., 1:] = hits.where(is_threshold, 0).cummax(-1).values[..., :-1]
    terms = (hits - hits_above) * hits.double() / retrieved.clamp(min=1)
    return terms.where(is_threshold, 0).sum(-1) / (targets == 1).sum(-1)
