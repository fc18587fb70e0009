"""LFWA's MATLAB files as they are found, or refused in one sentence that names the file."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from facelightning.data import LFWA, LFWADataModule
from facelightning.data.lfwa import read_lfwa
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import ATTRIBUTES
from tests.conftest import write_lfwa


def test_reads_what_was_written(tmp_path: Path) -> None:
    names = write_lfwa(tmp_path)
    with h5py.File(tmp_path / "lfw_att_40.mat") as file:
        truth = dict(zip(names, np.asarray(file["label"]).T, strict=True))
    splits = read_lfwa(tmp_path)
    read = {split: {str(name) for name in faces.names} for split, faces in splits.items()}
    assert all(LFWA(tmp_path, split).names.tolist() == faces.names.tolist() for split, faces in splits.items())
    assert read["test"] == set(names[20:])
    assert read["train"] | read["val"] == set(names[:20])
    assert read["train"]
    assert read["val"]
    for faces in splits.values():
        for index, name in enumerate(faces.names):
            record = faces[index]
            np.testing.assert_array_equal(record["attributes"], truth[str(name)])
            assert record["image"].shape == (50, 40, 3)
    shown = [{int(identity) for identity in faces.identities} for faces in splits.values()]  # type: ignore[union-attr]
    assert sum(map(len, shown)) == len(set.union(*shown)) == 15


def test_batches(tmp_path: Path) -> None:
    write_lfwa(tmp_path)
    data = LFWADataModule(str(tmp_path), image_size=(40, 32), batch_size=4, num_workers=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 40, 32)
    assert batch["attributes"].shape == (4, 40)
    assert LFWA(tmp_path).positive_rates().shape == (40,)


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.where(np.random.default_rng(0).integers(2, size=(40, 30)), 1.0, -1.0)},
        {"label": np.random.default_rng(0).integers(2, size=(30, 40)).astype(float)},
        {"AttrName": [name.upper() for name in ATTRIBUTES]},
        {"AttrName": list(reversed(ATTRIBUTES)), "label": np.random.default_rng(0).integers(2, size=(40, 30))[::-1]},
    ],
    ids=["minus one", "not transposed", "upper case", "another order"],
)
def test_copies_differ(change: dict[str, object], tmp_path: Path) -> None:
    expected = np.random.default_rng(0).integers(2, size=(40, 30)).T
    write_lfwa(tmp_path, **change)
    if change.keys() == {"AttrName"}:
        write_lfwa(tmp_path, label=expected.T.astype(float), **change)
    if "label" in change and np.shape(change["label"]) == (30, 40):
        expected = np.random.default_rng(0).integers(2, size=(30, 40))
    np.testing.assert_array_equal(LFWA(tmp_path, "test").attributes, expected[20:])


def test_missing_images_are_left_out(tmp_path: Path) -> None:
    names = write_lfwa(tmp_path)
    (tmp_path / "lfw" / names[25]).unlink()
    with pytest.warns(UserWarning, match=r"1 images.*Person_12_0002"):
        assert len(read_lfwa(tmp_path)["test"]) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.full((40, 30), 2.0)}, r"lfw_att_40\.mat: a label must be 0 or 1"),
        ({"label": np.zeros((39, 30))}, r"lfw_att_40\.mat: label is \(39, 30\)"),
        ({"label": None}, r"lfw_att_40\.mat has no label; it holds AttrName, name"),
        ({"AttrName": [*ATTRIBUTES[:39], "Old"]}, r"no attribute is named Young"),
        ({"name": ["a\\b.txt"] * 30}, r"expected images' names, found 'a/b\.txt'"),
        ({"name": np.zeros((1, 30))}, r"name is no cell array"),
        ({"indices_img_train": np.array([[0.0, 1.0]])}, r"indices_train_test\.mat: .*1\.\.\.30; found 0"),
        ({"indices_img_train": np.array([[30.0]])}, r"image 30 is in both"),
        ({"indices_img_test": np.array([[1.5]])}, r"found 1\.5"),
    ],
)
def test_wrong_content_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    write_lfwa(tmp_path, **change)
    with pytest.raises(DataFormatError, match=message):
        read_lfwa(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>quota exceeded</html>", "download the file again"),
        (b"MATLAB 5.0 MAT-file", "-v7.3"),
        (b"", "damaged"),
        (b"text", "damaged"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    write_lfwa(tmp_path)
    (tmp_path / "lfw_att_40.mat").write_bytes(content)
    with pytest.raises(DataFormatError, match=rf"lfw_att_40\.mat: .*{message}"):
        read_lfwa(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"lfw_att_40\.mat does not exist"):
        read_lfwa(tmp_path)
    write_lfwa(tmp_path)
    (tmp_path / "lfw").rename(tmp_path / "elsewhere")
    with pytest.raises(DataNotFoundError, match=r"no image such as Person_00/Person_00_0001\.jpg"):
        read_lfwa(tmp_path)
    with pytest.raises(DataNotFoundError, match="no data root"):
        LFWADataModule().setup("fit")
