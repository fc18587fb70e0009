"""Face parsing and facial attributes, learned together, in PyTorch Lightning.

>>> import facelightning as fl
>>> fl.ATTRIBUTES[20]
'Male'
"""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facelightning.data import (
        LFWA,
        CelebA,
        CelebADataModule,
        FolderDataModule,
        Helen,
        HelenDataModule,
        ImageFolder,
        ImageFolderDataModule,
        JointDataModule,
        LFWADataModule,
        SyntheticDataModule,
        SyntheticObjectsDataModule,
        SyntheticScenesDataModule,
    )
    from facelightning.facts import DataFacts
    from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11, LabelSpace
    from facelightning.tasks import (
        AgeNet,
        ANet,
        AttributeNet,
        CalibratedNet,
        CascadeNet,
        CategoryNet,
        EmbeddingNet,
        EnsembleNet,
        IdentityNet,
        JointNet,
        SegNet,
        SVMNet,
        load_model,
    )

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it checks for updates online

__version__ = version("facelightning")

_HOMES = {
    "DataFacts": "facts",
    **dict.fromkeys(("ATTRIBUTES", "HELEN7", "HELEN11", "LabelSpace"), "labels"),
    "load_model": "tasks",
}  # what ends in Net is in tasks, and all others in data

__all__ = [
    "ATTRIBUTES", "HELEN7", "HELEN11", "LFWA", "ANet", "AgeNet", "AttributeNet", "CalibratedNet", "CascadeNet",
    "CategoryNet", "CelebA", "CelebADataModule", "DataFacts", "EmbeddingNet", "EnsembleNet", "FolderDataModule",
    "Helen", "HelenDataModule", "IdentityNet", "ImageFolder", "ImageFolderDataModule", "JointDataModule", "JointNet",
    "LFWADataModule", "LabelSpace", "SVMNet", "SegNet", "SyntheticDataModule", "SyntheticObjectsDataModule",
    "SyntheticScenesDataModule", "__version__", "load_model",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # imported on first use: importing torch takes seconds, and `facelightning --help` should not wait for it
    if name not in __all__:
        raise AttributeError(f"module 'facelightning' has no attribute {name!r}")
    home = _HOMES.get(name, "tasks" if name.endswith("Net") else "data")
    return getattr(import_module(f"facelightning.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
