"""Figures of the studies of ANet: the right colours at the right places, and nothing drawn from nonsense."""

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest

from facelightning.figures import (
    Image,
    attribute_regions_figure,
    groups_figure,
    layers_figure,
    mean_faces_figure,
    relations_figure,
    training_size_figure,
)
from facelightning.labels import ATTRIBUTES, IDENTITY_ATTRIBUTES
from tests.test_figures import find

FC, C4, C3, BLACK = (0, 114, 178), (230, 159, 0), (0, 158, 115), (0, 0, 0)


def white_border(page: Image) -> bool:
    border = page[:3].reshape(-1, 3), page[-3:].reshape(-1, 3), page[:, :3].reshape(-1, 3), page[:, -3:].reshape(-1, 3)
    return bool((np.concatenate(border) == 255).all())


@pytest.mark.parametrize("count", [1, 3, 8])
def test_mean_faces_stand_in_order(count: int) -> None:
    faces = np.random.default_rng(0).uniform(0, 255, (count, 3, 3, 22, 18))
    page = mean_faces_figure(faces, [f"neuron {number}: Bags Under Eyes, r = -0.71" for number in range(count)])
    corners = [
        [find(page, tile.transpose(1, 2, 0).round().astype(np.uint8).repeat(10, 0).repeat(10, 1)) for tile in row]
        for row in faces
    ]
    for row in corners:
        assert len({top for top, _ in row}) == 1
        assert row[0][1] < row[1][1] < row[2][1]
    assert sorted(corners, key=lambda row: row[0]) == corners
    assert white_border(page)


def test_groups_are_squares_on_the_diagonal() -> None:
    """Two attributes of one group are as red as they are alike."""
    groups = np.array([2, 0, 0, 1, 0, 1])
    similarity = np.where(groups[:, None] == groups, 0.8, -0.8)
    page = groups_figure(similarity, ATTRIBUTES[:6], groups, "a note")
    red, blue = ([round(255 * part) for part in matplotlib.colormaps["RdBu_r"](end)[:3]] for end in (1.0, 0.0))
    cells = page[: -round(0.75 * 200)]
    rows, columns = (np.abs(cells.astype(int) - blue).max(axis=2) < 4).nonzero()
    cell = 0.145 * 200
    left = columns.min()  # the last group's squares in the first columns begin there
    top = rows.min()
    for row, group in enumerate([0, 0, 0, 1, 1, 2]):
        for column, other in enumerate([0, 0, 0, 1, 1, 2]):
            found = cells[round(top + (row + 0.5) * cell), round(left + (column + 0.5) * cell)]
            assert np.abs(found.astype(int) - (red if group == other else blue)).max() < 4, (row, column)
    assert white_border(page)


def test_evidence_is_drawn_where_it_is() -> None:
    """And what all attributes have alike is not."""
    evidence = np.full((3, 60, 60), 0.5 / 3600)
    for number, place in enumerate([(15, 15), (45, 45), (15, 45)]):
        evidence[number][place] += 0.5
    page = attribute_regions_figure(np.full((3, 60, 60), 128.0), evidence, ["Bangs", "Smiling", "Young"]).astype(int)
    colourful = page.max(axis=2) - page.min(axis=2) > 90
    for number, (y, x) in enumerate([(15, 15), (45, 45), (15, 45)]):
        rows, columns = colourful[:, 20 + 204 * number : 224 + 204 * number].nonzero()
        assert rows.mean() == pytest.approx(20 + (y + 0.5) * 190 / 60, abs=3)
        assert columns.mean() == pytest.approx(7 + (x + 0.5) * 190 / 60, abs=3)
    nothing = attribute_regions_figure(np.full((3, 60, 60), 128.0), np.full((2, 60, 60), 1 / 3600), ["Bald", "Male"])
    assert (nothing.max(axis=2) == nothing.min(axis=2)).all()


