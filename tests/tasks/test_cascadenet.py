"""Trained networks as a cascade: tested, saved as one file, loaded, predicting in pixels of the files."""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from facelightning.__main__ import main
from facelightning.boxes import Floats
from facelightning.checkpoint import Checkpoint
from facelightning.data import CelebA
from facelightning.data.files import read_image
from facelightning.data.synthetic import write_scenes
from facelightning.errors import CheckpointError, ConfigurationError, DataNotFoundError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.models.detectors import FrontalCascade, TableFinder
from facelightning.models.facetracer import FaceTracer
from facelightning.models.finding import Finder, FoundFaces, crop
from facelightning.models.heads import LinearHead
from facelightning.models.lnet import LNet
from facelightning.models.panda import PANDA
from facelightning.models.parser import ParserRegions
from facelightning.models.parts import PartCrops
from facelightning.models.pooling import LogSumExpPooling, SemanticPooling
from facelightning.models.regions import FaceParts, LandmarkBoxes
from facelightning.tasks import AttributeNet, CascadeNet, FaceTask, SegNet, SVMNet, load_model
from tests.models.conftest import settle
from tests.tasks.tiny import FACTS, QUIET, assert_equal, loader, make_trainer, samples, save, save_again

pytestmark = QUIET

SMALL = partial(LNet, width=3, kernel_size=7, stride=2)
IMAGES = torch.randint(256, (3, 3, 70, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of two localisers and a describer, with statistics as after training."""
    folder, made = tmp_path_factory.mktemp("parts"), {}
    for seed, (name, size) in enumerate({"lnet_o": (64, 64), "lnet_s": (48, 48), "avg": (40, 32)}.items()):
        torch.manual_seed(seed)
        encoder = {} if name == "avg" else {"encoder": SMALL, "pooling": LogSumExpPooling, "head": LinearHead}
        task = AttributeNet(width=2, **encoder).build(DataFacts(size, attributes=ATTRIBUTES))
        settle(task.network, torch.rand(4, 3, *size))
        made[name] = save(task.eval(), folder / f"{name}.ckpt")
    return made


def cascade(parts: dict[str, Path], **options: Any) -> CascadeNet:
    stages = [str(parts["lnet_o"]), str(parts["lnet_s"])]
    return CascadeNet(stages, str(parts["avg"]), **options).eval()


def test_one_file_is_enough(parts: dict[str, Path], tmp_path: Path) -> None:
    task = cascade(parts, levels=(0.5, 0.7), rescale=(1.1, 1.2, 0.1))
    expected = task(IMAGES)
    assert len(expected["faces"].boxes) >= 3
    loaded = load_model(save_again(task, tmp_path / "cascade.ckpt"))
    for name in parts:
        assert not loaded.settings["stages"][0].startswith(str(parts[name]))
    found = loaded(IMAGES)
    assert found["faces"].images == 3
    for ours, theirs in zip(found["faces"], expected["faces"], strict=True):
        assert np.array_equal(ours, theirs)
    assert_equal(found["attributes"], expected["attributes"])
    again = load_model(save_again(loaded, tmp_path / "again.ckpt"))
    assert_equal(again.state_dict(), task.state_dict())


def test_each_rule_reaches_the_network(parts: dict[str, Path]) -> None:
    apart = {"levels": (0.65, 0.65)}  # lower ones make one window of neighbouring summits
    plain = cascade(parts, **apart)(IMAGES)
    for option, value in {
        "levels": (0.9, 0.65), "least": 1e9, "fraction": 0.99, "head_margins": (3.0,), "face_margin": 3.0,
        "rescale": (2.0, 2.0, 0.0), "search_size": (96, 96),
    }.items():  # fmt: skip
        other = cascade(parts, **(apart | {option: value}))(IMAGES)
        same = np.array_equal(plain["faces"].boxes, other["faces"].boxes)
        assert same == (option == "face_margin"), option
        pair = (plain["attributes"], other["attributes"])
        equal = pair[0].shape == pair[1].shape and torch.allclose(*pair, atol=1e-5)  # but for rounding in other batches
        assert equal == (option == "fraction"), option  # other faces than the first are lost
    for option, value in {"levels": (0.65, 0.9), "head_margins": (1.8,)}.items():
        second = cascade(parts, **(apart | {option: value}))(IMAGES)
        assert not np.array_equal(plain["faces"].boxes, second["faces"].boxes), option


def test_weights_are_there_once(parts: dict[str, Path]) -> None:
    names = list(cascade(parts).state_dict())
    assert {name.split(".")[1] for name in names} == {"finder", "describer"}
    assert not [name for name in names if "head" in name and "finder" in name]  # it falls away


class Left(Finder):
    """Finds a face in the left half of each photograph but the last."""

    def __init__(self, response: float = 1.0) -> None:
        super().__init__()
        self.response = response

    def forward(self, images: Tensor, frames: Floats, sizes: Floats, names: object) -> FoundFaces:
        boxes = frames[:-1].copy()
        boxes[:, 2] = (boxes[:, 0] + boxes[:, 2]) / 2
        image = np.arange(len(boxes))
        return FoundFaces(image, boxes, np.full(len(boxes), self.response), len(images))


def test_a_detector_in_place_of_the_stages(parts: dict[str, Path], tmp_path: Path) -> None:
    task = CascadeNet(None, str(parts["avg"]), partial(Left, response=2.0)).eval()
    assert task(IMAGES)["faces"].responses.tolist() == [2.0, 2.0]
    loaded = load_model(save_again(task, tmp_path / "task.ckpt"))
    assert_equal(loaded(IMAGES)["attributes"], task(IMAGES)["attributes"])


def test_a_checkpoint_has_its_detector(parts: dict[str, Path], tmp_path: Path) -> None:
    """Its settings as text, not what it read; it is built from them again."""
    (tmp_path / "faces.csv").write_text("name,x0,y0,x1,y1\n" + "".join(f"{n}.jpg,10,10,20,20\n" for n in range(4)))
    for part, settings in ((FrontalCascade, {"min_size": 30}), (TableFinder, {"boxes": str(tmp_path / "faces.csv")})):
        task = CascadeNet([], str(parts["avg"]), partial(part, **settings))
        path = save_again(task, tmp_path / f"{part.__name__}.ckpt")
        loaded = load_model(path)
        described = {"class_path": f"facelightning.models.detectors.{part.__name__}", "init_args": settings}
        assert Checkpoint.read(path).settings["detector"] == described
        assert isinstance(loaded.network.finder, part)
        assert {name.split(".")[1] for name in loaded.state_dict()} == {"describer"}
    assert loaded(IMAGES[:1], None, None, ["0.jpg"])["faces"].boxes.tolist() == [[10, 10, 20, 20]]
    (tmp_path / "faces.csv").unlink()
    with pytest.raises(DataNotFoundError, match=r"cannot read .*faces\.csv"):
        load_model(path)


def test_boxes_are_in_pixels_of_the_file(parts: dict[str, Path]) -> None:
    """A file of 40×200 pixels in the middle of a square image, and one that fills it."""
    task = CascadeNet([], str(parts["avg"]), Left).eval()
    frames, sizes = torch.tensor([[0.0, 40, 100, 60], [0, 0, 100, 100], [0, 0, 1, 1]]), torch.tensor([[40, 200]] * 3)
    batch = {"image": torch.zeros(3, 3, 100, 100, dtype=torch.uint8), "frame": frames, "size": sizes, "name": [*"abc"]}
    first, second, third = task.predict_step(batch, 0)["faces"]
    assert first[:, :5].tolist() == [[0, 0, 100, 40, 1]]
    assert second[:, :5].tolist() == [[0, 0, 100, 40, 1]]
    assert third.shape == (0, 45)
    assert ((first[:, 5:] > 0) & (first[:, 5:] < 1)).all()


def test_what_is_no_cascade_is_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    parser = save(SegNet(width=2).build(FACTS), tmp_path / "segnet.ckpt")
    stage = str(parts["lnet_o"])
    for stages, options in (([], {}), ([stage] * 3, {}), ([stage], {"detector": Left})):
        with pytest.raises(ConfigurationError, match="one or two `stages`, or a `detector`"):
            CascadeNet(stages, **options)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"CascadeNet's stage: .* holds SegNet, not AttributeNet;"):
        CascadeNet([str(parser)])
    with pytest.raises(CheckpointError, match=r"CascadeNet's describer: .*; train one with: .*avg\.yaml"):
        CascadeNet([stage], str(parser))


CROPS: Any = {"image_input": partial(PartCrops, size=16)}


def describer(kind: str, regions: Any) -> FaceTask:
    if kind == "bbox":
        return AttributeNet(width=2, pooling=SemanticPooling, regions=regions).build(FACTS)
    if kind == "panda":
        return AttributeNet(encoder=partial(PANDA, width=2), regions=regions, **CROPS).build(FACTS)
    task = SVMNet(encoder=FaceTracer, regions=regions, **CROPS).build(FACTS)
    task.network.svms.coefficients += 1  # as if fitted
    return task


@pytest.mark.parametrize("kind", ["bbox", "panda", "facetracer"])
def test_a_describer_that_needs_landmarks_is_refused(kind: str, parts: dict[str, Path], tmp_path: Path) -> None:
    """When the cascade is made, before any image; with a parser's regions, the same network is taken."""
    regions = LandmarkBoxes if kind == "bbox" else FaceParts
    stages, path = [str(parts["lnet_o"])], tmp_path / "describer.ckpt"
    save_again(describer(kind, regions), path)
    message = f"CascadeNet's describer: {regions.__name__} needs landmarks, which a found face does not have"
    with pytest.raises(ConfigurationError, match=message):
        CascadeNet(stages, str(path))
    parser = save(SegNet(width=2).build(FACTS), tmp_path / "parser.ckpt")
    save_again(describer(kind, partial(ParserRegions, str(parser))), path)
    parser.unlink()
    assert CascadeNet(stages, str(path))(IMAGES)["attributes"].shape == (3, 40)


def test_a_stage_that_needs_regions_is_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    stage = save_again(describer("panda", FaceParts), tmp_path / "panda.ckpt")
    with pytest.raises(ConfigurationError, match="CascadeNet's stage: PartCrops needs regions, which a stage does not"):
        CascadeNet([str(stage)])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"levels": (float("nan"), 0.5)}, "levels must lie in 0...1"),
        ({"levels": (0.5, 1.5)}, "levels must lie in"),
        ({"least": float("nan")}, "least must lie in"),
        ({"fraction": -1.0}, "fraction must lie in"),
        ({"search_size": (0, 64)}, "search_size must lie in 32...10000"),
        ({"search_size": (100_000, 100_000)}, "search_size must lie in"),
        ({"head_margins": [1.8, 0.0]}, "head_margins and face_margin must lie in"),
        ({"head_margins": []}, r"head_margins is empty: name at least one, as the paper's \[1.8\]"),
        ({"face_margin": float("nan")}, "head_margins and face_margin must lie in"),
        ({"rescale": (-1.0, 1.0, 0.0)}, "rescale's width and height must lie in"),
        ({"rescale": (1.0, 1.0, float("nan"))}, "rescale's shift must lie in"),
    ],
)
def test_a_number_out_of_its_range_is_refused(option: dict[str, Any], message: str, parts: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match=message):
        cascade(parts, **option)


