"""Images: the right colours at the right places, every name readable, and nothing drawn from nonsense."""

from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
import pytest

from facelightning.figures import (
    Floats,
    Image,
    average_precision_figure,
    channels_figure,
    color_mask,
    faces_figure,
    found_faces_figure,
    mean_masks_figure,
    parsing_panels,
    recall_figure,
    region_weights_figure,
    responses_figure,
    save_image,
    strongest_channels,
)
from facelightning.figures.localization import SeenCut, SeenPhotograph
from facelightning.labels import ATTRIBUTE_GROUPS, ATTRIBUTES, HELEN7, HELEN11, LabelSpace

Masks = npt.NDArray[np.int64]


def examples(count: int, height: int = 12, width: int = 10, labels: LabelSpace = HELEN7) -> tuple[Image, Masks, Masks]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, height, width), np.uint8)
    truth, predicted = rng.integers(0, len(labels), (2, count, height, width))
    return images, truth, predicted


def find(page: Image, panel: Image) -> tuple[int, int]:
    """The one place in a page where a panel stands exactly."""
    height, width = panel.shape[:2]
    places = np.argwhere((page[: 1 - height, : 1 - width] == panel[0, 0]).all(axis=2))
    for y in range(0, height, 13):
        for x in range(0, width, 13):
            places = places[(page[places[:, 0] + y, places[:, 1] + x] == panel[y, x]).all(axis=1)]
    ((top, left),) = places.tolist()
    assert np.array_equal(page[top : top + height, left : left + width], panel)
    return top, left


def enlarged(panel: Image) -> Image:
    zoom = round(330 / max(panel.shape[:2]))
    return panel.repeat(zoom, axis=0).repeat(zoom, axis=1)


def test_masks_are_painted_in_the_colours_of_their_classes() -> None:
    painted = color_mask(np.array([[0, 1, 6], [255, 3, 2]]), HELEN7)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [
        [list(HELEN7.colors[0]), list(HELEN7.colors[1]), list(HELEN7.colors[6])],
        [[255, 255, 255], list(HELEN7.colors[3]), list(HELEN7.colors[2])],
    ]


