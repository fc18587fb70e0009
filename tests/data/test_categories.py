"""Images in folders by category: listed, numbered and read; what is amiss is said."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facelightning.data import ImageFolder, ImageFolderDataModule
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError

FILES = {
    "train": ("cat/b.JPG", "cat/a.png", "zebra/deep/c.webp", "n02 two words/1.jpg"),
    "val": ("zebra/1.png", "cat/1.png"),
    "test": ("zebra/2.jpg", "zebra/10.jpg"),
}


def write(path: Path, value: int = 200, size: tuple[int, int] = (30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Each image has the brightness of its place in ``FILES``."""
    for split, names in FILES.items():
        for number, name in enumerate(names):
            write(tmp_path / split / name, 40 * number)
    return tmp_path


def table(images: ImageFolder) -> dict[str, tuple[str, int]]:
    """The category and the brightness of each image, by its name."""
    records = [images[index] for index in range(len(images))]
    return {each["name"]: (images.categories[each["category"]], int(each["image"].mean())) for each in records}


@pytest.mark.parametrize("split", FILES)
def test_an_images_category_is_its_folder_in_every_split(split: str, root: Path) -> None:
    images = ImageFolder(root, split)  # type: ignore[arg-type]  # a literal, which a loop makes a str
    assert images.categories == ("cat", "n02 two words", "zebra")
    expected = {name: (name.split("/")[0], pytest.approx(40 * n, abs=2)) for n, name in enumerate(FILES[split])}
    assert table(images) == expected
    assert list(images.names) == sorted(images.names)


def test_what_is_no_image_is_no_sample(root: Path) -> None:
    for name in (".hidden/1.jpg", "@eaDir/1.jpg", "cat/.1.jpg", "cat/@eaDir/1.jpg"):
        write(root / "train" / name)
    (root / "train/readme.txt").write_text("about the categories")
    before = len(FILES["train"])
    assert len(ImageFolder(root, "train")) == before
    (root / "train/cat/notes.txt").write_text("about cats")
    with pytest.warns(UserWarning, match=r"train: 1 files are left out \(cat/notes.txt\)"):
        assert len(ImageFolder(root, "train")) == before


def test_links_are_followed_and_none_leads_back(root: Path) -> None:
    write(root / "elsewhere/9.jpg", 200)
    cat = root / "train/cat"
    for number in range(3):
        (cat / f"self_{number}").symlink_to(cat)
    (cat / "up").symlink_to(root)
    (cat / "more").symlink_to(root / "elsewhere")
    names = ImageFolder(root, "train").names.tolist()
    assert sorted(names) == sorted([*FILES["train"], "cat/more/9.jpg"])


def test_an_image_is_upright(root: Path) -> None:
    path = root / "train/cat/b.JPG"
    jpeg, tag = path.read_bytes(), b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tag
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    assert ImageFolder(root, "train")[1]["image"].shape == (20, 30, 3)


def test_what_is_amiss_is_said(root: Path) -> None:
    write(root / "test/panda/1.jpg")
    write(root / "test/dog/1.jpg")
    with pytest.raises(DataFormatError, match=r"test has categories that train lacks \(dog, panda\): rename or remove"):
        ImageFolder(root, "test")
    (root / "val/n02 two words").mkdir()
    with pytest.raises(DataFormatError, match=r"val/n02 two words holds no image that can be read \(.jpg, "):
        ImageFolder(root, "val")
    (root / "train").rename(root / "training")
    with pytest.raises(DataNotFoundError, match=r"has no folder train; it must hold train, val and test, and each a"):
        ImageFolder(root, "val")
    write(root / "train/1.jpg")
    with pytest.raises(DataFormatError, match=r"train holds no folder; .* must hold train, val and test, and each a"):
        ImageFolder(root, "train")
    with pytest.raises(DataNotFoundError, match="ImageFolder: no data root given"):
        ImageFolder(None, "train")


def test_a_batch_has_numbers_and_the_facts_have_names(root: Path) -> None:
    data = ImageFolderDataModule(str(root), image_size=(16, 16), batch_size=4, num_workers=0)
    assert data.facts.categories is None
    data.setup("fit")
    assert data.facts.categories == ("cat", "n02 two words", "zebra")
    assert data.facts.image_size == (16, 16)
    (batch,) = data.train_dataloader()
    assert batch["category"].dtype == torch.int64
    assert batch["image"].shape == (4, 3, 16, 16)
    names = [data.facts.categories[number] for number in batch["category"]]
    assert names == [name.split("/")[0] for name in batch["name"]]
    (batch,) = data.val_dataloader()
    assert dict(zip(batch["name"], batch["category"].tolist(), strict=True)) == {"zebra/1.png": 2, "cat/1.png": 0}
    with pytest.raises(ConfigurationError, match="ImageFolderDataModule: image_size"):
        ImageFolderDataModule(str(root), image_size=(0, 16))
