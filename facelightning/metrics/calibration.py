"""What calibration changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from facelightning.metrics.attributes import AttributeScores
from facelightning.metrics.statistics import (
    balanced_accuracies,
    calibration_errors,
    image_weights,
    interval,
    reliability,
)

STATES = ("before", "after", "logits", "decisions", "targets")


class CalibratedScores(Metric):
    """The results of :class:`~facelightning.metrics.AttributeScores` by fitted decisions, and what calibration changed.

    - all that :class:`~facelightning.metrics.AttributeScores` gives, of the fitted decisions.
    - ``calibration_error``: how far probabilities are from the share of positives, see
      :func:`~facelightning.metrics.statistics.calibration_errors`.
    - ``before``: ``error``, ``balanced_accuracy``, ``calibration_error`` of the network itself.
    - ``change``: ``balanced_accuracy`` and ``calibration_error``: after - before, and the ends of its 95 % interval
      over images, by a paired bootstrap; neither persons nor trainings are resampled.
    - ``reliability``: ``before`` and ``after``: for each bin that has entries, all attributes together, the mean
      probability, the share of positives, and the number of entries.

    Args:
        names: The attributes in the order of the columns; each takes 20 bytes per sample.

    Shape:
        - before, after: probabilities ``(B, A)``.
        - logits, decisions: before and after, positive above 0, ``(B, A)``.
        - targets: ``(B, A)``: 0, 1, or NaN where unknown.

    Example:
        >>> scores = CalibratedScores(["Smiling"])
        >>> sure, even, truth = torch.ones(2, 1), torch.full((2, 1), 0.5), torch.tensor([[1.0], [0.0]])
        >>> scores.update(sure, even, sure, torch.tensor([[1.0], [-1.0]]), truth)
        >>> result = scores.compute()
        >>> result["before"]["calibration_error"], result["calibration_error"]
        (50.0, 0.0)
        >>> result["before"]["balanced_accuracy"], result["balanced_accuracy"]
        (50.0, 100.0)
    """

    full_state_update = False

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in STATES:
            self.add_state(name, [], dist_reduce_fx="cat")

    @property
    def dtype(self) -> torch.dtype:
        """float32, even inside a module of lower precision: all processes must exchange the same type."""
        return torch.float32

    def update(self, before: Tensor, after: Tensor, logits: Tensor, decisions: Tensor, targets: Tensor) -> None:
        """Keep the entries of a batch."""
        for name, values in zip(STATES, (before, after, logits, decisions, targets), strict=True):
            getattr(self, name).append(values.detach().float().flatten())  # flat: see AttributeScores

    def compute(self) -> dict[str, Any]:
        """All scores, in percent."""
        states = (getattr(self, name) for name in STATES)
        flat = (dim_zero_cat(state) if len(state) else torch.empty(0) for state in states)
        before, after, logits, decisions, targets = (each.cpu().view(-1, len(self.names)) for each in flat)
        # resampling depends on the order of the images, which depends on the number of processes
        order = np.lexsort(torch.cat([logits, targets], dim=1).T.numpy())
        before, after, logits, decisions, targets = (
            each[order] for each in (before, after, logits, decisions, targets)
        )
        base, result = (self._scores(each, targets) for each in (logits, decisions))
        weights, truth = image_weights(len(targets)), targets.double().numpy()
        errors = [calibration_errors(each.double().numpy(), truth, weights) for each in (before, after)]
        accuracies = [balanced_accuracies(each.numpy() > 0, truth, weights) for each in (logits, decisions)]
        changes = {"balanced_accuracy": accuracies, "calibration_error": errors}
        return {
            **result,
            "calibration_error": float(errors[1][0]),
            "before": {
                **{key: base[key] for key in ("error", "balanced_accuracy")},
                "calibration_error": float(errors[0][0]),
            },
            "change": {key: interval(second - first) for key, (first, second) in changes.items()},
            "reliability": {
                key: reliability(each.double().numpy(), truth) for key, each in (("before", before), ("after", after))
            },
        }

    def _scores(self, logits: Tensor, targets: Tensor) -> dict[str, Any]:
        scores = AttributeScores(self.names)
        scores.sync_on_compute = False  # what it gets comes from all processes already
        scores.update(logits, targets)
        return scores.compute()
