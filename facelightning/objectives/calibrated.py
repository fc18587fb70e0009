"""Attributes with calibrated probabilities, scored before and after."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torchmetrics import Metric

from facelightning.metrics import CalibratedScores
from facelightning.objectives.attributes import Attributes, DecidedAttributes
from facelightning.objectives.base import Batch, Output


class CalibratedAttributes(DecidedAttributes):
    """Attributes of a calibrated network, scored beside what they were before.

    Args:
        names: The attributes, in the order of the columns.
        before: The attributes as the network itself predicts them.
    """

    def __init__(self, names: Sequence[str], before: Attributes) -> None:
        super().__init__(names)
        self.before = before

    def scores(self) -> Metric:
        return CalibratedScores(self.names)

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        logits = cast(Tensor, output["uncalibrated"])
        before = self.before.predict({"attributes": logits})
        scores.update(before, self.predict(output), logits, output["decisions"], batch["attributes"])

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        lines = super().report(scores)
        for name, key in (("balanced accuracy", "balanced_accuracy"), ("calibration error", "calibration_error")):
            before, (change, low, high) = scores["before"][key], scores["change"][key]
            lines.append(
                f"{' ' * 15}{name} {before:.2f} % before, {scores[key]:.2f} % after: {change:+.2f} "
                f"[{low:+.2f}, {high:+.2f}]"
            )
        return lines
