"""Helen as it really lies on disks, and its soft masks against a plain loop over the pixels."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from facelightning.data import HelenDataModule
from facelightning.data.helen import GROUPS, Helen, merge_masks
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import HELEN7, HELEN11

IDS = {"exemplars.txt": ["10_1", "11.b.2", "12_1"], "tuning.txt": ["20_1", "21_1"], "testing.txt": ["30_1"]}
SPLITS = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}
ALL_IDS = [name for ids in IDS.values() for name in ids]

SEVEN_OF_ELEVEN = [0, 2, 4, 4, 3, 3, 6, 5, 5, 5, 1]
"""By hand from the paper's table: background, skin, two eyebrows, two eyes, nose, three of the mouth, hair."""


def size_of(name: str) -> tuple[int, int]:
    return 12 + ALL_IDS.index(name), 10


def soft_masks(name: str) -> npt.NDArray[np.uint8]:
    """Eleven random alphas of few values, so that ties, full sums and empty pixels occur."""
    random = np.random.default_rng(ALL_IDS.index(name))
    alphas = random.choice([0, 0, 0, 0, 60, 100, 255], (11, *size_of(name))).astype(np.uint8)
    alphas[:, :2] = 0
    return alphas


def write_helen(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for file, ids in IDS.items():
        (root / file).write_text("".join(f"{number:<5}, {name} \n" for number, name in enumerate(ids, start=1)))
        for name in ids:
            image = np.zeros((*size_of(name), 3), np.uint8)
            image[..., 2] = 30 * ALL_IDS.index(name) + 20  # OpenCV writes BGR
            cv2.imwrite(str(root / "images" / f"{name}.jpg"), image)
            (root / "labels" / name).mkdir(parents=True)
            for label, alpha in enumerate(soft_masks(name)):
                cv2.imwrite(str(root / "labels" / name / f"{name}_lbl{label:02d}.png"), alpha)
    return root


def winner(sums: list[float]) -> int:
    return max(range(len(sums)), key=lambda index: (sums[index], -index))


def reference(alphas: npt.NDArray[np.uint8], label_space: str) -> npt.NDArray[np.int64]:
    """The class of each pixel, one at a time."""
    result = np.zeros(alphas.shape[1:], np.int64)
    for place in np.ndindex(*result.shape):
        column = [float(alphas[(label, *place)]) for label in range(11)]
        if label_space == "helen7":
            column = [
                min(255.0, sum(a for a, c in zip(column, SEVEN_OF_ELEVEN, strict=True) if c == k)) for k in range(7)
            ]
        result[place] = winner(column)
    return result


def check(root: Path, label_space: str = "helen11") -> None:
    for split, file in SPLITS.items():
        faces = Helen(root, split, label_space)  # type: ignore[arg-type]
        records = [faces[index] for index in range(len(faces))]
        assert faces.names == IDS[file]
        assert [record["name"] for record in records] == IDS[file]
        for record in records:
            name = record["name"]
            np.testing.assert_allclose(record["image"][5, 5], [30 * ALL_IDS.index(name) + 20, 0, 0], atol=3)
            assert record["image"].shape == (*size_of(name), 3)
            assert record["mask"].dtype == np.uint8
            np.testing.assert_array_equal(record["mask"], reference(soft_masks(name), label_space))


@pytest.mark.parametrize("label_space", ["helen7", "helen11"])
def test_images_and_masks(label_space: str, tmp_path: Path) -> None:
    check(write_helen(tmp_path), label_space)


def pixel(**alphas: int) -> list[npt.NDArray[np.uint8]]:
    return [np.full((1, 1), alphas.get(name, 0), np.uint8) for name in HELEN11.classes]


@pytest.mark.parametrize(
    ("alphas", "seven", "eleven"),
    [
        ({}, "background", "background"),
        ({"face_skin": 100, "upper_lip": 60, "inner_mouth": 40, "lower_lip": 60}, "mouth", "face_skin"),
        ({"left_eye": 90, "right_eye": 90, "face_skin": 170}, "eyes", "face_skin"),
        ({"hair": 255, "upper_lip": 255, "lower_lip": 255}, "hair", "upper_lip"),  # a sum of 510 counts as 255
        ({"background": 1}, "background", "background"),
        ({"hair": 1}, "hair", "hair"),
    ],
)
def test_soft_masks_of_one_pixel(alphas: dict[str, int], seven: str, eleven: str) -> None:
    masks = pixel(**alphas)
    assert HELEN7.classes[int(merge_masks(masks, GROUPS["helen7"])[0, 0])] == seven
    assert HELEN11.classes[int(merge_masks(masks, GROUPS["helen11"])[0, 0])] == eleven


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        (root / name).write_bytes(change((root / name).read_text()).encode())

    return apply


def on_every_list(change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        for name in IDS:
            edit(name, change)(root)

    return apply


def masks_as_rgb(root: Path) -> None:
    for path in (root / "labels").rglob("*.png"):
        alpha = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert alpha is not None
        cv2.imwrite(str(path), cv2.merge([alpha, alpha, alpha]))


def images_as_png(root: Path) -> None:
    for path in (root / "images").glob("*.jpg"):
        image = cv2.imread(str(path))
        assert image is not None
        path.unlink()
        cv2.imwrite(str(path.parent / f"{path.name[:-4]}.png"), image)


def images_as_jpeg(root: Path) -> None:
    for path in (root / "images").glob("*.jpg"):
        path.rename(path.parent / f"{path.name[:-4]}.jpeg")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(on_every_list(lambda s: s.replace("\n", "\r\n")), id="CRLF"),
        pytest.param(on_every_list(lambda s: s.rstrip()), id="no last newline"),
        pytest.param(on_every_list(lambda s: "\n" + s.replace("\n", "\n\n") + "  \n"), id="blank lines"),
        pytest.param(on_every_list(lambda s: s.replace(" , ", ",")), id="no padding"),
        pytest.param(on_every_list(lambda s: s.replace(",", "   ,   ")), id="much padding"),
        pytest.param(
            on_every_list(lambda s: "".join(f"{line.partition(',')[2].strip()}\n" for line in s.splitlines())),
            id="only the id",
        ),
        pytest.param(masks_as_rgb, id="masks as RGB"),
        pytest.param(images_as_png, id="images as png"),
        pytest.param(images_as_jpeg, id="images as jpeg"),
        pytest.param(lambda root: (root / "images/.DS_Store").write_bytes(b"\0"), id="a hidden file"),
    ],
)
def test_harmless_oddities_are_read_right(change: Callable[[Path], None], tmp_path: Path) -> None:
    write_helen(tmp_path)
    change(tmp_path)
    check(tmp_path)


