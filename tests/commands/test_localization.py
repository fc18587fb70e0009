"""Studies of localisation: numbers by hand, through the command, and refused where they cannot be drawn."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facelightning.__main__ import main
from facelightning.boxes import read_boxes_table
from facelightning.commands.localization import Localization, localize, see
from facelightning.data import SyntheticScenesDataModule
from facelightning.data.synthetic import write_scenes
from facelightning.errors import DataFormatError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.models.detectors import TableFinder
from facelightning.models.heads import LinearHead
from facelightning.models.lnet import LNet
from facelightning.models.pooling import LogSumExpPooling
from facelightning.tasks import AttributeNet, CascadeNet, load_model
from tests.models.conftest import settle
from tests.tasks.tiny import QUIET, make_trainer, save

pytestmark = QUIET

SCENES = {"scenes": (1, 1, 5), "faceless": (0, 0, 0), "faces": (2, 3), "scene_size": (80, 100), "drawing_seed": 1}


UNDRAWN = ["--data=SyntheticScenesDataModule", "--data.root=new"]
"""Data that a refusal comes too late for, if it is drawn."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of several faces, and cascades: of two LNets, of a stock detector, of a table with two errors."""
    root = tmp_path_factory.mktemp("localization")
    write_scenes(root / "scenes", (1, 1, 5), faces=(2, 3), size=(80, 100), seed=1)
    stages = []
    for seed, name in enumerate(("lnet_o", "lnet_s")):
        torch.manual_seed(seed)
        encoder = partial(LNet, width=3, kernel_size=7, stride=2)
        net = AttributeNet(width=2, encoder=encoder, pooling=LogSumExpPooling, head=LinearHead)
        settle(net.build(DataFacts((64, 64), attributes=ATTRIBUTES)).network, torch.rand(4, 3, 64, 64))
        stages.append(str(save(net.eval(), root / f"{name}.ckpt")))
    lines = (root / "scenes/Anno/all_boxes.csv").read_text().splitlines()
    (root / "wrong.csv").write_text("\n".join([*lines[:-1], "000007.jpg,0,0,9,9", "000007.jpg,9,9,19,19"]) + "\n")
    table = partial(TableFinder, boxes=str(root / "wrong.csv"))
    for name, task in (("two", CascadeNet(stages, least=0.0)), ("table", CascadeNet(detector=table))):
        trainer = make_trainer()
        trainer.strategy.connect(task)
        trainer.save_checkpoint(root / f"{name}.ckpt")
    shutil.copy(root / "two.ckpt", root / "copy.ckpt")  # for another seed
    return root


def data(folder: Path, **options: int) -> SyntheticScenesDataModule:
    return SyntheticScenesDataModule(
        str(folder / "scenes"),
        **SCENES,
        image_size=(90, 90),
        batch_size=2,
        num_workers=0,
        **options,  # type: ignore[arg-type]  # of several types
    )


FOUND = [np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]), np.empty((0, 4)), np.array([[0.0, 0, 10, 6]])]
TRUE = [np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]]), np.array([[5.0, 5, 9, 9]]), np.array([[0.0, 0, 10, 10]])]


class TestNumbers:
    def test_of_every_face(self) -> None:
        """Own overlaps 1, 0, 0 and 0.6: two of four at 0.5, one of three found boxes is false."""
        numbers = Localization(FOUND, TRUE, every=True).numbers()
        assert numbers == pytest.approx(
            {
                "recall_50": 50,
                "recall_70": 25,
                "mean_overlap": 40,
                "no_face": 100 / 3,
                "false_faces": 1 / 3,
                "right_number": 200 / 3,
            }
        )

    def test_of_the_largest(self) -> None:
        """The same box may be the best of several; what else is found may be true."""
        found = Localization(FOUND, TRUE, every=False)
        assert found.overlaps.tolist() == pytest.approx([1, 0.9, 0, 0.6])
        assert found.numbers().keys() == {"recall_50", "recall_70", "mean_overlap", "no_face"}

    def test_the_curve(self) -> None:
        """From all that overlap at all to all that are equal."""
        curve = Localization(FOUND, TRUE, every=True).recall()
        expected = [100 * sum(own > 0 and own >= step / 100 for own in (1, 0, 0, 0.6)) / 4 for step in range(101)]
        assert curve.tolist() == expected
        assert (curve[0], curve[100]) == (50, 25)


def test_of_the_data_as_a_test_says(folder: Path) -> None:
    """Of the largest faces, recall is that of ``facelightning test``."""
    task, batches = load_model(folder / "two.ckpt"), list(data(folder).test_dataloader())
    assert isinstance(task, CascadeNet)
    faces = task.objectives["faces"]
    scores = faces.scores()
    for batch in batches:
        faces.count(scores, *task.predict_batch(batch))
    numbers = localize(task, batches).numbers()
    assert numbers == pytest.approx({key: scores.compute()[key] for key in numbers}, abs=1e-4)
    assert numbers["mean_overlap"] > 5


