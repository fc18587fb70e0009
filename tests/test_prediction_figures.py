"""The picture of a prediction: colours where the classes are, boxes where the faces are, words beside them."""

import numpy as np
import pytest

from facelightning.figures import legend_figure, prediction_figure
from facelightning.figures.predictions import tinted
from facelightning.labels import HELEN7, LABEL_SPACES, LabelSpace

GREY = np.full((320, 640, 3), 128, np.uint8)
LEFT, TOP = 16, 16
"""Where the picture begins on the page."""


def test_classes_have_their_colours_and_background_none() -> None:
    mask = np.zeros((32, 64), np.uint8)  # of a photograph of another size
    mask[:, 32:] = HELEN7.index("nose")
    page = prediction_figure(GREY, (32, 64), [[]], mask=mask, labels=HELEN7)
    picture = page[TOP : TOP + 320, LEFT : LEFT + 640]
    assert (picture[:, :310] == 128).all()
    mixed = (128 + np.array(HELEN7.colors[HELEN7.index("nose")])) / 2
    assert (np.abs(picture[:, 330:] - mixed) <= 1).all()
    bare = prediction_figure(GREY, (32, 64), [[]])
    assert (bare[TOP : TOP + 320, LEFT : LEFT + 640] == 128).all()
    assert page.shape[0] > bare.shape[0]  # a legend


def test_boxes_lie_where_the_faces_are() -> None:
    boxes = np.array([[100.0, 50, 300, 150]])  # of a photograph of twice the size
    page = prediction_figure(GREY, (640, 1280), [["Male 98 %"]], boxes)
    changed = (page[TOP : TOP + 320, LEFT : LEFT + 640] != 128).any(axis=2)
    rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
    assert (columns[0], rows[-1], columns[-1]) == (50, 75, 150)
    assert rows[0] == 25 - 22  # its number is above it
    assert not changed[35:65, 60:140].any()


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_any_number_of_faces_has_room(count: int) -> None:
    boxes = np.tile([0.0, 0, 10, 10], (count, 1))
    page = prediction_figure(GREY, (320, 640), [["Male 98 %"] * 14] * count, boxes)
    beside = page[:, LEFT + 640 + 4 :]
    assert (beside < 255).any()  # "no face", too
    assert (page[-8:] == 255).all() and (page[:, -8:] == 255).all()


def test_a_class_has_a_dark_edge() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[3:6, 3:6] = 2
    drawn = tinted(np.full((9, 9, 3), 200, np.uint8), mask, HELEN7).sum(axis=2)
    assert drawn[4, 4] > drawn[3:8, 2:7].min() and (drawn[:2] == 600).all() and (drawn[:, 7:] == 600).all()


@pytest.mark.parametrize("labels", LABEL_SPACES.values(), ids=str)
def test_a_legend_has_every_colour(labels: LabelSpace) -> None:
    page = legend_figure(labels).reshape(-1, 3)
    assert all((page == colour).all(axis=1).any() for colour in labels.colors)
