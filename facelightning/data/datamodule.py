"""What all data modules share: reading a picture, the data set, the loaders."""

import os
from typing import Any, Literal, Protocol

import albumentations as A
import cv2
import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from facelightning.data.sampling import EvaluationSampler, Key, ResumableLoader, TrainSampler
from facelightning.data.transforms import FaceTransform, Record, Sample
from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.labels import LABEL_SPACES

Split = Literal["train", "val", "test"]


class Reader(Protocol):
    """One split of a data set on disk: a sequence of records."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class FaceDataset(Dataset[Sample]):
    """A reader and a transform, indexed by the (sample, augmentation seed) that a sampler yields."""

    def __init__(self, reader: Reader, transform: FaceTransform) -> None:
        self.reader, self.transform = reader, transform

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> Sample:
        if not isinstance(key, tuple):
            raise ConfigurationError(
                "a face data set is indexed by (sample, seed), but got one number, as from a sampler that Lightning "
                "put in: create the Trainer with use_distributed_sampler=False"
            )
        index, seed = key
        return self.transform(self.reader[index], seed)


def _single_threaded(worker: int) -> None:
    cv2.setNumThreads(0)  # workers are the parallelism; OpenCV's own threads would fight over the cores


class FaceDataModule(L.LightningDataModule):
    """Base of the data modules of one data set: a subclass says how to read a split.

    Args:
        image_size: Height and width of what the network sees, in pixels (Kalayeh et al.: 218×178).
        batch_size: Pictures a step and process.
        num_workers: Processes that read and augment; 0 reads in the main process.
        augmentations: Albumentations transforms for training; the paper's horizontal flip if not given.
        seed: Of order and augmentation; the run's ``seed_everything`` if not given.
    """

    labels: str | None = None
    """The name of the masks' label space, where the data set has masks."""

    def __init__(
        self,
        image_size: tuple[int, int] = (218, 178),
        batch_size: int = 32,
        num_workers: int = 2,
        augmentations: list[A.BasicTransform] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if min(*image_size, batch_size) < 1 or num_workers < 0 or (seed or 0) < 0:
            raise ConfigurationError(
                f"{type(self).__name__}: image_size {image_size} and batch_size {batch_size} must be positive, "
                f"num_workers {num_workers} and seed {seed} not negative"
            )
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augmentations = [A.HorizontalFlip(p=0.5)] if augmentations is None else augmentations
        self.seed = seed
        self._datasets: dict[Split, FaceDataset] = {}

    def reader(self, split: Split) -> Reader:
        """The records of one split."""
        raise NotImplementedError

    def dataset(self, split: Split) -> FaceDataset:
        """One split as tensors, augmented if it is the training split; made once and kept."""
        if split not in self._datasets:
            reader = self.reader(split)
            if len(reader) == 0:
                raise DataFormatError(f"{type(self).__name__}: the {split} split has no pictures")
            labels = None if self.labels is None else LABEL_SPACES[self.labels]
            augmentations = self.augmentations if split == "train" else []
            self._datasets[split] = FaceDataset(reader, FaceTransform(self.image_size, labels, augmentations))
        return self._datasets[split]

    def setup(self, stage: str) -> None:
        """Open what the stage needs, so that a missing file is reported before anything runs."""
        splits: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",)}
        for split in splits.get(stage, ("test",)):
            self.dataset(split)

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled, augmented, resumable."""
        dataset = self.dataset("train")
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed
        sampler = TrainSampler(len(dataset), seed, *self._process())
        return ResumableLoader(dataset, sampler=sampler, **self._loading())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Every validation sample once over all processes."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Every test sample once over all processes."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """The test split."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: Split) -> DataLoader[Sample]:
        dataset = self.dataset(split)
        rank, processes = self._process()
        if len(dataset) < processes:  # a process without a sample would leave the others waiting
            raise ConfigurationError(
                f"{type(self).__name__}: the {split} split has {len(dataset)} pictures for {processes} processes; "
                "use fewer devices"
            )
        sampler: Any = EvaluationSampler(len(dataset), rank, processes)
        return DataLoader(dataset, sampler=sampler, **self._loading())

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loading(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": _single_threaded,
        }
