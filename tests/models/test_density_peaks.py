"""Density peaks against their definition, drawn blobs, and windows against a flood fill."""

import math
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from facelightning.models.density_peaks import Peak, distances, find_peaks, windows

Floats = npt.NDArray[np.float64]

KINDS = ("noise", "smooth", "zeros", "plateaus", "constant")


def random_map(kind: str, rng: np.random.Generator) -> Floats:
    """A map of up to 12×12 positions."""
    size = tuple(int(side) for side in rng.integers(1, 13, 2))
    noise = rng.standard_normal(size)
    if kind == "smooth":
        noise = cv2.GaussianBlur(noise, (0, 0), 2.0).astype(np.float64)
    if kind == "zeros":
        return np.maximum(noise - 0.5, 0)
    if kind == "plateaus":
        return rng.integers(0, int(rng.integers(1, 5)) + 1, size).astype(np.float64)
    return np.full(size, noise.flat[0]) if kind == "constant" else noise


def definition(response: Floats) -> Floats:
    """Sigma of equation (3), from all pairs of positions; of equal responses the one that is read earlier is larger."""
    places = np.argwhere(np.ones(response.shape))  # (N, 2), as one reads
    squared = ((places[:, None] - places) ** 2).sum(axis=2)
    here, there = response.ravel()[:, None], response.ravel()
    larger = (there > here) | ((there == here) & np.tri(len(places), k=-1, dtype=bool))
    nearest = np.where(larger, squared, math.inf).min(axis=1)
    sigma: Floats = np.sqrt(np.where(larger.any(axis=1), nearest, squared.max(axis=1)))
    return sigma.reshape(response.shape)


