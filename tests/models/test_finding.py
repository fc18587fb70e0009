"""Faces from responses: cuts, windows brought back to the image, two stages, and the cascade."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facelightning.boxes import Floats
from facelightning.models.cascade import CascadeNetwork
from facelightning.models.density_peaks import find_peaks
from facelightning.models.finding import Finder, FoundFaces, LNetFinder, Localizer, Look, crop

WHOLE = np.array([[0.0, 0, 96, 64]])


class See(nn.Module):
    """The brightness of each 4×4 cell in one channel."""

    offset = 0.0

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, images: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(images[:, self.channel : self.channel + 1], 4)]


class Bright(nn.Module):
    """In place of an LNet: its response is the brightness of one channel."""

    def __init__(self, channel: int = 0) -> None:
        super().__init__()
        self.encoder, self.tail = See(channel), nn.Identity()


def localizer(channel: int = 0, size: tuple[int, int] = (64, 96), level: float = 0.5) -> Localizer:
    return Localizer(Bright(channel), size, level)  # type: ignore[arg-type]  # what it needs of a network


def photograph(*boxes: tuple[int, int, int, int], height: int = 64, width: int = 96, channel: int = 0) -> Tensor:
    """Black, with a bright box for each face; the first is the brightest."""
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        image[:, channel, y0:y1, x0:x1] = 250 - 40 * number
    return image


class TestCrop:
    def test_of_whole_pixels_is_a_slice(self) -> None:
        images = torch.randint(256, (2, 3, 20, 30), dtype=torch.uint8)
        cuts = crop(images, np.array([1, 0]), np.array([[3.0, 2, 10, 8], [0, 0, 7, 6]]), (6, 7))
        torch.testing.assert_close(255 * cuts[0], images[1, :, 2:8, 3:10].float())
        torch.testing.assert_close(255 * cuts[1], images[0, :, :6, :7].float())

    def test_shrinks_by_the_mean_of_what_a_pixel_covers(self) -> None:
        images = torch.rand(1, 3, 24, 36)
        cuts = crop(images, np.array([0]), np.array([[0.0, 0, 36, 24]]), (8, 9))
        torch.testing.assert_close(cuts, nn.functional.avg_pool2d(images, (3, 4)))

    def test_is_black_beyond_the_image(self) -> None:
        cuts = crop(torch.ones(1, 3, 8, 8), np.array([0]), np.array([[-8.0, 0, 8, 8]]), (8, 16))
        assert cuts[..., :7].max() == 0
        assert cuts[..., 9:].min() == 1

    def test_of_no_boxes(self) -> None:
        assert crop(torch.ones(1, 3, 8, 8), np.array([], dtype=int), np.empty((0, 4)), (5, 6)).shape == (0, 3, 5, 6)


def looked_up(look: Look, stage: Localizer, number: int, x: float, y: float) -> float:
    """The response of a cut at a place of the image, between the middles of its four nearest cells."""
    (x0, y0, x1, y1), cells = (
        look.cuts[number] - stage.encoder.offset * stage.scale(look.cuts[number])[0],
        look.responses[number],
    )
    rows, columns = cells.shape
    column, row = (x - x0) / (x1 - x0) * columns - 0.5, (y - y0) / (y1 - y0) * rows - 0.5
    if not (-0.5 < column < columns - 0.5 and -0.5 < row < rows - 0.5):
        return 0.0
    total = 0.0
    for r, v in ((int(np.floor(row)), 1 - row % 1), (int(np.floor(row)) + 1, row % 1)):
        for c, u in ((int(np.floor(column)), 1 - column % 1), (int(np.floor(column)) + 1, column % 1)):
            total += u * v * cells[min(max(r, 0), rows - 1), min(max(c, 0), columns - 1)]
    return total


class TestLooksTogether:
    @pytest.mark.parametrize("offset", [0.0, 3.5])
    def test_are_the_mean_at_each_place(self, offset: float) -> None:
        rng = np.random.default_rng(0)
        stage = localizer(size=(16, 24))
        stage.encoder.offset = offset
        wide = np.array([[5.0, 3, 53, 35], [-10, -20, 14, -4]])
        narrow = np.array([[20.0, 10, 38, 22], [-8, -18, 7, -8]])
        looks = [Look(narrow, rng.random((2, 4, 6))), Look(wide, rng.random((2, 4, 6)))]
        cuts, responses = stage.together(looks)
        assert np.array_equal(cuts, wide)
        assert responses.shape == (2, 16, 24)
        checked = 0
        for number, row, column in np.ndindex(responses.shape):
            x, y = wide[number, :2] + (np.array([column, row]) + 0.5 - offset) * stage.scale(wide)[number]
            x0, y0, x1, y1 = narrow[number] - offset * stage.scale(narrow)[number, 0]
            half = max(x1 - x0, y1 - y0) / 8  # a cell at the border of a cut reaches half its width beyond
            if min(abs(x - x0), abs(x - x1), abs(y - y0), abs(y - y1)) > half:
                expected = sum(looked_up(look, stage, number, x, y) for look in looks) / 2
                assert responses[number, row, column] == pytest.approx(expected, abs=1e-12)
                checked += 1
        assert checked > 300

    def test_one_alone_keeps_its_windows(self) -> None:
        """The paper's rule."""
        stage, rng = localizer(size=(48, 64)), np.random.default_rng(0)
        look = Look(WHOLE * [1, 1, 1, 1.125], rng.random((1, 12, 16)))
        ((cut, response),) = zip(*stage.together([look]), strict=True)
        peak = find_peaks(look.responses[0])[:1]
        expected = stage.windows(look.responses[0], peak, look.cuts[0])
        assert stage.windows(response, find_peaks(response)[:1], cut) == pytest.approx(expected)


