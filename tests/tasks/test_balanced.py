"""Fine-tuning with balanced loss: the rates are those of the training data, and training minimises that loss."""

import copy
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from facelightning.data import CelebADataModule
from facelightning.labels import ATTRIBUTES
from facelightning.tasks import AttributeNet
from tests.conftest import SIZE
from tests.tasks.test_tasks import Watch, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '\\w+' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
]


class Batches(L.Callback):
    """Keeps every batch that was learnt from."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, _: int) -> None:
        self.seen.append(batch)


def read_labels(celeba: Path) -> dict[str, dict[str, bool]]:
    """Picture → attribute → whether it has it, as the training split of the file says."""
    split = dict(line.split() for line in (celeba / "Eval/list_eval_partition.txt").read_text().splitlines())
    _, header, *lines = (celeba / "Anno/list_attr_celeba.txt").read_text().splitlines()
    rows = {name: labels for name, *labels in map(str.split, lines)}
    return {
        name: {attribute: label == "1" for attribute, label in zip(header.split(), labels, strict=True)}
        for name, labels in rows.items()
        if split[name] == "0"
    }


def test_balanced_training_is_by_the_rates_of_its_data(faces: Path) -> None:
    """The first step's loss, against a float64 loop with rates counted by hand."""
    labels = read_labels(faces / "celeba")
    rates = {name: sum(row[name] for row in labels.values()) / len(labels) for name in ATTRIBUTES}
    assert len(labels) == 21
    assert 0 in rates.values()  # none of these has it: it weighs 1
    assert max(abs(rate - 0.5) for rate in rates.values() if 0 < rate < 1) > 0.4

    torch.manual_seed(0)
    task, watch, batches = AttributeNet(width=2, balanced=True), Watch(), Batches()
    network = copy.deepcopy(task.network).train()
    trainer = make_trainer(1, watch, batches)
    trainer.fit(task, datamodule=CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=8, num_workers=0))

    assert task.positive_rates is not None
    assert task.positive_rates.tolist() == pytest.approx(list(rates.values()), abs=1e-6)
    (batch,) = batches.seen
    assert set(batch["name"]) <= labels.keys()
    with torch.no_grad():
        logits = network(batch["image"]).double().tolist()
    balanced, plain = [], []
    for picture, row in zip(batch["name"], logits, strict=True):
        for name, logit in zip(ATTRIBUTES, row, strict=True):
            has, rate = labels[picture][name], rates[name]
            weight = 1.0 if rate in (0, 1) else 1 / (2 * rate) if has else 1 / (2 * (1 - rate))
            plain.append(math.log1p(math.exp(-logit if has else logit)))
            balanced.append(weight * plain[-1])
    assert len(plain) == 8 * len(ATTRIBUTES)
    expected = sum(balanced) / len(balanced)
    assert watch.losses == [pytest.approx(expected, rel=1e-5)]
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)
    assert watch.losses != [pytest.approx(sum(plain) / len(plain), rel=0.01)]
