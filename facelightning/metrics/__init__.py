"""Scores: of face parsing, of attributes, of boxes around faces, of categories.

Every score is computed once, over the whole set: it does not depend on the batches, the order of samples or the number
of processes. All results are Python floats in percent.
"""

from facelightning.metrics.attributes import AttributeScores, average_precision
from facelightning.metrics.calibration import CalibratedScores
from facelightning.metrics.categories import CategoryScores
from facelightning.metrics.localization import OVERLAPS, LocalizationScores
from facelightning.metrics.parsing import ParsingScores
from facelightning.metrics.subgroups import SubgroupScores

__all__ = [
    "OVERLAPS",
    "AttributeScores",
    "CalibratedScores",
    "CategoryScores",
    "LocalizationScores",
    "ParsingScores",
    "SubgroupScores",
    "average_precision",
]
