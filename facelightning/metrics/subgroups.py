"""Scores of attributes by subgroups of the images, and how far these are apart."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from facelightning.errors import ConfigurationError, quoted
from facelightning.metrics.statistics import balanced_accuracies, image_weights, interval, mean_errors

LEAST = 10
"""Positives and negatives that an attribute must have in both subgroups for their gap to be named."""


class SubgroupScores(Metric):
    """Error and balanced accuracy in subgroups of the images, which attributes of the ground truth tell apart.

    ``Male`` divides the images into those of men and all others, ``Male*Young`` into four subgroups; an image where
    such an attribute is unknown is in none. Attributes that divide are left out of the scores.

    For each division:

    - ``groups``: name of the subgroup → its number of ``images``; ``error`` and ``balanced_accuracy``, means over the
      attributes, with the ends of their 95 % intervals over images, by a bootstrap.
    - ``largest_gap``: of all attributes and pairs of subgroups, the largest difference in balanced accuracy: its
      ``attribute``, ``groups``, their two scores, and the difference with its interval; ``None`` if no attribute has
      ten positives and ten negatives in two subgroups. It is the largest of many, so partly chance.

    Args:
        names: The attributes in the order of the columns; each takes 8 bytes per sample.
        divisions: Attributes, or products of them.

    Shape:
        - decisions: ``(B, A)``, positive above 0.
        - targets: ``(B, A)``: 0, 1, or NaN where unknown.

    Raises:
        ConfigurationError: If a division names an attribute that is none, or one twice.

    Example:
        >>> scores = SubgroupScores(["Male", "Smiling"], ["Male"])
        >>> targets = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> scores.update(torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]]), targets)
        >>> groups = scores.compute()["Male"]["groups"]
        >>> {name: (group["images"], group["error"][0]) for name, group in groups.items()}
        {'Male': (2, 50.0), 'not Male': (2, 0.0)}
    """

    full_state_update = False
    decisions: list[Tensor]
    targets: list[Tensor]

    def __init__(self, names: Sequence[str], divisions: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.divisions = {division: self._columns(division) for division in divisions}
        self.add_state("decisions", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def _columns(self, division: str) -> list[int]:
        parts = [part.strip() for part in division.split("*")]
        unknown = [part for part in parts if part not in self.names]
        if unknown or len(set(parts)) < len(parts):
            what = f"{quoted(unknown[0])} is no attribute of the data" if unknown else "it names one twice"
            raise ConfigurationError(
                f"subgroups {quoted(division)}: {what}; name attributes, such as Male or Male*Young"
            )
        return [self.names.index(part) for part in parts]

    @property
    def dtype(self) -> torch.dtype:
        """float32, even inside a module of lower precision: all processes must exchange the same type."""
        return torch.float32

    def update(self, decisions: Tensor, targets: Tensor) -> None:
        """Keep the entries of a batch."""
        self.decisions.append((decisions > 0).detach().float().flatten())  # flat: see AttributeScores
        self.targets.append(targets.detach().float().flatten())

    def compute(self) -> dict[str, Any]:
        """The scores of each division, in percent."""
        flat = (dim_zero_cat(entries) if len(entries) else torch.empty(0) for entries in (self.decisions, self.targets))
        decided, truth = (entries.cpu().view(-1, len(self.names)).double().numpy() for entries in flat)
        # resampling depends on the order of the images, which depends on the number of processes
        order = np.lexsort(np.concatenate([decided, truth], axis=1).T)
        decisions, truth = decided[order] > 0, truth[order]
        return {name: self._division(columns, decisions, truth) for name, columns in self.divisions.items()}

    def _division(self, columns: list[int], decisions: Any, truth: Any) -> dict[str, Any]:
        scored = [column for column in range(len(self.names)) if column not in columns]
        groups, per_attribute = {}, {}
        for values in product((1, 0), repeat=len(columns)):
            chosen = (truth[:, columns] == values).all(axis=1)
            words = zip(values, columns, strict=True)
            name = ", ".join(self.names[column] if value else f"not {self.names[column]}" for value, column in words)
            said, true = decisions[chosen][:, scored], truth[chosen][:, scored]
            weights = image_weights(len(true))
            groups[name] = {
                "images": len(true),
                "error": interval(mean_errors(said, true, weights)),
                "balanced_accuracy": interval(balanced_accuracies(said, true, weights)),
            }
            per_attribute[name] = [
                balanced_accuracies(said[:, [place]], true[:, [place]], weights)
                if min((true[:, place] == 1).sum(), (true[:, place] == 0).sum()) >= LEAST
                else None
                for place in range(len(scored))
            ]
        return {"groups": groups, "largest_gap": self._largest_gap(scored, per_attribute)}

    def _largest_gap(self, scored: list[int], scores: dict[str, list[Any]]) -> dict[str, Any] | None:
        gaps = [
            (abs(first[0] - second[0]), place, names)
            for names in combinations(scores, 2)
            for place, (first, second) in enumerate(zip(scores[names[0]], scores[names[1]], strict=True))
            if first is not None and second is not None
        ]
        if not gaps:
            return None
        _, place, names = max(gaps, key=lambda gap: gap[0])
        better, worse = sorted(names, key=lambda name: -scores[name][place][0])
        high, low = scores[better][place], scores[worse][place]
        return {
            "attribute": self.names[scored[place]],
            "groups": [better, worse],
            "balanced_accuracy": [float(high[0]), float(low[0])],
            # the resamples of the two are independent, but those of equal subgroups would have the same numbers
            "difference": interval(high - low[np.r_[0, len(low) - 1 : 0 : -1]]),
        }
