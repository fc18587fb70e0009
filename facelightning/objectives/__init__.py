"""What is learned: each objective has a loss, scores and a prediction. A task is a network and its objectives."""

from facelightning.objectives.attributes import Attributes, BalancedAttributes, DecidedAttributes
from facelightning.objectives.base import Batch, Objective, Output
from facelightning.objectives.categories import Categories
from facelightning.objectives.faces import Faces
from facelightning.objectives.identities import Identities
from facelightning.objectives.parsing import Parsing

__all__ = [
    "Attributes",
    "BalancedAttributes",
    "Batch",
    "Categories",
    "DecidedAttributes",
    "Faces",
    "Identities",
    "Objective",
    "Output",
    "Parsing",
]
