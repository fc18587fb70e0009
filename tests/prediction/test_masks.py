"""A mask lies where the photograph has what it shows: through cut, scale and back, to the pixel."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from facelightning.boxes import POINTS
from facelightning.data.alignment import UPRIGHT
from facelightning.facts import DataFacts
from facelightning.labels import HELEN7
from facelightning.models import TableFinder
from facelightning.prediction import Predictor, View
from facelightning.prediction.masks import photograph_mask

Mask = npt.NDArray[np.uint8]
HALF, FULL = (109, 89), (218, 178)
"""Height and width that networks see."""


def ellipse(height: int = 800, width: int = 1000, centre: tuple[float, float] = (480.3, 411.8)) -> Mask:
    """Where a turned ellipse is, by its formula at the middle of each pixel."""
    y, x = np.mgrid[:height, :width] + 0.5
    dx, dy, (sine, cosine) = x - centre[0], y - centre[1], (np.sin(0.4), np.cos(0.4))
    along, across = (cosine * dx + sine * dy) / 150, (cosine * dy - sine * dx) / 210
    return (along**2 + across**2 <= 1).astype(np.uint8)


def brightness(images: Tensor) -> dict[str, list[Tensor]]:
    """A network whose class 2 is as probable as a pixel is bright; else it is background."""
    bright = (images[:, 0].float() / 255).clamp(1e-6, 1 - 1e-6)
    logits = torch.full((len(images), len(HELEN7), *images.shape[2:]), -30.0)
    logits[:, 0], logits[:, 2] = (1 - bright).log(), bright.log()
    return {"parsing": [logits]}


def assert_within_a_pixel(mask: Mask, truth: Mask, shape: int = cv2.MORPH_CROSS) -> None:
    neighbours = cv2.getStructuringElement(shape, (3, 3))
    assert (mask <= cv2.dilate(truth, neighbours)).all()
    assert (mask >= cv2.erode(truth, neighbours)).all()


@pytest.mark.parametrize(
    ("box", "margin", "size"),
    [
        (None, 1.0, FULL),
        (None, 1.0, HALF),
        ((300, 150, 680, 700), 1.15, HALF),
        ((250, 100, 707, 733), 1.15, HALF),
        ((411.5, 300.2, 560.1, 520), 3.2, FULL),
    ],
    ids=[
        "the whole photograph",
        "at half of the size",
        "a cut",
        "one that leaves it",
        "one that leaves it on both sides",
    ],
)
def test_an_ellipse_returns_to_its_place(
    box: tuple[float, ...] | None, margin: float, size: tuple[int, int], tmp_path: Path
) -> None:
    """A photograph of 1000×800 is scaled to a ninth: the network's class lies within a pixel of its true place."""
    truth, finder = ellipse(), None
    if box is not None:
        table = tmp_path / "boxes.csv"
        table.write_text("name,x0,y0,x1,y1\n0," + ",".join(map(str, box)))
        finder = TableFinder(str(table))
    predictor = Predictor(brightness, DataFacts(size, HELEN7), None, View(size, finder, margin, shift=-0.1))
    found = predictor(255 * np.repeat(truth[..., None], 3, axis=2))
    assert found.parsing is not None and found.parsing.shape == truth.shape
    assert set(np.unique(found.parsing)) == {0, 2}
    assert_within_a_pixel(found.parsing // 2, truth)


@pytest.mark.parametrize(
    ("eyes", "centre", "size", "degrees"),
    [(95, (480, 420), HALF, 30), (95, (480, 420), (128, 128), -100), (60, (150, 100), HALF, 60)],
    ids=["at a ninth", "padded", "leaves it"],
)
def test_an_ellipse_in_a_turned_face_returns_to_its_place(
    eyes: float, centre: tuple[float, float], size: tuple[int, int], degrees: float, tmp_path: Path
) -> None:
    """The face is seen upright; what the network says of it is turned back, to within a pixel."""
    turn = np.deg2rad(degrees)
    ahead, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    points = [np.array(centre) + eyes * (x * ahead + y * down) for x, y in [(-1, 0), (1, 0), (0, 1), (-1, 2), (1, 2)]]
    y, x = np.mgrid[:800, :1000] + 0.5
    off = np.stack([x, y], axis=2) - np.array(centre) - eyes * 0.6 * down
    truth = (((off @ ahead) / (1.4 * eyes)) ** 2 + ((off @ down) / (1.9 * eyes)) ** 2 <= 1).astype(np.uint8)
    table = tmp_path / "boxes.csv"
    cells = [0, 0, 1000, 800, *np.concatenate(points)]
    table.write_text(f"name,x0,y0,x1,y1,{','.join(POINTS)}\n0," + ",".join(map(str, cells)))
    view = View(size, TableFinder(str(table)), aligns=True)
    photograph = 255 * np.repeat(truth[..., None], 3, axis=2)
    found = Predictor(brightness, DataFacts(size, HELEN7), None, view)(photograph)
    assert found.parsing is not None and found.faces[0].points == pytest.approx(np.array(points))
    assert_within_a_pixel(found.parsing // 2, truth, cv2.MORPH_RECT)  # a turned grid's pixels lie across
    (image,) = view(photograph, "0").images
    left, right = np.nonzero(image[0].max(axis=0) > 127)[0][[0, -1]]
    top, bottom = np.nonzero(image[0].max(axis=1) > 127)[0][[0, -1]]
    if centre[0] > 400:
        shift = np.argwhere(found.parsing).mean(axis=0) - np.argwhere(truth).mean(axis=0)
        assert np.abs(shift).max() < 0.15  # half a pixel would be a mistake
        assert (bottom - top) / (right - left) == pytest.approx(1.9 / 1.4, rel=0.05)  # upright


def cubic(values: npt.NDArray[np.float32], at: float) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution with OpenCV's slope, between the last axis' values, which go on beyond both ends."""
    first = int(np.floor(at)) - 1
    total = np.zeros(len(values))
    for place in range(first, first + 4):
        x = abs(at - place)
        near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
        total += (near if x <= 1 else far) * values[:, min(max(place, 0), values.shape[1] - 1)]
    return total


def test_classes_are_taken_at_the_photographs_size() -> None:
    """Of three stripes the middle one is there, though its class is nowhere certain."""
    maps = np.zeros((3, 1, 3), np.float32)
    maps[0, 0], maps[1, 0], maps[2, 0] = (0.6, 0.3, 0.3), (0.3, 0.4, 0.3), (0.1, 0.3, 0.4)
    whole, frame = np.array([[0.0, 0, 300, 10]]), np.array([[0.0, 0, 3, 1]])
    mask = photograph_mask([maps], UPRIGHT[None], whole, frame, (10, 300))
    assert (mask == [cubic(maps[:, 0], (x + 0.5) / 100 - 0.5).argmax() for x in range(300)]).all()
    assert list(dict.fromkeys(mask[0])) == [0, 1, 2]


def test_padding_shows_nothing() -> None:
    maps = np.zeros((2, 4, 4), np.float32)
    maps[1] = 1  # the padding, too
    maps[:, 1:3] = [[[0.9]], [[0.1]]]
    frame = np.array([[0.0, 1, 4, 3]])
    assert not photograph_mask([maps], UPRIGHT[None], np.array([[0.0, 0, 40, 20]]), frame, (20, 40)).any()


def test_cuts_meet_and_leave_the_photograph() -> None:
    """Background hides nothing, the first face hides the second, and what is in no cut is background."""
    maps = np.zeros((3, 3, 2, 2), np.float32)
    maps[0, 1] = maps[1, 2] = maps[2, 0] = 1
    cuts = np.array([[-2.0, -2, 4, 4], [2, 2, 8, 8], [0, 0, 8, 8]])
    mask = photograph_mask(list(maps), np.stack([UPRIGHT] * 3), cuts, np.tile([0.0, 0, 2, 2], (3, 1)), (6, 9))
    expected = np.zeros((6, 9), np.uint8)
    expected[2:6, 2:8] = 2
    expected[:4, :4] = 1
    assert (mask == expected).all()
    assert not photograph_mask([], np.empty((0, 2, 3)), np.empty((0, 4)), np.empty((0, 4)), (6, 9)).any()
