"""A training on a processor decodes few images once, without asking, and its batches are the same to the bit."""

import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import albumentations as A
import lightning as L
import numpy as np
import pytest

from facelightning.data import (
    CelebADataModule,
    HelenDataModule,
    JointDataModule,
    cache,
    datamodule,
)
from facelightning.data.batch_augmentation import Affine, BatchAugmentation
from facelightning.data.cache import CachedFaces
from facelightning.data.datamodule import FaceDataModule
from facelightning.data.files import DerivedRecords
from facelightning.data.tables import AttributeDataset
from facelightning.errors import FacelightningError
from tests.conftest import SIZE
from tests.data.test_cache import assert_same, one_by_one

Opened = Callable[..., CelebADataModule]


@pytest.fixture
def opened(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Opens a data module for a training of two epochs, for which two batches are many."""
    monkeypatch.setattr(datamodule, "MANY", 2)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)

    def found(training: dict[str, Any] | None = None, stage: str = "fit", **options: Any) -> CelebADataModule:
        shared = {"root": str(faces / "celeba"), "image_size": SIZE, "batch_size": 4, "seed": 3}
        data = CelebADataModule(**shared | options)
        data.trainer = L.Trainer(**{"accelerator": "cpu", "max_epochs": 2, "logger": False} | (training or {}))
        data.setup(stage)
        return data

    return found


def is_decoded_once(data: FaceDataModule) -> bool:
    return isinstance(data.loaded("train"), CachedFaces)


@pytest.mark.parametrize("augmentations", [None, [], BatchAugmentation(affine=Affine(0.5, rotate=(-20, 20)))])
def test_its_batches_are_the_same_to_the_bit(augmentations: Any, opened: Opened, tmp_path: Path) -> None:
    data, plain = opened(augmentations=augmentations), opened(augmentations=augmentations, cache=False, num_workers=0)
    assert is_decoded_once(data) and not is_decoded_once(plain)
    assert not list((tmp_path / "temporary").iterdir())  # no other process sees it, and nothing is left
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    loaders[0].sampler.set_epoch(1)
    assert [loader.num_workers for loader in loaders] == [0, 0, 2]  # those of test are read once
    assert data.workers == 0
    assert_same([batch for loader in loaders for batch in loader], one_by_one(plain))


@pytest.mark.parametrize(
    ("training", "options", "once"),
    [
        ({}, {}, True),
        ({"max_epochs": 1}, {}, False),  # each image is seen once
        ({"max_epochs": -1}, {}, True),
        ({"max_epochs": -1, "max_steps": 10}, {}, False),  # of 21 images, not all are seen twice
        ({"max_epochs": -1, "max_steps": 11}, {}, True),
        ({"max_epochs": 1, "max_steps": 11}, {}, False),
        ({"max_epochs": -1, "max_steps": 6, "accumulate_grad_batches": 2}, {}, True),
        ({"max_epochs": -1, "max_steps": 0}, {}, False),
        ({"devices": 2, "strategy": "ddp"}, {}, False),  # each process would decode all of them
        ({"devices": 1, "strategy": "ddp_spawn"}, {}, False),  # another process could not map them
        ({}, {"num_workers": 0}, True),
        ({}, {"num_workers": 1}, False),
        ({}, {"cache": False}, False),
        ({}, {"augmentations": [A.HorizontalFlip(p=0.5)]}, False),
        ({}, {"batch_size": 22}, False),  # two batches in all, of 21 images each
    ],
)
def test_where_it_pays(training: dict[str, Any], options: dict[str, Any], once: bool, opened: Opened) -> None:
    assert is_decoded_once(opened(training, **options)) == once


def test_only_what_is_trained_on(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_make", None)
    for stage in ("validate", "test", "predict"):
        data = opened(stage=stage)
        data.loaded("val"), data.loaded("test")
    gpu = SimpleNamespace(root_device=SimpleNamespace(type="cuda"), launcher=None)
    data = opened(stage="test")
    data.trainer = SimpleNamespace(strategy=gpu, world_size=1, max_epochs=2, max_steps=-1, accumulate_grad_batches=1)  # type: ignore[assignment]  # in place of a trainer with a GPU, which may not be here
    data.setup("fit")
    assert not is_decoded_once(data)


def test_workers_that_come_later_read_the_files(opened: Opened) -> None:
    data = opened()
    data.num_workers = 1
    assert not is_decoded_once(data)
    data.num_workers = 0
    assert is_decoded_once(data)


def test_copies_and_caches_asked_for_later_have_their_own(opened: Opened, tmp_path: Path) -> None:
    data = opened(cache_folder=str(tmp_path / "cache"))
    expected = [next(iter(data.val_dataloader()))]
    assert is_decoded_once(data)
    copied = copy.deepcopy(data)
    assert not is_decoded_once(copied)
    assert_same([next(iter(copied.val_dataloader()))], expected)
    data.cache = False
    assert not is_decoded_once(data)
    data.cache = True
    assert_same([next(iter(data.val_dataloader()))], expected)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_many_images_stay_in_their_files(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = opened().loaded("train").file.end
    monkeypatch.setattr(cache, "LITTLE", size)
    assert is_decoded_once(opened())
    monkeypatch.setattr(cache, "LITTLE", size - 1)
    assert not is_decoded_once(opened())
    monkeypatch.setattr(cache, "LITTLE", 10**9)
    for free, once in ((4 * size, True), (4 * size - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert is_decoded_once(opened()) == once
    monkeypatch.undo()


def test_without_room_or_a_folder_images_are_read_from_their_files(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.CacheFile, "add", full)
        assert not is_decoded_once(opened())
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert not is_decoded_once(opened())


def test_records_that_do_not_say_their_files_are_read_as_they_are(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        def __init__(self, records: AttributeDataset) -> None:
            self.names = records.names
            self.read = records.__getitem__

        def __len__(self) -> int:
            return len(self.names)

        def __getitem__(self, index: int) -> Any:
            return self.read(index)

    class Same(DerivedRecords):
        def __getitem__(self, index: int) -> Any:
            return self.records[index]

    for seen in (Plain, lambda records: Same(Plain(records), "the same")):  # or are made of such
        monkeypatch.setattr(CelebADataModule, "seen", lambda self, records, seen=seen: seen(records))
        data = opened()
        assert not is_decoded_once(data)
        assert len(list(data.train_dataloader())) == 6


def test_what_cannot_be_read_is_said_before_training(opened: Opened, faces: Path, tmp_path: Path) -> None:
    shutil.copytree(faces / "celeba", tmp_path / "celeba")
    image = next((tmp_path / "celeba/Img").rglob("000003.*"))
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(FacelightningError, match=r"000003\S+: it is cut short"):
        opened(root=str(tmp_path / "celeba")).train_dataloader()
    assert not list((tmp_path / "temporary").iterdir())


def test_both_sets_of_a_joint_training(opened: Opened, faces: Path) -> None:
    celeba = opened(stage="test")
    shared: dict[str, Any] = {"image_size": SIZE, "batch_size": 4, "seed": 3}
    data = JointDataModule(
        HelenDataModule(str(faces / "helen"), **shared), CelebADataModule(str(faces / "celeba"), **shared)
    )
    data.trainer = celeba.trainer
    data.setup("fit")
    assert all(is_decoded_once(part) for part in data.parts.values())
    assert np.isin(next(iter(data.train_dataloader()["parsing_batch"]))["mask"], [*range(7), 255]).all()
