"""A prediction reads on where an image is broken; training, validation and test do not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from facelightning.data import CelebADataModule, FolderDataModule, HelenDataModule, JointDataModule
from facelightning.data.prediction import PredictionLoader
from facelightning.errors import DataFormatError, FacelightningError
from tests.conftest import SIZE

SMALL: dict[str, Any] = {"image_size": SIZE, "batch_size": 3}


@pytest.fixture
def copy_of_faces(faces: Path, tmp_path: Path) -> Path:
    """To break."""
    return shutil.copytree(faces, tmp_path / "faces")


def write_photographs(folder: Path, count: int, broken: set[int]) -> list[str]:
    """Grey images, each of a brightness of its own; returns the names of those that are not broken."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:02}.png"
        cv2.imwrite(str(path), np.full((*SIZE, 3), number, np.uint8))
        if number in broken:
            path.write_bytes(path.read_bytes()[:-20])
    return [f"{number:02}.png" for number in range(count) if number not in broken]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "broken",
    [set(), {9}, {1, 4}, {3, 4, 5}, {0, 1, 2}, {6, 7, 8, 9}, set(range(10))],
    ids=["none", "the last", "two", "a batch", "the first batch", "the last batches", "all"],
)
def test_the_rest_is_read(broken: set[int], workers: int, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    names = write_photographs(tmp_path / "photos", 10, broken)
    data = FolderDataModule(str(tmp_path / "photos"), **SMALL, num_workers=workers)
    data.setup("predict")
    loader = data.predict_dataloader()
    for _ in range(2):  # twice the same
        batches = list(loader)
        assert [name for batch in batches for name in batch["name"]] == names
        assert all(len(batch["image"]) == len(batch["name"]) > 0 for batch in batches)
        for batch in batches:
            values = torch.tensor([int(name[:2]) for name in batch["name"]], dtype=torch.uint8)
            assert torch.equal(batch["image"], values[:, None, None, None].expand(-1, 3, *SIZE))
        assert [failure.name for failure in loader.failures] == [f"{number:02}.png" for number in sorted(broken)]
        assert all(failure.name in failure.reason and "cut short" in failure.reason for failure in loader.failures)
    messages = [str(warning.message) for warning in recwarn.list]
    if not broken:
        assert not messages
    else:
        first = sorted(broken)[0]
        assert messages[0].startswith(f"{len(broken)} images are left out ({first:02}.png")
        assert f"{first:02}.png: it is cut short" in messages[0]


@pytest.mark.parametrize("kind", ["celeba", "helen"])
def test_only_a_prediction_reads_on(kind: str, copy_of_faces: Path) -> None:
    root = copy_of_faces / kind
    made: dict[str, Callable[[], CelebADataModule | HelenDataModule]] = {
        "celeba": lambda: CelebADataModule(str(root), **SMALL, num_workers=0),
        "helen": lambda: HelenDataModule(str(root), **SMALL, num_workers=0),
    }
    data = made[kind]()
    data.setup("fit")
    data.setup("test")
    for split in ("train", "val", "test"):
        records = data.records(split)
        name = str(records.names[0])
        (path,) = (root / "Img" if kind == "celeba" else root / "images").rglob(f"{Path(name).stem}.*")
        path.write_bytes(b"no image")
        loader = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[split]()
        with pytest.raises(DataFormatError, match=f"cannot decode .*{path.name}: its 8 bytes are not an image"):
            list(loader)
    rest = data.predict_dataloader()
    with pytest.warns(UserWarning, match=r"1 images are left out"):
        batches = list(rest)
    assert [name for batch in batches for name in batch["name"]] == [str(name) for name in records.names[1:]]
    assert [failure.name for failure in rest.failures] == [str(records.names[0])]


def test_a_joint_prediction_reads_on_in_both(copy_of_faces: Path) -> None:
    parsing = HelenDataModule(str(copy_of_faces / "helen"), **SMALL, num_workers=0)
    data = JointDataModule(parsing, CelebADataModule(str(copy_of_faces / "celeba"), **SMALL, num_workers=0))
    data.setup("predict")
    for folder in ("helen/images", "celeba/Img"):
        for path in (copy_of_faces / folder).rglob("*.jpg"):
            path.write_bytes(b"no image")
    for loader in data.predict_dataloader().values():
        assert isinstance(loader, PredictionLoader)
        with pytest.warns(UserWarning, match=r"\d+ images are left out"):
            assert list(loader) == []
        assert len(loader.failures) == len(loader.dataset.names)  # type: ignore[attr-defined]  # a Readable


def test_a_mistake_in_the_program_still_stops_it(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos", 3, set())
    data = FolderDataModule(str(tmp_path / "photos"), **SMALL, num_workers=0)
    data.setup("predict")
    data.dataset("test").transform = None  # type: ignore[assignment]  # broken on purpose
    with pytest.raises(TypeError):
        list(data.predict_dataloader())
    with pytest.raises(FacelightningError, match="use_distributed_sampler=False"):
        data.predict_dataloader().dataset[0]
