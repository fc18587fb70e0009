"""What the library costs: a plain PyTorch loop against ``Trainer.fit``, same network, images and steps.

    python benchmarks/plain_loop.py --celeba /path/to/celeba --width 16 --size 109 89 --steps 40 --rounds 3 --threads 2

The two take turns in one process, so that whatever else the machine does befalls both. The plain loop computes the
same function in the same memory layout (channels-last); reading annotations, building the network, starting workers
and the first step are not timed. CelebA in its official layout: ``Anno``, ``Eval``, ``Img/img_align_celeba``.
"""

import argparse
import logging
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from facelightning.data import CelebADataModule
from facelightning.tasks import AttributeNet

BATCH_SIZE = 32
WORKERS = 2


class PlainCelebA(Dataset[tuple[Tensor, Tensor]]):
    """The training split: decode, resize, flip every other image."""

    def __init__(self, root: Path, size: tuple[int, int]) -> None:
        partition = dict(line.split() for line in (root / "Eval/list_eval_partition.txt").read_text().splitlines())
        lines = (root / "Anno/list_attr_celeba.txt").read_text().splitlines()[2:]
        rows = [row for row in map(str.split, lines) if partition[row[0]] == "0"]
        self.paths = [str(root / "Img/img_align_celeba" / name) for name, *_ in rows]
        self.labels = torch.tensor([[label == "1" for label in labels] for _, *labels in rows]).float()
        self.height, self.width = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = cv2.imread(self.paths[index], cv2.IMREAD_COLOR_RGB)
        assert image is not None, f"cannot decode {self.paths[index]}"
        image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        if torch.rand(()) < 0.5:
            image = image[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), self.labels[index]


def block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.PReLU(outputs)]


def plain_network(w: int) -> nn.Sequential:
    """The twelve layers of Kalayeh et al. (CVPR 2017), §3.1.1, written out."""
    return nn.Sequential(
        *block(3, w),
        *block(w, w),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(w, 2 * w),
        *block(2 * w, 2 * w),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(2 * w, 4 * w),
        *block(4 * w, 4 * w),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(4 * w, 8 * w),
        *block(8 * w, 8 * w),
        *block(8 * w, 8 * w),
        *block(8 * w, 8 * w),
        nn.MaxPool2d(2, ceil_mode=True),
        *block(8 * w, 16 * w),
        *block(16 * w, 16 * w),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16 * w, 40),
    )


def single_threaded(worker: int) -> None:
    cv2.setNumThreads(0)


def run_plain(dataset: PlainCelebA, width: int, steps: int) -> float:
    """Seconds a step of the plain loop."""
    network = plain_network(width).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adagrad(network.parameters(), lr=0.001, weight_decay=0.0005)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=WORKERS, worker_init_fn=single_threaded)
    ends: list[float] = []
    while len(ends) < steps:
        for images, labels in loader:
            images = ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            loss = binary_cross_entropy_with_logits(network(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch is only partly typed
            optimizer.step()
            ends.append(time.perf_counter())
            if len(ends) == steps:
                break
    return (ends[-1] - ends[0]) / (steps - 1)


class Clock(L.Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def run_library(data: CelebADataModule, width: int, steps: int) -> float:
    """Seconds a step of ``Trainer.fit``."""
    clock = Clock()
    trainer = L.Trainer(
        max_steps=steps,
        limit_val_batches=0,
        accelerator="cpu",
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(AttributeNet(width=width), datamodule=data)
    return (clock.ends[-1] - clock.ends[0]) / (steps - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, required=True, help="root folder of CelebA")
    parser.add_argument("--width", type=int, default=16, help="filters of the first layer")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=40, help="steps a round, two at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    size = (args.size[0], args.size[1])
    plain_data = PlainCelebA(args.celeba, size)
    data = CelebADataModule(str(args.celeba), image_size=size, batch_size=BATCH_SIZE, num_workers=WORKERS, seed=0)

    plain, library = [], []
    print(f"{'round':>6} {'plain s/step':>14} {'facelightning s/step':>22}")
    for number in range(1, args.rounds + 1):
        plain.append(run_plain(plain_data, args.width, args.steps))
        library.append(run_library(data, args.width, args.steps))
        print(f"{number:>6} {plain[-1]:>14.3f} {library[-1]:>22.3f}", flush=True)
    print(f"{'median':>6} {median(plain):>14.3f} {median(library):>22.3f}")
    print(f"facelightning / plain: {median(library) / median(plain):.3f}")


if __name__ == "__main__":
    main()
