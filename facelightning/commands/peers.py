"""The same training as others write it: what the library's speed is compared with."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Adagrad, AdamW, Optimizer
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from facelightning.commands.measuring import WARM, silent
from facelightning.data import FaceDataModule
from facelightning.data.tables import AttributeDataset
from facelightning.errors import ConfigurationError
from facelightning.objectives import Attributes
from facelightning.tasks import AttributeNet, FaceTask

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Peer = Callable[[], float]
"""Trains, and returns images a second."""


class PILImages(Dataset[tuple[Tensor, Tensor]]):
    """Decode, resize, flip and normalise each image with Pillow and torchvision."""

    def __init__(self, records: AttributeDataset, size: tuple[int, int]) -> None:
        self.paths = [str(records.folder / name) for name in records.names]
        self.labels = torch.from_numpy(records.attributes).float()
        self.transform = v2.Compose(
            [
                v2.Resize(size),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


class CarefulImages(PILImages):
    """The same with OpenCV, as bytes: a batch is normalised at once."""

    def __init__(self, records: AttributeDataset, size: tuple[int, int]) -> None:
        super().__init__(records, size)
        self.height, self.width = size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = cv2.imread(self.paths[index], cv2.IMREAD_COLOR_RGB)
        assert image is not None, f"cannot decode {self.paths[index]}"
        image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        if torch.rand(()) < 0.5:
            image = image[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), self.labels[index]


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.PReLU(outputs)]


def plain_network(w: int, attributes: int = 40) -> nn.Sequential:
    """The twelve layers of Kalayeh et al. (CVPR 2017), §3.1.1, written out.

    Example:
        >>> plain_network(2)(torch.zeros(2, 3, 40, 32)).shape
        torch.Size([2, 40])
    """
    return nn.Sequential(
        *_block(3, w),
        *_block(w, w),
        nn.MaxPool2d(2, ceil_mode=True),
        *_block(w, 2 * w),
        *_block(2 * w, 2 * w),
        nn.MaxPool2d(2, ceil_mode=True),
        *_block(2 * w, 4 * w),
        *_block(4 * w, 4 * w),
        nn.MaxPool2d(2, ceil_mode=True),
        *_block(4 * w, 8 * w),
        *_block(8 * w, 8 * w),
        *_block(8 * w, 8 * w),
        *_block(8 * w, 8 * w),
        nn.MaxPool2d(2, ceil_mode=True),
        *_block(8 * w, 16 * w),
        *_block(16 * w, 16 * w),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16 * w, attributes),
    )


class StockTask(L.LightningModule):
    """What a tutorial of Lightning shows."""

    def __init__(self, network: nn.Module, optimizer: Callable[[nn.Module], Optimizer]) -> None:
        super().__init__()
        self.network, self.make_optimizer = network, optimizer
        self.ends: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        loss = binary_cross_entropy_with_logits(self.network(images), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Look at the clock."""
        self.ends.append(_now(self.device))

    def configure_optimizers(self) -> Optimizer:
        """That of the library's run."""
        return self.make_optimizer(self.network)


def _single_threaded(worker: int) -> None:
    cv2.setNumThreads(0)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peers(task: FaceTask, data: Any, device: torch.device, steps: int) -> Mapping[str, Peer]:
    """Others that train the same network on the same images, in float32.

    All have the library's batch size, workers, threads and optimiser.

    Args:
        task: A task with the paper's basic network.
        data: Its data, opened.
        device: Where to train.
        steps: Steps that are timed, after the first ones.

    Raises:
        ConfigurationError: If the network, or what is done to the images, is another than the peers'.
    """
    names = task.facts.attributes if task.facts else None
    same = isinstance(task, AttributeNet) and isinstance(data, FaceDataModule) and names is not None
    records = data.records("train") if same else None
    if not (same and isinstance(records, AttributeDataset) and _is_plain(task, len(names or ()))):
        raise ConfigurationError(
            "--compare=true trains the basic network of Kalayeh et al. on whole images beside the library: "
            "take avg.yaml, or leave it out"
        )
    assert isinstance(task, AttributeNet)
    if data.augmentations is not None or type(task.objectives["attributes"]) is not Attributes:
        raise ConfigurationError(
            "--compare=true trains with cross-entropy and on mirrored images beside the library: leave out other "
            "objectives and augmentations"
        )
    width, count, size = task.width, len(names or ()), data.image_size
    kind = {"adagrad": Adagrad, "adamw": AdamW}[task.optimizer]
    rate, decay = task.learning_rate, task.weight_decay

    def optimizer(network: nn.Module) -> Optimizer:
        made: Optimizer = kind(network.parameters(), lr=rate, weight_decay=decay)
        return made

    def loader(images: PILImages) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(
            images,
            data.batch_size,
            shuffle=True,
            num_workers=data.workers,
            worker_init_fn=_single_threaded,
            pin_memory=device.type == "cuda",
            drop_last=len(images) > data.batch_size,
        )

    def loop(images: PILImages, careful: bool) -> float:
        layout = torch.channels_last if careful else torch.contiguous_format
        network = plain_network(width, count).to(device, memory_format=layout)  # type: ignore[call-overload]  # torch names no such overload
        learner = optimizer(network)
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
        ends, seen = list[float](), 0
        for batch, labels in _endless(loader(images)):
            batch, labels = (each.to(device, non_blocking=True) for each in (batch, labels))
            if careful:
                batch = ((batch / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            loss = binary_cross_entropy_with_logits(network(batch), labels)
            learner.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch is only partly typed
            learner.step()
            ends.append(_now(device))
            seen += len(labels) * (len(ends) > WARM)
            if len(ends) == WARM + steps:
                break
        return seen / (ends[-1] - ends[WARM - 1])

    def stock() -> float:
        stocked = StockTask(plain_network(width, count), optimizer)
        with tempfile.TemporaryDirectory() as folder, silent():
            trainer = L.Trainer(
                max_steps=WARM + steps,
                max_epochs=-1,
                accelerator=device.type,
                devices=1,
                logger=CSVLogger(folder),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(stocked, loader(PILImages(records, size)))
        images = min(int(data.batch_size), len(records)) * steps
        return images / (stocked.ends[-1] - stocked.ends[WARM - 1])

    return {
        "plain loop, PIL": lambda: loop(PILImages(records, size), careful=False),
        "plain loop, OpenCV, channels-last": lambda: loop(CarefulImages(records, size), careful=True),
        "stock Lightning, PIL": stock,
    }


def _is_plain(task: FaceTask, attributes: int) -> bool:
    """Whether a network's weights have the shapes of the plain one's; its first part normalises, which has none."""
    assert isinstance(task, AttributeNet)
    state = {name: each for name, each in task.network.state_dict().items() if not name.startswith("encoder.input.")}
    plain = plain_network(task.width, attributes).state_dict()
    return [each.shape for each in state.values()] == [each.shape for each in plain.values()]


def _endless(loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader
