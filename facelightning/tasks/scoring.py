"""The losses and scores of an evaluation."""

from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from torchmetrics import MeanMetric, Metric

from facelightning.objectives import Batch, Objective, Output


class Scoring(nn.Module):
    """The losses and scores of one evaluation: exact on any number of processes, whatever the batches.

    Args:
        objectives: What is scored.
    """

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.objectives = dict(objectives)
        # modules, so that they move to the device with the task; used as the metrics that they are
        scores = {key: objective.scores() for key, objective in objectives.items()}
        self.scores = cast(dict[str, Metric], nn.ModuleDict(scores))
        self.losses = cast(dict[str, Metric], nn.ModuleDict({key: MeanMetric() for key in objectives}))

    def update(self, output: Output, batch: Batch) -> None:
        """Count one batch: what is both predicted and known."""
        for key, objective in self.objectives.items():
            if objective.is_known(output, batch):
                self.losses[key].update(objective.sample_loss(output, batch))
                objective.count(self.scores[key], output, batch)

    def compute(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Mean losses and scores of each objective that was counted; then start afresh."""
        counted = [key for key, score in self.scores.items() if score.update_called]
        losses = {key: float(self.losses[key].compute()) for key in counted}
        scores = {key: self.scores[key].compute() for key in counted}
        self.reset()
        return losses, scores

    def reset(self) -> None:
        """Start afresh."""
        for metric in (*self.losses.values(), *self.scores.values()):
            metric.reset()
