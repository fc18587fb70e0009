"""Categories, such as those of objects, as an objective."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torchmetrics import Metric

from facelightning.losses import softmax_loss, softmax_sample_losses
from facelightning.metrics import CategoryScores
from facelightning.objectives.base import Batch, Objective, Output


class Categories(Objective):
    """One of several categories for each image (Liu et al., ICCV 2015, §4: the softmax loss of LNet+).

    Args:
        names: The categories, in the order of their numbers.
        weight: Weight of its loss in the total loss.
    """

    key, truth = "category", "category"

    def __init__(self, names: Sequence[str], weight: float = 1.0) -> None:
        super().__init__(weight)
        self.names = tuple(names)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return softmax_loss(output["category"], batch["category"])

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        return softmax_sample_losses(output["category"], batch["category"])

    def scores(self) -> Metric:
        return CategoryScores()

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(output["category"], batch["category"])

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        return {key: scores[key] for key in ("top_1", "top_5")}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        right = "   ".join(f"top-{rank} {scores[f'top_{rank}']:.2f} %" for rank in (1, 5))
        return [f"  category     {right} of {len(self.names)} categories"]

    def predict(self, output: Output) -> Tensor:
        """The probability of each category."""
        return cast(Tensor, output["category"].float().softmax(dim=1))

    @property
    def columns(self) -> tuple[str, ...]:
        """The categories."""
        return self.names
