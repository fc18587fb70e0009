"""CelebA as it really lies on disks: every layout is read right, every damage is refused with file and line."""

import errno
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facelightning.data import CelebA, CelebADataModule
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import ATTRIBUTES

RANDOM = np.random.default_rng(1)
NAMES = [f"{i:06d}" for i in range(1, 9)]
LABELS = RANDOM.integers(0, 2, (8, 40))
LANDMARKS = RANDOM.integers(0, 16, (8, 5, 2))
PEOPLE = [5, 5, 6, 7, 8, 8, 9, 9]
SPLITS = ["train", "train", "train", "train", "val", "val", "test", "test"]
NUMBERS = [["train", "val", "test"].index(split) for split in SPLITS]
POINTS = [f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"]


def signed() -> list[list[int]]:
    return [[2 * label - 1 for label in row] for row in LABELS.tolist()]


def text(rows: list[list[int]], header: list[str] | None = None, space: str = " ") -> str:
    """CelebA's own text format: count, names with a trailing space, rows."""
    head = "" if header is None else f"{len(rows)}\n{' '.join(header)} \n"
    return head + "".join(f"{n}.jpg{space}{space.join(map(str, row))}\n" for n, row in zip(NAMES, rows, strict=True))


def csv(rows: list[list[int]], header: list[str], first: str = "image_id") -> str:
    lines = [
        ",".join([first, *header]),
        *(f"{n}.jpg,{','.join(map(str, r))}" for n, r in zip(NAMES, rows, strict=True)),
    ]
    return "\n".join(lines) + "\n"


def column(values: list[int]) -> list[list[int]]:
    return [[value] for value in values]


def write_images(folder: Path, suffix: str = ".jpg", size: tuple[int, int] = (16, 12)) -> None:
    """Each image's red says which it is; its blue is 0, so that swapped channels show."""
    folder.mkdir(parents=True)
    for index, name in enumerate(NAMES):
        image = np.zeros((*size, 3), np.uint8)
        image[..., 2] = 30 * index + 20  # OpenCV writes BGR
        assert cv2.imwrite(str(folder / f"{name}{suffix}"), image)


def write_official(root: Path, suffix: str = ".jpg", folder: str = "img_align_celeba") -> Path:
    write_images(root / "Img" / folder, suffix)
    for parent, name, content in (
        ("Anno", "list_attr_celeba", text(signed(), list(ATTRIBUTES))),
        ("Anno", "list_landmarks_align_celeba", text(LANDMARKS.reshape(8, 10).tolist(), POINTS, space="  ")),
        ("Anno", "identity_CelebA", text(column(PEOPLE))),
        ("Eval", "list_eval_partition", text(column(NUMBERS))),
    ):
        (root / parent).mkdir(exist_ok=True)
        (root / parent / f"{name}.txt").write_text(content)
    return root


def write_flat(root: Path) -> Path:
    write_images(root / "img_align_celeba")
    (root / "list_attr_celeba.txt").write_text(text(signed(), list(ATTRIBUTES)))
    (root / "list_landmarks_align_celeba.txt").write_text(text(LANDMARKS.reshape(8, 10).tolist(), POINTS))
    (root / "identity_CelebA.txt").write_text(text(column(PEOPLE)))
    (root / "list_eval_partition.txt").write_text(text(column(NUMBERS)))
    return root


def write_kaggle(root: Path, first: str = "image_id") -> Path:
    write_images(root / "img_align_celeba" / "img_align_celeba")
    (root / "list_attr_celeba.csv").write_text(csv(signed(), list(ATTRIBUTES), first))
    (root / "list_landmarks_align_celeba.csv").write_text(csv(LANDMARKS.reshape(8, 10).tolist(), POINTS, first))
    (root / "list_eval_partition.csv").write_text(csv(column(NUMBERS), ["partition"], first))
    return root


def check(root: Path, without: tuple[str, ...] = (), images: str = "aligned") -> None:
    """Every record is what was written, in the right split, and nothing was warned about."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = CelebADataModule(str(root), images=images)  # type: ignore[arg-type]
        parts = {split: CelebA(root, split, images) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    seen = []
    for split, faces in parts.items():
        assert data.records(split).names.tolist() == faces.names.tolist()  # type: ignore[arg-type]
        np.testing.assert_array_equal(faces.positive_rates(), faces.attributes.mean(axis=0))
        for position in range(len(faces)):
            record = faces[position]
            name = Path(record["name"]).stem
            index = NAMES.index(name)
            seen.append(name)
            assert SPLITS[index] == split
            assert record["attributes"].dtype == np.float32
            np.testing.assert_array_equal(record["attributes"], LABELS[index])
            np.testing.assert_allclose(record["image"][8, 6], [30 * index + 20, 0, 0], atol=3)
            optional = {"landmarks": LANDMARKS[index], "identity": PEOPLE[index]}
            for key, value in optional.items():
                assert (key in record) == (key not in without)
                if key in record:
                    np.testing.assert_array_equal(record[key], value)  # type: ignore[literal-required]
    assert sorted(seen) == NAMES


@pytest.mark.parametrize(
    ("write", "without"),
    [
        pytest.param(write_official, (), id="official"),
        pytest.param(lambda root: write_official(root, ".png"), (), id="png in place of jpg"),
        pytest.param(lambda root: write_official(root, ".png", "img_align_celeba_png"), (), id="official png folder"),
        pytest.param(write_flat, (), id="flat"),
        pytest.param(write_kaggle, ("identity",), id="kaggle"),
        pytest.param(lambda root: write_kaggle(root, ""), ("identity",), id="kaggle, empty first header cell"),
        pytest.param(lambda root: write_kaggle(root, "photo"), ("identity",), id="kaggle, other first header cell"),
    ],
)
def test_layouts(write: Callable[[Path], Path], without: tuple[str, ...], tmp_path: Path) -> None:
    check(write(tmp_path), without)


def test_original_images_have_their_own_folder_and_landmarks(tmp_path: Path) -> None:
    write_official(tmp_path, folder="img_celeba")
    with pytest.raises(DataNotFoundError, match=r"aligned images.*img_align_celeba"):
        CelebADataModule(str(tmp_path)).setup("fit")
    check(tmp_path, without=("landmarks",), images="wild")
    aligned = tmp_path / "Anno" / "list_landmarks_align_celeba.txt"
    aligned.rename(tmp_path / "Anno" / "list_landmarks_celeba.txt")
    check(tmp_path, images="wild")


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = next(root.rglob(name))
        path.write_bytes(change(path.read_text()).encode())

    return apply


def on_every_table(change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        for path in root.rglob("*.txt"):
            edit(path.name, change)(root)

    return apply


def with_columns_reversed(content: str) -> str:
    count, header, *rows = content.splitlines()
    turned = [" ".join([row.split()[0], *reversed(row.split()[1:])]) for row in rows]
    return "\n".join([count, " ".join(reversed(header.split())), *turned])


def with_rows_reversed(content: str) -> str:
    rows = [line for line in content.splitlines() if ".jpg" in line]
    return content[: content.index(rows[0])] + "\n".join(reversed(rows)) + "\n"


ATTR, PART = "list_attr_celeba.txt", "list_eval_partition.txt"
LAND, PEOPLE_FILE = "list_landmarks_align_celeba.txt", "identity_CelebA.txt"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(edit(ATTR, lambda s: s.replace("8\n", "202599\n", 1)), id="count too high"),
        pytest.param(edit(ATTR, lambda s: s.replace("8\n", "3\n", 1)), id="count too low"),
        pytest.param(edit(ATTR, lambda s: s.removeprefix("8\n")), id="no count"),
        pytest.param(on_every_table(lambda s: s.replace("\n", "\r\n")), id="CRLF"),
        pytest.param(on_every_table(lambda s: s.replace("\n", " \n")), id="trailing spaces"),
        pytest.param(on_every_table(lambda s: s.removesuffix("\n")), id="no last newline"),
        pytest.param(on_every_table(lambda s: s + "\n\n"), id="blank lines"),
        pytest.param(on_every_table(lambda s: "\ufeff" + s), id="byte order mark"),
        pytest.param(edit(ATTR, lambda s: s.replace(" 1", "  1")), id="two spaces"),
        pytest.param(edit(ATTR, lambda s: s.replace(" -1", " 0")), id="labels 0 and 1"),
        pytest.param(edit(ATTR, with_columns_reversed), id="other order of columns"),
        pytest.param(edit(LAND, with_columns_reversed), id="other order of coordinates"),
        pytest.param(edit(PART, with_rows_reversed), id="other order of rows"),
        pytest.param(on_every_table(lambda s: s + s.splitlines()[-1] + "\n"), id="the same row twice"),
        pytest.param(edit(PART, lambda s: s.replace(".jpg", ".png")), id="a list converted to png"),
        pytest.param(
            lambda root: (root / "Img/img_align_celeba/._000001.jpg").write_bytes(b"\0"), id="a hidden file of macOS"
        ),
    ],
)
def test_harmless_oddities_are_read_right(change: Callable[[Path], None], tmp_path: Path) -> None:
    write_official(tmp_path)
    change(tmp_path)
    check(tmp_path)


def on_line(number: int, change: Callable[[str], str]) -> Callable[[str], str]:
    def apply(content: str) -> str:
        lines = content.splitlines()
        lines[number - 1] = change(lines[number - 1])
        return "\n".join(lines)

    return apply


def with_last_number(number: str) -> Callable[[str], str]:
    return lambda line: " ".join([*line.split()[:-1], number])


HTML = "<!DOCTYPE html><title>Google Drive - Quota exceeded</title>"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            edit(ATTR, on_line(5, lambda s: s.rpartition(" ")[0])),
            r"list_attr_celeba\.txt, line 5: expected 40 labels, found 39",
            id="too few labels",
        ),
        pytest.param(
            edit(ATTR, on_line(5, lambda s: s + " 1")),
            r"list_attr_celeba\.txt, line 5: expected 40 labels, found 41",
            id="too many labels",
        ),
        pytest.param(
            edit(ATTR, on_line(10, with_last_number("2"))),
            r"list_attr_celeba\.txt, line 10: a label must be -1 or 1, found 2",
            id="label 2",
        ),
        pytest.param(
            edit(ATTR, on_line(4, with_last_number("0"))),
            r"list_attr_celeba\.txt, line 4: a label must be -1 or 1, found 0",
            id="label 0 in a file of -1 and 1",
        ),
        pytest.param(
            edit(ATTR, on_line(3, with_last_number("nan"))), r"list_attr_celeba\.txt, line 3: .*found nan", id="nan"
        ),
        pytest.param(
            edit(ATTR, on_line(3, with_last_number("yes"))), r"list_attr_celeba\.txt, line 3: .*'yes'", id="no number"
        ),
        pytest.param(
            edit(ATTR, lambda s: s + on_line(1, with_last_number("1" if LABELS[0, -1] == 0 else "-1"))(text(signed()))),
            r"list_attr_celeba\.txt, line 11: other labels than in line 3",
            id="an image with two rows that differ",
        ),
        pytest.param(
            edit(ATTR, on_line(6, lambda s: "garbage")), r"list_attr_celeba\.txt, line 6: .*'garbage'", id="no row"
        ),
        pytest.param(
            edit(ATTR, lambda s: s.replace("Bald", "Hairless")),
            r"list_attr_celeba\.txt: no column is named Bald$",
            id="an attribute is missing",
        ),
        pytest.param(
            edit(ATTR, lambda s: text(signed())),
            r"list_attr_celeba\.txt, line 1: expected the names of the columns",
            id="no line of names",
        ),
        pytest.param(
            edit(ATTR, lambda s: "8\n5_o_Clock_Shadow\n"), r"list_attr_celeba\.txt holds no row", id="no rows"
        ),
        pytest.param(edit(ATTR, lambda s: ""), r"list_attr_celeba\.txt: it is empty", id="empty"),
        pytest.param(edit(ATTR, lambda s: HTML), r"list_attr_celeba\.txt: it is a web page.*quota", id="web page"),
        pytest.param(
            lambda root: (root / "Anno" / ATTR).write_bytes(b"PK\x03\x04\xff\xfe"),
            r"list_attr_celeba\.txt: it is not a text file",
            id="an archive",
        ),
        pytest.param(
            edit(PART, on_line(2, with_last_number("3"))),
            r"list_eval_partition\.txt, line 2: a partition number must be 0 .*found 3",
            id="partition 3",
        ),
        pytest.param(
            edit(PART, lambda s: s + "000001.jpg 2\n"),
            r"list_eval_partition\.txt, line 9: other partition number than in line 1",
            id="an image in two splits",
        ),
        pytest.param(
            edit(PART, lambda s: HTML), r"list_eval_partition\.txt: it is a web page", id="web page of splits"
        ),
        pytest.param(
            edit(PART, lambda s: s.replace("0000", "1000")),
            r"no image is left: 8 not in list_eval_partition\.txt \(such as 000001\)",
            id="nothing in common",
        ),
        pytest.param(
            edit("identity_CelebA.txt", lambda s: HTML),
            r"identity_CelebA\.txt: it is a web page",
            id="web page of people",
        ),
        pytest.param(
            edit(ATTR, on_line(2, lambda s: s.replace("Young", "Bald"))),
            r"list_attr_celeba\.txt, line 2: two columns are named 'Bald'",
            id="an attribute with two columns",
        ),
        pytest.param(
            edit(LAND, on_line(2, lambda s: s.replace("nose_y", "nose_x"))),
            r"list_landmarks_align_celeba\.txt, line 2: two columns are named 'nose_x'",
            id="a coordinate with two columns",
        ),
        *(
            pytest.param(
                edit(name, lambda s, image=image: s.replace("000003.jpg", image)),  # type: ignore[misc]  # bound by its default
                rf"{name}, line \d: expected an image's name without a folder, found '{re.escape(image)}'",
                id=f"{image} in {name}",
            )
            for name in (ATTR, PART, LAND, PEOPLE_FILE)
            for image in ("../000003.jpg", "C:\\000003.jpg")
        ),
        *(
            pytest.param(
                edit(name, lambda s, end=end: s + end + "\n"),  # type: ignore[misc]  # bound by its default
                rf"{name}, line \d+: other {what} than in line \d",
                id=f"an image with two {what}",
            )
            for name, what, end in (
                (LAND, "coordinates", "000001.jpg 99 1 1 1 1 1 1 1 1 1"),
                (PEOPLE_FILE, "identity number", "000001.jpg 99"),
            )
        ),
        *(
            pytest.param(edit(name, lambda s: s + "\0" * 400_000), rf"{name}, line \d+: it holds NUL bytes", id=name)
            for name in (ATTR, PART, LAND, PEOPLE_FILE)
        ),
        pytest.param(
            edit(ATTR, lambda s: "\n".join(line.split()[0] for line in s.splitlines())),
            r"list_attr_celeba\.txt, line 3: expected the names of the columns",
            id="only one column",
        ),
        pytest.param(
            edit(ATTR, lambda s: s.replace("_", "-")),
            r"list_attr_celeba\.txt: no column is named 5_o_Clock_Shadow, .*…$",
            id="most attributes are missing",
        ),
        pytest.param(
            edit(PEOPLE_FILE, on_line(4, with_last_number("7.5"))),
            r"identity_CelebA\.txt, line 4: an identity's number must be a whole number, found 7\.5",
            id="a fraction of an identity",
        ),
        pytest.param(
            edit(PEOPLE_FILE, on_line(4, with_last_number("1e300"))),
            r"identity_CelebA\.txt, line 4: an identity's number must be",
            id="an identity beyond all integers",
        ),
        pytest.param(
            edit(LAND, on_line(4, with_last_number("1e300"))),
            r"list_landmarks_align_celeba\.txt, line 4: a coordinate must lie within ±1000000 pixels, found 1e\+300",
            id="a coordinate beyond all images",
        ),
        pytest.param(
            edit("list_landmarks_align_celeba.txt", on_line(7, lambda s: s.rpartition("  ")[0])),
            r"list_landmarks_align_celeba\.txt, line 7: expected 10 coordinates, found 9",
            id="too few coordinates",
        ),
    ],
)
def test_damage_is_refused_with_file_and_line(change: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write_official(tmp_path)
    change(tmp_path)
    with pytest.raises(DataFormatError, match=message) as caught:
        CelebADataModule(str(tmp_path)).setup("fit")
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("content", [HTML.encode(), b"", b"\xff\xd8\xff"])
def test_an_image_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    write_official(tmp_path)
    (tmp_path / "Img/img_align_celeba/000002.jpg").write_bytes(content)
    with pytest.raises(DataFormatError, match=r"000002\.jpg"):
        CelebA(tmp_path)[1]


@pytest.mark.parametrize("name", [ATTR, PART])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    write_official(tmp_path)
    next(tmp_path.rglob(name)).unlink()
    with pytest.raises(DataNotFoundError, match=f"no {name} or {name[:-3]}csv in {tmp_path}"):
        CelebADataModule(str(tmp_path)).setup("fit")


@pytest.mark.parametrize("name", [ATTR, PART, LAND, PEOPLE_FILE])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: path.mkdir(), "it is a folder, not a file", id="folder"),
        pytest.param(lambda path: path.symlink_to("gone"), "it is a link to nothing", id="dangling link"),
    ],
)
def test_what_lies_in_a_file_s_place_is_said(
    make: Callable[[Path], None], message: str, name: str, tmp_path: Path
) -> None:
    write_official(tmp_path)
    path = next(tmp_path.rglob(name))
    path.unlink()
    make(path)
    with pytest.raises(DataNotFoundError, match=f"cannot read {path}: {message}"):
        CelebA(tmp_path)
    path.with_suffix(".csv").write_text("")  # a file, also an empty one, comes before what is none
    with pytest.raises(DataFormatError, match=r"\.csv: it is empty"):
        CelebA(tmp_path)


def test_a_folder_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be allowed everything, so the refusal is played."""
    write_official(tmp_path)

    def refuse(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(DataNotFoundError, match=r"cannot read .*img_align_celeba: Permission denied"):
        CelebA(tmp_path)


@pytest.mark.parametrize(("root", "message"), [(None, "no data root given"), ("nowhere", "nowhere does not exist")])
def test_a_missing_root_is_named(root: str | None, message: str) -> None:
    for opening in (lambda: CelebA(root), lambda: CelebADataModule(root).setup("fit")):
        with pytest.raises(DataNotFoundError, match=message):
            opening()


def test_what_the_join_leaves_out_is_counted(tmp_path: Path) -> None:
    write_official(tmp_path)
    folder = tmp_path / "Img/img_align_celeba"
    (folder / "000001.jpg").unlink()
    (folder / "000003.jpg").rename(folder / "000099.jpg")
    edit(PART, lambda s: s.replace("000002.jpg 0\n", "") + "000050.jpg 1\n")(tmp_path)
    data = CelebADataModule(str(tmp_path))
    with pytest.warns(UserWarning) as caught:
        assert [data.records("train")[0]["name"], len(data.records("train"))] == ["000004.jpg", 1]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "5 images are used" in message
    assert f"2 without an image in {folder} (such as 000001)" in message
    assert "1 not in list_eval_partition.txt (such as 000002)" in message
    assert "1 in list_eval_partition.txt, but not in list_attr_celeba.txt (such as 000050)" in message
    assert f"1 in {folder}, but not in list_attr_celeba.txt (such as 000099)" in message


def test_identities_that_are_incomplete_are_not_used(tmp_path: Path) -> None:
    write_official(tmp_path)
    edit("identity_CelebA.txt", lambda s: s.replace("000002.jpg 5\n", ""))(tmp_path)
    with pytest.warns(UserWarning, match=r"identity_CelebA\.txt lacks 1 images \(such as 000002\)"):
        faces = CelebA(tmp_path)
    assert faces.identities is None
    assert "identity" not in faces[0]
    assert "landmarks" in faces[0]


def test_an_identity_in_two_splits_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official(tmp_path)
    edit("identity_CelebA.txt", lambda s: s.replace("000008.jpg 9", "000008.jpg 5"))(tmp_path)
    with pytest.warns(UserWarning, match="the same identity into several splits, 1 times"):
        CelebADataModule(str(tmp_path)).setup("fit")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with warnings.catch_warnings():  # by one of the processes
        warnings.simplefilter("error")
        CelebA(tmp_path)


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    write_official(tmp_path)
    edit(PART, lambda s: s.replace("jpg 1", "jpg 0"))(tmp_path)
    with pytest.raises(DataFormatError, match="the val split has no images"):
        CelebADataModule(str(tmp_path)).setup("fit")


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The same JPEG with an EXIF orientation, as cameras write it."""
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0])
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


def test_landmarks_belong_to_the_stored_pixels(tmp_path: Path) -> None:
    write_official(tmp_path)
    path = tmp_path / "Img/img_align_celeba/000001.jpg"
    path.write_bytes(with_orientation(path.read_bytes(), 6))
    turned = cv2.imread(str(path))
    assert turned is not None and turned.shape == (12, 16, 3)  # the file does ask to be turned
    assert CelebA(tmp_path)[0]["image"].shape == (16, 12, 3)


def test_annotations_are_read_once_and_nothing_is_written(tmp_path: Path) -> None:
    write_official(tmp_path)

    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}

    before = state()
    data = CelebADataModule(str(tmp_path), num_workers=0)
    data.setup("fit")
    list(data.train_dataloader())
    assert state() == before
    for path in (*tmp_path.rglob("*.txt"), *tmp_path.rglob("*.csv")):
        path.unlink()
    data.setup("test")
    assert len(data.records("test")) == 2


def test_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official(tmp_path / "celeba")
    monkeypatch.setenv("HOME", str(tmp_path))
    data = CelebADataModule(
        f"~{os.sep}celeba", image_size=(32, 24), batch_size=3, num_workers=0, augmentations=[], seed=0
    )
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [len(batch["name"]) for batch in batches] == [3, 1]
    batch = batches[0]
    assert (batch["image"].dtype, batch["image"].shape) == (torch.uint8, (3, 3, 32, 24))
    assert (batch["attributes"].dtype, batch["attributes"].shape) == (torch.float32, (3, 40))
    assert (batch["identity"].dtype, batch["landmarks"].shape) == (torch.int64, (3, 5, 2))
    index = NAMES.index(batch["name"][0].removesuffix(".jpg"))
    np.testing.assert_allclose(batch["landmarks"][0], 2 * LANDMARKS[index], atol=1e-4)  # twice the file's size


BOXES = np.column_stack([RANDOM.integers(0, 5, (8, 2)), RANDOM.integers(1, 8, (8, 2))])  # x, y, width, height
BOX_COLUMNS = ["x_1", "y_1", "width", "height"]
BOX_TABLE = text(BOXES.tolist(), ["image_id", *BOX_COLUMNS], space="    ")


def write_wild(root: Path, content: str = BOX_TABLE, name: str = "Anno/list_bbox_celeba.txt") -> Path:
    write_official(root, folder="img_celeba")
    (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param(BOX_TABLE, "Anno/list_bbox_celeba.txt", id="official"),
        pytest.param(BOX_TABLE.replace("    ", " "), "list_bbox_celeba.txt", id="single spaces, in the root"),
        pytest.param(csv(BOXES.tolist(), BOX_COLUMNS), "list_bbox_celeba.csv", id="csv"),
        pytest.param(text(BOXES[:, ::-1].tolist(), BOX_COLUMNS[::-1]), "list_bbox_celeba.txt", id="other columns"),
        pytest.param(text(BOXES.tolist()), "list_bbox_celeba.txt", id="no header"),
        pytest.param(with_rows_reversed(BOX_TABLE), "list_bbox_celeba.txt", id="other order"),
        pytest.param(BOX_TABLE + "000099.jpg 1 1 1 1\n", "list_bbox_celeba.txt", id="more rows"),
    ],
)
def test_boxes_of_the_original_images(content: str, name: str, tmp_path: Path) -> None:
    write_wild(tmp_path, content, name)
    data = CelebADataModule(str(tmp_path), images="wild", image_size=(32, 24), augmentations=[], num_workers=0)
    seen = 0
    for split in ("train", "val", "test"):
        faces = CelebA(tmp_path, split, "wild")  # type: ignore[arg-type]  # a literal, which a loop makes a str
        for record in (faces[position] for position in range(len(faces))):
            x, y, width, height = BOXES[NAMES.index(Path(record["name"]).stem)].tolist()
            assert (record["box"].dtype, record["box"].tolist()) == (np.float32, [x, y, x + width, y + height])
            seen += 1
    assert seen == 8
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    for index, box in zip((NAMES.index(name[:-4]) for name in batch["name"]), batch["box"], strict=True):
        x, y, width, height = (2 * BOXES[index]).tolist()  # twice the file's size
        np.testing.assert_allclose(box, [x, y, x + width, y + height], atol=1e-4)


def test_only_the_original_images_have_boxes(tmp_path: Path) -> None:
    assert "box" not in CelebA(write_official(tmp_path / "none", folder="img_celeba"), "train", "wild")[0]
    root = write_official(tmp_path / "aligned")
    (root / "Anno" / "list_bbox_celeba.txt").write_text(HTML)  # not even read
    assert "box" not in CelebA(root)[0]
    with pytest.warns(UserWarning, match=r"list_bbox_celeba\.txt lacks 1 images \(such as 000003\)"):
        faces = CelebA(write_wild(tmp_path / "short", BOX_TABLE.replace("000003", "000033")), images="wild")
    assert faces.boxes is None and "box" not in faces[0]


@pytest.mark.parametrize("end", ["0 0 0 0", "3 4 0 9", "3 4 9 0", "3 4 -2 9", "3 4 9 -1"])
def test_a_box_without_an_area_is_unknown(end: str, tmp_path: Path) -> None:
    content = on_line(4, lambda line: f"000002.jpg {end}")(BOX_TABLE)
    boxes = CelebA(write_wild(tmp_path, content), images="wild").boxes
    assert boxes is not None
    np.testing.assert_array_equal(np.isnan(boxes), np.arange(4)[:, None] == [1, 1, 1, 1])


@pytest.mark.parametrize(
    ("line", "change", "message"),
    [
        (3, lambda s: s.rpartition(" ")[0], "line 3: expected 4 coordinates, found 3"),
        (5, lambda s: s + " 1", "line 5: expected 4 coordinates, found 5"),
        (6, with_last_number("tall"), "line 6: coordinates must be numbers, found 'tall'"),
        (6, with_last_number("nan"), "line 6: coordinates must be finite, found nan"),
        (6, with_last_number("1e9"), r"line 6: a coordinate must lie within ±1000000 pixels, found 1e\+09"),
        (2, lambda s: s.replace("y_1", "x_1"), "line 2: two columns are named 'x_1'"),
        (1, lambda s: HTML, "it is a web page"),
    ],
)
def test_damaged_boxes_are_refused_with_file_and_line(
    line: int, change: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    write_wild(tmp_path, on_line(line, change)(BOX_TABLE))
    with pytest.raises(DataFormatError, match=rf"list_bbox_celeba\.txt(, |: ){message}"):
        CelebADataModule(str(tmp_path), images="wild").setup("fit")