HTML = "<!DOCTYPE html><title>Google Drive - Quota exceeded</title>"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(
            lambda root: (root / "images/12_1.jpg").unlink(),
            DataNotFoundError,
            r"exemplars\.txt, line 3: 12_1 has no image: no 12_1\.jpg.* in .*images",
            id="no image",
        ),
        pytest.param(
            lambda root: (root / "labels/11.b.2/11.b.2_lbl04.png").unlink(),
            DataNotFoundError,
            r"exemplars\.txt, line 2: 11\.b\.2 lacks 1 of 11 masks: no 11\.b\.2_lbl04\.png in .*labels/11\.b\.2",
            id="a mask is missing",
        ),
        pytest.param(
            lambda root: (root / "labels/10_1").rename(root / "labels/10_2"),
            DataNotFoundError,
            r"exemplars\.txt, line 1: 10_1 lacks 11 of 11 masks",
            id="no folder of masks",
        ),
        pytest.param(
            lambda root: (root / "images").rename(root / "photographs"),
            DataNotFoundError,
            r"no folder .*images; the root must hold images",
            id="no folder of images",
        ),
        pytest.param(
            lambda root: (root / "tuning.txt").unlink(), DataNotFoundError, r"no tuning\.txt.*val split", id="no list"
        ),
        pytest.param(
            edit("testing.txt", lambda s: s + "2 , 11.b.2\n"),
            DataFormatError,
            r"testing\.txt, line 2: 11\.b\.2 is also in exemplars\.txt, line 2",
            id="an id in two lists",
        ),
        pytest.param(
            edit("exemplars.txt", lambda s: s + "\n4 , 10_1\n"),
            DataFormatError,
            r"exemplars\.txt, line 5: 10_1 is already in line 1",
            id="an id twice in a list",
        ),
        pytest.param(
            edit("exemplars.txt", lambda s: s.replace(", 12_1", "12_1")),
            DataFormatError,
            r"exemplars\.txt, line 3: expected '<number> , <id>', found '3    12_1'",
            id="no comma",
        ),
        pytest.param(
            edit("exemplars.txt", lambda s: s + "4 , ../../10_1\n"),
            DataFormatError,
            r"exemplars\.txt, line 4: expected",
            id="a path for an id",
        ),
        *(
            pytest.param(
                edit("exemplars.txt", lambda s, name=name: f"{s}4 , {name}\n"),  # type: ignore[misc]  # bound by its default
                DataFormatError,
                r"exemplars\.txt, line 4: expected '<number> , <id>', found '4 , ",
                id=f"{name[:12]!r} for an id",
            )
            for name in ("..", ".", "..\\10_1", "C:10_1", "C:\\10_1", "/10_1", "10\x1b[2J", "x" * 256, "x" * 400_000)
        ),
        pytest.param(
            edit("exemplars.txt", lambda s: s + "\0" * 400_000),
            DataFormatError,
            r"exemplars\.txt, line 4: it holds NUL bytes",
            id="a tail of NULs",
        ),
        pytest.param(
            lambda root: (root / "tuning.txt").write_text("1 , 20_1\n", "utf-16"),
            DataFormatError,
            r"tuning\.txt: it is UTF-16: save it as UTF-8",
            id="UTF-16",
        ),
        pytest.param(
            edit("exemplars.txt", lambda s: f"{s}4 , {'x' * 200}\n"),
            DataNotFoundError,
            r"exemplars\.txt, line 4: x+… has no image: no x+…\.jpg or the like in .*images$",
            id="a long id",
        ),
        pytest.param(
            lambda root: ((root / "tuning.txt").unlink(), (root / "tuning.txt").mkdir()),
            DataNotFoundError,
            r"cannot read .*tuning\.txt: it is a folder, not a file",
            id="a folder for a list",
        ),
        pytest.param(
            lambda root: ((root / "tuning.txt").unlink(), (root / "tuning.txt").symlink_to("gone")),
            DataNotFoundError,
            r"cannot read .*tuning\.txt: it is a link to nothing",
            id="a link to nothing for a list",
        ),
        pytest.param(
            edit("tuning.txt", lambda s: HTML), DataFormatError, r"tuning\.txt: it is a web page.*quota", id="web page"
        ),
        pytest.param(edit("tuning.txt", lambda s: ""), DataFormatError, r"tuning\.txt: it is empty", id="empty"),
        pytest.param(edit("tuning.txt", lambda s: "\n"), DataFormatError, r"val split has no images", id="no ids"),
    ],
)
def test_damage_is_refused_with_file_and_line(
    change: Callable[[Path], None], error: type[Exception], message: str, tmp_path: Path
) -> None:
    write_helen(tmp_path)
    change(tmp_path)
    with pytest.raises(error, match=message) as caught:
        HelenDataModule(str(tmp_path)).setup("fit")
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()


