"""Boxes against counted pixels, and cuts and recall by hand."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from facelightning.boxes import around, containing, overlap, paired_overlaps, read_boxes_table, rescaled

Floats = npt.NDArray[np.float64]


def pixels(box: Floats) -> set[tuple[int, int]]:
    """The pixels in a box of whole numbers."""
    x0, y0, x1, y1 = (int(edge) for edge in box)
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


def counted(a: Floats, b: Floats) -> float:
    """Intersection over union, by counting pixels."""
    both, either = len(pixels(a) & pixels(b)), len(pixels(a) | pixels(b))
    return both / either if either else 0.0


def random_boxes(rng: np.random.Generator, number: int) -> Floats:
    """Boxes of 0 to 11 pixels a side, partly at negative places."""
    low = rng.integers(-5, 10, (number, 2))
    return np.hstack([low, low + rng.integers(0, 12, (number, 2))]).astype(np.float64)


class TestOverlap:
    def test_is_the_share_of_counted_pixels(self) -> None:
        rng = np.random.default_rng(0)
        a, b = random_boxes(rng, 40), random_boxes(rng, 30)
        expected = np.array([[counted(one, other) for other in b] for one in a])
        assert (overlap(a, b) == expected).all()
        assert (expected > 0.5).any()
        assert (expected == 0).any()

    def test_of_fractions_of_pixels(self) -> None:
        assert overlap(np.array([[0.25, 0.5, 1.25, 1.5]]), np.array([[0.75, 0.5, 1.75, 1.5]])).tolist() == [[1 / 3]]

    def test_does_not_change_with_place_order_or_scale(self) -> None:
        rng = np.random.default_rng(1)
        a, b = random_boxes(rng, 20), random_boxes(rng, 20)
        assert (overlap(b, a) == overlap(a, b).T).all()
        assert (overlap(4 * a + 16, 4 * b + 16) == overlap(a, b)).all()

    def test_of_boxes_without_area(self) -> None:
        point, line, reversed_box, whole = [2, 2, 2, 2], [0, 2, 4, 2], [4, 4, 0, 0], [0, 0, 4, 4]
        boxes = np.array([point, line, reversed_box, whole], dtype=np.float64)
        assert overlap(boxes, boxes).sum() == 1

    @pytest.mark.parametrize("numbers", [(0, 3), (3, 0), (0, 0)])
    def test_of_no_boxes(self, numbers: tuple[int, int]) -> None:
        n, m = numbers
        assert overlap(np.ones((n, 4)), np.ones((m, 4))).shape == (n, m)


class TestAround:
    def test_by_hand(self) -> None:
        boxes = np.array([[10.0, 20, 14, 30], [0, 0, 6, 2]])
        assert around(boxes, 1, (50, 50)).tolist() == [[7, 20, 17, 30], [0, -2, 6, 4]]
        assert around(boxes, 2, (50, 50)).tolist() == [[2, 15, 22, 35], [-3, -5, 9, 7]]
        assert around(boxes, 1, (100, 50)).tolist() == [[7, 15, 17, 35], [0, -5, 6, 7]]
        assert around(boxes, 1, (50, 100)).tolist() == [[2, 20, 22, 30], [-3, -2, 9, 4]]

    @pytest.mark.parametrize("size", [(7, 7), (109, 89), (20, 31)])
    def test_is_the_smallest_of_its_shape_that_holds_the_square(self, size: tuple[int, int]) -> None:
        boxes = random_boxes(np.random.default_rng(2), 20) + [0, 0, 1, 1]
        before = boxes.copy()
        cuts = around(boxes, 1.75, size)
        assert (boxes == before).all()
        assert cuts[:, :2] + cuts[:, 2:] == pytest.approx(boxes[:, :2] + boxes[:, 2:])
        sides = cuts[:, 2:] - cuts[:, :2]
        assert sides[:, 1] / sides[:, 0] == pytest.approx(np.full(20, size[0] / size[1]))
        assert sides.min(axis=1) == pytest.approx(1.75 * (boxes[:, 2:] - boxes[:, :2]).max(axis=1))

    def test_containing(self) -> None:
        boxes = np.array([[10.0, 20, 14, 30], [0, 0, 6, 2], [0, 0, 4, 4]])
        assert containing(boxes, (50, 50)).tolist() == [[7, 20, 17, 30], [0, -2, 6, 4], [0, 0, 4, 4]]
        assert containing(boxes, (100, 50)).tolist() == [[9.5, 20, 14.5, 30], [0, -5, 6, 7], [0, -2, 4, 6]]

    def test_of_no_boxes(self) -> None:
        assert around(np.empty((0, 4)), 2, (5, 5)).shape == (0, 4)
        assert rescaled(np.empty((0, 4)), 2, 1, 0).shape == (0, 4)


def test_rescaled_boxes() -> None:
    boxes = np.array([[10.0, 20, 14, 30]])
    assert rescaled(boxes, 1, 1, 0).tolist() == boxes.tolist()
    assert rescaled(boxes, 1.5, 0.5, 0.25).tolist() == [[9, 25, 15, 30]]


def test_pairs_are_those_of_a_loop() -> None:
    """All pairs, the largest overlap first; a box of either side is in one pair only."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        found, true = (np.tile(rng.uniform(0, 20, (rng.integers(0, 6), 2)), 2) + [0, 0, 12, 12] for _ in range(2))
        shares = overlap(found, true)
        pairs = sorted(np.ndindex(shares.shape), key=lambda pair: -shares[pair])
        expected, taken = [0.0] * len(true), set[int]()
        for row, column in pairs:
            if row not in taken and expected[column] == 0 and shares[row, column] > 0:
                taken.add(row)
                expected[column] = shares[row, column]
        assert paired_overlaps(found, true).tolist() == expected


def test_a_table_may_call_its_images_as_annotations_do(tmp_path: Path) -> None:
    (tmp_path / "all_boxes.csv").write_text("image_id,x0,y0,x1,y1\na.jpg,1,2,3,4\na.jpg,5,6,7,8\n")
    assert read_boxes_table(tmp_path / "all_boxes.csv")["a.jpg"][:, :5].tolist() == [[1, 2, 3, 4, 1], [5, 6, 7, 8, 1]]