def test_what_belongs_to_stages_is_refused_beside_a_detector(parts: dict[str, Path]) -> None:
    for option in ({"rescale": (2.0, 2.0, 0.0)}, {"search_size": (64, 64)}):
        with pytest.raises(ConfigurationError, match="rescale and search_size belong to `stages`"):
            CascadeNet([], str(parts["avg"]), Left, **option)  # type: ignore[arg-type]


def test_cut_images_are_refused(parts: dict[str, Path]) -> None:
    batch = {"image": IMAGES, "is_cut": torch.ones(3, dtype=torch.bool)}
    with pytest.raises(ConfigurationError, match=r"in whole images: leave out data\.crop"):
        cascade(parts).predict_batch(batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype, parts: dict[str, Path]) -> None:
    task = cascade(parts).to(dtype)
    output, _ = task.predict_batch({"image": IMAGES, "frame": torch.tensor([[0.0, 0, 90, 70]] * 3, dtype=dtype)})
    assert output["attributes"].dtype == dtype
    assert output["faces"].images == 3


def weakest(lnet_o: Path, scenes: Path) -> float:
    """The quantile of the largest mean over channels, image by image, to four digits."""
    network, data = load_model(lnet_o).network, CelebA(scenes, "val", "wild")
    maxima = []
    for name in data.names:
        image = cv2.resize(read_image(data.folder / name), (90, 72), interpolation=cv2.INTER_AREA)
        square = np.pad(image, ((9, 9), (0, 0), (0, 0))).transpose(2, 0, 1)
        whole = crop(torch.from_numpy(square.copy())[None], np.array([0]), np.array([[0.0, 0, 90, 90]]), (64, 64))
        with torch.no_grad():
            response = network(whole)["features"][0].double().mean(dim=0).numpy()
        middles = (np.arange(len(response)) + 0.5) * 8 - network.encoder.offset
        maxima.append(response[(middles >= 64 * 0.1) & (middles < 64 * 0.9)].max())  # not of the black above and below
    return float(f"{np.quantile(maxima, 0.02):.4g}")