class TestLNetFinder:
    def test_finds_each_face_where_it_is(self) -> None:
        image = photograph((60, 16, 76, 40), (8, 8, 24, 24))
        found = LNetFinder([localizer()])(image, WHOLE)
        assert found.images == 1
        assert found.image.tolist() == [0, 0]
        assert np.abs(found.boxes - [[60, 16, 76, 40], [8, 8, 24, 24]]).max() <= 2
        assert found.responses.tolist() == pytest.approx([250 / 255, 210 / 255])

    @pytest.mark.parametrize("size", [(64, 64), (32, 48), (128, 40)])
    def test_the_size_of_the_network_does_not_move_a_box(self, size: tuple[int, int]) -> None:
        """A cut of the network's shape, scaled evenly: nothing is distorted."""
        found = LNetFinder([localizer(size=size)])(photograph((48, 16, 72, 48)), WHOLE)
        assert np.abs(found.boxes - [[48, 16, 72, 48]]).max() <= 6

    def test_each_image_has_its_own_faces(self) -> None:
        images = torch.cat([photograph((8, 8, 24, 24)), photograph(), photograph((60, 16, 76, 40))])
        finder = LNetFinder([localizer()])
        found = finder(images, WHOLE.repeat(3, 0))
        assert found.image.tolist() == [0, 2]
        assert [one.tolist() for one in found.by_image()] == [[0], [], [1]]
        for number in (0, 2):
            alone = finder(images[number : number + 1], WHOLE)
            assert (alone.boxes == found.boxes[found.image == number]).all()

    def test_a_weak_response_is_no_face(self) -> None:
        image = photograph((8, 8, 24, 24))
        assert len(LNetFinder([localizer()], least=0.97)(image, WHOLE).boxes) == 1
        assert len(LNetFinder([localizer()], least=0.99)(image, WHOLE).boxes) == 0
        second = photograph((60, 16, 76, 40), (8, 8, 24, 24))
        assert len(LNetFinder([localizer()], fraction=0.9)(second, WHOLE).boxes) == 1

    def test_windows_lie_where_the_cells_look(self) -> None:
        """The middle of what a cell sees lies 4 pixels of the cut, 8 of the image, before the middle of the cell."""
        shifted = localizer(size=(32, 48))
        shifted.encoder.offset = 4.0
        (plain,) = LNetFinder([localizer(size=(32, 48))])(photograph((48, 24, 64, 40)), WHOLE).boxes
        (moved,) = LNetFinder([shifted])(photograph((48, 24, 64, 40)), WHOLE).boxes
        assert moved == pytest.approx(plain - 8)
        # so a response in the last rows of cells is of the photograph, though the cells' middles are below it
        frame = np.array([[0.0, 0, 96, 32]])
        assert not len(LNetFinder([localizer(size=(32, 96))])(photograph((40, 33, 48, 36)), frame).boxes)
        assert len(LNetFinder([shifted])(photograph((40, 33, 48, 36)), frame).boxes)

    def test_two_windows_of_one_face_are_one(self) -> None:
        """Two summits of one bright face, whose windows are the whole of it."""
        image = photograph((20, 16, 60, 48))
        image[:, 0, 16:48, 24:56] = 200
        alone = LNetFinder([localizer(level=0.9)], fraction=0.1)(image, WHOLE)
        assert len(alone.boxes) > 1
        together = LNetFinder([localizer(level=0.5)], fraction=0.1)(image, WHOLE)
        assert len(together.boxes) == 1

    def test_boxes_end_at_the_photograph(self) -> None:
        found = LNetFinder([localizer()], rescale=(3, 3, 0))(photograph((4, 4, 24, 24)), WHOLE)
        assert found.boxes.min() == 0
        assert (found.boxes <= WHOLE[0, 2:].max()).all()

    def test_a_cell_is_of_the_photograph_if_its_middle_is(self) -> None:
        stage, image = localizer(), photograph((0, 0, 96, 64))
        responses = stage.responses(image, np.array([0]), WHOLE, np.array([[0.0, 0, 45, 29]]))
        assert np.argwhere(responses[0]).max(axis=0).tolist() == [6, 10]  # middles at 26 and 42 pixels

    def test_nothing_is_found_in_the_padding(self) -> None:
        image = photograph((60, 16, 76, 40), (8, 8, 24, 24))
        found = LNetFinder([localizer()])(image, np.array([[0.0, 0, 48, 64]]))
        assert np.abs(found.boxes - [[8, 8, 24, 24]]).max() <= 2

    def test_the_second_stage_looks_around_the_first_window(self) -> None:
        """The head is red and wide, the face in it green and small; another green thing is far from any head."""
        image = photograph((40, 16, 72, 48))
        image[:, 1, 24:40, 48:64] = 200
        image[:, 1, 0:8, 0:8] = 255
        found = LNetFinder([localizer(0), localizer(1, (64, 64))], margins=[1.5])(image, WHOLE)
        assert np.abs(found.boxes - [[48, 24, 64, 40]]).max() <= 2
        kept = LNetFinder([localizer(0), localizer(2, (64, 64))])(image, WHOLE)  # nothing is blue
        assert np.abs(kept.boxes - [[40, 16, 72, 48]]).max() <= 2

    def test_several_cuts_hold_what_one_cuts_off(self) -> None:
        """A face of two parts, of which LNet_o has seen one; the strongest is far from both."""
        image = photograph((40, 24, 56, 40))
        image[:, 1, 20:44, 36:76] = 200
        stages = [localizer(0), localizer(1, (64, 64), level=0.3)]
        (narrow,) = LNetFinder(stages, margins=[1.2])(image, WHOLE).boxes
        assert narrow[2] < 60
        for margins in ([1.2, 3.6], [3.6, 1.2]):  # in any order
            (wide,) = LNetFinder(stages, margins=margins)(image, WHOLE).boxes
            assert np.abs(wide - [36, 20, 76, 44]).max() <= 3
        image[:, 1, 4:12, 60:70] = 255  # in the wide cut alone: another's, which counts half
        (still,) = LNetFinder(stages, margins=[1.2, 3.6])(image, WHOLE).boxes
        assert np.abs(still - wide).max() <= 1

    def test_rescaled(self) -> None:
        image = photograph((40, 16, 72, 48))
        (plain,) = LNetFinder([localizer()])(image, WHOLE).boxes
        (larger,) = LNetFinder([localizer()], rescale=(2, 1, 0.5))(image, WHOLE).boxes
        width, height = plain[2:] - plain[:2]
        assert larger == pytest.approx(plain + [-width / 2, height / 2, width / 2, height / 2])

    def test_stays_in_evaluation_mode(self) -> None:
        finder = LNetFinder([localizer()])
        assert not finder.train().training