@pytest.mark.parametrize("index", [7, 254, 300, -1])
def test_an_index_without_a_class_is_not_painted(index: int) -> None:
    with pytest.raises(ValueError, match=rf"helen7 lie in 0\.\.\.6; the mask holds {index}"):
        color_mask(np.array([[0, index]]), HELEN7)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_panel_is_exact_and_in_its_place(count: int) -> None:
    images, truth, predicted = examples(count)
    page = parsing_panels(images, truth, predicted, HELEN7)
    assert page.dtype == np.uint8
    places = []
    for i in range(count):
        triple = (images[i].transpose(1, 2, 0), color_mask(truth[i], HELEN7), color_mask(predicted[i], HELEN7))
        places.append([find(page, enlarged(panel)) for panel in triple])
    for triple_places in places:
        assert len({top for top, _ in triple_places}) == 1
        lefts = [left for _, left in triple_places]
        assert lefts == sorted(lefts)
    tops = [triple_places[0][0] for triple_places in places]
    assert [tops.index(top) for top in tops] == [i // 2 * 2 for i in range(count)]  # two a row, in order
    assert page.shape[1] == parsing_panels(*examples(min(count, 2)), HELEN7).shape[1]


@pytest.mark.parametrize("labels", [HELEN7, HELEN11])
def test_mean_masks_are_drawn_class_by_class_and_the_likeliest_in_colours(labels: LabelSpace) -> None:
    masks = np.random.default_rng(0).dirichlet(np.ones(len(labels)), (20, 15)).transpose(2, 0, 1)
    page, zoom = mean_masks_figure(masks, labels), 12  # 240 pixels high
    tiles = [matplotlib.colormaps["YlGnBu"](mask, bytes=True)[..., :3] for mask in masks]
    panels = [
        panel.repeat(zoom, axis=0).repeat(zoom, axis=1) for panel in (*tiles, color_mask(masks.argmax(0), labels))
    ]
    places = [find(page, panel) for panel in panels]
    assert places == sorted(places)  # row by row
    assert len({left for _, left in places}) == 4
    for wrong in (masks[1:], 2 * masks):
        with pytest.raises(ValueError, match=f"need {len(labels)} classes that sum to 1"):
            mean_masks_figure(wrong, labels)


@pytest.mark.parametrize(("size", "labels"), [((40, 32), HELEN7), ((109, 89), HELEN7), ((64, 96), HELEN11)])
def test_the_legend_shows_every_class_and_nothing_touches_the_margin(size: tuple[int, int], labels: LabelSpace) -> None:
    black = np.zeros((1, *size), np.int64)
    page = parsing_panels(np.zeros((1, 3, *size), np.uint8), black, black, labels)
    for color in labels.colors[1:]:
        assert (page == color).all(axis=2).sum() > 100  # the panels are black: this is its patch in the legend
    assert (page[:, :4] == 255).all()
    assert (page[:, -4:] == 255).all()
    assert (page[:3] == 255).all()
    assert (page[-2:] == 255).all()


def test_the_legend_names_every_class() -> None:
    batch = examples(2)
    page = parsing_panels(*batch, HELEN7)
    bottom = find(page, enlarged(color_mask(batch[2][1], HELEN7)))[0] + 336  # of the panels
    for index in range(len(HELEN7)):
        renamed = [*HELEN7.classes]
        renamed[index] = renamed[index][::-1]  # as many letters: the layout stays
        other = parsing_panels(*batch, replace(HELEN7, classes=tuple(renamed)))
        assert page.shape == other.shape
        changed = (page != other).any(axis=(1, 2)).nonzero()[0]
        assert changed.min() > bottom


def test_names_are_shown_without_underscores() -> None:
    batch = examples(1, labels=HELEN11)
    spaced = replace(HELEN11, classes=tuple(name.replace("_", " ") for name in HELEN11.classes))
    assert np.array_equal(parsing_panels(*batch, HELEN11), parsing_panels(*batch, spaced))
    names = [name.replace("_", " ") for name in ATTRIBUTES]
    weights = np.full((40, 2), 0.5)
    page = region_weights_figure(weights, ATTRIBUTES, ["face_skin", "hair"])
    assert np.array_equal(page, region_weights_figure(weights, names, ["face skin", "hair"]))


def test_ignored_pixels_are_explained_only_where_there_are_any() -> None:
    images, truth, predicted = examples(2)
    without = parsing_panels(images, truth, predicted, HELEN7)
    truth[0, 0, 0] = 255
    page = parsing_panels(images, truth, predicted, HELEN7)
    top, left = find(page, enlarged(color_mask(truth[0], HELEN7)))
    assert page[top, left].tolist() == [255, 255, 255]
    assert page[top + 30, left].tolist() != [255, 255, 255]
    assert page.shape == without.shape
    bottom = find(page, enlarged(color_mask(predicted[1], HELEN7)))[0] + 336 + 2
    assert (page[bottom:] != without[bottom:]).any()
    columns = [np.nonzero((p[bottom:] < 250).any(axis=(0, 2)))[0] for p in (page, without)]
    assert np.ptp(columns[0]) > np.ptp(columns[1]) + 50  # the legend is longer by one entry


def test_what_is_predicted_in_an_ignored_margin_is_not_painted() -> None:
    images, truth, predicted = examples(2)
    truth[0, :3], truth[1, :, 8:] = 255, 255
    page = parsing_panels(images, truth, predicted, HELEN7)
    for mask, true in zip(predicted, truth, strict=True):
        painted = color_mask(mask, HELEN7)
        painted[true == 255] = (255, 255, 255)
        find(page, enlarged(painted))


@pytest.mark.parametrize(
    ("images", "truth", "predicted", "message"),
    [
        (np.zeros((0, 3, 4, 4), np.uint8), np.zeros((0, 4, 4), int), np.zeros((0, 4, 4), int), "at least one image"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros((2, 4, 5), int), np.zeros((2, 4, 4), int), r"\(2, 4, 5\)"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros((2, 4, 4), int), np.zeros((1, 4, 4), int), r"\(1, 4, 4\)"),
        (np.zeros((1, 3, 4, 4), np.float32), np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int), "uint8.*float32"),
        (np.zeros((1, 3, 4, 4), np.uint8), np.zeros((1, 4, 4), int), np.full((1, 4, 4), 7), "the mask holds 7"),
    ],
)
def test_panels_that_do_not_fit_together(images: Image, truth: Masks, predicted: Masks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsing_panels(images, truth, predicted, HELEN7)


def heat(weight: float) -> list[int]:
    """The colour of a weight, from matplotlib's own table."""
    return [round(255 * part) for part in matplotlib.colormaps["YlGnBu"](float(weight))[:3]]


def test_each_weight_is_where_its_attribute_and_region_are() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(7), 40)
    weights[3] = np.eye(7)[5]
    page = region_weights_figure(weights, ATTRIBUTES, HELEN7.classes)
    rows, columns = (page == heat(1)).all(axis=2).nonzero()  # the one weight of 1, and the end of the colour bar
    top, left = rows.min() + 8, columns[rows < rows.min() + 10].min() + 8  # within the cell, beside its dot
    step_x, step_y = 0.32 * 200, 0.16 * 200  # inches, dots an inch
    for row in range(40):
        for column in range(7):
            found = page[round(top + (row - 3) * step_y), round(left + (column - 5) * step_x)]
            assert np.abs(found.astype(int) - heat(weights[row, column])).max() <= 3, (row, column)


