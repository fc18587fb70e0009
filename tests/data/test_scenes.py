"""Scenes: the same bytes each time, boxes and landmarks where the faces are, no edge that gives a face away."""

import csv
import json
import warnings
from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facelightning.data import CelebA, CelebADataModule, Folder, SyntheticScenesDataModule
from facelightning.data.synthetic import CartoonFace, Scene, draw_face, draw_scene, sample_attributes, scenes
from facelightning.data.synthetic import write_scenes as write
from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.labels import ATTRIBUTES
from tests.data.test_synthetic import PLAIN, face_with
from tests.test_house import imports

COUNTS: dict[str, Any] = {"scenes": (10, 5, 6), "faceless": (0, 2, 3), "faces": (1, 4), "size": (120, 160)}


@pytest.fixture(scope="module")
def drawn() -> list[CartoonFace]:
    rng = np.random.default_rng(1)
    return [draw_face(sample_attributes(rng), number, number) for number in range(24)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "deep" / "scenes"
    write(root, **COUNTS, seed=7)
    return root


def scene_of(faces: list[CartoonFace], seed: int, size: tuple[int, int] = (160, 200)) -> Scene:
    return draw_scene(faces, size, np.random.default_rng(seed))


def in_colour(face: CartoonFace, colour: int | NDArray[np.uint8]) -> CartoonFace:
    return replace(face, image=np.broadcast_to(np.uint8(colour), face.image.shape))


def laid_over(face: CartoonFace, seed: int) -> tuple[NDArray[np.float64], Scene]:
    """How much of each pixel of a scene a face covers, seen from two scenes that differ in its colour alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "_cloth", lambda face: np.zeros(3, np.float32))  # the body's colour, the same in both
        dark, light = (scene_of([in_colour(face, colour)], seed) for colour in (60, 160))  # noise reaches neither end
    return (light.image.astype(float) - dark.image).max(axis=2) / 100, dark


@pytest.mark.parametrize("seed", range(8))
def test_the_box_is_that_of_hair_and_face(seed: int, drawn: list[CartoonFace]) -> None:
    face = drawn[seed]
    head = replace(face, person=255 - face.masks[0])
    alpha, scene = laid_over(head, seed)
    rows, columns = (np.flatnonzero((alpha > 0.1).any(axis=axis)) for axis in (1, 0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    x0, y0, x1, y1 = scene.boxes[0].tolist()
    if (face.masks[0][200:] < 128).any():  # long hair reaches the rows of the clothes
        y1 = found[3]
    np.testing.assert_allclose([x0, y0, x1, y1], found, atol=1.01)
    assert 0 <= x0 < x1 <= 200 and 0 <= y0 < y1 <= 160


@pytest.mark.parametrize("seed", range(8))
def test_landmarks_lie_where_they_are_drawn(seed: int, drawn: list[CartoonFace]) -> None:
    off = []
    for number, (x, y) in enumerate(drawn[seed].landmarks.round().astype(int).tolist()):
        spot = np.full((218, 178, 3), 60, np.uint8)
        cv2.circle(spot, (x, y), 7, (160, 160, 160), -1)
        plain, marked = (scene_of([in_colour(drawn[seed], image)], seed) for image in (np.full_like(spot, 60), spot))
        change = (marked.image.astype(float) - plain.image).max(axis=2)
        centre = [(change * grid).sum() / change.sum() for grid in np.meshgrid(np.arange(200), np.arange(160))]
        off.append(marked.landmarks[0, number] - centre)
    assert np.abs(off).max() < 0.6 and np.abs(np.mean(off, axis=0)).max() < 0.25


@pytest.mark.parametrize("seed", range(8))
def test_all_that_an_attribute_shows_is_in_the_picture(seed: int, drawn: list[CartoonFace]) -> None:
    face = replace(drawn[seed], person=drawn[seed].person * np.uint8(np.arange(218)[:, None] < 200))
    alpha, scene = laid_over(face, seed)
    eyes = [np.linalg.norm(points[1] - points[0]) for points in (scene.landmarks[0], face.landmarks)]
    scale = float(eyes[0] / eyes[1])
    assert alpha.sum() == pytest.approx(scale**2 * np.clip(face.person / 127.5 - 1, 0, 1).sum(), rel=0.04)
    assert scene.image[alpha > 0.98].mean() == pytest.approx(60, abs=1)  # nothing shines through


@pytest.mark.parametrize("name", ["Wearing_Hat", "Wearing_Earrings", "Wearing_Necklace", "Wearing_Necktie"])
def test_what_is_worn_belongs_to_the_person(name: str) -> None:
    for number in range(4):
        plain, worn = (face_with(PLAIN | {"Male"} | extra, number, number) for extra in (set(), {name}))
        change = np.abs(worn.image.astype(int) - plain.image).max(axis=2) > 40
        assert change.sum() > 50
        assert (worn.person[change] > 127).mean() > 0.85  # the rest: shadows and soft edges
        assert (worn.person >= 255 - worn.masks[0]).all()


def test_no_straight_edge_of_the_drawing_is_left(drawn: list[CartoonFace]) -> None:
    for face in drawn:
        alpha = face.person * scenes._BUST
        for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
            assert edge.max() < 128  # the inner half of a soft edge is what is pasted


def test_faces_of_all_sizes_and_slants(drawn: list[CartoonFace]) -> None:
    found = [scene_of([drawn[seed % 24]], seed, (192, 240)) for seed in range(120)]
    tall = np.array([scene.boxes[0, 3] - scene.boxes[0, 1] for scene in found])
    assert 22 <= tall.min() < 28 and 120 < tall.max() <= 180
    assert 45 < np.median(tall) < 75  # the middle on a logarithmic scale, not of the range
    eyes = np.array([scene.landmarks[0, 1] - scene.landmarks[0, 0] for scene in found])
    slant = np.rad2deg(np.arctan2(eyes[:, 1], eyes[:, 0]))
    assert -23 < slant.min() < -10 and 10 < slant.max() < 23
    centres = np.array([scene.boxes[0].reshape(2, 2).mean(axis=0) for scene in found]) / (240, 192)
    assert (centres.min(axis=0) < 0.15).all() and (centres.max(axis=0) > 0.8).all()


def test_faces_lie_apart_and_the_largest_comes_first(drawn: list[CartoonFace]) -> None:
    for seed in range(12):
        scene = scene_of(drawn[seed : seed + 5], seed)
        assert sorted(scene.faces) == list(range(5))
        area = np.prod(scene.boxes[:, 2:] - scene.boxes[:, :2], axis=1)
        assert (np.diff(area) <= 0).all()
        for a, b in combinations(scene.boxes, 2):
            both = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
            assert both <= 0.12 * min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod())  # ends of long hair
        for points, box in zip(scene.landmarks, scene.boxes, strict=True):
            assert (points >= box[:2]).all() and (points <= box[2:]).all()
    crowded = scene_of(drawn[:5], 0, (64, 64))
    assert 1 <= len(crowded.faces) == len(crowded.boxes) == len(crowded.landmarks)


def test_no_face_is_no_error() -> None:
    scene = scene_of([], 0)
    assert (scene.image.shape, scene.boxes.shape, scene.landmarks.shape) == ((160, 200, 3), (0, 4), (0, 5, 2))
    assert scene.image.std() > 5


def rows_of(path: Path) -> dict[str, list[list[int]]]:
    """The numbers of each row of a table, by the image's name."""
    rows = defaultdict(list)
    lines = path.read_text().splitlines()
    for name, *cells in csv.reader(lines) if path.suffix == ".csv" else map(str.split, lines):
        if name.endswith(".jpg"):
            rows[name].append([int(cell) for cell in cells])
    return dict(rows)


def test_layout(written: Path) -> None:
    names = [f"{number:06d}.jpg" for number in range(1, 22)]
    assert sorted(path.name for path in (written / "Img" / "img_celeba").iterdir()) == names
    assert cv2.imread(str(written / "Img" / "img_celeba" / names[0])).shape == (120, 160, 3)
    tables = {path.name: rows_of(path) for path in (*written.glob("Anno/*"), *written.glob("Eval/*"))}
    assert {name: len(rows[names[0]][0]) for name, rows in tables.items()} == {
        "all_boxes.csv": 4,
        "identity_CelebA.txt": 1,
        "list_attr_celeba.txt": 40,
        "list_bbox_celeba.txt": 4,
        "list_eval_partition.txt": 1,
        "list_landmarks_celeba.txt": 10,
    }
    for rows in tables.values():
        assert list(rows) == names
    count, header, *_ = (written / "Anno" / "list_bbox_celeba.txt").read_text().splitlines()
    assert (count, header) == ("21", "image_id x_1 y_1 width height")
    assert (written / "Anno" / "all_boxes.csv").read_text().startswith("image_id,x0,y0,x1,y1\n")
    partition = [row[0][0] for row in tables["list_eval_partition.txt"].values()]
    assert partition == [0] * 10 + [1] * 5 + [2] * 6
    identities = [row[0][0] for row in tables["identity_CelebA.txt"].values()]
    splits = [{i for i, s in zip(identities, partition, strict=True) if s == split} for split in range(3)]
    assert sum(map(len, splits)) == len(set.union(*splits))
    groups = [identity // 5 for identity in identities]  # four scenes show the same persons
    assert groups == [1] * 4 + [2] * 4 + [3] * 2 + [4] * 4 + [5] + [6] * 4 + [7] * 2
    several = [len(boxes) for boxes in tables["all_boxes.csv"].values()]
    assert min(several) == 1 and max(several) == 4
    for name, boxes in tables["all_boxes.csv"].items():
        (x, y, width, height), points = (tables[f"list_{what}_celeba.txt"][name][0] for what in ("bbox", "landmarks"))
        assert boxes[0] == [x, y, x + width, y + height]
        assert max((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) == width * height
        assert x <= min(points[::2]) <= max(points[::2]) <= x + width
        assert y <= min(points[1::2]) <= max(points[1::2]) <= y + height


def test_attributes_and_identity_are_those_of_the_largest_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[NDArray[np.bool_], int]] = []
    shown: list[tuple[NDArray[np.bool_], int]] = []

    def draw(attributes: NDArray[np.bool_], identity: int, seed: int) -> CartoonFace:
        given.append((attributes, identity))
        return draw_face(attributes, identity, seed)

    def compose(faces: list[CartoonFace], *args: Any) -> Scene:
        scene = draw_scene(faces, *args)
        shown.append(given[scene.faces[0]])
        given.clear()
        return scene

    monkeypatch.setattr(scenes, "draw_face", draw)
    monkeypatch.setattr(scenes, "draw_scene", compose)
    write(tmp_path / "scenes", (8, 0, 0), faces=(3, 3), seed=2)
    labels = rows_of(tmp_path / "scenes/Anno/list_attr_celeba.txt")
    identities = rows_of(tmp_path / "scenes/Anno/identity_CelebA.txt")
    for name, (attributes, identity) in zip(labels, shown, strict=True):
        assert labels[name] == [[1 if has else -1 for has in attributes]]
        assert identities[name] == [[identity - 2 * 10**15 - 2 * 10**7]]
    by_person = defaultdict(set)
    for attributes, identity in shown:
        by_person[identity].add(tuple(attributes[np.isin(ATTRIBUTES, ["Male", "Bald", "Young", "Wearing_Hat"])]))
    assert len(by_person) < 8 and all(len(traits) == 1 for traits in by_person.values())


def test_they_are_read_as_celeba_and_as_a_folder(written: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces = CelebA(written, "val", "wild")
        data = CelebADataModule(str(written), images="wild", image_size=(240, 320), batch_size=2, num_workers=0)
        data.setup("fit")
        batch = next(iter(data.val_dataloader()))
    assert len(faces) == 5 and set(faces[0]) == {"image", "attributes", "landmarks", "identity", "box", "name"}
    x, y, width, height = rows_of(written / "Anno" / "list_bbox_celeba.txt")["000011.jpg"][0]
    assert faces[0]["box"].tolist() == [x, y, x + width, y + height]
    assert batch["box"][0].tolist() == [2 * x, 2 * y, 2 * (x + width), 2 * (y + height)]
    faceless = Folder(written / "Img" / "faceless")
    assert faceless.names == [f"test/00000{number}.jpg" for number in (1, 2, 3)] + ["val/000001.jpg", "val/000002.jpg"]
    assert faceless[0]["image"].shape == (120, 160, 3)


def test_same_seed_writes_the_same_files(written: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    write(again, **COUNTS, seed=7)
    write(other, **COUNTS, seed=8)
    files = {path.relative_to(written): path.read_bytes() for path in written.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    for name in ("Img/img_celeba/000001.jpg", "Img/faceless/val/000001.jpg", "Anno/list_attr_celeba.txt"):
        assert files[Path(name)] != (other / name).read_bytes()
    pictures = [content for path, content in files.items() if path.suffix == ".jpg"]
    assert len(set(pictures)) == len(pictures) == 26


def test_complete_scenes_are_left_alone_and_others_refused(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write(written, **COUNTS, seed=7)
    for change in ({"seed": 8}, {"size": (120, 161)}, {"faces": (1, 5)}, {"faceless": (0, 0, 0)}):
        with pytest.raises(DataFormatError, match="holds a synthetic data set of"):
            write(written, **{**COUNTS, "seed": 7, **change})
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    assert json.loads((written / "synthetic.json").read_text())["faces"] == [1, 4]


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull_the_plug(*_: Any) -> Scene:
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "draw_scene", pull_the_plug)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "scenes", (2, 1, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        *({"scenes": (-1, 1, 1)}, {"faceless": (0, -1, 0)}, {"seed": -1}, {"size": (63, 128)}, {"size": (128, 63)}),
        *({"faces": (0, 1)}, {"faces": (2, 1)}, {"faces": (1, 6)}),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=str(next(iter(change)))):
        write(tmp_path / "scenes", **{"scenes": (1, 1, 1), **change})
    assert list(tmp_path.iterdir()) == []


def test_the_data_module_draws_them_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options: dict[str, Any] = {"scenes": (8, 4, 4), "faces": (1, 2), "scene_size": (64, 80), "num_workers": 0}
    data = SyntheticScenesDataModule("~/scenes", faceless=(1, 0, 0), image_size=(64, 64), batch_size=8, **options)
    assert data.facts.image_size == (64, 64)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert (batch["image"].shape, batch["box"].shape) == ((8, 3, 64, 64), (8, 4))
    assert data.facts.identities is not None
    assert len(Folder(tmp_path / "scenes" / "Img" / "faceless")) == 1
    assert len(rows_of(tmp_path / "scenes" / "Anno" / "all_boxes.csv")) == 16


def test_a_configuration_may_name_them() -> None:
    """The command line finds by its short name what is imported."""
    assert "facelightning.data.scenes" in imports("facelightning.cli.parser")