def test_from_scenes_to_tables_and_pictures(
    parts: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "scenes", (4, 4, 5), (0, 0, 2), size=(80, 100), seed=1)
    words = [f"--model.stages=[{parts['lnet_o']},{parts['lnet_s']}]", f"--model.describer={parts['avg']}"]
    data = ["--data.image_size=[90,90]", "--data.batch_size=2", "--data.num_workers=0"]
    quiet = "--trainer.enable_progress_bar=false"
    root = f"--data.root={tmp_path / 'scenes'}"
    assert main(["test", "--config=lnet_anet.yaml", root, *data, *words, quiet]) == 0
    printed = capsys.readouterr().out
    assert "recall at overlap 0.5" in printed
    assert "error" in printed
    least = weakest(parts["lnet_o"], tmp_path / "scenes")
    assert f"least response of a face: {least}, fitted to 4 validation images" in caplog.text
    caplog.clear()
    file = "--ckpt_path=runs/lnet_anet/version_0/checkpoints/best.ckpt"
    first = Path("runs/lnet_anet/version_0/test_results.json").read_text()
    assert main(["test", file, *data, root, quiet]) == 0
    assert Path("runs/lnet_anet/version_1/test_results.json").read_text() == first
    assert "fitted" not in caplog.text
    assert Checkpoint.read(file.partition("=")[2]).settings["least"] == least
    folder = f"--data.root={tmp_path / 'scenes/Img'}"
    assert main(["predict", file, "--data=FolderDataModule", folder, *data, "--model.least=0", quiet]) == 1  # not now
    assert main(["predict", file, "--data=FolderDataModule", folder, *data, quiet]) == 0
    predictions = Path("runs/lnet_anet/version_2/predictions")
    with (predictions / "faces.csv").open() as table:
        rows = list(csv.DictReader(table))
    names = [path.relative_to(tmp_path / "scenes/Img").as_posix() for path in tmp_path.glob("scenes/Img/*/**/*.jpg")]
    assert {row["name"] for row in rows} == set(names)
    assert len(names) == 15
    assert set(rows[0]) == {"name", "x0", "y0", "x1", "y1", "response", *ATTRIBUTES}
    boxes = np.array([[float(row[key]) for key in ("x0", "y0", "x1", "y1")] for row in rows if row["x0"]])
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert not (predictions / "attributes.csv").exists()
    assert {path.relative_to(predictions / "faces").as_posix() for path in predictions.rglob("*.png")} == {
        f"{name}.png" for name in names
    }


