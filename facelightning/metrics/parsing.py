"""Scores of face parsing."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

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
