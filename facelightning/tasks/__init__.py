"""LightningModules: what is optimised, scored and checkpointed."""

from pathlib import Path

from facelightning.checkpoint import Checkpoint
from facelightning.errors import CheckpointError
from facelightning.tasks.agenet import AgeNet
from facelightning.tasks.anet import ANet
from facelightning.tasks.attributenet import AttributeNet
from facelightning.tasks.base import FaceTask
from facelightning.tasks.calibratednet import CalibratedNet
from facelightning.tasks.cascadenet import CascadeNet
from facelightning.tasks.categorynet import CategoryNet
from facelightning.tasks.embeddingnet import EmbeddingNet
from facelightning.tasks.ensemblenet import EnsembleNet
from facelightning.tasks.identitynet import IdentityNet
from facelightning.tasks.jointnet import JointNet
from facelightning.tasks.segnet import SegNet
from facelightning.tasks.svmnet import SVMNet

__all__ = [
    "ANet",
    "AgeNet",
    "AttributeNet",
    "CalibratedNet",
    "CascadeNet",
    "CategoryNet",
    "EmbeddingNet",
    "EnsembleNet",
    "FaceTask",
    "IdentityNet",
    "JointNet",
    "SVMNet",
    "SegNet",
    "load_model",
]

TASKS: dict[str, type[FaceTask]] = {
    task.__name__: task
    for task in (
        ANet, AgeNet, AttributeNet, CalibratedNet, CascadeNet, CategoryNet, EmbeddingNet, EnsembleNet, IdentityNet,
        JointNet, SVMNet, SegNet,
    )
}  # fmt: skip


def load_model(path: str | Path) -> FaceTask:
    """The trained task of any checkpoint, including a parser inside it, ready for :meth:`FaceTask.predict`.

    Nothing in the file is executed (``weights_only=True``).

    Args:
        path: A ``.ckpt`` file.

    Raises:
        CheckpointError: If the file is missing, broken, or not written by facelightning.

    Example:
        >>> load_model("missing.ckpt")
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: checkpoint missing.ckpt does not exist
    """
    checkpoint = Checkpoint.read(path)
    if checkpoint.task not in TASKS:
        raise CheckpointError(f"{path} holds {checkpoint.task}, which this version does not know")
    return TASKS[checkpoint.task].of(checkpoint)