@pytest.mark.parametrize(("largest", "low", "high"), [(0.9, 225, 255), (0.6, 225, 255), (0.45, 0, 60), (0.42, 0, 60)])
def test_the_largest_weight_alone_is_marked(largest: float, low: int, high: int) -> None:
    """White on dark cells, black on light ones."""
    rest = 1 - largest - 0.3 * (1 - largest)
    weights = np.array([[rest, largest, 0.3 * (1 - largest)]])
    page = region_weights_figure(weights, ["Bald"], ["hair", "nose", "lips"]).astype(int)
    cells = page[: -round(0.5 * 200)]  # without the colour bar
    for weight in weights[0]:
        rows, columns = (np.abs(cells - heat(weight)).max(axis=2) <= 3).nonzero()
        row, column = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
        assert np.ptp(columns) > 50
        middle = cells[row, column]
        assert ((low <= middle) & (middle <= high)).all() == (weight == largest), weight


@pytest.mark.parametrize("weights", [[1 / 3, 1 / 3, 1 / 3], [0.45, 0.45, 0.1], [0.45, 0.45 - 1e-7, 0.1]])
def test_no_weight_is_marked_where_two_are_the_largest(weights: list[float]) -> None:
    page = region_weights_figure(np.array([weights]), ["Bald"], ["hair", "nose", "lips"]).astype(int)
    cells = page[: -round(0.5 * 200)]
    for weight in weights:
        rows, columns = (np.abs(cells - heat(weight)).max(axis=2) <= 3).nonzero()
        for left in range(columns.min(), columns.max(), 64):  # a cell is 0.32 inches wide
            inner = cells[rows.min() + 2 : rows.max() - 2, left + 2 : left + 60]
            assert (np.abs(inner - inner[0, 0]) <= 3).all()


def test_the_heat_map_names_attributes_and_regions() -> None:
    weights = np.full((40, 7), 1 / 7)
    page = region_weights_figure(weights, ATTRIBUTES, HELEN7.classes)
    first_row = len(page) - round((0.55 + 0.16 * 40) * 200)
    for index in (0, 39):
        names = [*ATTRIBUTES]
        names[index] = names[index][::-1]
        changed = (page != region_weights_figure(weights, names, HELEN7.classes)).any(axis=2).nonzero()
        middle = first_row + (index + 0.5) * 0.16 * 200
        assert np.abs(changed[0] - middle).max() < 20  # beside its row alone
        regions = [*HELEN7.classes]
        regions[index % 7] = regions[index % 7][::-1]
        changed = (page != region_weights_figure(weights, ATTRIBUTES, regions)).any(axis=2).nonzero()
        assert changed[0].max() < first_row