def test_what_is_not_fitted_yet_needs_a_test(
    parts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["predict", "--config=faces.yaml", f"--model.stages=[{parts['lnet_o']}]", "--data=FolderDataModule"]
    assert main([*words, "--data.root=photographs"]) == 1
    assert "CascadeNet is fitted by `facelightning test`, which writes a checkpoint" in capsys.readouterr().err
    assert main([*words, "--data.root=photographs", "--model.least=0.5"]) == 1
    assert "data root photographs does not exist" in capsys.readouterr().err
    task = cascade(parts)
    with pytest.raises(ConfigurationError, match="CascadeNet is fitted on the validation split: test it with a data"):
        make_trainer().test(task, loader(samples("attributes")), verbose=False)


def test_a_table_of_other_images_is_refused(
    parts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "scenes", (1, 1, 3), size=(64, 64), seed=1)
    Path("other.csv").write_text("name,x0,y0,x1,y1\n9.jpg,1,1,2,2\n")
    words = ["--model.detector=TableFinder", "--model.detector.boxes=other.csv", "--model.stages=null"]
    root, data = f"--data.root={tmp_path / 'scenes'}", ["--data.image_size=[64,64]", "--data.num_workers=0"]
    assert main(["test", "--config=faces.yaml", root, *data, *words]) == 1
    expected = "other.csv names 9.jpg and others, but none of the 3 images, such as 000003.jpg: give the table of these"
    assert expected in capsys.readouterr().err
    folder = ["--data=FolderDataModule", f"--data.root={tmp_path / 'scenes/Img/img_celeba'}"]
    assert main(["predict", "--config=faces.yaml", *folder, *data, *words]) == 1
    assert "other.csv names 9.jpg and others, but none of the 5 images" in capsys.readouterr().err


def test_a_table_in_place_of_the_stages(
    parts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the true boxes as the table, every face is found; predicted boxes are those of the table."""
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "scenes", (4, 4, 5), faces=(1, 2), size=(80, 100), seed=1)
    true = (tmp_path / "scenes/Anno/all_boxes.csv").read_text().replace("image_id", "name", 1)
    narrow = "narrow.png,0,100,3,200\n"
    (tmp_path / "true.csv").write_text(true + narrow)
    words = ["--model.stages=null", "--model.detector=TableFinder", "--model.detector.boxes=true.csv"]
    data = ["--data.image_size=[90,90]", "--data.batch_size=2", "--data.num_workers=0"]
    quiet, describer = "--trainer.enable_progress_bar=false", f"--model.describer={parts['avg']}"
    root = f"--data.root={tmp_path / 'scenes'}"
    assert main(["test", "--config=lnet_anet.yaml", root, *data, *words, describer, quiet]) == 0
    scores = json.loads(Path("runs/lnet_anet/version_0/test_results.json").read_text())
    assert (scores["faces"]["recall"]["0.95"], scores["faces"]["no_face"]) == (100, 0)
    file = "--ckpt_path=runs/lnet_anet/version_0/checkpoints/best.ckpt"
    folder = f"--data.root={tmp_path / 'scenes/Img/img_celeba'}"
    cv2.imwrite(str(tmp_path / "scenes/Img/img_celeba/narrow.png"), np.full((300, 3), 255, np.uint8))
    assert main(["predict", file, "--data=FolderDataModule", folder, *data, quiet]) == 0
    predicted = Path("runs/lnet_anet/version_1/predictions/faces.csv").read_text()
    ours, theirs = (
        sorted((row["name"], *(float(row[key]) for key in ("x0", "y0", "x1", "y1"))) for row in csv.DictReader(text))
        for text in (predicted.splitlines(), (true + narrow).splitlines())
    )
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    assert np.array([row[1:] for row in ours]) == pytest.approx(np.array([row[1:] for row in theirs]), abs=0.02)
    picture = cv2.imread("runs/lnet_anet/version_1/predictions/faces/narrow.png.png")
    assert picture is not None
    rows, _ = np.nonzero((np.abs(picture[:, 16:22] - np.array([180, 119, 31])) < 20).all(axis=2))  # the box's blue
    # below the title; the number stands above the box
    assert rows.min() - 54 == pytest.approx(640 * 100 / 300 - 24, abs=10)
    assert rows.max() - 54 == pytest.approx(640 * 200 / 300, abs=10)
