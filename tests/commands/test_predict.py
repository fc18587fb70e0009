"""``facelightning predict CHECKPOINT PATH…``: every photograph has an answer or a reason, also after a kill."""

import csv
import errno
import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import facelightning as fl
from facelightning.__main__ import main
from facelightning.boxes import POINTS
from facelightning.commands.photographs import named_photographs, unfinished, without_output
from facelightning.commands.prediction_folder import PredictionFolder
from facelightning.errors import DataNotFoundError
from facelightning.labels import ATTRIBUTES, HELEN7
from facelightning.models import FrontalCascade
from facelightning.prediction import View
from facelightning.tasks import CascadeNet
from tests.tasks.tiny import HEIGHT, WIDTH, make_task, save, save_again

QUICK = ("--workers=0", "--overlays=none")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    return save(make_task("jointnet-avg", folder), folder / "joint.ckpt")


@pytest.fixture
def predict(
    joint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Predict in the folder of the test; returns what a failure says, or nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, checkpoint: Path = joint) -> str:
        capsys.readouterr()
        status = main(["predict", str(checkpoint), *words])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if line.startswith("facelightning: ")]
        assert (status, len(lines)) in ((0, 0), (1, 1))
        return "".join(lines)

    return run


def photograph(seed: int, height: int = 60, width: int = 50) -> np.ndarray[Any, np.dtype[np.uint8]]:
    small = np.random.default_rng(seed).integers(256, size=(5, 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def records(folder: str = "predictions") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "predictions.jsonl").read_text("utf-8").splitlines()]


def rows(name: str) -> list[dict[str, str]]:
    with Path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def likely(row: dict[str, str]) -> list[str]:
    return [row[key] for key in ATTRIBUTES]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written(predict: Callable[..., str], joint: Path, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for number, name in enumerate(("a/1.png", "a/b/1.png", "a/1.jpg")):
        cv2.imwrite(name, photograph(number))
    assert predict("a", "--workers=2") == ""
    names = ["a/1.jpg", "a/1.png", "a/b/1.png"]
    assert [record["image"] for record in records()] == names
    table = rows("predictions/predictions.csv")
    assert [row["image"] for row in table] == names  # none collides
    assert set(contents(tmp_path / "predictions")) == {
        "about.json", "legend.json", "legend.png", "predictions.csv", "predictions.jsonl",
        *(f"parsing/{name}.png" for name in names), *(f"overlays/{name}.jpg" for name in names),
    }  # fmt: skip
    task = fl.load_model(joint)
    for name, row, found in zip(names, table, task.predict([tmp_path / name for name in names]), strict=True):
        assert [float(row[key]) for key in ATTRIBUTES] == [round(found.attributes[key], 6) for key in ATTRIBUTES]
        assert [row[f"{key}_decision"] == "1" for key in ATTRIBUTES] == [found.decisions[key] for key in ATTRIBUTES]
        box = [row[key] for key in ("face", "x0", "y0", "x1", "y1", "score")]
        assert box == ["1", "0.0", "0.0", "50.0", "60.0", ""]
        mask = Image.open(f"predictions/parsing/{name}.png")
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), found.parsing)  # the indices
        seen = np.asarray(mask.convert("RGB"))
        assert np.array_equal(seen, np.array(HELEN7.colors)[np.asarray(mask)])  # and colours, for any viewer
        assert Image.open(f"predictions/overlays/{name}.jpg").size[0] > 640
    legend = json.loads(Path("predictions/legend.json").read_text())
    assert [entry["name"] for entry in legend["classes"]] == list(HELEN7.classes)


