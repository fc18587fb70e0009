"""Files on disk become records, one data set per file; data modules make batches of them."""

from importlib import import_module
from typing import TYPE_CHECKING

from facelightning.data.celeba import CelebA
from facelightning.data.folder import Folder
from facelightning.data.helen import Helen
from facelightning.data.lfwa import LFWA

if TYPE_CHECKING:
    from facelightning.data.categories import ImageFolder, ImageFolderDataModule
    from facelightning.data.celeba_lfwa_helen import CelebADataModule, HelenDataModule, LFWADataModule
    from facelightning.data.datamodule import FaceDataModule
    from facelightning.data.face_table import FaceTable, FaceTableDataModule, SyntheticPeopleDataModule
    from facelightning.data.joint import JointDataModule, SyntheticDataModule
    from facelightning.data.objects import SyntheticObjectsDataModule
    from facelightning.data.person_folders import PersonFolders, PersonFoldersDataModule
    from facelightning.data.photographs import FolderDataModule
    from facelightning.data.scenes import SyntheticScenesDataModule
    from facelightning.data.shards import ShardsDataModule
    from facelightning.data.utkface import UTKFace, UTKFaceDataModule

__all__ = [
    "LFWA", "CelebA", "CelebADataModule", "FaceDataModule", "FaceTable", "FaceTableDataModule", "Folder",
    "FolderDataModule", "Helen", "HelenDataModule", "ImageFolder", "ImageFolderDataModule", "JointDataModule",
    "LFWADataModule", "PersonFolders", "PersonFoldersDataModule", "ShardsDataModule", "SyntheticDataModule",
    "SyntheticObjectsDataModule", "SyntheticPeopleDataModule", "SyntheticScenesDataModule", "UTKFace",
    "UTKFaceDataModule",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # imported on first use: a data set needs no Lightning
    if name not in __all__:
        raise AttributeError(f"module 'facelightning.data' has no attribute {name!r}")
    homes = {
        "FaceDataModule": "datamodule",
        "FolderDataModule": "photographs",
        "ShardsDataModule": "shards",
        "SyntheticObjectsDataModule": "objects",
        "SyntheticScenesDataModule": "scenes",
    }
    homes |= dict.fromkeys(("JointDataModule", "SyntheticDataModule"), "joint")
    homes |= dict.fromkeys(("FaceTable", "FaceTableDataModule", "SyntheticPeopleDataModule"), "face_table")
    homes |= dict.fromkeys(("PersonFolders", "PersonFoldersDataModule"), "person_folders")
    homes |= dict.fromkeys(("UTKFace", "UTKFaceDataModule"), "utkface")
    homes |= dict.fromkeys(("ImageFolder", "ImageFolderDataModule"), "categories")
    return getattr(import_module(f"facelightning.data.{homes.get(name, 'celeba_lfwa_helen')}"), name)
