"""LFWA's MATLAB files as they are found, or refused in one sentence that names the file."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
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
    assert read["all"] == set(names)
    assert read["test"] == set(names[20:])
    assert read["train"] | read["val"] == set(names[:20])
    assert read["train"]
    assert read["val"]
    for faces in splits.values():
        for index, name in enumerate(faces.names):
            record = faces[index]
            np.testing.assert_array_equal(record["attributes"], truth[str(name)])
            assert record["image"].shape == (50, 40, 3)
    del splits["all"]
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


def as_png(root: Path) -> None:
    for path in (root / "lfw").rglob("*.jpg"):
        image = cv2.imread(str(path))
        assert image is not None
        assert cv2.imwrite(str(path.with_suffix(".png")), image)
        path.unlink()


def nested(outer: str) -> Callable[[Path], None]:
    def move(root: Path) -> None:
        (root / "lfw").rename(root / "moved")
        (root / outer).mkdir(exist_ok=True)
        (root / "moved").rename(root / outer / outer)

    return move


@pytest.mark.parametrize(
    ("change", "suffix"),
    [
        pytest.param(as_png, ".png", id="png in place of jpg"),
        pytest.param(nested("lfw"), ".jpg", id="lfw in lfw"),
        pytest.param(nested("lfw-deepfunneled"), ".jpg", id="lfw-deepfunneled in itself"),
    ],
)
def test_images_lie_where_archives_put_them(change: Callable[[Path], None], suffix: str, tmp_path: Path) -> None:
    names = write_lfwa(tmp_path)
    before = LFWA(tmp_path, "test")
    images = [before[index]["image"] for index in range(10)]
    change(tmp_path)
    after = LFWA(tmp_path, "test")
    assert after.names.tolist() == [name.replace(".jpg", suffix) for name in names[20:]]
    np.testing.assert_array_equal(after.attributes, before.attributes)
    for index in range(10):
        np.testing.assert_array_equal(after[index]["image"], images[index])


def test_names_may_end_in_png(tmp_path: Path) -> None:
    names = write_lfwa(tmp_path)
    write_lfwa(tmp_path, name=[name.replace("/", "\\").replace(".jpg", ".png") for name in names])
    assert LFWA(tmp_path, "test").names.tolist() == names[20:]


def names_with(place: int, name: str) -> dict[str, object]:
    """The names of 30 images, one of which is another."""
    names = [f"P{number // 2}\\P{number // 2}_{number % 2}.jpg" for number in range(30)]
    return {"name": [*names[:place], name, *names[place + 1 :]]}


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
        ({"indices_img_test": np.array([[np.nan]])}, r"found nan"),
        ({"indices_img_test": np.array([[1e300]])}, r"found 1e\+300"),
        ({"indices_img_test": np.array([[21.0, 22.0, 21.0]])}, r"indices_img_test lists image 21 twice"),
        ({"indices_img_test": np.ones((1, 31))}, r"indices_img_test is no array of numbers .* at most 30 elements"),
        ({"indices_img_test": np.array([[21j]])}, r"indices_img_test is no array of numbers"),
        ({"indices_img_test": h5py.Empty("f8")}, r"indices_img_test is no array of numbers"),
        ({"label": np.full((40, 30), np.nan)}, r"a label must be 0 or 1, but 5_o_Clock_Shadow of .* is nan"),
        ({"label": "text"}, r"label is no array of numbers"),
        ({"label": np.zeros((200, 200))}, r"label is no array of numbers in this file with at most 1,200 elements"),
        ({"label": np.zeros(1200)}, r"label is \(1200,\)"),
        ({"AttrName": [*ATTRIBUTES, "bald"]}, r"AttrName lists 'bald' twice"),
        ({"AttrName": [*ATTRIBUTES[:39], "Yöung"]}, r"no attribute is named Young$"),
        ({"AttrName": ["x" * 1001]}, r"AttrName is no cell array of texts"),
        ({"AttrName": ["x", "y"]}, r"no attribute is named 5_o_Clock_Shadow, .*…$"),
        (names_with(25, "P0\\P0_1.jpg"), r"name lists 'P0/P0_1\.jpg' twice"),
        (names_with(25, "P0/P0_1.jpg"), r"name lists 'P0/P0_1\.jpg' twice"),
        (names_with(25, "P0\\P0_1.png"), r"name lists 'P0/P0_1\.png' twice"),
        (names_with(7, "..\\..\\x.jpg"), r"expected images' names, found '\.\./\.\./x\.jpg'"),
        (names_with(7, "P\\..\\x.jpg"), r"expected images' names, found 'P/\.\./x\.jpg'"),
        (names_with(7, ".\\P\\x.jpg"), r"expected images' names, found '\./P/x\.jpg'"),
        (names_with(7, "\\etc\\x.jpg"), r"expected images' names, found '/etc/x\.jpg'"),
        (names_with(7, "\\\\server\\share\\x.jpg"), r"expected images' names, found '//server/share/x\.jpg'"),
        (names_with(7, "C:\\P\\x.jpg"), r"expected images' names, found 'C:/P/x\.jpg'"),
        (names_with(7, "C:x.jpg"), r"expected images' names, found 'C:x\.jpg'"),
        (names_with(7, "P\\x\0.jpg"), r"expected images' names, found 'P/x�\.jpg'"),
        (names_with(7, "P\\x.jpg" + "\0" * 900), r"expected images' names, found 'P/x\.jpg�+…'"),
        (names_with(7, f"P\\{'x' * 252}.jpg"), r"expected images' names, found 'P/x+…'"),
        ({"name": []}, r"name lists no image"),
        (names_with(7, "x.jpg"), r"expected images' names, found 'x\.jpg'"),
    ],
)
def test_wrong_content_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    write_lfwa(tmp_path, **change)
    with pytest.raises(DataFormatError, match=message) as caught:
        read_lfwa(tmp_path)
    assert len(str(caught.value)) <= 300


def replace(root: Path, key: str, make: Callable[[h5py.File], None]) -> None:
    """Let ``make`` put something else in the place of one array."""
    file = "lfw_att_40.mat" if key in ("label", "name", "AttrName") else "indices_train_test.mat"
    with h5py.File(root / file, "r+") as mat:
        del mat[key]
        make(mat)


def elsewhere(root: Path) -> Path:
    """Another file, which holds arrays as they should be."""
    (root / "elsewhere").mkdir()
    write_lfwa(root / "elsewhere")
    return root / "elsewhere"


KEYS = ["label", "name", "AttrName", "indices_img_train", "indices_img_test"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", ["external link", "soft link", "soft link through a link", "virtual", "raw"])
def test_nothing_outside_of_the_file_is_read(kind: str, key: str, tmp_path: Path) -> None:
    write_lfwa(tmp_path)
    file = "lfw_att_40.mat" if key in KEYS[:3] else "indices_train_test.mat"
    other = elsewhere(tmp_path) / file
    with h5py.File(other) as mat:
        shape, dtype = mat[key].shape, mat[key].dtype

    def make(mat: h5py.File) -> None:
        if kind == "external link":
            mat[key] = h5py.ExternalLink(str(other), f"/{key}")
        elif kind == "soft link":
            mat[key] = h5py.SoftLink(f"/elsewhere/{key}")
            mat["elsewhere"] = h5py.ExternalLink(str(other), "/")
        elif kind == "soft link through a link":
            mat[key] = h5py.SoftLink("/inner")
            mat["inner"] = h5py.ExternalLink(str(other), f"/{key}")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(str(other), key, shape, dtype)
            mat.create_virtual_dataset(key, layout)
        else:
            numbers = np.ones(shape) if key in ("label", *KEYS[3:]) else np.zeros(shape, "u8")
            raw = tmp_path / "raw"
            raw.write_bytes(numbers.tobytes())
            mat.create_dataset(key, shape, numbers.dtype, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])

    replace(tmp_path, key, make)
    with pytest.raises(DataFormatError, match=rf"{file}: {key} is no .* in this file"):
        read_lfwa(tmp_path)


def test_nothing_outside_of_the_file_is_read_through_a_reference(tmp_path: Path) -> None:
    write_lfwa(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes("P\\x.jpg".encode("utf-16-le"))

    def make(mat: h5py.File) -> None:
        codes = mat.create_dataset("outside", (7, 1), "u2", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        mat.create_dataset("name", data=np.array([[codes.ref]], dtype=h5py.ref_dtype))

    replace(tmp_path, "name", make)
    with pytest.raises(DataFormatError, match=r"lfw_att_40\.mat: name is no cell array of texts in this file"):
        read_lfwa(tmp_path)


def referring_to(target: str) -> Callable[[h5py.File], None]:
    """A cell array whose one reference leads to something that is no text."""

    def make(mat: h5py.File) -> None:
        strange: dict[str, Callable[[], Any]] = {
            "group": lambda: mat.create_group("strange").ref,
            "root": lambda: mat["/"].ref,
            "numbers": lambda: mat["label"].ref,
            "signed": lambda: mat.create_dataset("strange", data=np.array([65, -1], "i2")).ref,
            "wide": lambda: mat.create_dataset("strange", data=np.array([65 + 2**16], "u4")).ref,
            "half a pair": lambda: mat.create_dataset("strange", data=np.array([0xD800], "u2")).ref,
            "type": lambda: commit(mat),
            "references": lambda: mat["AttrName"].ref,
            "nothing": h5py.Reference,
        }
        mat.create_dataset("name", data=np.array([[strange[target]()]], dtype=h5py.ref_dtype))

    def commit(mat: h5py.File) -> h5py.Reference:
        mat["strange"] = np.dtype("f8")
        return mat["strange"].ref

    return make


def huge(key: str, dtype: Any, **options: Any) -> Callable[[h5py.File], None]:
    def make(mat: h5py.File) -> None:
        mat.create_dataset(key, (200_000, 200_000), dtype, **options)

    return make


@pytest.mark.parametrize(
    ("key", "make"),
    [
        *(
            pytest.param("name", referring_to(target), id=f"a name refers to {target}")
            for target in ("group root numbers signed wide type references nothing".split() + ["half a pair"])
        ),
        pytest.param("label", huge("label", "u1", chunks=(1000, 1000)), id="huge label"),
        pytest.param("label", huge("label", "f8"), id="huge label that is never written"),
        pytest.param("name", huge("name", h5py.ref_dtype, chunks=(100, 100)), id="huge name"),
        pytest.param("indices_img_test", huge("indices_img_test", "f8"), id="huge indices"),
        pytest.param(
            "label",
            lambda mat: mat.create_dataset("label", (40, 30), "u1", maxshape=(None, None), chunks=(60_000, 60_000)),
            id="huge chunk",
        ),
        pytest.param("label", lambda mat: mat.create_group("label"), id="a group"),
        pytest.param(
            "label",
            lambda mat: mat.create_dataset("label", (40, 30), np.dtype(("f8", (1000,)))),
            id="an array of arrays",
        ),
        pytest.param("label", lambda mat: mat.create_dataset("label", (40, 30), "V1000"), id="opaque"),
        pytest.param("label", lambda mat: mat.create_dataset("label", (40, 30), h5py.string_dtype()), id="strings"),
        pytest.param("name", lambda mat: mat.create_dataset("name", (30,), h5py.string_dtype()), id="names as strings"),
        pytest.param(
            "name", lambda mat: mat.create_dataset("name", (30,), h5py.regionref_dtype), id="references to parts"
        ),
    ],
)
def test_strange_arrays_are_refused(key: str, make: Callable[[h5py.File], None], tmp_path: Path) -> None:
    write_lfwa(tmp_path)
    replace(tmp_path, key, make)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataFormatError, match=r"\.mat: .*") as caught:
        read_lfwa(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
    assert len(str(caught.value)) <= 300


def test_many_keys_are_not_listed(tmp_path: Path) -> None:
    write_lfwa(tmp_path, label=None)
    with h5py.File(tmp_path / "lfw_att_40.mat", "r+") as mat:
        for number in range(1000):
            mat.create_group(f"{number:0100d}")
    with pytest.raises(DataFormatError, match=r"has no label; it holds 0{79}…$"):
        read_lfwa(tmp_path)


@pytest.mark.parametrize("file", ["lfw_att_40.mat", "indices_train_test.mat"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: path.mkdir(), "it is a folder, not a file", id="folder"),
        pytest.param(lambda path: path.symlink_to("gone"), "it is a link to nothing", id="dangling link"),
        pytest.param(lambda path: os.mkfifo(path), ".*device, not a file", id="pipe"),
    ],
)
def test_what_lies_in_a_file_s_place_is_said(
    make: Callable[[Path], None], message: str, file: str, tmp_path: Path
) -> None:
    write_lfwa(tmp_path)
    (tmp_path / file).unlink()
    make(tmp_path / file)
    with pytest.raises(DataNotFoundError, match=f"cannot read {tmp_path / file}: {message}"):
        read_lfwa(tmp_path)


def test_a_file_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be allowed everything, so the refusal is played."""
    write_lfwa(tmp_path)

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataNotFoundError, match=r"cannot read .*lfw_att_40\.mat: Permission denied"):
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