def odd_photographs(folder: Path) -> set[str]:
    """Images as they occur; returns the names of those that are none."""
    folder.mkdir()
    face = photograph(0)
    bgr = np.ascontiguousarray(face[..., ::-1])
    cv2.imwrite(str(folder / "pixel.png"), bgr[:1, :1])
    cv2.imwrite(str(folder / "wide.png"), cv2.resize(bgr, (4000, 40)))
    cv2.imwrite(str(folder / "thin.png"), cv2.resize(bgr, (1, 3000)))
    cv2.imwrite(str(folder / "grey.png"), bgr[..., 0])
    cv2.imwrite(str(folder / "alpha.png"), np.dstack([bgr, np.full(bgr.shape[:2], 99, np.uint8)]))
    cv2.imwrite(str(folder / "deep.png"), bgr.astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(face).transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=turned)
    Image.fromarray(face).convert("CMYK").save(folder / "print.jpg")
    whole = io.BytesIO()
    Image.fromarray(face).save(whole, "PNG")
    (folder / "cut.png").write_bytes(whole.getvalue()[:-400])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "caf\udce9.png").write_bytes(whole.getvalue())
    cv2.imwrite(str(folder / ("x" * 248 + ".png")), bgr)  # the name of its mask is too long
    return {"cut.png", "empty.jpg", "page.jpg", "phone.heic", "gone.png", "x" * 248 + ".png"}


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_odd_files_have_an_answer_or_a_reason(predict: Callable[..., str], tmp_path: Path) -> None:
    broken = odd_photographs(tmp_path / "odd")
    names = {path.name for path in (tmp_path / "odd").iterdir()}
    (tmp_path / "odd/notes.txt").write_text("no photograph")
    with pytest.warns(UserWarning, match=r"1 of 16 files are no images and left out \(notes.txt\)"):
        said = predict("odd", "--workers=0")
    assert f"{len(broken)} images lack predictions" in said and said.endswith("failures.csv says why")
    failed = {Path(row["image"]).name: row["reason"] for row in rows("predictions/failures.csv")}
    done = {Path(record["image"]).name: record for record in records()}
    assert failed.keys() == broken and done.keys() == names - broken
    assert all(20 < len(reason) < 400 and "\n" not in reason for reason in failed.values())
    assert "convert it to JPEG" in failed["phone.heic"] and "too long" in failed["x" * 248 + ".png"]
    assert (done["wide.png"]["width"], done["wide.png"]["height"]) == (4000, 40)
    assert (done["turned.png"]["width"], done["turned.png"]["height"]) == (50, 60)  # upright
    upright, deep = done["turned.png"]["faces"], done["deep.png"]["faces"]
    for key in ATTRIBUTES:
        shares = [faces[0]["attributes"][key]["probability"] for faces in (upright, deep)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-5)  # the same photograph
    for name, record in done.items():
        if "caf" not in name:
            size = Image.open(f"predictions/parsing/odd/{name}.png").size
            assert size == (record["width"], record["height"])


