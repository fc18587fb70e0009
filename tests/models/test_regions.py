"""Boxes around landmarks, the regions of "BBox" (Kalayeh et al., CVPR 2017, Table 2), on hand-made cases."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from facelightning.errors import ConfigurationError
from facelightning.models.heads import LocalizationHead
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import BOXES, LANDMARKS, BoxRegions, LandmarkBoxes


class TestBoxRegions:
    @pytest.mark.parametrize("stride", [4, 16])
    def test_cover_what_a_count_of_pixels_says(self, stride: int) -> None:
        """Against painting each box on a canvas eight times as fine, and counting per cell."""
        landmarks = torch.tensor([[[40.0, 60], [100, 64], [70.5, 90], [3, 140], [178, 218]]])
        masks = BoxRegions(landmarks, (218, 178)).at(stride)[0]
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

    def test_areas_agree_and_the_last_is_the_image(self) -> None:
        masks = BoxRegions(torch.full((2, 5, 2), 100.0), (218, 178)).at(16)
        torch.testing.assert_close(masks[:, :-1].sum(dim=(2, 3)) * 16**2, torch.full((2, 15), 1600.0))
        assert (masks[:, -1] == 1).all()

    def test_scale_with_the_image(self) -> None:
        large = BoxRegions(torch.full((1, 5, 2), 96.0), (224, 192)).at(16)
        small = BoxRegions(torch.full((1, 5, 2), 48.0), (112, 96)).at(16)
        torch.testing.assert_close(large[:, :-1].sum(dim=(2, 3)), 4 * small[:, :-1].sum(dim=(2, 3)))

    @pytest.mark.parametrize("stride", [2, 8, 32])
    def test_coarse_cells_are_means_of_fine_ones(self, stride: int) -> None:
        regions = BoxRegions(100 * torch.rand(2, 5, 2), (96, 64))
        torch.testing.assert_close(regions.at(stride), avg_pool2d(regions.at(1), stride))

    def test_a_box_outside_of_the_image_counts_for_nothing(self) -> None:
        boxes = BoxRegions(torch.full((1, 5, 2), -100.0), (64, 64))
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
        boxes = source(torch.rand(2, 3, 109, 89), landmarks).at(8)
        assert torch.equal(boxes, BoxRegions(landmarks, (109, 89)).at(8))
        assert boxes.shape[1] == len(source.names)

    def test_side(self) -> None:
        boxes = LandmarkBoxes(side=20)(torch.rand(1, 3, 218, 178), torch.full((1, 5, 2), 100.0))
        torch.testing.assert_close(boxes.at(2)[:, :-1].sum(dim=(2, 3)) * 4, torch.full((1, 15), 400.0))

    def test_need_landmarks(self) -> None:
        with pytest.raises(ConfigurationError, match=r"list_landmarks_align_celeba\.txt"):
            LandmarkBoxes()(torch.rand(1, 3, 50, 37), None)
