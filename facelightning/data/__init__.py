"""Files on disk become batches: one data set a file."""

from facelightning.data.celeba import CelebADataModule
from facelightning.data.datamodule import FaceDataModule
from facelightning.data.folder import FolderDataModule
from facelightning.data.helen import HelenDataModule
from facelightning.data.joint import JointDataModule
from facelightning.data.lfwa import LFWADataModule
from facelightning.data.synthetic import SyntheticDataModule

__all__ = [
    "CelebADataModule",
    "FaceDataModule",
    "FolderDataModule",
    "HelenDataModule",
    "JointDataModule",
    "LFWADataModule",
    "SyntheticDataModule",
]
