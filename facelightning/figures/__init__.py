"""Images of what a model sees: pure functions from arrays to RGB images, for screen and print."""

from facelightning.figures.attributes import average_precision_figure, faces_figure
from facelightning.figures.channels import channels_figure, strongest_channels
from facelightning.figures.drawing import Floats, Image, save_image
from facelightning.figures.faces import found_faces_figure
from facelightning.figures.groups import groups_figure, relations_figure
from facelightning.figures.layers import layers_figure
from facelightning.figures.localization import recall_figure, responses_figure
from facelightning.figures.neurons import mean_faces_figure
from facelightning.figures.parsing import color_mask, mean_masks_figure, parsing_panels
from facelightning.figures.predictions import legend_figure, prediction_figure
from facelightning.figures.rates import rates_figure
from facelightning.figures.regions import attribute_regions_figure
from facelightning.figures.reliability import reliability_figure
from facelightning.figures.subgroups import subgroups_figure
from facelightning.figures.training_size import training_size_figure
from facelightning.figures.weights import region_weights_figure

__all__ = [
    "Floats",
    "Image",
    "attribute_regions_figure",
    "average_precision_figure",
    "channels_figure",
    "color_mask",
    "faces_figure",
    "found_faces_figure",
    "groups_figure",
    "layers_figure",
    "legend_figure",
    "mean_faces_figure",
    "mean_masks_figure",
    "parsing_panels",
    "prediction_figure",
    "rates_figure",
    "recall_figure",
    "region_weights_figure",
    "relations_figure",
    "reliability_figure",
    "responses_figure",
    "save_image",
    "strongest_channels",
    "subgroups_figure",
    "training_size_figure",
]  # fmt: skip
