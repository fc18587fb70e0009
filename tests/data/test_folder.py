"""A folder of photographs, read for prediction."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelightning.data import Folder, FolderDataModule
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError


def write(path: Path, value: int = 200, size: tuple[int, int] = (30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def test_reads_every_image_once_at_one_size(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.jpeg"):
        write(tmp_path / name)
    write(tmp_path / "wide.png", size=(10, 40))
    (tmp_path / "notes.txt").write_text("not an image")
    photographs = Folder(tmp_path)
    assert [photographs[place]["image"].shape for place in range(4)] == [(30, 20, 3)] * 3 + [(10, 40, 3)]
    data = FolderDataModule(str(tmp_path), image_size=(16, 16), batch_size=3, num_workers=0)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [name for batch in batches for name in batch["name"]] == ["a.JPG", "b.png", "sub/c.jpeg", "wide.png"]
    assert all(batch["image"].shape[1:] == (3, 16, 16) for batch in batches)


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"data root .*gone does not exist"):
        FolderDataModule(str(tmp_path / "gone")).setup("predict")
    with pytest.raises(DataNotFoundError, match=r"no image \(.jpg, .jpeg, .png\) in"):
        FolderDataModule(str(tmp_path)).setup("predict")
    with pytest.raises(ConfigurationError, match="no labels"):
        FolderDataModule(str(tmp_path)).setup("fit")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    data = FolderDataModule(str(tmp_path), num_workers=0)
    data.setup("predict")
    with pytest.raises(DataFormatError, match=r"cannot decode .*broken\.jpg"):
        next(iter(data.predict_dataloader()))


def test_predicts_photographs_with_any_checkpoint(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    from tests.test_configs import small_overlay

    small = ["--config", "avg.yaml", "--config", small_overlay("avg.yaml", faces, tmp_path)]
    command("fit", *small, "--trainer.limit_train_batches=1", "--trainer.max_steps=1")
    for name in ("me.jpg", "friends/you.png"):
        write(tmp_path / "photos" / name)
    photographs = ["--data=FolderDataModule", "--data.root=photos"]
    command("predict", *small, *photographs, "--ckpt_path=runs/avg/version_0/checkpoints/last.ckpt")
    table = next(Path("runs/avg").glob("version_1/predictions/attributes*.csv")).read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["name", "friends/you.png", "me.jpg"]
