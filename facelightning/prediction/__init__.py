"""From a photograph to what is in it: faces, their attributes, a mask at the photograph's size."""

from facelightning.prediction.photographs import Source
from facelightning.prediction.predictor import Predictor
from facelightning.prediction.results import Face, Prediction
from facelightning.prediction.seeing import Seen, View

__all__ = ["Face", "Prediction", "Predictor", "Seen", "Source", "View"]
