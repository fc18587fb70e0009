"""The labels: facial attributes, and the label spaces of face parsing."""

from facelightning.labels.attributes import (
    ATTRIBUTE_GROUPS,
    ATTRIBUTE_REGIONS,
    ATTRIBUTES,
    CONTRADICTIONS,
    IDENTITY_ATTRIBUTES,
)
from facelightning.labels.parsing import HELEN7, HELEN11, HELEN11_TO_7, IGNORE_INDEX, LABEL_SPACES, LabelSpace

__all__ = [
    "ATTRIBUTES", "ATTRIBUTE_GROUPS", "ATTRIBUTE_REGIONS", "CONTRADICTIONS", "HELEN7", "HELEN11", "HELEN11_TO_7",
    "IDENTITY_ATTRIBUTES", "IGNORE_INDEX", "LABEL_SPACES", "LabelSpace",
]  # fmt: skip
