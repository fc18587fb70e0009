"""The age of a person as an objective."""

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from facelightning.objectives.base import Batch, Objective, Output

MIDDLE, UNIT = 40.0, 20.0
"""A network that says y means ``MIDDLE + UNIT * y`` years, so that what it has to say is small."""


class Ages(Objective):
    """The age in years, by Euclidean regression (Wang, Su, Zhao, §II-A).

    The loss is half the squared difference between the network's output and (age - 40) / 20, the mean over the images
    of known age, as Caffe's Euclidean loss is. The paper gives no scale; 40 and 20 years are ours.

    Example:
        >>> objective, output = Ages(), {"age": torch.tensor([[0.0], [1.0]])}
        >>> objective.predict(output)
        tensor([[40.],
                [60.]])
        >>> objective.loss(output, {"age": torch.tensor([50.0, float("nan")])})  # (1/2)² / 2
        tensor(0.1250)
    """

    key, truth = "age", "age"

    def loss(self, output: Output, batch: Batch) -> Tensor:
        known: Tensor = ~batch["age"].isnan()
        return self.sample_loss(output, batch).sum() / known.sum().clamp(min=1)

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        """The loss of each image, ``(B,)``; 0 where the age is unknown."""
        ages, said = cast(Tensor, batch["age"]), cast(Tensor, output["age"]).squeeze(1)
        known = ~ages.isnan()
        said = said.to(torch.promote_types(said.dtype, torch.float32)).where(known, 0)  # 0 x NaN would be NaN
        return (said - ((ages - MIDDLE) / UNIT).where(known, 0)).square() / 2

    def scores(self) -> Metric:
        return AgeScores()

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(self.predict(output).squeeze(1), batch["age"])

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        return {key: scores[key] for key in ("age_error", "within_5")}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        return [
            f"  age          wrong by {scores['age_error']:.2f} years on average   by 5 years or less in "
            f"{scores['within_5']:.2f} % of {scores['images']} images"
        ]

    def predict(self, output: Output) -> Tensor:
        """Years, ``(B, 1)``."""
        return MIDDLE + UNIT * cast(Tensor, output["age"]).float()

    @property
    def columns(self) -> tuple[str, ...]:
        """The age."""
        return ("age",)


class AgeScores(Metric):
    """How far predicted ages are from the true ones; images of unknown age do not count.

    - ``age_error``: mean absolute error in years; NaN if no age is known.
    - ``within_5``: share of the images whose error is at most five years, in percent.
    - ``images``: how many count.

    Example:
        >>> scores = AgeScores()
        >>> scores.update(torch.tensor([30.0, 47.0, 20.0]), torch.tensor([32.0, 40.0, float("nan")]))
        >>> scores.compute()
        {'age_error': 4.5, 'within_5': 50.0, 'images': 2}
    """

    full_state_update = False
    errors: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("errors", [], dist_reduce_fx="cat")

    @property
    def dtype(self) -> torch.dtype:
        """float32, even inside a module of lower precision: all processes must exchange the same type."""
        return torch.float32

    def update(self, predicted: Tensor, ages: Tensor) -> None:
        """Keep the errors of a batch; both ``(B,)``, in years, a true age NaN where unknown."""
        errors = (predicted.detach().float() - ages.float()).abs()
        self.errors.append(errors[~ages.isnan()])

    def compute(self) -> dict[str, Any]:
        """``age_error`` in years, ``within_5`` in percent, ``images``."""
        errors = dim_zero_cat(self.errors).tolist() if len(self.errors) else []
        count = len(errors) or math.nan
        return {
            "age_error": math.fsum(errors) / count,  # whose sum does not depend on the order
            "within_5": 100 * sum(error <= 5 for error in errors) / count,
            "images": len(errors),
        }
