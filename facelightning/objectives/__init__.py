"""What is learned: each objective has a loss, scores and a prediction. A task is a network and its objectives."""

from facelightning.objectives.ages import Ages
from facelightning.objectives.attributes import (
    AdaptedAttributes,
    Attributes,
    BalancedAttributes,
    ClassBalancedAttributes,
    DecidedAttributes,
    FocalAttributes,
    SummedAttributes,
)
from facelightning.objectives.base import Batch, Objective, Output
from facelightning.objectives.calibrated import CalibratedAttributes
from facelightning.objectives.categories import Categories
from facelightning.objectives.faces import Faces
from facelightning.objectives.identities import CentredIdentities, Identities
from facelightning.objectives.parsing import Parsing
from facelightning.objectives.quintuplets import QuintupletAttributes
from facelightning.objectives.related import RelatedAttributes

__all__ = [
    "AdaptedAttributes",
    "Ages",
    "Attributes",
    "BalancedAttributes",
    "Batch",
    "CalibratedAttributes",
    "Categories",
    "CentredIdentities",
    "ClassBalancedAttributes",
    "DecidedAttributes",
    "Faces",
    "FocalAttributes",
    "Identities",
    "Objective",
    "Output",
    "Parsing",
    "QuintupletAttributes",
    "RelatedAttributes",
    "SummedAttributes",
]
