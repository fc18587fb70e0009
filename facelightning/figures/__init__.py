"""Images of what a model sees: pure functions from arrays to RGB images, for screen and print."""

from facelightning.figures.attributes import average_precision_figure, faces_figure
from facelightning.figures.channels import channels_figure, strongest_channels
from facelightning.figures.drawing import Floats, Image, save_image
from facelightning.figures.faces import found_faces_figure
from facelightning.figures.localization import recall_figure, responses_figure
from facelightning.figures.parsing import color_mask, parsing_panels
from facelightning.figures.weights import region_weights_figure

__all__ = [
    "Floats", "Image", "average_precision_figure", "channels_figure", "color_mask", "faces_figure",
    "found_faces_figure", "parsing_panels", "recall_figure", "region_weights_figure", "responses_figure", "save_image",
    "strongest_channels",
]  # fmt: skip
