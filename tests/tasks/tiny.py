"""Tiny tasks, batches and trainers for the tests of the tasks."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7, IGNORE_INDEX
from facelightning.models.encoders import MaskedInput, TorchvisionEncoder
from facelightning.models.gating import SemanticGating, SymbioticAugmentation
from facelightning.models.heads import LocalizationHead
from facelightning.models.parser import ParserRegions
from facelightning.models.pooling import PyramidPooling, SemanticPooling
from facelightning.models.regions import LandmarkBoxes
from facelightning.tasks import AttributeNet, FaceTask, JointNet, SegNet

HEIGHT, WIDTH = 36, 28
FACTS = DataFacts((HEIGHT, WIDTH), HELEN7, ATTRIBUTES)
BACKBONE = partial(TorchvisionEncoder, name="mobilenet_v3_small")
SSP: dict[str, Any] = {"pooling": SemanticPooling, "head": LocalizationHead}

VARIANTS: dict[str, dict[str, Any]] = {
    "avg": {},
    "spp": {"pooling": PyramidPooling},
    "bbox": {**SSP, "regions": LandmarkBoxes},
    "ssp": SSP,
    "ssg": {"gate": SemanticGating},
    "symbiotic": {"gate": SymbioticAugmentation},
    "naive": {"image_input": MaskedInput},
    "ssp+ssg": {**SSP, "gate": SemanticGating},
    "backbone": {**SSP, "gate": SemanticGating, "encoder": BACKBONE},
}
"""Parts of an attribute network; those that need regions and name none get a parser's."""
PARSED = ("ssp", "ssg", "symbiotic", "naive", "ssp+ssg", "backbone")
JOINT: dict[str, dict[str, Any]] = {"avg": {}, "ssp": SSP, "backbone": {**SSP, "encoder": BACKBONE}}
KINDS = ("segnet", *(f"attributenet-{name}" for name in VARIANTS), *(f"jointnet-{name}" for name in JOINT))

Sample = dict[str, Any]

QUIET = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings(r"ignore:The '\w+' does not have many workers"),
    pytest.mark.filterwarnings(r"ignore:Found \d+ module\(s\) in eval mode"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
]
"""Marks of a module whose tests mean what Lightning warns of."""


def samples(*keys: str, count: int = 4, classes: int = 7, attributes: int = 40) -> list[Sample]:
    """Random images with some of the truth about them, the same with any keys."""
    generator = torch.Generator().manual_seed(count)
    made = []
    for number in range(count):
        mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
        top, left = (int(torch.randint(4, 20, (), generator=generator)) for _ in range(2))
        mask[top:], mask[:, left:] = 1 + number % (classes - 1), 2
        mask[:2] = IGNORE_INDEX
        image = torch.randint(40, (3, HEIGHT, WIDTH), generator=generator) + 30 * mask.clamp(max=7)
        truth = torch.randint(2, (attributes,), generator=generator).float()
        truth[number % attributes] = float("nan")
        points = torch.tensor([[9, 14], [19, 14], [14, 20], [10, 27], [18, 27]]).float() + number
        everything = {"mask": mask, "attributes": truth, "landmarks": points, "name": f"{number}.jpg"}
        chosen = {key: everything[key] for key in (*keys, "landmarks", "name")}
        made.append({"image": image.to(torch.uint8), **chosen})
    return made


def loader(of: list[Sample], batch_size: int = 4) -> DataLoader[Sample]:
    return DataLoader(of, batch_size=batch_size)  # type: ignore[arg-type]  # a list serves as a data set


def training_loader(task: FaceTask) -> DataLoader[Sample]:
    """One batch of what the task learns from."""
    parsing, attributes = samples("mask"), samples("attributes")
    if isinstance(task, JointNet):
        pairs = zip(parsing, attributes, strict=True)
        return loader([{"parsing_batch": first, "attribute_batch": second} for first, second in pairs])
    return loader(parsing if isinstance(task, SegNet) else attributes)


class Watch(L.Callback):
    """Keeps the batch, the loss and the learning rate of every step."""

    def __init__(self) -> None:
        self.batches: list[Sample] = []
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, _: int) -> None:
        self.batches.append(batch)
        self.losses.append(float(outputs["loss"]))

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def make_trainer(steps: int = 1, *callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        log_every_n_steps=1,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def trained(task: FaceTask, steps: int = 1) -> L.Trainer:
    trainer = make_trainer(steps)
    trainer.fit(task, training_loader(task))
    return trainer


def save(task: FaceTask, path: Path) -> Path:
    """Train a step, so that nothing has its initial value, and write a checkpoint."""
    trained(task).save_checkpoint(path)
    return path


def save_again(task: FaceTask, path: Path) -> Path:
    """Write a checkpoint of a task as it is."""
    trainer = make_trainer()
    trainer.validate(task, loader(samples("mask", "attributes")), verbose=False)
    trainer.save_checkpoint(path)
    return path


def make_task(kind: str, parser: Path, **settings: Any) -> FaceTask:
    """A task by its name in ``KINDS``, built for the samples."""
    torch.manual_seed(0)
    name, _, variant = kind.partition("-")
    if name == "segnet":
        return SegNet(width=2, **settings).build(FACTS)
    if name == "jointnet":
        return JointNet(width=2, **JOINT[variant], **settings).build(FACTS)
    parts = VARIANTS[variant]
    if variant in PARSED:
        parts = parts | {"regions": partial(ParserRegions, checkpoint=str(parser))}
    return AttributeNet(width=2, **parts, **settings).build(FACTS)


def parser_of(task: FaceTask) -> ParserRegions:
    """The parser within an attribute network."""
    assert isinstance(task, AttributeNet)
    assert isinstance(task.network.regions, ParserRegions)
    return task.network.regions


def predictions(task: FaceTask) -> dict[str, Any]:
    """All that the network says in evaluation mode."""
    batch = next(iter(loader(samples())))
    with torch.no_grad():
        output, _ = task.eval().predict_batch(batch)
    return dict(output)


def assert_equal(ours: Any, theirs: Any) -> None:
    """Equal to the last bit, however deep."""
    if isinstance(theirs, Tensor):
        assert torch.equal(ours, theirs)
        return
    keys: Any = theirs if isinstance(theirs, Mapping) else range(len(theirs))
    assert list(ours) == list(theirs) if isinstance(theirs, Mapping) else len(ours) == len(theirs)
    for key in keys:
        assert_equal(ours[key], theirs[key])


def flat(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested scores as one dictionary of numbers."""
    numbers: dict[str, float] = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}{key}/")
        elif isinstance(value, float):
            numbers[prefix + key] = value
    return numbers
