"""Boxes around landmarks, for "BBox" (Kalayeh et al., CVPR 2017, Table 2) and for parts, on hand-made cases."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from facelightning.errors import ConfigurationError
from facelightning.models.heads import LocalizationHead
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import BOXES, LANDMARKS, BoxRegions, FaceParts, LandmarkBoxes

FACE = torch.tensor([[[70.0, 110], [110, 110], [90, 135], [74, 150], [106, 150]]])
"""The landmarks of an upright face, whose eyes and mouth are 40 pixels apart."""


def draw(landmarks: torch.Tensor, size: tuple[int, int]) -> BoxRegions:
    return LandmarkBoxes()(torch.zeros(len(landmarks), 3, *size), landmarks)


class TestBoxRegions:
    @pytest.mark.parametrize("stride", [4, 16])
    def test_cover_what_a_count_of_pixels_says(self, stride: int) -> None:
        """Against painting each box on a canvas eight times as fine, and counting per cell."""
        landmarks = torch.tensor([[[40.0, 60], [100, 64], [70.5, 90], [3, 140], [178, 218]]])
        masks = draw(landmarks, (218, 178)).at(stride)[0]
        rows, columns = math.ceil(218 / stride), math.ceil(178 / stride)
        assert masks.shape == (16, rows, columns)
        fine = 8
        for number, name in enumerate(BOXES[:-1]):
            high, wide = (int(side) for side in name.rsplit(" ", 1)[1].split(":"))
            height, width = 40 * (high / wide) ** 0.5, 40 * (wide / high) ** 0.5
            x, y = landmarks[0, number // 3].tolist()
            down = (torch.arange(218 * fine) + 0.5) / fine
            across = (torch.arange(178 * fine) + 0.5) / fine
            inside = ((down - y).abs() < height / 2)[:, None] & ((across - x).abs() < width / 2)
            canvas = torch.zeros(rows * stride * fine, columns * stride * fine)
            canvas[: 218 * fine, : 178 * fine] = inside.float()
            expected = canvas.view(rows, stride * fine, columns, stride * fine).mean(dim=(1, 3))
            # an edge may miss the middle of a fine pixel by half of one
            torch.testing.assert_close(masks[number], expected, rtol=0, atol=0.02 * 16 / stride)

    def test_an_export_takes_any_number_of_images(self) -> None:
        class Masks(torch.nn.Module):
            def forward(self, boxes: torch.Tensor) -> torch.Tensor:
                return BoxRegions(boxes, (64, 48)).at(16)

        boxes = torch.tensor([[[8.0, -5, 24, 16]]]).expand(5, 1, 4).clone()
        program = torch.export.export(Masks(), (boxes[:2],), dynamic_shapes=({0: torch.export.Dim("images")},))
        assert torch.equal(program.module()(boxes), BoxRegions(boxes, (64, 48)).at(16))

    def test_areas_agree_and_the_last_is_the_image(self) -> None:
        masks = draw(torch.full((2, 5, 2), 100.0), (218, 178)).at(16)
        torch.testing.assert_close(masks[:, :-1].sum(dim=(2, 3)) * 16**2, torch.full((2, 15), 1600.0))
        assert (masks[:, -1] == 1).all()

    def test_scale_with_the_image(self) -> None:
        large = draw(torch.full((1, 5, 2), 96.0), (224, 192)).at(16)
        small = draw(torch.full((1, 5, 2), 48.0), (112, 96)).at(16)
        torch.testing.assert_close(large[:, :-1].sum(dim=(2, 3)), 4 * small[:, :-1].sum(dim=(2, 3)))

    @pytest.mark.parametrize("stride", [2, 8, 32])
    def test_coarse_cells_are_means_of_fine_ones(self, stride: int) -> None:
        regions = draw(100 * torch.rand(2, 5, 2), (96, 64))
        torch.testing.assert_close(regions.at(stride), avg_pool2d(regions.at(1), stride))

    def test_a_box_outside_of_the_image_counts_for_nothing(self) -> None:
        boxes = draw(torch.full((1, 5, 2), -100.0), (64, 64))
        assert (boxes.at(16)[:, :-1] == 0).all()
        pooled = SemanticPooling(16)(torch.rand(1, 3, 4, 4), boxes)
        weights = LocalizationHead(3, 16, 4)(pooled)["region_weights"]
        assert (weights[:, :-1] == 0).all()
        assert (weights[:, -1] == 1).all()


class TestLandmarkBoxes:
    def test_are_the_boxes_of_images(self) -> None:
        landmarks = 50 * torch.rand(2, 5, 2)
        source = LandmarkBoxes()
        assert source.names == BOXES
        assert [name.split()[0] for name in BOXES[:-1:3]] == list(LANDMARKS)
        regions = source(torch.rand(2, 3, 109, 89), landmarks)
        assert regions.at(8).shape == (2, len(source.names), 14, 12)
        sides = torch.tensor([40 * (109 * 89 / (218 * 178)) ** 0.5]) * torch.tensor([2**-0.5, 2**0.5])  # of 2:1
        centre = landmarks[1, 2]
        expected = torch.cat([centre - sides / 2, centre + sides / 2]).clamp(min=0)
        torch.testing.assert_close(regions.boxes()[1, BOXES.index("nose 2:1")], expected)
        assert regions.boxes()[:, -1].tolist() == [[0, 0, 89, 109]] * 2

    def test_side(self) -> None:
        boxes = LandmarkBoxes(side=20)(torch.rand(1, 3, 218, 178), torch.full((1, 5, 2), 100.0))
        torch.testing.assert_close(boxes.at(2)[:, :-1].sum(dim=(2, 3)) * 4, torch.full((1, 15), 400.0))

    def test_need_landmarks(self) -> None:
        with pytest.raises(ConfigurationError, match=r"list_landmarks_align_celeba\.txt"):
            LandmarkBoxes()(torch.rand(1, 3, 50, 37), None)


class TestFaceParts:
    def boxes(self, landmarks: torch.Tensor, size: tuple[int, int] = (218, 178)) -> torch.Tensor:
        return FaceParts()(torch.zeros(len(landmarks), 3, *size), landmarks).boxes()

    def test_of_an_upright_face(self) -> None:
        """Every part where a person would look for it, in units of 40 pixels."""
        expected = {
            "hair": (34, 26, 146, 90), "left_eyebrow": (50, 82, 90, 106), "right_eyebrow": (90, 82, 130, 106),
            "left_eye": (52, 98, 88, 122), "right_eye": (92, 98, 128, 122), "nose": (74, 107.5, 106, 147.5),
            "mouth": (62, 134, 118, 166), "chin": (58, 158, 122, 190), "left_cheek": (48, 110, 80, 150),
            "right_cheek": (100, 110, 132, 150), "image": (0, 0, 178, 218),
        }  # fmt: skip
        assert FaceParts().names == tuple(expected)
        torch.testing.assert_close(self.boxes(FACE)[0], torch.tensor(list(expected.values())).float())

    def test_a_mirrored_face_has_mirrored_parts(self) -> None:
        landmarks = FACE + torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(0))
        mirrored = landmarks[:, [1, 0, 2, 4, 3]] * torch.tensor([-1.0, 1]) + torch.tensor([178.0, 0])
        x0, y0, x1, y1 = self.boxes(mirrored)[0].unbind(1)
        swapped = [0, 2, 1, 4, 3, 5, 6, 7, 9, 8, 10]
        torch.testing.assert_close(torch.stack([178 - x1, y0, 178 - x0, y1], dim=1)[swapped], self.boxes(landmarks)[0])

    def test_follow_size_and_tilt(self) -> None:
        half = self.boxes(FACE / 2, (109, 89))
        torch.testing.assert_close(2 * half, self.boxes(FACE))
        turn = torch.tensor([[0.0, 1], [-1, 0]])  # by a right angle
        turned = self.boxes((FACE - 100) @ turn + 150, (300, 300))[0, :-1].view(-1, 2, 2)
        upright = self.boxes(FACE)[0, :-1].view(-1, 2, 2)
        torch.testing.assert_close(turned.diff(dim=1), upright.diff(dim=1))
        torch.testing.assert_close(turned.mean(dim=1), (upright.mean(dim=1) - 100) @ turn + 150)

    def test_a_profile_keeps_the_size_of_its_parts(self) -> None:
        profile = FACE.clone()
        profile[:, [0, 1, 3, 4], 0] = torch.tensor([100.0, 104, 100, 104])
        widths = [(boxes[0, :-1, 2] - boxes[0, :-1, 0]) for boxes in (self.boxes(profile), self.boxes(FACE))]
        torch.testing.assert_close(*widths)

    @pytest.mark.parametrize("place", [-1e6, 1e6])
    def test_landmarks_far_away_leave_nothing(self, place: float) -> None:
        boxes = self.boxes(FACE + place)
        assert ((boxes[:, :-1, 2:] - boxes[:, :-1, :2]).prod(dim=2) == 0).all()

    def test_need_landmarks(self) -> None:
        with pytest.raises(ConfigurationError, match=r"FaceParts draws .*list_landmarks_align_celeba\.txt.*Parser"):
            FaceParts()(torch.rand(1, 3, 50, 37), None)
