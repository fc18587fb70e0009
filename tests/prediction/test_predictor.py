"""``load_model(path).predict``: any source, any size, in threads, as Lightning predicts it."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import facelightning as fl
from facelightning.data import FolderDataModule
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError, FacelightningError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7
from facelightning.models import FrontalCascade, TableFinder
from facelightning.prediction import Prediction, Predictor, View
from facelightning.tasks import AgeNet, CascadeNet, FaceTask
from tests.prediction.test_masks import brightness
from tests.tasks.tiny import FACTS, HEIGHT, WIDTH, make_task


def photograph(height: int = 90, width: int = 70) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Smooth colours, with an edge."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * x / width, 255 * y / height, np.where(x + y > width, 200, 60)], axis=2)
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def task(joint: Path) -> FaceTask:
    return fl.load_model(joint)


def same(one: Prediction, other: Prediction) -> bool:
    assert one.parsing is not None and other.parsing is not None
    return one.faces == other.faces and one.size == other.size and np.array_equal(one.parsing, other.parsing)


SOURCES: dict[str, Callable[[Any, Path], Any]] = {
    "path": lambda _, path: path,
    "text": lambda _, path: str(path),
    "Pillow": lambda image, _: Image.fromarray(image),
    "tensor": lambda image, _: torch.from_numpy(image).permute(2, 0, 1),
    "floats": lambda image, _: torch.from_numpy(image).permute(2, 0, 1) / 255,
    "a view": lambda image, _: np.repeat(image, 2, axis=0)[::2],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_is_the_same_photograph(kind: str, task: FaceTask, tmp_path: Path) -> None:
    image = photograph()
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    expected, found = task.predict(image), task.predict(SOURCES[kind](image, tmp_path / "a.png"))
    assert same(found, expected)
    assert found.size == (90, 70) and found.parsing is not None and found.parsing.shape == (90, 70)
    assert found.name == (str(tmp_path / "a.png") if kind in ("path", "text") else "0")
    assert list(found.attributes) == list(found.decisions) == list(ATTRIBUTES)
    assert found.decisions == {name: share > 0.5 for name, share in found.attributes.items()}


def test_several_of_any_sizes(task: FaceTask) -> None:
    """More than a batch; each as alone, but for the rounding of other batches."""
    images = [photograph(20 + 7 * n, 90 - n) for n in range(35)]
    found = task.predict(images)
    assert [each.size for each in found] == [image.shape[:2] for image in images]
    assert [each.name for each in found] == [str(n) for n in range(35)]
    for n in (0, 31, 34):
        alone = task.predict(images[n])
        np.testing.assert_allclose(list(found[n].attributes.values()), list(alone.attributes.values()), atol=1e-5)
        assert found[n].parsing is not None and (found[n].parsing != alone.parsing).mean() < 0.01
    batch = torch.zeros(2, 3, 30, 20)
    assert [each.size for each in task.predict(batch)] == [(30, 20), (30, 20)]
    assert task.predict([]) == []


def test_it_is_what_lightning_predicts(task: FaceTask, tmp_path: Path) -> None:
    for number, size in enumerate([(50, 80), (36, 28), (10, 9)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), photograph(*size)[..., ::-1])
    data = FolderDataModule(str(tmp_path), image_size=(HEIGHT, WIDTH), num_workers=0)
    (batch,) = data.predict_dataloader()
    with torch.no_grad():
        expected = task.predict_step(batch, 0)
    found = task.predict(sorted(tmp_path.iterdir()))
    likely = [list(each.attributes.values()) for each in found]
    np.testing.assert_allclose(likely, expected["attributes"].numpy(), atol=1e-6)
    assert np.array_equal(found[1].parsing, expected["parsing"][1].numpy())  # of the network's own size


def test_threads_may_share_it(task: FaceTask) -> None:
    images = [photograph(40 + n, 50) for n in range(8)]
    before = {key: value.clone() for key, value in task.state_dict().items()}
    alone = [task.predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(task.predict, images))
    assert all(map(same, alone, together))
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    assert not any(part.training for part in task.modules())


def test_a_training_goes_on_in_its_mode(joint: Path) -> None:
    task = fl.load_model(joint)
    expected = task.predict(photograph())
    task.train()
    assert same(task.predict(photograph()), expected)  # no BatchNorm of one image
    assert task.training and task.network.training
    assert all(weight.grad is None for weight in task.parameters())


def test_found_faces_are_seen_as_in_training(joint: Path, tmp_path: Path) -> None:
    """A cascade of a table and a network for both tasks: boxes, attributes and masks of each face."""
    table = tmp_path / "boxes.csv"
    table.write_text("name,x0,y0,x1,y1,response\n0,100,50,140,90,0.9\n0,20,20,40,50,0.7\n1,,,,,\n")
    images = [photograph(200, 300), photograph(60, 50)]
    task = fl.load_model(joint)
    cascade = CascadeNet(describer=str(joint), detector=partial(TableFinder, boxes=str(table)), face_margin=1.5)
    several, none = cascade.predict(images)
    assert several.boxes.tolist() == [[100, 50, 140, 90], [20, 20, 40, 50]]
    assert [face.score for face in several.faces] == [0.9, 0.7]
    assert (none.faces, none.attributes, none.parsing is not None and none.parsing.any()) == ([], {}, False)
    for found in (task.predict(images, TableFinder(str(table)), margin=1.5), cascade.predict(images)):
        assert len(found[0].faces) == 2 and found[1].to_rows() == none.to_rows()
    # 40 · 1.5 pixels wide and 36/28 as high
    side = np.round(60 * np.array([1, HEIGHT / WIDTH]) / 2)
    low, high = (np.array([120, 70]) - side).astype(int), (np.array([120, 70]) + side).astype(int)
    cut = task.predict(images[0][low[1] : high[1], low[0] : high[0]])
    np.testing.assert_allclose(list(cut.attributes.values()), list(several.attributes.values()), atol=0.02)
    assert several.parsing is not None and cut.parsing is not None
    inside = several.parsing[low[1] : high[1], low[0] : high[0]]
    assert (inside == cut.parsing).mean() > 0.9
    outside = several.parsing.copy()
    outside[low[1] - 1 : high[1] + 1, low[0] - 1 : high[0] + 1] = 0
    outside[:70, :60] = 0
    assert not outside.any()


def test_a_cut_lies_around_its_box(tmp_path: Path) -> None:
    """CelebA's frame around the stock cascade's median box in it; see ``Finder.aligned``."""
    table = tmp_path / "boxes.csv"
    table.write_text("name,x0,y0,x1,y1\na,136,171,242,277\n")  # in a frame of 178×218 at (100, 100)
    seen = View((218, 178), TableFinder(str(table)), *FrontalCascade.aligned)(photograph(500, 400), "a")
    np.testing.assert_allclose(seen.cuts, [[100, 100, 278, 318]], atol=2)
    assert seen.images.shape == (1, 3, 218, 178)


def test_the_margin_of_the_training_is_kept(joint: Path, tmp_path: Path) -> None:
    content = torch.load(joint, weights_only=True)
    part = {"class_path": "CelebADataModule", "init_args": {"crop": {"margin": 1.3, "boxes": None}}}
    content["facelightning_config"] = {"data": {"init_args": {"parsing": {}, "attributes": part}}}
    torch.save(content, tmp_path / "cropped.ckpt")
    table = tmp_path / "boxes.csv"
    table.write_text("name,x0,y0,x1,y1\na,1,1,9,9\n")
    finder = TableFinder(str(table))
    views = [fl.load_model(path).predictor(finder).view for path in (joint, tmp_path / "cropped.ckpt")]
    assert [(view.margin, view.shift) for view in views] == [finder.aligned, (1.3, 0.0)]
    assert [view.aligns for view in views] == [True, False]  # as the network's images were, if the points are known
    assert fl.load_model(joint).predictor(finder, 2.5).view.margin == 2.5


def test_what_cannot_be_predicted_is_a_sentence(task: FaceTask, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    wrong: list[tuple[Any, type[FacelightningError], str]] = [
        (tmp_path / "a.png", DataFormatError, "its 8 bytes are not an image"),
        (tmp_path / "none.png", DataNotFoundError, "No such file"),
        (np.zeros((4, 4, 3)), DataFormatError, r"uint8, RGB; found \(4, 4, 3\), float64"),
        (np.zeros((4, 4), np.uint8), DataFormatError, r"found \(4, 4\), uint8"),
        (np.zeros((0, 4, 3), np.uint8), DataFormatError, r"found \(0, 4, 3\)"),
        (torch.full((3, 4, 4), 7.0), DataFormatError, r"must lie in \[0, 1\]"),
        (torch.zeros(1, 4, 4), DataFormatError, r"must be \(B, 3, H, W\)"),
        ([None], DataFormatError, "NoneType is no image"),
        (7, DataFormatError, "int is no image"),
    ]
    for source, kind, message in wrong:
        with pytest.raises(kind, match=message):
            task.predict(source)
    with pytest.raises(ConfigurationError, match="AgeNet predicts neither attributes nor parsing"):
        AgeNet(width=2).build(FACTS).predict(photograph())
    with pytest.raises(ConfigurationError, match="AttributeNet needs landmarks, which a photograph does not have"):
        make_task("attributenet-bbox", tmp_path).predict(photograph())
    with pytest.raises(ConfigurationError, match=r"margin must lie in 0.1...10, not 99"):
        task.predict(photograph(), margin=99)


def test_a_16_bit_image_keeps_its_range(task: FaceTask) -> None:
    grey = np.linspace(0, 65535, 36 * 28).reshape(36, 28).astype(np.uint16)
    eight = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    assert same(task.predict(Image.fromarray(grey)), task.predict(eight))


def test_a_notebook_shows_picture_and_table(task: FaceTask, monkeypatch: pytest.MonkeyPatch) -> None:
    found = task.predict(photograph())
    page = found._repr_html_()
    assert page.count("<img") == 1 and "data:image/jpeg;base64," in page and page.count("<tr>") == 2
    assert found.plot().size[0] > 640
    (row,) = found.to_rows()
    assert row["image"] == "0" and row["x1"] == 70 and row["score"] is None
    assert row["Male"] == pytest.approx(found.attributes["Male"], abs=1e-6)
    assert row["Male_decision"] is found.decisions["Male"]
    monkeypatch.setitem(sys.modules, "pandas", None)  # not installed
    with pytest.raises(ConfigurationError, match="to_pandas needs pandas"):
        found.to_pandas()


def test_a_parser_doubts_an_unsure_finder(tmp_path: Path) -> None:
    """Of the stock cascade's boxes those remain that the parser sees a face in, and one for each."""
    table = tmp_path / "boxes.csv"
    lines = ("10,10,50,50", "18,18,42,42", "60,10,90,40", "110,20,140,50")  # two around one face, none, a second face
    table.write_text("name,x0,y0,x1,y1\n" + "".join(f"0,{line}\n" for line in lines))
    image = np.zeros((80, 160, 3), np.uint8)
    cv2.ellipse(image, ((30, 30), (36, 38), 0), (255, 255, 255), -1)
    cv2.ellipse(image, ((125, 35), (26, 20), 0), (255, 255, 255), -1)

    def found(finder: TableFinder, facts: DataFacts) -> Prediction:
        return Predictor(brightness, facts, None, View((64, 64), finder, 1.5))(image)

    finder, parses = TableFinder(str(table)), DataFacts((64, 64), HELEN7)
    assert found(finder, parses).boxes[:, 0].tolist() == [10, 18, 60, 110]  # a table is believed
    finder.unsure = True
    doubted = found(finder, parses)
    assert doubted.boxes[:, 0].tolist() == [10, 110]
    scores = [face.score or 0.0 for face in doubted.faces]
    np.testing.assert_allclose(scores, [np.pi * 36 * 38 / 4 / 40**2, np.pi * 26 * 20 / 4 / 30**2], atol=0.05)
    assert doubted.parsing is not None and doubted.parsing[10:50, 10:50].any() and doubted.parsing[20:50, 110:140].any()
    assert found(finder, DataFacts((64, 64))).boxes[:, 0].tolist() == [10, 60, 110]  # nothing parses