def test_of_every_face_through_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scenes are drawn on first use: the same ones."""
    monkeypatch.chdir(tmp_path)
    true = folder / "scenes/Anno/all_boxes.csv"
    words = ["--data=SyntheticScenesDataModule", "--data.root=drawn", "--data.scenes=[1,1,5]"]
    words += ["--data.faceless=[0,0,0]", "--data.faces=[2,3]", "--data.scene_size=[80,100]", "--data.drawing_seed=1"]
    words += ["--data.image_size=[90,90]", "--data.num_workers=0"]
    others = json.dumps(
        {"a table": [str(folder / "table.ckpt")], "two": [str(folder / f"{name}.ckpt") for name in ("two", "copy")]}
    )
    words += [f"--ckpt_path={folder / 'two.ckpt'}", f"--beside={others}", f"--boxes={true}", "--output=made"]
    assert main(["visualize", *words]) == 0
    assert sorted(path.name for path in Path("made").iterdir()) == ["recall.json", "recall.png", "responses.png"]
    found = json.loads(Path("made/recall.json").read_text())
    rows = {name: len(boxes) for name, boxes in read_boxes_table(true).items() if name >= "000003"}
    faces = sum(rows.values())
    assert (found["faces"], len(found["overlaps"])) == (faces, 101)
    assert list(found["systems"]) == ["two", "a table"]
    assert len(found["systems"]["two"]["seeds"]) == len(found["systems"]["two"]["recall"]) == 2
    (table,) = found["systems"]["a table"]["seeds"]  # one face of the last image is missing, two are false
    assert table == pytest.approx(
        {
            "recall_50": 100 * (faces - 1) / faces,
            "recall_70": 100 * (faces - 1) / faces,
            "mean_overlap": 100 * (faces - 1) / faces,
            "no_face": 0,
            "false_faces": 2 / 5,
            "right_number": 80,
        },
        abs=0.5,
    )
    assert "written: made/recall.json" in capsys.readouterr().out
    drawn = cv2.imread("made/responses.png")
    assert drawn is not None
    assert drawn.shape[1] == 4 * 310 + 10


def test_what_is_seen_of_a_photograph(folder: Path) -> None:
    """All in pixels of the photograph without its padding, or of a cut."""
    task, sample = load_model(folder / "two.ckpt"), data(folder).dataset("test")[0, 0]
    assert isinstance(task, CascadeNet)
    seen = see(task, sample)
    left, top, right, bottom = sample["frame"].tolist()
    assert (left, right) == (0, 90)
    assert seen.image.shape == (72, 90, 3)
    assert np.array_equal(seen.image, sample["image"][:, 9:81].permute(1, 2, 0).numpy())
    assert seen.true == pytest.approx(sample["box"].numpy()[None] - [0, 9, 0, 9], abs=1e-3)
    output, _ = task.predict_batch({key: sample[key][None] for key in ("image", "frame", "size")})
    assert seen.found == pytest.approx(output["faces"].boxes - [0, 9, 0, 9], abs=1e-3)
    whole, closer = seen.cuts
    finder = task.network.finder
    _, heads = finder.search(sample["image"][None], np.array([[left, top, right, bottom]]))
    assert whole.windows * 90 / 64 == pytest.approx(heads.boxes, abs=1e-3)  # the cut is the whole image
    assert closer.image.shape == (64, 64, 3)
    assert len(closer.windows) == 1
    # the window holds what responds above the level, around the summit
    summit = np.unravel_index(closer.response.argmax(), closer.response.shape)
    x0, y0, x1, y1 = closer.windows[0]
    assert y0 - 1 <= summit[0] <= y1 + 1
    assert x0 - 1 <= summit[1] <= x1 + 1


def test_true_boxes_that_are_unknown(folder: Path) -> None:
    task = load_model(folder / "two.ckpt")
    assert isinstance(task, CascadeNet)
    image = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(DataFormatError, match="recall needs true boxes, which the data has not"):
        localize(task, [{"image": image}])
    boxes = torch.tensor([[np.nan] * 4, [1.0, 1, 9, 9]])
    assert len(localize(task, [{"image": image, "box": boxes}]).found) == 1
    with pytest.raises(DataFormatError, match="the data has none of these images"):
        localize(task, [{"image": image[:1], "box": boxes[:1]}])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ckpt_path=LNET_O", "--beside={LNet: [TWO]}"], "--beside compares cascades, but .*lnet_o.* AttributeNet"),
        (
            ["--ckpt_path=TWO", "--beside={LNet: [LNET_O]}", *UNDRAWN],
            "--beside compares cascades, but .*lnet_o.* AttributeNet",
        ),
        (["--ckpt_path=TWO", "--boxes=other.csv"], "other.csv names none of the images"),
        (["--ckpt_path=TABLE", "--data=FolderDataModule", "--data.root=."], "nothing to draw for CascadeNet .*table"),
        (["--ckpt_path=SCENES"], "checkpoint .*localization.* is a folder: give a file in it, such as .*.ckpt"),
    ],
)
def test_mistakes_are_one_sentence(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.csv").write_text("name,x0,y0,x1,y1\n9.jpg,1,1,2,2\n")
    files = {name.upper(): str(folder / f"{name}.ckpt") for name in ("lnet_o", "two", "table")} | {
        "SCENES": str(folder)
    }
    words = [re.sub("|".join(files), lambda found: files[found[0]], word) for word in words]
    scenes = ["--data=CelebADataModule", f"--data.root={folder / 'scenes'}", "--data.images=wild"]
    if not any(word.startswith("--data=") for word in words):
        words = [*scenes, *words]
    assert main(["visualize", *words, "--data.num_workers=0"]) == 1
    assert re.search(f"facelightning: .*{message}", capsys.readouterr().err.splitlines()[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


def test_boxes_that_are_not_there_leave_the_responses(
    folder: Path, tmp_path: Path, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = ["--data=FolderDataModule", f"--data.root={folder / 'scenes/Img'}", "--data.image_size=[90,90]"]
    command("visualize", f"--ckpt_path={folder / 'two.ckpt'}", *photographs, "--data.num_workers=0", "--output=made")
    assert [path.name for path in Path("made").iterdir()] == ["responses.png"]
