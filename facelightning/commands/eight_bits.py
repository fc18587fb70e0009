"""What weights of eight bits cost: the scores of an exact ONNX file beside those of the small one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import default_collate

from facelightning.cli import FaceCLI
from facelightning.data import FaceDataModule, JointDataModule
from facelightning.errors import ConfigurationError, FacelightningError
from facelightning.metrics import AttributeScores, ParsingScores
from facelightning.tasks import FaceTask

LARGEST = 1000
"""Images of a test split that are scored; of a larger one they are spread evenly."""
BATCH_SIZE = 32


class LabelledCLI(FaceCLI):
    """The options of the data, of a checkpoint."""

    own_command = "export"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """``--data`` defines the data module."""
        parser.add_argument("--ckpt_path", type=str)


def labelled(checkpoint: str, words: Sequence[str], task: FaceTask) -> list[FaceDataModule]:
    """The data of a checkpoint's run, or what a command line says of other data, each with its test split open.

    Args:
        checkpoint: The file.
        words: Options of the data, such as ``--data.root=FOLDER``; if there are none and the run's data is not there,
            that is said, and nothing is returned.
        task: What the checkpoint holds.

    Raises:
        FacelightningError: If data is named that is not there, or does not fit.
    """
    try:
        return _opened(LabelledCLI([f"--ckpt_path={checkpoint}", *words]).datamodule, task, bool(words))
    except (FacelightningError, SystemExit) as error:  # a parser exits
        if words:
            raise
        reason = "its configuration is of another version" if isinstance(error, SystemExit) else error
        rank_zero_info(f"what eight bits cost on labelled faces is not measured ({reason}): pass --data.root=FOLDER")
        return []


def _opened(data: Any, task: FaceTask, prepare: bool) -> list[FaceDataModule]:
    if not isinstance(data, FaceDataModule | JointDataModule):
        raise ConfigurationError(f"{type(data).__name__} is no data module of facelightning: name one with --data")
    task.check(data.facts, "the data")
    if prepare:  # else nothing is drawn that is not there
        data.prepare_data()
    data.setup("test")
    return list(data.parts.values()) if isinstance(data, JointDataModule) else [data]


def cost(exact: Path, small: Path, data: FaceDataModule) -> str:
    """The scores of both files on a test split, in words."""
    before, after = scores(exact, data), scores(small, data)
    found = ", ".join(f"{name} {before[name]:.2f} → {after[name]:.2f} %" for name in before)
    images = f"{len(_chosen(data))} test images of {type(data).__name__}"
    return f"what eight bits cost on {images}: {found or 'nothing that is labelled'}"


def scores(file: Path, data: FaceDataModule) -> dict[str, float]:
    """The scores of an ONNX file on a test split, in percent: of its decisions, of its ranking, of its classes."""
    import onnxruntime  # here, because it is an extra

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    facts = data.facts
    decided, ranked = (AttributeScores(facts.attributes or ()) for _ in range(2))
    parsed = ParsingScores(facts.label_space) if facts.label_space else None
    for batch in _batches(data):
        arrays = session.run(names, {"images": batch["image"].numpy()})
        said = {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}
        if "attributes" in batch and "decisions" in said:
            decided.update(said["decisions"].float() - 0.5, batch["attributes"])
            ranked.update(said["probabilities"], batch["attributes"])
        if parsed is not None and "classes" in said:
            parsed.update(said["classes"].long(), batch["mask"])
    found: dict[str, float] = {}
    if decided.update_called:
        found |= {"error": decided.compute()["error"], "mean AP": ranked.compute()["mean_ap"]}
    if parsed is not None and parsed.update_called:
        found["mean IoU"] = parsed.compute()["mean_iou"]
    return found


def _chosen(data: FaceDataModule) -> Sequence[int]:
    count = len(data.dataset("test"))
    return [round(place) for place in np.linspace(0, count - 1, min(count, LARGEST)).tolist()]


def _batches(data: FaceDataModule) -> Iterator[Mapping[str, Any]]:
    dataset, chosen = data.dataset("test"), _chosen(data)
    for start in range(0, len(chosen), BATCH_SIZE):
        yield default_collate([dataset[index, 0] for index in chosen[start : start + BATCH_SIZE]])
