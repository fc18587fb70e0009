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
    with pytest.raises(DataNotFoundError, match=r"no image in .* \(.jpg, .jpeg, .png, .webp, …\); pass a folder"):
        FolderDataModule(str(tmp_path)).setup("predict")
    with pytest.raises(ConfigurationError, match="no labels"):
        FolderDataModule(str(tmp_path)).setup("fit")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    with pytest.raises(DataFormatError, match=r"cannot decode .*broken\.jpg: its 7 bytes are not an image"):
        Folder(tmp_path)[0]
    with pytest.raises(DataNotFoundError, match=r"broken\.jpg is a file, not a folder; pass the folder"):
        Folder(tmp_path / "broken.jpg")


FORMATS = [".jpg", ".JPEG", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".jpe", ".jp2", ".ppm"]
LOSSLESS = {".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm"}


def test_every_format_that_opencv_decodes_is_read(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for suffix in FORMATS:
        write(tmp_path / f"a{suffix}", size=(64, 48))
    (tmp_path / "b.jfif").write_bytes((tmp_path / "a.jpg").read_bytes())
    cv2.imwrite(str(tmp_path / "b.pgm"), np.full((30, 20), 200, np.uint8))
    photographs = Folder(tmp_path)
    assert sorted(photographs.names) == sorted([*(f"a{suffix}" for suffix in FORMATS), "b.jfif", "b.pgm"])
    for index, name in enumerate(photographs.names):
        error = np.abs(photographs[index]["image"].astype(int) - 200).max()
        assert error <= (0 if Path(name).suffix in LOSSLESS else 60 if name == "a.gif" else 3)  # few colours, dithered
    assert not recwarn.list


def test_what_is_left_out_is_counted_and_named_once(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    for name in ("IMG_1.HEIC", "notes.txt", "film.mp4", "z.pdf", ".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"?")
    for folder in (".hidden", "@eaDir", "__MACOSX", "#recycle"):
        write(tmp_path / folder / "thumbnail.jpg")
    with pytest.warns(UserWarning) as caught:
        assert Folder(tmp_path).names == ["a.jpg"]
    (message,) = (str(warning.message) for warning in caught)
    assert ": 4 of 5 files are left out (IMG_1.HEIC, film.mp4, notes.txt)" in message
    assert message.endswith("; convert HEIC to JPEG")
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataNotFoundError, match=r"no image in .*: 4 of 4 files are left out.*; convert HEIC to JPEG"):
        Folder(tmp_path)


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write(tmp_path / "elsewhere/1.jpg")
    for name in ("own/2.jpg", "z/3.jpg", "folder.jpg/4.jpg"):
        write(root / name)
    for link, target in {
        "album": "../elsewhere", "a": "z", "b": "z", "own/up": "..", "own/me": ".", "loop": "..", "ring": "ring",
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    (root / "5.jpg").symlink_to("own/2.jpg")
    (tmp_path / "elsewhere/back").symlink_to("../photos")
    with pytest.warns(UserWarning, match=r"1 of 6 files are left out \(ring\)"):
        photographs = Folder(root)
    assert photographs.names == ["5.jpg", "album/1.jpg", "folder.jpg/4.jpg", "own/2.jpg", "z/3.jpg"]
    assert [photographs[index]["image"].shape for index in range(5)] == [(30, 20, 3)] * 5


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
