"""Face parsing as an objective."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor
from torchmetrics import Metric

from facelightning.labels import LabelSpace
from facelightning.losses import parsing_loss, parsing_sample_losses
from facelightning.metrics import ParsingScores
from facelightning.objectives.base import Batch, Objective, Output


class Parsing(Objective):
    """A class for each pixel, learned at every scale.

    Args:
        label_space: The classes.
        weight: Weight of its loss in the total loss.
    """

    key, truth = "parsing", "mask"

    def __init__(self, label_space: LabelSpace, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.label_space = label_space

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return parsing_loss(output["parsing"], batch["mask"])

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        return parsing_sample_losses(output["parsing"], batch["mask"])

    def scores(self) -> Metric:
        return ParsingScores(self.label_space)

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(output["parsing"][-1], batch["mask"])

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        values = {key: scores[key] for key in ("mean_iou", "mean_f1", "overall_f1")}
        return values | {f"iou_{name}": iou for name, iou in scores["iou"].items() if iou == iou}  # NaN: absent

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        return [
            f"  parsing      mean IoU {scores['mean_iou']:.2f} %   mean F1 (foreground) {scores['mean_f1']:.2f} %   "
            f"overall F1 (parts) {scores['overall_f1']:.2f} %",
            "  IoU          " + "   ".join(f"{name} {iou:.2f}" for name, iou in scores["iou"].items()),
        ]

    def predict(self, output: Output) -> Tensor:
        return cast(Tensor, output["parsing"][-1].max(dim=1).indices)
