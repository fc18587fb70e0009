"""From data sets to batches: sizes, augmentation, order, loaders, and what a task must know about its data."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from facelightning.data.batch_augmentation import BatchAugmentation
from facelightning.data.cache import CachedFaces, cached, decoded_once, enough_workers, single_threaded
from facelightning.data.cache_file import CacheFile, JpegCacheFile
from facelightning.data.cropping import CroppedRecords, FaceCrop
from facelightning.data.device_augmentation import DeviceAugmentation
from facelightning.data.files import IdentityRecords, Records, Split
from facelightning.data.prediction import PredictionLoader, Readable, apart
from facelightning.data.samples import Sample
from facelightning.data.sampling import EvaluationSampler, IdentitySampler, ResumableLoader, TrainSampler
from facelightning.data.tables import AttributeDataset
from facelightning.data.transforms import Augmentation, FaceDataset, FaceTransform, as_it_is, horizontal_flip
from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES

MANY = 100
"""Shorter trainings, in batches, do not decode their images once: that would take longer."""


@dataclass(kw_only=True, eq=False)  # data modules compare by identity, not by options
class Loading:
    """How records become batches: the options that every data module of this library has.

    Data modules are dataclasses, so that each option is written once, typed, for Python and the command line.

    Args:
        image_size: Height and width of the network's input, in pixels (Kalayeh et al.: 218×178).
        batch_size: Images per step and process.
        num_workers: Processes that read and augment; 0 reads in the main process. If not given, 0 for decoded
            images, else 2, or beside a GPU half of its share of the cores, from 2 to 8.
        augmentations: For training: Albumentations transforms, or what is done to whole batches; the paper's horizontal
            flip if not given.
        seed: Seed of order and augmentation; the run's ``seed_everything`` if not given.
        cache: Decode and resize the images once, into a file that later trainings and tests read instead. Batches are
            the same to the bit. The file is made anew when an image, the size or the crop changes. ``jpeg`` resizes
            once, and decodes each time: a smaller file. JPEG files of the network's size stay as they are; what was
            resized differs a little, by another encoding at quality 95. If not given, a training on a processor
            decodes its images once, into a file that is gone with its process, unless they are many or seen only once,
            or workers shall augment them.
        cache_folder: Where such files are; they may be deleted at any time.
    """

    image_size: tuple[int, int] = (218, 178)
    batch_size: int = 32
    num_workers: int | None = None
    augmentations: list[Augmentation] | BatchAugmentation | None = None
    seed: int | None = None
    cache: bool | Literal["jpeg"] | None = None
    cache_folder: str = "~/.cache/facelightning"

    def __post_init__(self) -> None:
        if self.cache not in (True, False, "jpeg", None):
            raise ConfigurationError(f"{type(self).__name__}: cache is true, false or jpeg, not {self.cache}")
        if min(*self.image_size, self.batch_size) < 1 or (self.num_workers or 0) < 0 or (self.seed or 0) < 0:
            raise ConfigurationError(
                f"{type(self).__name__}: image_size {self.image_size} and batch_size {self.batch_size} must be "
                f"positive, num_workers {self.num_workers} and seed {self.seed} not negative"
            )


class FaceDataModule(Loading, L.LightningDataModule):
    """Base of the data modules of one data set: a subclass defines how to read a split, and its facts."""

    predicted: Split = "test"
    """The split that is predicted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        L.LightningDataModule.__init__(self)  # super() would call the dataclass constructor, which resets the options
        self._datasets: dict[Split, FaceDataset] = {}
        self._cached: dict[Split, CachedFaces] = {}
        self._often = False
        self._decoded: dict[Split, CachedFaces | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_often": False, "_decoded": {}}  # others cannot map a file without a name

    def records(self, split: Split) -> Records:
        """One split of the data set."""
        raise NotImplementedError

    @property
    def facts(self) -> DataFacts:
        """What a task must know; facts that come from the files are known once the training split is open."""
        return DataFacts(self.image_size)

    def dataset(self, split: Split) -> FaceDataset:
        """One split as tensors, augmented if it is the training split; created once."""
        if split not in self._datasets:
            records = self.records(split)
            if len(records) == 0:
                raise DataFormatError(f"{type(self).__name__}: the {split} split has no images")
            training = [horizontal_flip()] if self.augmentations is None else self.augmentations
            transform = FaceTransform(self.image_size, self.facts.label_space, training if split == "train" else ())
            self._datasets[split] = FaceDataset(self.seen(records), transform)
        return self._datasets[split]

    def loaded(self, split: Split) -> FaceDataset | CachedFaces:
        """The same as loaders read it: from its cache if there shall be one, or decoded once by a training."""
        if self.cache:
            if split not in self._cached:
                kind = JpegCacheFile if self.cache == "jpeg" else CacheFile
                self._cached[split] = cached(self.dataset(split), Path(self.cache_folder).expanduser(), kind)
            return self._cached[split]
        dataset = self.dataset(split)
        if not self._often or split == "test" or self.cache is False or self.num_workers:
            return dataset
        if split not in self._decoded:
            self._decoded[split] = decoded_once(dataset)
        return self._decoded[split] or dataset

    def _trains_often(self) -> bool:
        """Whether a training on a processor reads the images often: its workers would take cores from it."""
        trainer = self.trainer
        if trainer is None:
            return False
        if trainer.world_size > 1 or trainer.strategy.launcher is not None:  # it trains in other processes
            return False
        if trainer.strategy.root_device.type != "cpu":
            return False
        if self.augmentations and isinstance(self.augmentations, list):  # each costs more than decoding
            return False
        images = len(self.dataset("train"))
        steps = trainer.max_steps * trainer.accumulate_grad_batches
        by_steps = steps * self.batch_size / images if steps >= 0 else inf
        by_epochs = inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs)
        times = min(by_steps, by_epochs)
        return times >= 2 and times * images >= MANY * self.batch_size

    @property
    def workers(self) -> int:
        """Processes that read training images: ``num_workers``, or what is fast if it is not given."""
        return self._workers(self.loaded("train"))

    def _workers(self, dataset: FaceDataset | CachedFaces) -> int:
        if self.num_workers is not None:
            return self.num_workers
        decoded = isinstance(dataset, CachedFaces) and not dataset.file.decodes
        return 0 if decoded else enough_workers(self.trainer)

    def seen(self, records: Records) -> Records:
        """What a network sees of a split's images."""
        return records

    def setup(self, stage: str) -> None:
        """Open what the stage needs, so that a missing file is reported before anything runs."""
        splits: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        if stage == "predict":  # reads each image once, and goes on where one cannot be read: without a cache
            self.dataset(self.predicted)
        self._often = self._often or (stage == "fit" and self._trains_often())
        for split in splits.get(stage, ()):
            self.loaded(split) if self.cache else self.dataset(split)

    @property
    def own_seed(self) -> int:
        """The seed of order, augmentation and choice: its own or the run's."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled, augmented, resumable."""
        dataset = self.loaded("train")
        return ResumableLoader(dataset, sampler=self.train_sampler(self.own_seed), **self._loading(dataset))

    def train_sampler(self, seed: int) -> TrainSampler:
        """The order of this process's training samples."""
        return TrainSampler(len(self.dataset("train")), seed, *self._process())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Every validation sample exactly once over all processes."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Every test sample exactly once over all processes."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> PredictionLoader:
        """Likewise what is predicted; it goes on where an image cannot be read."""
        dataset = self.dataset(self.predicted)
        readable = Readable(dataset, dataset.names)
        return PredictionLoader(readable, sampler=self._sampler(self.predicted), **self._loading(dataset, apart))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a training batch on its device, if its loader has left that to it."""
        augment = self.augmentations
        if "seed" not in batch or not isinstance(augment, DeviceAugmentation):
            return batch
        found = dict(batch)
        image, mask = augment.augmented(found["image"], found.get("mask"), found.pop("seed"))
        return found | {"image": image} | ({} if mask is None else {"mask": mask})

    def _evaluation_loader(self, split: Split) -> DataLoader[Sample]:
        dataset = self.loaded(split)
        return DataLoader(dataset, sampler=self._sampler(split), **self._loading(dataset))

    def _sampler(self, split: Split) -> Any:
        dataset = self.dataset(split)
        rank, processes = self._process()
        if len(dataset) < processes:  # a process without a sample would keep the others waiting
            raise ConfigurationError(
                f"{type(self).__name__}: the {split} split has {len(dataset)} images for {processes} processes; "
                "use fewer devices"
            )
        return EvaluationSampler(len(dataset), rank, processes)

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loading(self, dataset: FaceDataset | CachedFaces, collate: Callable[[Any], Any] = as_it_is) -> dict[str, Any]:
        workers = self._workers(dataset)
        return {
            "batch_size": self.batch_size,
            "collate_fn": collate,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": single_threaded,
        }


@dataclass(kw_only=True, eq=False)
class IdentityDataModule(FaceDataModule):
    """Base of the data modules whose batches may be made by identity.

    Args:
        images_per_identity: More than 1 for losses that compare images of one identity: a training batch then holds so
            many images of each of its identities, and identities with fewer images are left out.
    """

    images_per_identity: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images_per_identity < 1 or self.batch_size % self.images_per_identity:
            raise ConfigurationError(
                f"{type(self).__name__}: images_per_identity {self.images_per_identity} must divide batch_size "
                f"{self.batch_size}"
            )

    def records(self, split: Split) -> IdentityRecords:
        """One split of the data set."""
        raise NotImplementedError

    def train_sampler(self, seed: int) -> TrainSampler:
        """Any order, or batches by identity."""
        if self.images_per_identity == 1:
            return super().train_sampler(seed)
        identities = self.records("train").identities
        if identities is None:
            raise ConfigurationError(
                f"{type(self).__name__}: the identities are unknown, but images_per_identity is "
                f"{self.images_per_identity}; copy the file of the identities there, or leave it at 1"
            )
        persons = self.batch_size // self.images_per_identity
        return IdentitySampler(identities, persons, self.images_per_identity, seed, *self._process())


@dataclass(kw_only=True, eq=False)
class AttributeDataModule(IdentityDataModule):
    """Base of the data modules with attributes: a subclass defines how to read the splits.

    Args:
        crop: A cut around each face; the whole images if not given.
        predicted: The images that are predicted: those of the test split, of the validation split, or ``all``.
        train_images: So many of the training images, to see what a smaller set teaches: all images of one identity
            after another, in an order that ``seed`` decides; of the last one perhaps not all. A larger number adds to
            what a smaller one takes. All images if not given.
        leave_out: Attributes that the data is read without, in every split: networks learn and predict the others.
    """

    crop: FaceCrop | None = None
    predicted: Literal["test", "val", "all"] = "test"
    train_images: int | None = None
    leave_out: list[str] = field(default_factory=list)

    @cached_property
    def splits(self) -> dict[Split, AttributeDataset]:
        """The data set; annotations are read once, on first use."""
        raise NotImplementedError

    def records(self, split: Split) -> AttributeDataset:
        """One split of the data set."""
        records = self.splits[split].without(self.leave_out)
        count = self.train_images if split == "train" else None
        return records if count is None else records.some(count, self.own_seed)

    def seen(self, records: Records) -> Records:
        """The cuts around the faces, or the whole images."""
        return records if self.crop is None else CroppedRecords(records, self.crop, self.image_size)

    @property
    def facts(self) -> DataFacts:
        """Image size and attributes; once the training split is open, also what is counted in it."""
        names = tuple(name for name in ATTRIBUTES if name not in self.leave_out)
        facts = DataFacts(self.image_size, attributes=names)
        if "train" not in self._datasets:
            return facts
        train = self.records("train")
        identities = None if train.identities is None else tuple(np.unique(train.identities).tolist())
        rates = tuple(train.positive_rates().tolist())
        return replace(facts, positive_rates=rates, images=len(train), identities=identities)
