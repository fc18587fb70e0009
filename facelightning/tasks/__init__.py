"""LightningModules: what is optimised, scored and checkpointed."""

from pathlib import Path

from facelightning.checkpoint import read_checkpoint, restore
from facelightning.errors import CheckpointError
from facelightning.tasks.attributenet import AttributeNet
from facelightning.tasks.base import FaceTask
from facelightning.tasks.ensemblenet import EnsembleNet
from facelightning.tasks.jointnet import JointNet
from facelightning.tasks.segnet import SegNet

__all__ = ["AttributeNet", "EnsembleNet", "FaceTask", "JointNet", "SegNet", "load_model"]

TASKS: dict[str, type[FaceTask]] = {task.__name__: task for task in (AttributeNet, EnsembleNet, JointNet, SegNet)}


def load_model(path: str | Path) -> FaceTask:
    """The trained task of any checkpoint, a parser inside it included, ready to predict.

    Nothing in the file is executed (``weights_only=True``).

    Args:
        path: A ``.ckpt`` file.

    Raises:
        CheckpointError: If the file is missing, broken, or of another library.

    Example:
        >>> load_model("missing.ckpt")
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: checkpoint missing.ckpt does not exist
    """
    checkpoint = read_checkpoint(path)
    name = checkpoint["facelightning_task"]
    if name not in TASKS:
        raise CheckpointError(f"{path} holds a {name}, which this version of facelightning does not know")
    # names that start with "_" are notes that Lightning's command line leaves
    settings = {key: value for key, value in checkpoint["hyper_parameters"].items() if not key.startswith("_")}
    try:
        task = TASKS[name](**settings)
    except TypeError as error:
        raise CheckpointError(f"the settings in {path} are not those of this version's {name}: {error}") from None
    restore(task, checkpoint["state_dict"], path)
    return task.eval()
