"""The losses and scores of an evaluation."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from facelightning.errors import DivergenceError
from facelightning.objectives import Batch, Objective, Output


def check_finite(objective: Objective, losses: Tensor, batch: Batch, moment: str) -> None:
    """Refuse losses ``(B,)`` of a batch if one is not finite, and name the first such image.

    Raises:
        DivergenceError: If a loss is not finite.
    """
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    if bad:
        names = batch.get(f"{objective.truth}_name", batch.get("name"))
        image = f"number {bad[0] + 1} of the batch" if names is None else names[bad[0]]
        raise DivergenceError(
            f"the {objective.key} loss is not finite {moment}, at image {image}: the training has diverged, lower the "
            "learning rate"
        )


class Scoring(nn.Module):
    """The losses and scores of one evaluation: exact for any number of processes and any batch size.

    Args:
        objectives: The objectives to score.
    """

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.objectives = dict(objectives)
        # stored as modules, so that they move to the task's device; typed as the metrics that they are
        scores = {key: objective.scores() for key, objective in objectives.items()}
        self.scores = cast(dict[str, Metric], nn.ModuleDict(scores))
        self.losses = cast(dict[str, Metric], nn.ModuleDict({key: MeanMetric() for key in objectives}))

    def update(self, output: Output, batch: Batch, moment: str = "") -> None:
        """Score one batch: the objectives that are both predicted and known; ``moment`` tells the time in an error."""
        for key, objective in self.objectives.items():
            if objective.is_known(output, batch):
                losses = objective.sample_loss(output, batch)
                check_finite(objective, losses, batch, moment)  # the mean would skip them
                self.losses[key].update(losses)
                objective.count(self.scores[key], output, batch)

    def compute(self) -> tuple[dict[str, float], dict[str, Any]]:
        """The loss and the scores of each objective that was scored; resets both."""
        counted = [key for key, score in self.scores.items() if score.update_called]
        scores = {key: self.scores[key].compute() for key in counted}
        losses = {key: self.objectives[key].set_loss(float(self.losses[key].compute()), scores[key]) for key in counted}
        self.reset()
        return losses, scores

    def reset(self) -> None:
        """Reset all losses and scores."""
        for metric in (*self.losses.values(), *self.scores.values()):
            metric.reset()
