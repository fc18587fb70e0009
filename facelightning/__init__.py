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
        JointDataModule,
        LFWADataModule,
        SyntheticDataModule,
    )
    from facelightning.facts import DataFacts
    from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11, LabelSpace
    from facelightning.tasks import AttributeNet, EnsembleNet, JointNet, SegNet, load_model

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it checks for updates online

__version__ = version("facelightning")

_HOMES = {
    "DataFacts": "facts",
    **dict.fromkeys(("ATTRIBUTES", "HELEN7", "HELEN11", "LabelSpace"), "labels"),
    **dict.fromkeys(("AttributeNet", "EnsembleNet", "JointNet", "SegNet", "load_model"), "tasks"),
}  # all others are in data

__all__ = [
    "ATTRIBUTES", "HELEN7", "HELEN11", "LFWA", "AttributeNet", "CelebA", "CelebADataModule", "DataFacts", "EnsembleNet",
    "FolderDataModule", "Helen", "HelenDataModule", "JointDataModule", "JointNet", "LFWADataModule", "LabelSpace",
    "SegNet", "SyntheticDataModule", "__version__", "load_model",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # imported on first use: importing torch takes seconds, and `facelightning --help` should not wait for it
    if name not in __all__:
        raise AttributeError(f"module 'facelightning' has no attribute {name!r}")
    return getattr(import_module(f"facelightning.{_HOMES.get(name, 'data')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