def test_a_killed_command_goes_on_to_the_same_bytes(
    predict: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are batches: those that were begun are predicted with the same images again, in any process."""
    monkeypatch.setattr("facelightning.commands.predict.unfinished", partial(unfinished, size=4))
    (tmp_path / "photos").mkdir()
    for number in range(10):  # sizes differ
        cv2.imwrite(f"photos/{number}.png", photograph(number, 40 + 3 * number))
    Path("photos/3.png").write_bytes(b"no image")
    words = ("photos", "--workers=0")
    assert "1 images lack predictions (photos/3.png)" in predict(*words)
    complete = contents(tmp_path / "predictions")
    lines = complete["predictions.jsonl"]
    ends = [place + 1 for place, byte in enumerate(lines) if byte == 10]
    for cut, processes in ((0, 2), (40, 1), (ends[4], 3), (ends[8] - 1, 1)):  # between lines, and within one
        Path("predictions/predictions.jsonl").write_bytes(lines[:cut])
        kept = sum(end <= cut for end in ends)
        for name in [f"photos/{n}.png" for n in range(10) if n != 3][kept:]:
            Path(f"predictions/parsing/{name}.png").write_bytes(b"half")
            Path(f"predictions/overlays/{name}.jpg").unlink()
        for name in ("predictions.csv", "failures.csv"):
            Path("predictions", name).unlink(missing_ok=True)
        predict(*words, f"--processes={processes}")
        assert contents(tmp_path / "predictions") == complete


def test_a_process_that_is_ended_is_a_sentence(
    predict: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    cv2.imwrite("a.png", photograph(0))
    monkeypatch.setattr(PredictionFolder, "draw", draw)
    assert "a process was ended from outside" in predict("a.png", "--processes=2")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "predictions/a.png")

    monkeypatch.setattr(PredictionFolder, "draw", refuse)
    assert "predictions/a.png: No space left on device; free some space" in predict("a.png", "--processes=2")


def test_only_what_is_missing_is_predicted(predict: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        cv2.imwrite(f"photos/{number}.png", photograph(number))
    Path("photos/1.png").write_bytes(b"")
    predict("photos", *QUICK)
    cv2.imwrite("photos/1.png", photograph(1))  # mended
    before = Path("predictions/parsing/photos/0.png.png").stat().st_mtime_ns
    assert predict("photos", *QUICK) == ""
    assert not Path("predictions/failures.csv").exists()
    assert [row["image"] for row in rows("predictions/predictions.csv")] == [f"photos/{n}.png" for n in (0, 2, 1)]
    assert Path("predictions/parsing/photos/0.png.png").stat().st_mtime_ns == before
    written = contents(tmp_path / "predictions")
    assert predict("photos", "--processes=2", *QUICK) == ""  # nothing to do
    assert contents(tmp_path / "predictions") == written


def test_a_replaced_photograph_is_predicted_again(predict: Callable[..., str], tmp_path: Path) -> None:
    for name in "abcd":
        cv2.imwrite(f"{name}.png", photograph(0))
    predict("a.png", "b.png", "c.png", "d.png", *QUICK)
    before = {record["image"]: record for record in records()}
    masks = contents(tmp_path / "predictions/parsing")
    cv2.imwrite("a.png", photograph(1, 30, 40))
    file = Path("b.png").stat()
    os.utime("b.png", ns=(file.st_atime_ns, file.st_mtime_ns + 1_000_000))  # of the same size
    Path("c.png").write_bytes(b"no image")
    Path("d.png").unlink()
    Path("list.txt").write_text("d.png")
    assert "1 images lack predictions (c.png)" in predict("a.png", "b.png", "c.png", "@list.txt", *QUICK)
    found = {record["image"]: record for record in records()}
    assert found.keys() == {"a.png", "b.png", "d.png"}  # of one that is gone, the prediction is left
    assert (found["a.png"]["width"], found["a.png"]["height"]) == (40, 30)
    assert found["b.png"]["file"] != before["b.png"]["file"] and found["d.png"] == before["d.png"]
    assert Image.open("predictions/parsing/a.png.png").size == (40, 30)
    assert contents(tmp_path / "predictions/parsing").keys() == masks.keys() - {"c.png.png"}
    assert [row["image"] for row in rows("predictions/predictions.csv")] == ["d.png", "a.png", "b.png"]


def test_region_weights(predict: Callable[..., str], tmp_path: Path) -> None:
    """Of each face and attribute, as the network gives them; also after an interruption, and in a cascade."""
    task = make_task("jointnet-ssp", tmp_path)
    dict(task.network.named_parameters())["head.localization.weight"].data *= 1e6  # one step tells no regions apart
    ssp = save(task, tmp_path / "ssp.ckpt")
    for number in range(2):
        cv2.imwrite(f"{number}.png", photograph(number))
    words = ("0.png", "1.png", "--regions", *QUICK)
    assert predict(*words, checkpoint=ssp) == ""
    whole = contents(tmp_path / "predictions")
    table = rows("predictions/region_weights.csv")
    assert [(row["image"], row["face"]) for row in table] == [("0.png", "1")] * 40 + [("1.png", "1")] * 40
    assert [row["attribute"] for row in table] == 2 * list(ATTRIBUTES)
    images = np.concatenate([View((HEIGHT, WIDTH))(photograph(number), "").images for number in range(2)])
    with torch.no_grad():
        weights = fl.load_model(ssp)(torch.from_numpy(images))["region_weights"]  # (2, 7, 40)
    found = np.array([[float(row[name]) for name in HELEN7.classes] for row in table])
    np.testing.assert_allclose(found, weights.transpose(1, 2).flatten(0, 1), atol=5e-3)  # roundings count, too
    assert np.ptp(found) > 0.1
    first, _ = whole["predictions.jsonl"].splitlines(keepends=True)
    Path("predictions/predictions.jsonl").write_bytes(first)
    Path("predictions/region_weights.csv").unlink()
    assert predict(*words, checkpoint=ssp) == ""
    assert contents(tmp_path / "predictions") == whole
    assert "holds predictions of another choice of --regions" in predict("0.png", *QUICK, checkpoint=ssp)
    cascade = save_again(CascadeNet(describer=str(ssp), detector=FrontalCascade), tmp_path / "cascade.ckpt")
    Path("boxes.csv").write_text("name,x0,y0,x1,y1\n0.png,10,10,30,40\n0.png,20,20,45,60\n1.png,,,,\n")
    words = ("0.png", "1.png", "--faces=boxes:boxes.csv", "--regions", "--output=found", *QUICK)
    assert predict(*words, checkpoint=cascade) == ""
    assert [row["face"] for row in rows("found/region_weights.csv")] == ["1"] * 40 + ["2"] * 40
    assert "weighs no regions: leave it out" in predict("0.png", "--regions", "--output=no", *QUICK)
    assert not Path("no").exists()


def test_a_folder_of_another_prediction_is_refused(predict: Callable[..., str], joint: Path, tmp_path: Path) -> None:
    cv2.imwrite("a.png", photograph(0))
    Path("boxes.csv").write_text("name,x0,y0,x1,y1\na.png,10,10,30,40\n")
    assert predict("a.png", *QUICK) == ""
    before = contents(tmp_path / "predictions")
    content = torch.load(joint, weights_only=True)
    content["state_dict"] = {key: value + 0 for key, value in content["state_dict"].items()}
    content["epoch"] = 7
    torch.save(content, tmp_path / "other.ckpt")
    other = "facelightning: predictions holds predictions of another"
    assert f"{other} checkpoint: name another --output" in predict("a.png", *QUICK, checkpoint=tmp_path / "other.ckpt")
    assert f"{other} way to find faces" in predict("a.png", "--faces=boxes:boxes.csv", *QUICK)
    shutil.copytree("predictions", "damaged")
    Path("damaged/predictions.jsonl").write_text('{"image": 3}\n')
    assert "predictions.jsonl, line 1: it is damaged" in predict("a.png", "--output=damaged", *QUICK)
    Path("damaged/about.json").write_text("?")
    assert "another checkpoint" in predict("a.png", "--output=damaged", *QUICK)
    (tmp_path / "mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    assert "mine holds other files" in predict("a.png", "--output=mine", *QUICK)
    assert contents(tmp_path / "predictions") == before and list(contents(tmp_path / "mine")) == ["thesis.txt"]


def test_faces_from_a_table(predict: Callable[..., str], joint: Path, tmp_path: Path) -> None:
    """Any number of faces; and the table that is written may be the table that is read."""
    cv2.imwrite("a.png", photograph(0, 90, 120))
    cv2.imwrite("b.png", photograph(1))
    Path("boxes.csv").write_text("name,x0,y0,x1,y1\na.png,10,10,30,40\na.png,70,20,95,60\nb.png,,,,\n")
    assert predict("a.png", "b.png", "--faces=boxes:boxes.csv", *QUICK) == ""
    table = rows("predictions/predictions.csv")
    assert [(row["image"], row["face"], row["x0"]) for row in table] == [
        ("a.png", "1", "10.0"), ("a.png", "2", "70.0"), ("b.png", "", "")
    ]  # fmt: skip
    assert predict("a.png", "b.png", "--faces=boxes:predictions/predictions.csv", "--output=again", *QUICK) == ""
    assert Path("again/predictions.csv").read_bytes() == Path("predictions/predictions.csv").read_bytes()
    assert predict("a.png", "--faces=boxes:boxes.csv", "--margin=3", "--output=wide", *QUICK) == ""
    wide = rows("wide/predictions.csv")[0]
    assert wide["x0"] == "10.0" and any(wide[key] != table[0][key] for key in ATTRIBUTES)
    assert "none of the 1 images" in predict(str(tmp_path / "a.png"), "--faces=boxes:boxes.csv", *QUICK)


def test_faces_with_points_are_aligned(predict: Callable[..., str], tmp_path: Path) -> None:
    """As CelebA's images are, unless a margin is asked for; what is written holds the points."""
    cv2.imwrite("a.png", photograph(0, 90, 120))
    points = "12,20,25,26,16,30,8,33,17,37"  # turned by 25 degrees
    header = ",".join(("name,x0,y0,x1,y1", *POINTS))
    Path("boxes.csv").write_text(f"{header}\na.png,5,10,35,45,{points}\na.png,70,20,95,60{10 * ','}\n")
    assert predict("a.png", "--faces=boxes:boxes.csv", *QUICK) == ""
    aligned = rows("predictions/predictions.csv")
    assert [",".join(str(int(float(row[key]))) for key in POINTS if row[key]) for row in aligned] == [points, ""]
    assert [len(face.get("points", ())) for face in records()[0]["faces"]] == [5, 0]
    assert predict("a.png", "--faces=boxes:predictions/predictions.csv", "--output=again", *QUICK) == ""
    assert Path("again/predictions.csv").read_bytes() == Path("predictions/predictions.csv").read_bytes()
    assert predict("a.png", "--faces=boxes:boxes.csv", "--margin=1.6", "--output=cut", *QUICK) == ""
    assert likely(rows("cut/predictions.csv")[0]) != likely(aligned[0])
    table = Path("boxes.csv").read_text().replace(points, 9 * ",")
    Path("boxes.csv").write_text(table)
    assert predict("a.png", "--faces=boxes:boxes.csv", "--output=without", *QUICK) == ""
    without = rows("without/predictions.csv")
    assert "lefteye_x" not in without[0]
    assert [likely(one) == likely(other) for one, other in zip(without, aligned, strict=True)] == [False, True]


def test_mistakes_are_sentences(predict: Callable[..., str], joint: Path, tmp_path: Path) -> None:
    cv2.imwrite("a.png", photograph(0))
    for words, message in {
        ("a.png", "--faces=mtcnn"): "must be crop, cascade, yunet:FILE, boxes:CSV or lnet:CHECKPOINT, not mtcnn",
        ("a.png", "--faces=yunet:"): "--faces must be",
        ("a.png", "--faces=yunet:none.onnx"): "cannot read none.onnx",
        ("a.png", "--faces=boxes:none.csv"): "cannot read none.csv",
        ("a.png", f"--faces=lnet:{joint}"): "holds JointNet, which finds no faces",
        ("a.png", "--margin=2"): "--margin is of found faces",
        ("a.png", "--workers=-1"): "--workers must lie in",
        ("a.png", "--processes=0"): "--processes must lie in 1...1024, not 0",
        ("b.png",): "b.png is no file, no folder, and no pattern of any",
        ("*.jpg",): "is no file",
        (): "there is no photograph to predict",
        ("@none.txt",): "cannot read none.txt",
    }.items():
        assert message in predict(*words)
    assert "checkpoint none.ckpt does not exist" in predict("a.png", checkpoint=Path("none.ckpt"))
    assert not Path("predictions").exists()


def test_its_own_pictures_are_no_photographs(predict: Callable[..., str], tmp_path: Path) -> None:
    """If they go to a folder within that of the photographs, and the command is typed again."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((30, 20, 3), np.uint8))
    for _ in range(2):
        predict("photographs", f"--output={folder / 'out'}")
        assert len((folder / "out/predictions.jsonl").read_text().splitlines()) == 1
    with pytest.raises(DataNotFoundError, match="all photographs lie in out, where predictions go"):
        without_output(["out/a.png", "out/deep/b.png"], "out")


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/b/2.JPG", "a/.hidden.png", "a/@x.png", "c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("list.txt").write_text("c.png\n\nnone.png\r\n./a/1.png\n")
    everything = ["a/1.png", "a/@x.png", "a/b/2.JPG"]
    assert named_photographs(["a"]) == named_photographs(["./a/", "a/1.png"]) == everything
    assert named_photographs(["a/**/*.png", "c.png"]) == ["a/1.png", "a/@x.png", "c.png"]
    for given in ((["@list.txt"], []), ([], ["list.txt"])):
        assert named_photographs(*given) == ["c.png", "none.png", "a/1.png"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"c.png\na\n")))
    assert named_photographs(["-"]) == ["c.png", *everything]
    Path("elsewhere/folder").mkdir(parents=True)
    Path("elsewhere/c.png").touch()
    Path("a/link").symlink_to(Path("elsewhere/folder").absolute())
    (name,) = named_photographs(["a/link/../c.png"])  # not a/c.png
    assert Path(name).resolve() == Path("elsewhere/c.png").resolve()
    Path("none").mkdir()
    with pytest.raises(DataNotFoundError, match="there is no photograph to predict"):
        named_photographs(["none"])