def test_each_accuracy_is_a_mark_in_its_row() -> None:
    names = ("Male", "Bald", "Big_Nose", "Smiling")
    scores = {"FC": [90.0, 80.0, 70.0, 60.0], "C4": [60.0, 70.0, 80.0, 90.0]}
    layers = {layer: dict(zip(names, values, strict=True)) for layer, values in scores.items()}
    page = layers_figure(layers, dict.fromkeys(names, 50.0)).astype(int)
    black = (np.abs(page - BLACK).max(axis=2) < 40).sum(axis=0)
    tick = int(black.argmax())  # of all rows at one place, 50
    per_percent = 3.4 * 200 / (101 - 49)
    order = [name for name in names if name in IDENTITY_ATTRIBUTES], [n for n in names if n not in IDENTITY_ATTRIBUTES]
    rows = dict(zip([*order[0], "", *order[1]], range(5), strict=True))
    for layer, colour in (("FC", FC), ("C4", C4)):
        for name in names:
            y = round(0.35 * 200 + (rows[name] + 0.5) * 0.155 * 200)
            x = round(tick + per_percent * (layers[layer][name] - 50))
            around = page[y - 1 : y + 2, x - 1 : x + 2]
            assert (np.abs(around - colour).max(axis=2) < 60).all(), (layer, name)
    assert white_border(page.astype(np.uint8))


def test_identity_attributes_are_some_of_the_forty() -> None:
    assert set(IDENTITY_ATTRIBUTES) < set(ATTRIBUTES)
    assert len(set(IDENTITY_ATTRIBUTES)) == len(IDENTITY_ATTRIBUTES)


def test_the_curve_passes_through_the_means() -> None:
    page = training_size_figure({"anet": [(100, 70.0), (10_000, 90.0), (10_000, 92.0)]}).astype(int)
    height, width = page.shape[:2]
    for x, y in ((0.05 / 1.1, 0.05 / 1.1), (1.05 / 1.1, (21 / 22 + 0.05) / 1.1), (1.05 / 1.1, 1.05 / 1.1)):
        found = page[round((0.06 + 0.78 * (1 - y)) * height), round((0.13 + 0.83 * x) * width)]
        assert np.abs(found - FC).max() < 100, (x, y)  # beside a margin of a twentieth; single runs are paler
    assert white_border(page.astype(np.uint8))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: mean_faces_figure(np.zeros((0, 3, 3, 4, 4)), []), "title for each"),
        (lambda: mean_faces_figure(np.zeros((1, 3, 3, 4, 4)), ["a", "b"]), "title for each; found 2"),
        (lambda: mean_faces_figure(np.full((1, 3, 3, 4, 4), 256.0), ["a"]), r"0\.\.\.255; found 256"),
        (lambda: groups_figure(np.eye(2), ["a"], np.zeros(1, int), ""), r"\(2, 2\).* of 1 attributes"),
        (lambda: groups_figure(np.full((1, 1), np.nan), ["a"], np.zeros(1, int), ""), r"\[-1, 1\]; found nan"),
        (lambda: attribute_regions_figure(np.zeros((3, 4, 4)), np.zeros((2, 4, 4)), ["a"]), r"\(2, 4, 4\) must be"),
        (lambda: attribute_regions_figure(np.zeros((3, 4, 4)), np.full((1, 4, 4), -1.0), ["a"]), "not negative"),
        (lambda: layers_figure({}, {"a": 1.0}), "one to four layers"),
        (lambda: layers_figure({"FC": {"b": 1.0}}, {"a": 1.0}), "of the same attributes"),
        (lambda: training_size_figure({}), "needs a run"),
        (lambda: training_size_figure({"anet": [(0, 80.0)]}), "positive number"),
    ],
)
def test_what_cannot_be_drawn(draw: Callable[[], Image], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


def test_relations_are_grouped_by_what_goes_together() -> None:
    """Two groups, the larger first; what was never seen goes with nothing."""
    groups = np.array([1, 0, 1, 0, 0, 2, 3, 4, 5, 6, 7, 8])
    correlations = np.where(groups[:, None] == groups, 0.9, -0.1)
    correlations[11] = correlations[:, 11] = np.nan
    expected = groups_figure(np.nan_to_num(correlations), ATTRIBUTES[:12], groups, "", "correlation of their labels")
    assert np.array_equal(relations_figure(correlations, ATTRIBUTES[:12]), expected)