class Fixed(Finder):
    """Finds given boxes."""

    def __init__(self, image: list[int], boxes: list[list[float]]) -> None:
        super().__init__()
        self.found = np.array(image, dtype=np.int64), np.array(boxes).reshape(-1, 4)

    def forward(self, images: Tensor, frames: Floats, sizes: Floats, names: object) -> FoundFaces:
        return FoundFaces(*self.found, np.arange(len(self.found[0])) + 1.0, len(images))


class MeanColour(nn.Module):
    """In place of an attribute network: the mean of each channel, and of its left half."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        half = images.shape[3] // 2
        means = images.mean(dim=(2, 3)), images[..., :half].mean(dim=(2, 3))
        return {"attributes": torch.cat(means, dim=1)}


class TestCascadeNetwork:
    def test_each_face_is_described_in_its_own_cut(self) -> None:
        images = torch.cat([photograph((60, 16, 76, 32), (8, 8, 24, 24)), photograph(), photograph((8, 8, 24, 24))])
        images[1, 2] = 51
        finder = Fixed([0, 0, 2], [[60, 16, 76, 32], [8, 8, 24, 24], [8, 8, 24, 24]])
        output = CascadeNetwork(finder, MeanColour(), (16, 16), margin=1.0)(images)
        assert 255 * output["face_attributes"][:, 0] == pytest.approx([250, 210, 250], abs=0.1)
        assert 255 * output["attributes"][:, 0] == pytest.approx([250, 0, 250], abs=0.1)
        # the image without a face is described whole, in a square that holds it: black above and below,
        # but for a blurred edge
        assert 255 * output["attributes"][1, 2].item() == pytest.approx(51 * 64 / 96, abs=1.5)

    def test_the_margin(self) -> None:
        image = photograph((40, 24, 56, 40))
        output = CascadeNetwork(Fixed([0], [[40, 24, 56, 40]]), MeanColour(), (32, 32), margin=2.0)(image)
        assert 255 * output["attributes"][0, 0].item() == pytest.approx(250 / 4, abs=0.1)

    def test_without_a_describer(self) -> None:
        output = CascadeNetwork(Fixed([], []), None, (16, 16), margin=1.0)(photograph())
        assert output.keys() == {"faces"}
        nothing = CascadeNetwork(Fixed([], []), MeanColour(), (16, 16), margin=1.0)(photograph())
        assert nothing["face_attributes"].shape == (0, 6)
        assert nothing["attributes"].shape == (1, 6)