def blobs(*centres: tuple[int, int, float], size: tuple[int, int] = (30, 40), spread: float = 3.0) -> Floats:
    """Gaussians: row, column and height of each."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    squared = [((rows - row) ** 2 + (columns - column) ** 2, height) for row, column, height in centres]
    total: Floats = sum(height * np.exp(-away / (2 * spread**2)) for away, height in squared)
    return total


def places(peaks: list[Peak]) -> list[tuple[int, int]]:
    return [(peak.row, peak.column) for peak in peaks]


class TestDistances:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_the_definition(self, kind: str) -> None:
        """To the last bit, on 200 maps of each of five kinds."""
        rng = np.random.default_rng(KINDS.index(kind))
        for _ in range(200):
            response = random_map(kind, rng)
            assert (distances(response, -math.inf) == definition(response)).all()

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_threshold_changes_no_other_distance(self, kind: str) -> None:
        rng = np.random.default_rng(10 + KINDS.index(kind))
        for _ in range(50):
            response = random_map(kind, rng)
            for threshold in (0.0, float(rng.choice(response.ravel()))):
                expected = np.where(response > threshold, definition(response), 0)
                highest = np.unravel_index(response.argmax(), response.shape)
                expected[highest] = definition(response)[highest]
                assert (distances(response, threshold) == expected).all()

    def test_the_default_leaves_out_zeros(self) -> None:
        response = np.array([[0.0, 0, 3, 0, 1, -1]])
        assert distances(response).tolist() == [[0, 0, 3, 0, 2, 0]]

    def test_of_a_large_map(self) -> None:
        """The corners of a long map are farther apart than a byte can count."""
        response = np.zeros((2, 400))
        response[0, 0], response[1, 399] = 2, 1
        assert distances(response)[1, 399] == distances(response)[0, 0] == math.sqrt(399**2 + 1)

    def test_of_one_position(self) -> None:
        assert distances(np.ones((1, 1))).tolist() == [[0]]

    def test_of_zeros(self) -> None:
        sigma = distances(np.zeros((4, 5)))
        assert sigma[0, 0] == 5  # 3² + 4²
        assert np.count_nonzero(sigma) == 1

    def test_transposed(self) -> None:
        """Of a map without ties, which are ordered by rows."""
        response = np.random.default_rng(20).permutation(12 * 17).reshape(12, 17).astype(np.float64)
        assert (distances(response.T) == distances(response).T).all()

    @pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
    def test_of_other_numbers(self, dtype: type) -> None:
        numbers = np.random.default_rng(21).integers(0, 256, (9, 8))
        expected = definition(numbers.astype(np.float64))
        assert (distances(numbers.astype(dtype), -math.inf) == expected).all()

    def test_leaves_its_argument_alone(self) -> None:
        response = blobs((5, 5, 1.0))
        before = response.copy()
        find_peaks(response)
        assert (response == before).all()


@pytest.mark.parametrize("use", [distances, find_peaks, lambda response: windows(response, [], (9, 9), 0.5)])
class TestUnfitMaps:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_not_finite(self, use, value: float) -> None:  # type: ignore[no-untyped-def]
        response = np.ones((3, 3))
        response[1, 2] = value
        with pytest.raises(ValueError, match="must be finite"):
            use(response)

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (1, 3, 3), ()])
    def test_not_a_map(self, use, shape: tuple[int, ...]) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ValueError, match=r"must be \(H, W\) and not empty"):
            use(np.ones(shape))


class TestFindPeaks:
    two = ((8, 8, 1.0), (20, 30, 0.6))

    def test_two_faces(self) -> None:
        response = blobs(*self.two)
        first, second = find_peaks(response)
        assert (first.row, first.column, second.row, second.column) == (8, 8, 20, 30)
        assert first.rho == response[8, 8]
        assert first.sigma == math.sqrt(21**2 + 31**2)  # to the farthest corner
        assert first.d == pytest.approx(math.sqrt(2))
        assert second.rho == response[20, 30]
        assert second.sigma == min(math.dist((20, 30), place) for place in np.argwhere(response > second.rho))
        scaled = second.rho / first.rho, second.sigma / first.sigma
        assert second.d == pytest.approx(math.sqrt(scaled[0] ** 2 + scaled[1] ** 2))

    def test_extreme_d_of_all_positions_is_the_shoulder_of_the_first(self) -> None:
        """Why only local maxima count: the second largest d of all lies beside the first peak."""
        response = blobs((8, 8, 1.0), (10, 20, 0.5), size=(17, 26))
        sigma = definition(response)
        d = np.hypot(response / response.max(), sigma / sigma.max())
        row, column = np.unravel_index(np.argsort(d, axis=None)[-2], d.shape)
        assert abs(row - 8) + abs(column - 8) == 1
        assert places(find_peaks(response)) == [(8, 8), (10, 20)]

    def test_order_is_by_d(self) -> None:
        """Of three faces the farther one comes before the one with the slightly larger response."""
        response = blobs((5, 5, 1.0), (5, 17, 0.55), (25, 36, 0.5))
        peaks = find_peaks(response, fraction=0.3)
        assert places(peaks) == [(5, 5), (25, 36), (5, 17)]
        assert peaks[1].rho < peaks[2].rho
        assert [peak.d for peak in peaks] == sorted((peak.d for peak in peaks), reverse=True)

    def test_response_matters_to_the_order(self) -> None:
        response = blobs((5, 5, 1.0), (5, 20, 0.9), (25, 20, 0.4))
        assert places(find_peaks(response, fraction=0.3)) == [(5, 5), (5, 20), (25, 20)]
        assert find_peaks(response, fraction=0.3)[1].sigma < find_peaks(response, fraction=0.3)[2].sigma

    @pytest.mark.parametrize("scale", [1e-12, 1e12])
    def test_does_not_change_with_scale(self, scale: float) -> None:
        response = blobs(*self.two)
        peaks, scaled = find_peaks(response), find_peaks(scale * response)
        assert places(scaled) == places(peaks)
        assert [peak.d for peak in scaled] == pytest.approx([peak.d for peak in peaks])

    def test_transposed(self) -> None:
        response = blobs(*self.two)
        assert places(find_peaks(response.T)) == [(8, 8), (30, 20)]

    @pytest.mark.parametrize("shift", [(-3, 2), (4, -5)])
    def test_shifted(self, shift: tuple[int, int]) -> None:
        down, right = shift
        response = blobs(*((row + down, column + right, height) for row, column, height in self.two))
        assert places(find_peaks(response)) == [(8 + down, 8 + right), (20 + down, 30 + right)]

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_all_that_the_rule_allows(self, kind: str) -> None:
        """The rule, position by position, on random maps."""
        rng = np.random.default_rng(30 + KINDS.index(kind))
        for _ in range(60):
            response = random_map(kind, rng)
            fraction, separation = rng.uniform(0, 0.9), rng.uniform(0, 4)
            sigma, highest = definition(response), response.max()
            expected = {
                (i, j): math.hypot(response[i, j] / highest, sigma[i, j] / max(sigma.max(), 1))
                for i, j in np.ndindex(*response.shape)
                if highest > 0
                and (
                    i * response.shape[1] + j == response.argmax()
                    or (response[i, j] > fraction * highest and sigma[i, j] > max(separation, 1.5))
                )
            }
            peaks = find_peaks(response, fraction=fraction, separation=separation)
            assert {(peak.row, peak.column): pytest.approx(peak.d) for peak in peaks} == expected
            assert all(one.d >= other.d for one, other in pairwise(peaks))
            if peaks:
                assert peaks[0].row * response.shape[1] + peaks[0].column == response.argmax()

    def test_fraction_and_separation_are_exclusive(self) -> None:
        response = np.array([[10.0, 0, 0, 5, 0, 0, 0, 0]])
        assert len(find_peaks(response, fraction=0.5)) == 1
        assert len(find_peaks(response, fraction=0.49)) == 2
        assert len(find_peaks(response, fraction=0.3, separation=3)) == 1
        assert len(find_peaks(response, fraction=0.3, separation=2.9)) == 2

    def test_defaults(self) -> None:
        """A peak above half of the maximum, more than two cells away."""
        response = np.zeros((1, 20))
        response[0, [0, 2, 6, 10]] = 10, 9, 5.1, 4.9
        assert places(find_peaks(response)) == [(0, 0), (0, 6)]

    def test_a_plateau_is_one_peak(self) -> None:
        response = np.zeros((9, 9))
        response[2:5, 3:7] = 2
        assert places(find_peaks(response)) == [(2, 3)]

    def test_equal_peaks_come_as_one_reads(self) -> None:
        response = np.zeros((5, 5))
        response[[0, 0, 4, 4], [0, 4, 0, 4]] = 1
        assert places(find_peaks(response)) == [(0, 0), (0, 4), (4, 0), (4, 4)]

    @pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (1, 3)])
    def test_the_highest_always_counts(self, size: tuple[int, int]) -> None:
        (peak,) = find_peaks(np.ones(size))
        assert (peak.row, peak.column) == (0, 0)
        assert peak.d == pytest.approx(1.0 if size == (1, 1) else math.sqrt(2))

    def test_no_face(self) -> None:
        response = blobs(*self.two)
        assert len(find_peaks(response, least=float(response.max()))) == 2
        assert find_peaks(response, least=float(np.nextafter(response.max(), 2))) == []

    @pytest.mark.parametrize("value", [0.0, -1.0])
    @pytest.mark.parametrize("least", [0.0, -5.0])
    def test_a_map_without_positive_responses_has_no_face(self, value: float, least: float) -> None:
        assert find_peaks(np.full((4, 5), value), least) == []

    def test_a_threshold_that_is_not_a_number_finds_no_face(self) -> None:
        assert find_peaks(np.ones((4, 5)), math.nan) == []


def resized(response: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear interpolation between the centres of cells, pixel by pixel."""

    def neighbours(pixel: int, pixels: int, cells: int) -> list[tuple[int, float]]:
        place = (pixel + 0.5) * cells / pixels - 0.5
        low = math.floor(place)
        return [(min(max(low + i, 0), cells - 1), (1 - place + low, place - low)[i]) for i in (0, 1)]

    image = np.zeros(size)
    for y, x in np.ndindex(*size):
        for row, down in neighbours(y, size[0], response.shape[0]):
            for column, right in neighbours(x, size[1], response.shape[1]):
                image[y, x] += down * right * response[row, column]
    return image