def test_nothing_is_cut_off_the_heat_map() -> None:
    for regions in (HELEN7.classes, HELEN11.classes, ("hair", "x" * 30)):
        page = region_weights_figure(np.full((40, len(regions)), 0.1), ATTRIBUTES, regions)
        border = np.concatenate([page[:2].reshape(-1, 3), page[:, :2].reshape(-1, 3), page[:, -2:].reshape(-1, 3)])
        assert (border == 255).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.full((39, 7), 0.1), r"\(39, 7\) need 40 rows and 7 columns"),
        (np.full((7, 40), 0.1), r"\(7, 40\) need"),
        (np.full((40, 7), 1.5), r"\[0, 1\]; found 1.5"),
        (np.full((40, 7), -0.1), r"\[0, 1\]"),
        (np.full((40, 7), np.nan), r"\[0, 1\]; found nan"),
    ],
)
def test_weights_that_are_none(weights: npt.NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region_weights_figure(weights, ATTRIBUTES, HELEN7.classes)


def tiles(page: Image, count: int, height: int, width: int, top: int) -> Image:
    """The first pixel of every square of the channels of a block, ``(count, height, width, 3)``, found by layout."""
    zoom, left = round(140 / max(height, width)), 24
    found = []
    for number in range(count):
        y, x = top + number // 10 * (zoom * height + 4), left + number % 10 * (zoom * width + 4)
        cell = page[y : y + zoom * height, x : x + zoom * width]
        squares = cell.reshape(height, zoom, width, zoom, 3)
        assert (squares == squares[:, :1, :, :1]).all()  # whole squares of one colour
        found.append(squares[:, 0, :, 0])
    return np.stack(found)


def test_channels_are_drawn_in_order_and_on_one_scale_a_block() -> None:
    rng = np.random.default_rng(0)
    first, second = 5 * rng.random((64, 14, 12)), rng.random((23, 14, 12)) * np.arange(1, 24)[:, None, None]
    page = channels_figure({"average pooling": first, "SSP\nwith a second line": second})
    block = 5 * 144 - 4
    for maps, count, top in ((first, 50, 12 + 36), (second, 23, 12 + 36 + block + 24 + 68)):
        shown = np.array(sorted(maps, key=lambda channel: channel.sum(), reverse=True)[:count])
        expected = 255 * matplotlib.colormaps["YlGnBu"](shown / shown.max())[..., :3]
        assert np.abs(tiles(page, count, 14, 12, top) - expected).max() <= 3
        row, column = divmod(count - 1, 10)
        beyond = page[top + row * 144 : top + row * 144 + 140, 24 + (column + 1) * 124 : 24 + 10 * 124 - 4]
        assert (beyond == 255).all()  # no channel after the last
    with pytest.raises(AssertionError):
        tiles(page, 50, 14, 12, 12 + 36 + 1)  # this test would notice


def test_the_strongest_channels_of_a_loop() -> None:
    maps = np.random.default_rng(1).random((30, 3, 2)).astype(np.float32)
    maps[7] = maps[3]
    means = [sum(float(value) for value in channel.ravel()) / 6 for channel in maps]
    expected: list[int] = []
    for _ in range(25):
        expected.append(max((index for index in range(30) if index not in expected), key=lambda index: means[index]))
    assert expected.index(7) == expected.index(3) + 1
    assert np.array_equal(strongest_channels(maps, 25), maps[expected])
    assert len(strongest_channels(maps)) == 30


def test_titles_and_scales_are_written_and_nothing_is_cut_off() -> None:
    maps = np.full((64, 7, 6), 2.0)
    plain = channels_figure({"": maps})
    long = "JointNet, SemanticPooling: runs/jointnet/version_0/checkpoints/best.ckpt " * 2
    for title in ("average pooling", "two\nlines", long):
        page = channels_figure({title: maps, "SSP": 60 * maps})
        assert (page[:, :4] == 255).all()
        assert (page[:, -4:] == 255).all()
        assert (page[:3] == 255).all()
        assert (page[-3:] == 255).all()
        assert (page[3:34, 24:] < 128).any()
    assert (plain[:34] == 255).all()
    assert channels_figure({long: maps}).shape[1] > plain.shape[1]
    assert (channels_figure({"": 3 * maps}) != plain).any()  # the scale's end
    assert channels_figure({"": 0 * maps}).shape == plain.shape


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, "no block"),
        ({"SSP": np.zeros((0, 7, 6))}, r"SSP: .*\(0, 7, 6\)"),
        ({"SSP": np.zeros((7, 6))}, r"SSP: .*\(7, 6\)"),
        ({"avg": np.ones((2, 7, 6)), "SSP": np.full((2, 7, 6), -0.5)}, "SSP: .*found -0.5"),
        ({"SSP": np.full((2, 7, 6), np.nan)}, "SSP: .*found nan"),
        ({"SSP": np.full((2, 7, 6), np.inf)}, "SSP: .*found inf"),
    ],
)
def test_channels_that_are_none(maps: dict[str, npt.NDArray[np.float64]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        channels_figure(maps)


BAR, BLACK, BLUE, VERMILION = (127, 183, 218), (0, 0, 0), (0, 114, 178), (213, 94, 0)


def rows_of(page: Image, names: int) -> list[int]:
    """The middles of the rows of bars, from the top: 0.16 inches apart, half as much more between groups."""
    tops = np.flatnonzero(np.diff((page == BAR).all(axis=2).any(axis=1).astype(int), prepend=0) == 1)
    assert len(tops) == names
    return [int(top) + 11 for top in tops]


def test_each_bar_is_as_long_as_its_average_precision() -> None:
    rng = np.random.default_rng(0)
    scores = dict(zip(rng.permutation(ATTRIBUTES).tolist(), rng.uniform(5, 100, 40).tolist(), strict=True))
    rates = {name: rng.uniform(0.01, 0.99) for name in ATTRIBUTES}
    page = average_precision_figure(scores, rates)
    names = [name for group in ATTRIBUTE_GROUPS.values() for name in group]
    rows = rows_of(page, 40)
    left = (page == BAR).all(axis=2).nonzero()[1].min()
    scale, mean = 2.6 * 200 / 100, sum(scores.values()) / 40  # inches, dots an inch, percent
    for name, row in zip(names, rows, strict=True):
        line = page[row - 6]
        assert (line == BAR).all(axis=1).nonzero()[0].max() + 1 - left == pytest.approx(scale * scores[name], abs=6)
        black = (line[left - 4 :] < 60).all(axis=1).nonzero()[0] + left - 4
        assert np.mean(black[black < left + 100 * scale]) == pytest.approx(left + 100 * scale * rates[name], abs=3)
    gaps = np.diff(rows)
    assert [index + 1 for index in np.flatnonzero(gaps > 40)] == np.cumsum([10, 5, 1, 2, 4, 6, 2, 2]).tolist()
    columns = (page == BLUE).all(axis=2).sum(axis=0)
    assert columns.argmax() == pytest.approx(left + scale * mean, abs=2)


def test_a_score_that_is_undefined_has_no_bar_and_does_not_count() -> None:
    page = average_precision_figure({"Bald": 40.0, "Bangs": float("nan"), "my_own": 60.0})
    assert np.array_equal(page, average_precision_figure({"my_own": 60.0, "Bangs": float("nan"), "Bald": 40.0}))
    rows_of(page, 2)
    left = (page == BAR).all(axis=2).nonzero()[1].min()
    assert (page == BLUE).all(axis=2).sum(axis=0).argmax() == pytest.approx(left + 2.6 * 200 * 0.5, abs=2)
    nothing = average_precision_figure({"Bald": float("nan")})
    assert not (nothing == BAR).all(axis=2).any()


@pytest.mark.parametrize("scores", [{}, {"Bald": 100.5}, {"Bald": -1.0}])
def test_scores_that_are_none(scores: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lie in 0\.\.\.100"):
        average_precision_figure(scores)


def test_each_face_is_beside_its_attributes() -> None:
    """Found, predicted but absent, missed, unknown; what is neither predicted nor there is not shown."""
    images = examples(3)[0]
    names = ["Bald", "Bangs", "Male", "Smiling", "Young"]
    likely = np.array([[0.9, 0.8, 0.3, 0.7, 0.2]] * 3)
    truth = np.array([[1.0, 0.0, 1.0, np.nan, 0.0]] * 3)
    page = faces_figure(images, names, likely, truth)
    corners = [find(page, enlarged(image.transpose(1, 2, 0))) for image in images]
    assert corners[0][0] == corners[1][0] < corners[2][0]
    assert corners[0][1] == corners[2][1] < corners[1][1]
    width = enlarged(images[0].transpose(1, 2, 0)).shape[1]
    for top, left in corners:
        block = page[top : top + 150, left + width : left + width + 230]
        rows = [block[30 * row : 30 * row + 30] for row in range(5)]  # the most probable first
        blue, vermilion = ([int((row == color).all(axis=2).sum()) for row in rows] for color in (BLUE, VERMILION))
        assert [count > 20 for count in blue] == [True, False, False, False, False]
        assert [count > 20 for count in vermilion] == [False, True, False, True, False]
        assert blue[0] > 90 * 0.9 * 14 > 2.5 * vermilion[1]  # filled, and hollow: told apart without colours
        edge = (rows[1][15] == VERMILION).all(axis=1).nonzero()[0]
        assert np.ptp(edge[edge > 40]) == pytest.approx(90 * 0.8, abs=4)
        assert (rows[2] < 128).any()  # the unknown one
        assert (rows[4] == 255).all()


def test_how_many_attributes_of_a_face_are_left_out() -> None:
    images, truth = examples(1)[0], np.ones((1, 40))
    pages = [faces_figure(images, ATTRIBUTES, np.full((1, 40), 0.6), truth, count) for count in (5, 40)]
    filled = [(page == BLUE).all(axis=2).sum(axis=1) for page in pages]
    bars = [int((np.diff((each > 40).astype(int)) == 1).sum()) for each in filled]
    assert bars == [5, 40]
    for page in (*pages, faces_figure(images, ["Bald"], np.ones((1, 1)), truth[:, :1])):
        assert (page[:, :4] == 255).all()
        assert (page[:, -4:] == 255).all()
        assert (page[-3:] == 255).all()


@pytest.mark.parametrize(
    ("images", "likely", "truth", "message"),
    [
        (np.zeros((0, 3, 4, 4), np.uint8), np.zeros((0, 2)), np.zeros((0, 2)), "at least one uint8 image"),
        (np.zeros((1, 3, 4, 4), np.float32), np.zeros((1, 2)), np.zeros((1, 2)), "float32 need"),
        (np.zeros((1, 3, 4, 4), np.uint8), np.zeros((1, 3)), np.zeros((1, 2)), r"probabilities \(1, 3\)"),
        (np.zeros((1, 3, 4, 4), np.uint8), np.zeros((1, 2)), np.zeros((2, 2)), r"truth \(2, 2\)"),
        (np.zeros((1, 3, 4, 4), np.uint8), np.full((1, 2), np.nan), np.zeros((1, 2)), r"\[0, 1\]; found nan"),
    ],
)
def test_faces_that_do_not_fit_together(images: Image, likely: Floats, truth: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        faces_figure(images, ["Bald", "Male"], likely, truth)


def test_a_saved_image_is_the_image(tmp_path: Path) -> None:
    image = examples(1)[0][0].transpose(1, 2, 0)
    save_image(tmp_path / "made" / "ä.png", image)
    stored = cv2.imdecode(np.fromfile(tmp_path / "made" / "ä.png", np.uint8), cv2.IMREAD_COLOR)
    assert stored is not None
    assert np.array_equal(stored[..., ::-1], image)


class TestFoundFaces:
    @pytest.mark.parametrize(
        "name", ["a.jpg", "bad\udcff\udcfe.jpg", "面.jpg", "$x$\n\0.jpg", "folder/" * 40 + "a.jpg"]
    )
    @pytest.mark.parametrize("shape", [(1, 1), (1, 400), (700, 3), (64, 48)])
    def test_any_name_and_shape(self, name: str, shape: tuple[int, int], recwarn: pytest.WarningsRecorder) -> None:
        boxes = np.array([[0.0, 0, shape[1], shape[0]], [-5, -5, 900, 900]])
        page = found_faces_figure(np.zeros((*shape, 3), np.uint8), name, boxes, [["Male 98 %"], []])
        assert page.dtype == np.uint8
        assert not recwarn.list

    def test_a_box_is_where_the_face_is(self) -> None:
        photograph = np.zeros((320, 320, 3), np.uint8)  # enlarged twice
        found = found_faces_figure(photograph, "a.jpg", np.array([[100.0, 50, 200, 150]]))
        plain = found_faces_figure(photograph, "a.jpg", np.empty((0, 4)))
        assert found.shape == plain.shape
        drawn = (found != plain).any(axis=2)[54:694, 16:656]
        rows, columns = drawn.nonzero()
        top = drawn[:, 390].nonzero()[0].min()  # the number is above the box, at the left
        assert np.abs(np.array([columns.min(), top, columns.max(), rows.max()]) - [200, 100, 400, 300]).max() <= 4
        assert rows.min() == 100 - 24
        assert not drawn[106:294, 206:394].any()

    def test_many_faces_are_listed_beside_the_photograph(self) -> None:
        """In columns as high as it; each face's list in one piece."""
        photograph, boxes = np.full((100, 100, 3), 255, np.uint8), np.tile([0.0, 0, 9, 9], (20, 1))
        words = [["Wearing Necklace 100 %", "Mouth Slightly Open 100 %", *["Male 99 %"] * (n % 5)] for n in range(20)]
        page = found_faces_figure(photograph, "a.jpg", boxes, words)
        assert page.shape[0] == 710
        dark = (page[54:694, 672:1632] < 200).any(axis=2)
        lines = [(np.diff(part.any(axis=1).astype(int)) == 1).sum() for part in np.split(dark, 4, axis=1)]
        assert lines == [25, 25, 25, 25]  # five lists each, none cut and none over another


class TestLocalization:
    CURVE = np.linspace([100.0, 100], [0, 20], 101, axis=1)

    def test_every_system_is_in_the_legend(self) -> None:
        """Each has a colour, a line of the page, and room below it."""
        page = recall_figure({"one": self.CURVE[:1], "two": self.CURVE[1:]})
        more = recall_figure({"one": self.CURVE[:1], "two": self.CURVE[1:], "three": self.CURVE})
        assert more.shape[0] == pytest.approx(page.shape[0] + 36, abs=1)
        for picture in (page, more):
            assert (picture[-10:] == 255).all()
            assert (picture[:, -3:] == 255).mean() > 0.95
        blue, vermilion, green = (np.array(colour) for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115)))
        for colour, pictures in ((blue, (page, more)), (vermilion, (page, more)), (green, (more,))):
            assert all((picture == colour).all(axis=2).sum() > 100 for picture in pictures)
        assert not (page == green).all(axis=2).any()
        wide = recall_figure({"a name as long as any that is drawn: 60 letters, no more here": self.CURVE})
        assert (wide[:, -3:] == 255).all()

    @pytest.mark.parametrize(
        ("curves", "message"),
        [
            ({}, "no curve"),
            ({"LNet": np.ones((2, 100))}, "LNet: a curve is .S, 101."),
            ({"LNet": np.ones((0, 101))}, "at least 1"),
            ({"LNet": np.full((1, 101), 101.0)}, r"recall lies in 0...100; found 101"),
            ({"LNet": np.full((1, 101), np.nan)}, "recall lies in 0...100"),
        ],
    )
    def test_nonsense_is_no_curve(self, curves: dict[str, Floats], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            recall_figure(curves)

    def test_a_photograph_is_a_line(self) -> None:
        """Its box in orange, the window in white on the warmest colour; a weak response is not bright."""
        grey = np.full((60, 80, 3), 100, np.uint8)
        response = np.zeros((64, 64))
        response[20:40, 20:40] = 1
        cut = SeenCut(np.zeros((64, 64, 3), np.uint8), response, np.array([[16.0, 16, 44, 44]]))
        seen = SeenPhotograph("a$b$.jpg", grey, np.array([[10.0, 10, 40, 50]]), np.array([[20.0, 10, 70, 50]]), [cut])
        page = responses_figure([seen, seen], stages=1)
        assert page.shape == (750, 630, 3)
        assert np.array_equal(page[40:340], page[390:690])
        photograph, heat = page[40:340, 10:310].astype(int), page[40:340, 320:620].astype(int)
        assert (photograph[:37] == 255).all()  # 225 of 300 pixels
        orange = np.argwhere((photograph == (255, 140, 0)).all(axis=2))
        assert orange.min(axis=0) == pytest.approx([37 + 10 * 3.75, 10 * 3.75], abs=3)
        assert orange.max(axis=0) == pytest.approx([37 + 50 * 3.75, 40 * 3.75], abs=3)
        assert heat[150, 140].sum() > 3 * heat[20, 20].sum()
        weak = responses_figure([seen], stages=1, least=5.0)[40:340, 320:620].astype(int)
        assert weak[150, 140].sum() < heat[150, 140].sum() / 2
        with pytest.raises(ValueError, match="no photograph"):
            responses_figure([], stages=1)
