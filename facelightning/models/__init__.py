"""Networks and their parts: tensors in, tensors out; one idea of a paper per file.

Most are from Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017.
"""

from facelightning.models.anet import ANetwork
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.detectors import FrontalCascade, TableFinder, YuNet
from facelightning.models.encoders import MaskedInput, PaperEncoder, TorchvisionEncoder
from facelightning.models.ensemble import EnsembleNetwork
from facelightning.models.facetracer import FaceTracer
from facelightning.models.fusion import Fusion
from facelightning.models.gating import SemanticGating, SymbioticAugmentation
from facelightning.models.heads import ClusterHead, DenseHead, GroupHead, LinearHead, LocalizationHead
from facelightning.models.joint import JointNetwork
from facelightning.models.known_masks import KnownMasks
from facelightning.models.lnet import LNet
from facelightning.models.panda import PANDA
from facelightning.models.parser import ParserBoxes, ParserRegions
from facelightning.models.parts import PartCrops
from facelightning.models.pooling import (
    AveragePooling,
    GridPooling,
    LogSumExpPooling,
    MaximumPooling,
    PyramidPooling,
    SemanticPooling,
)
from facelightning.models.regions import FaceParts, LandmarkBoxes
from facelightning.models.segmentation import SegmentationNetwork
from facelightning.models.separate import SeparateEncoder, SeparateHead
from facelightning.models.transformer import SpatialTransformer

__all__ = [
    "PANDA",
    "ANetwork",
    "AttributeNetwork",
    "AveragePooling",
    "ClusterHead",
    "DenseHead",
    "EnsembleNetwork",
    "FaceParts",
    "FaceTracer",
    "FrontalCascade",
    "Fusion",
    "GridPooling",
    "GroupHead",
    "JointNetwork",
    "KnownMasks",
    "LNet",
    "LandmarkBoxes",
    "LinearHead",
    "LocalizationHead",
    "LogSumExpPooling",
    "MaskedInput",
    "MaximumPooling",
    "PaperEncoder",
    "ParserBoxes",
    "ParserRegions",
    "PartCrops",
    "PyramidPooling",
    "SegmentationNetwork",
    "SemanticGating",
    "SemanticPooling",
    "SeparateEncoder",
    "SeparateHead",
    "SpatialTransformer",
    "SymbioticAugmentation",
    "TableFinder",
    "TorchvisionEncoder",
    "YuNet",
]  # fmt: skip