def flooded(image: Floats, start: tuple[int, int], level: float) -> list[float]:
    """The box of what is above the level and connected to a start by steps of a king."""
    reached, ahead = {start}, [start]
    while ahead:
        y, x = ahead.pop()
        for place in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
            inside = 0 <= place[0] < image.shape[0] and 0 <= place[1] < image.shape[1]
            if inside and place not in reached and image[place] > level:
                reached.add(place)
                ahead.append(place)
    rows, columns = zip(*reached, strict=True)
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


class TestWindows:
    @pytest.mark.parametrize(
        ("stride", "level", "reach"), [(1, 0.5, 0), (2, 0.3, 0), (8, 0.3, 2), (8, 0.0, 4), (8, 0.65, -1), (3, 0.95, -1)]
    )
    def test_of_rectangles(self, stride: int, level: float, reach: int) -> None:
        """The pixel k outside a rectangle responds by 0.5 - (k + 0.5) / stride of it: ``reach`` such are above."""
        response = np.zeros((12, 15))
        response[2:6, 3:5] = 4
        response[8:11, 9:14] = 3
        boxes = windows(response, find_peaks(response), (12 * stride, 15 * stride), level)
        rectangles = stride * np.array([[3, 2, 5, 6], [9, 8, 14, 11]])
        assert boxes.tolist() == (rectangles + [-reach, -reach, reach, reach]).tolist()

    def test_stay_within_the_image(self) -> None:
        response = np.ones((3, 5))
        assert windows(response, find_peaks(response), (24, 41), 0.5).tolist() == [[0, 0, 41, 24]]

    @pytest.mark.parametrize("size", [(11, 9), (22, 18), (88, 72), (50, 60)])
    def test_are_what_a_flood_reaches(self, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(40)
        for _ in range(3):
            response = np.maximum(cv2.GaussianBlur(rng.standard_normal((11, 9)), (0, 0), 1.0), 0)
            peaks = find_peaks(response)
            image = resized(response, size)
            starts = []
            for peak in peaks:
                (top, bottom), (left, right) = (
                    (math.floor(cell * pixels / cells), math.ceil((cell + 1) * pixels / cells))
                    for cell, pixels, cells in zip((peak.row, peak.column), size, response.shape, strict=True)
                )
                cell = ((y, x) for y in range(top, bottom) for x in range(left, right))
                starts.append(max(cell, key=lambda place: image[place]))
            for level in (0.2, 0.5, 0.9):
                expected = [flooded(image, start, level * image[start]) for start in starts]
                assert windows(response, peaks, size, level).tolist() == expected

    def test_diagonal_cells_are_connected(self) -> None:
        response = np.zeros((6, 6))
        response[[1, 2, 3], [1, 2, 1]] = 3, 2, 2
        response[5, 5] = 2
        first, second = windows(response, find_peaks(response), (6, 6), 0.5).tolist()
        assert first == [1, 1, 3, 4]
        assert second == [5, 5, 6, 6]

    def test_each_peak_has_its_own_level(self) -> None:
        """Two high and two low peaks; the response falls to 0.625 between the high ones, to 0.675 between the low."""
        response = np.array([[8.0, 5, 5, 8, 1, 1, 4, 2.7, 2.7, 4]])
        peaks = find_peaks(response, fraction=0.3)
        assert {peak.column for peak in peaks} == {0, 3, 6, 9}
        edges = {
            level: {
                peak.column: (x0, x1)
                for peak, (x0, _, x1, _) in zip(peaks, windows(response, peaks, (1, 10), level), strict=True)
            }
            for level in (0.7, 0.65, 0.6)
        }
        assert edges[0.7] == {0: (0, 1), 3: (3, 4), 6: (6, 7), 9: (9, 10)}
        assert edges[0.65] == {0: (0, 1), 3: (3, 4), 6: (6, 10), 9: (6, 10)}
        assert edges[0.6] == {0: (0, 4), 3: (0, 4), 6: (6, 10), 9: (6, 10)}

    def test_only_the_lower_of_two_close_peaks_has_a_window_of_both(self) -> None:
        response = np.array([[8.0, 3, 3, 4]])
        assert windows(response, find_peaks(response, fraction=0.3), (1, 4), 0.5).tolist() == [
            [0, 0, 1, 1],
            [0, 0, 4, 1],
        ]
        assert windows(response, find_peaks(response, fraction=0.3), (1, 4), 0.8).tolist() == [
            [0, 0, 1, 1],
            [3, 0, 4, 1],
        ]

    @pytest.mark.parametrize("stride", [1, 3, 8])
    def test_mirrored_and_transposed(self, stride: int) -> None:
        response = blobs((5, 9, 1.0), (20, 26, 0.6)) + blobs((7, 12, 0.4), spread=1.5)
        height, width = 30 * stride, 40 * stride
        boxes = windows(response, find_peaks(response), (height, width), 0.5)
        mirrored = windows(response[:, ::-1], find_peaks(response[:, ::-1]), (height, width), 0.5)
        assert mirrored.tolist() == [[width - x1, y0, width - x0, y1] for x0, y0, x1, y1 in boxes.tolist()]
        transposed = windows(response.T, find_peaks(response.T), (width, height), 0.5)
        assert transposed.tolist() == boxes[:, [1, 0, 3, 2]].tolist()

    @pytest.mark.parametrize("stride", [1, 2, 5, 8])
    def test_a_single_cell_has_a_window_at_any_level(self, stride: int) -> None:
        """It lies in the cell's middle, though no pixel may have the cell's own response."""
        response = np.zeros((4, 6))
        response[2, 3] = 1
        ((x0, y0, x1, y1),) = windows(response, find_peaks(response), (4 * stride, 6 * stride), 0.999)
        assert (x0 + x1, y0 + y1) == (7 * stride, 5 * stride)
        assert x1 - x0 == y1 - y0 == 2 - stride % 2

    @pytest.mark.parametrize("cell", [1, 3])
    def test_a_cell_has_the_pixels_that_it_covers_in_part(self, cell: int) -> None:
        """At stride 1.2 the cells 1 and 3 cover half of two pixels; the outer one, with 0.75 of the peak, is higher."""
        response = np.zeros((1, 5))
        response[0, cell] = 1
        pixel = {1: 1, 3: 4}[cell]
        assert windows(response, find_peaks(response), (1, 6), 0.6).tolist() == [[pixel, 0, pixel + 1, 1]]
        assert windows(response, find_peaks(response), (1, 6), 0.5).tolist() == [
            [1, 0, 3, 1] if cell == 1 else [3, 0, 5, 1]
        ]

    def test_no_face(self) -> None:
        assert windows(np.zeros((4, 5)), [], (32, 40), 0.5).shape == (0, 4)

    @pytest.mark.parametrize("level", [-0.1, 1.0, math.nan])
    def test_level_out_of_range_is_an_error(self, level: float) -> None:
        with pytest.raises(ValueError, match=r"level must be in \[0, 1\)"):
            windows(np.ones((4, 5)), [], (4, 5), level)

    @pytest.mark.parametrize("size", [(3, 40), (32, 4)])
    def test_an_image_smaller_than_its_map_is_an_error_that_names_both(self, size: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=rf"{size[0]} × {size[1]}.*4 × 5"):
            windows(np.ones((4, 5)), [], size, 0.5)
