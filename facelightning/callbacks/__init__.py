"""What a run leaves behind: tables, figures, predictions."""

from facelightning.callbacks.compilation import Compile
from facelightning.callbacks.fast import Fast
from facelightning.callbacks.figures import Figures
from facelightning.callbacks.predictions import PredictionWriter
from facelightning.callbacks.report import Report
from facelightning.callbacks.training_record import TrainingRecord

__all__ = ["Compile", "Fast", "Figures", "PredictionWriter", "Report", "TrainingRecord"]
