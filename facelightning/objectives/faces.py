"""Where faces are, as an objective that is scored and predicted; what finds them has learned something else."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from facelightning.boxes import overlap
from facelightning.metrics import LocalizationScores
from facelightning.objectives.base import Batch, Objective, Output


class Faces(Objective):
    """A box around each face, and what describes it.

    Args:
        names: The attributes of each face; none if it is only found.
    """

    key, truth = "faces", "box"

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.names = tuple(names)

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        """How much of the true box the best found box misses: 1 - overlap; 0 where the true box is unknown."""
        return (1 - _best_overlaps(output, batch)).nan_to_num(0.0).float().to(batch["box"].device)

    def scores(self) -> Metric:
        return LocalizationScores()

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(_best_overlaps(output, batch), torch.tensor([len(n) for n in output["faces"].by_image()]))

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        return {key: scores[key] for key in ("recall_50", "recall_70", "mean_overlap")}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        return [
            f"  faces        recall at overlap 0.5 {scores['recall_50']:.2f} %   at 0.7 {scores['recall_70']:.2f} %   "
            f"no face found in {scores['no_face']:.2f} % of the images"
        ]

    def predict(self, output: Output) -> list[Tensor]:  # type: ignore[override]  # a row for each face, not each image
        """For each image, a row for each face: its columns."""
        faces = output["faces"]
        rows = torch.from_numpy(np.column_stack([faces.boxes, faces.responses])).float()
        if self.names:
            rows = torch.cat([rows, output["face_attributes"].float().sigmoid().cpu()], dim=1)
        return [rows[found] for found in faces.by_image()]

    @property
    def columns(self) -> tuple[str, ...]:
        """The box, the response, and the attributes."""
        return ("x0", "y0", "x1", "y1", "response", *self.names)


def _best_overlaps(output: Output, batch: Batch) -> Tensor:
    """The largest overlap of a found box with an image's true one, ``(B,)``, float64; NaN where that is unknown."""
    true, faces = batch["box"].double().cpu().numpy(), output["faces"]
    pairs = zip(faces.by_image(), true, strict=True)
    best = np.array([overlap(faces.boxes[found], box[None]).max(initial=0) for found, box in pairs])
    best[np.isnan(true).any(axis=1)] = np.nan
    return torch.from_numpy(best)
