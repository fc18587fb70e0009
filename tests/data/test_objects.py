"""Drawn objects: the same bytes each time, every category in its folder and unlike its surroundings."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facelightning.data import SyntheticObjectsDataModule
from facelightning.data.synthetic import OBJECTS, draw_object, objects, write_objects
from facelightning.data.synthetic.clutter import draw_clutter
from facelightning.errors import ConfigurationError, DataFormatError

COUNTS = (23, 4, 5)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("objects") / "deep" / "objects"
    write_objects(root, COUNTS, size=(80, 64), seed=7)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.*"))}


def test_layout(written: Path) -> None:
    assert len(OBJECTS) == 20 and list(OBJECTS) == sorted(OBJECTS)
    expected = [
        f"{split}/{OBJECTS[index % 20]}/{index + 1:06d}.jpg"
        for split, count in zip(("train", "val", "test"), COUNTS, strict=True)
        for index in range(count)
    ]
    assert sorted(files(written)) == sorted([*expected, "synthetic.json"])
    assert {cv2.imread(str(written / name)).shape for name in expected} == {(80, 64, 3)}
    assert len(set(files(written).values())) == 33  # no two are the same picture


def test_the_same_seed_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_objects(tmp_path / "again", COUNTS, size=(80, 64), seed=7)
    assert files(tmp_path / "again") == files(written)
    before = written.stat().st_mtime_ns
    write_objects(written, COUNTS, size=(80, 64), seed=7)
    assert written.stat().st_mtime_ns == before
    with pytest.raises(DataFormatError, match="objects"):
        write_objects(written, COUNTS, size=(80, 64), seed=8)
    assert files(tmp_path / "again") == files(written)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(category: int, *_: Any) -> NDArray[np.uint8]:
        if category == 3:
            raise KeyboardInterrupt
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(objects, "draw_object", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_objects(tmp_path / "objects", COUNTS)
    assert not list(tmp_path.iterdir())


def covered(category: int, seed: int, size: tuple[int, int] = (128, 128)) -> NDArray[np.bool_]:
    """Where an object lies on plain grey."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "draw_clutter", lambda size, rng: np.full((*size, 3), 128, np.uint8))
        picture = draw_object(category, size, np.random.default_rng(seed))
    return np.asarray(np.abs(picture.astype(int) - 128).max(axis=2) > 50)


@pytest.mark.parametrize("category", range(20), ids=OBJECTS)
def test_an_object_is_whole_in_the_picture_and_differs_from_it(category: int) -> None:
    mask = np.ones((96, 128), bool)
    for seed in range(6):
        mask = covered(category, seed, (96, 128))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        tall = rows[-1] - rows[0]
        assert 15 <= tall <= 95 and columns[-1] - columns[0] <= 127
        whole = cv2.connectedComponents(cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))))[0] - 1
        assert whole == 1


def test_filled_and_outlined_differ_in_the_inside() -> None:
    """The holes of an outline; an area has none."""
    for category, name in enumerate(OBJECTS):
        mask = covered(category, seed=3).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        assert (len(contours) > 1) == name.endswith("outlined"), name


def test_there_is_nothing_else_than_clutter_and_one_object() -> None:
    """Beside the object the picture is the clutter of the same seed."""
    for seed in range(4):
        clutter_alone = draw_clutter((128, 128), np.random.default_rng(seed))
        picture = draw_object(2, (128, 128), np.random.default_rng(seed))
        changed = np.abs(picture.astype(int) - clutter_alone).max(axis=2) > 45  # more than noise
        assert 0.005 < changed.mean() < 0.5


def test_batches(tmp_path: Path) -> None:
    data = SyntheticObjectsDataModule(
        str(tmp_path / "objects"), objects=(20, 2, 2), picture_size=(64, 64), image_size=(32, 32), num_workers=0
    )
    data.prepare_data()
    data.setup("fit")
    (batch,) = data.val_dataloader()
    assert data.facts.categories == OBJECTS
    assert sorted(batch["category"].tolist()) == [0, 1]
    assert batch["image"].shape == (2, 3, 32, 32)
    assert json.loads((tmp_path / "objects/synthetic.json").read_text())["objects"] == [20, 2, 2]


@pytest.mark.parametrize("wrong", [{"objects": (19, 1, 1)}, {"objects": (20, -1, 1)}, {"size": (63, 64)}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"must begin with 20 or more, .* must lie in 64\.\.\.4096"):
        write_objects(tmp_path / "objects", **({"objects": (20, 1, 1)} | wrong))
    assert not (tmp_path / "objects").exists()