def test_a_folder_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be allowed everything, so the refusal is played."""
    write_helen(tmp_path)
    everything = os.listdir

    def refuse(folder: Path) -> list[str]:
        if Path(folder).name == "12_1":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return everything(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(DataNotFoundError, match=r"cannot read .*labels/12_1: Permission denied"):
        Helen(tmp_path)


def test_only_the_files_of_the_stage_are_needed(tmp_path: Path) -> None:
    write_helen(tmp_path)
    (tmp_path / "exemplars.txt").unlink()
    (tmp_path / "images/10_1.jpg").unlink()
    HelenDataModule(str(tmp_path)).setup("test")


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    write_helen(tmp_path)
    cv2.imwrite(str(tmp_path / "labels/10_1/10_1_lbl07.png"), np.zeros((10, 12), np.uint8))
    with pytest.raises(DataFormatError, match=r"10_1_lbl07\.png has 10×12 pixels .* but its image 12×10"):
        Helen(tmp_path)[0]


def test_masks_belong_to_the_stored_pixels(tmp_path: Path) -> None:
    """A camera's note to turn the image does not turn the masks, so it must not turn the image."""
    path = write_helen(tmp_path) / "images/10_1.jpg"
    jpeg = path.read_bytes()
    turn = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(turn) + 2).to_bytes(2, "big") + turn + jpeg[2:])
    turned = cv2.imread(str(path))
    assert turned is not None and turned.shape == (10, 12, 3)  # the file does ask to be turned
    check(tmp_path)


def test_a_mask_that_is_a_web_page_is_named(tmp_path: Path) -> None:
    write_helen(tmp_path)
    (tmp_path / "labels/10_1/10_1_lbl10.png").write_text(HTML)
    with pytest.raises(DataFormatError, match=r"10_1_lbl10\.png: it is a web page"):
        Helen(tmp_path)[0]


def test_a_missing_root_is_named() -> None:
    for opening in (lambda: Helen(None), lambda: HelenDataModule().setup("fit")):
        with pytest.raises(DataNotFoundError, match="Helen: no data root given"):
            opening()


def test_batches_and_nothing_is_written(tmp_path: Path) -> None:
    write_helen(tmp_path)

    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}

    before = state()
    data = HelenDataModule(str(tmp_path), image_size=(32, 24), batch_size=2, num_workers=0, seed=0)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert state() == before
    assert sorted(name for batch in batches for name in batch["name"]) == IDS["exemplars.txt"]
    assert (batches[0]["image"].dtype, batches[0]["image"].shape) == (torch.uint8, (2, 3, 32, 24))
    assert (batches[0]["mask"].dtype, batches[0]["mask"].shape) == (torch.int64, (2, 32, 24))
    assert set(batches[0]["mask"].unique().tolist()) <= {*range(7), 255}
