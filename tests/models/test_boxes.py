"""Boxes, pyramid and naive input: the baselines of Kalayeh et al., Table 2, on hand-made cases."""

import torch

from facelightning.models.boxes import BOXES, box_masks
from facelightning.models.naive import NaiveInput
from facelightning.models.pooling import SemanticPooling
from facelightning.models.pyramid import PyramidPooling


class TestBoxes:
    def test_cover_what_a_count_of_pixels_says(self) -> None:
        """Against painting each box on a canvas eight times as fine, and counting per cell."""
        landmarks = torch.tensor([[[40.0, 60], [100, 64], [70.5, 90], [3, 140], [178, 218]]])
        masks = box_masks(landmarks, (218, 178))[0]
        assert masks.shape == (16, 14, 12)
        fine = 8
        for number, name in enumerate(BOXES[:-1]):
            high, wide = (int(side) for side in name.rsplit(" ", 1)[1].split(":"))
            height, width = 40 * (high / wide) ** 0.5, 40 * (wide / high) ** 0.5
            x, y = landmarks[0, number // 3].tolist()
            rows = (torch.arange(218 * fine) + 0.5) / fine
            columns = (torch.arange(178 * fine) + 0.5) / fine
            inside = ((rows - y).abs() < height / 2)[:, None] & ((columns - x).abs() < width / 2)
            canvas = torch.zeros(224 * fine, 192 * fine)
            canvas[: 218 * fine, : 178 * fine] = inside.float()
            expected = canvas.view(14, 16 * fine, 12, 16 * fine).mean(dim=(1, 3))
            torch.testing.assert_close(masks[number], expected, rtol=0, atol=0.02)

    def test_areas_agree_and_the_last_is_the_picture(self) -> None:
        masks = box_masks(torch.full((2, 5, 2), 100.0), (218, 178))
        torch.testing.assert_close(masks[:, :-1].sum(dim=(2, 3)) * 16**2, torch.full((2, 15), 1600.0))
        assert (masks[:, -1] == 1).all()

    def test_scale_with_the_picture(self) -> None:
        large, small = (
            box_masks(torch.full((1, 5, 2), 96.0), (224, 192)),
            box_masks(torch.full((1, 5, 2), 48.0), (112, 96)),
        )
        torch.testing.assert_close(large[:, :-1].sum(dim=(2, 3)), 4 * small[:, :-1].sum(dim=(2, 3)))

    def test_a_box_outside_of_the_picture_counts_for_nothing(self) -> None:
        masks = box_masks(torch.full((1, 5, 2), -100.0), (64, 64))
        assert (masks[:, :-1] == 0).all()
        pooling = SemanticPooling(3, 4)
        weights = pooling.scores(torch.rand(1, 3, 4, 4), masks)[1]
        assert (weights[:, :-1] == 0).all()
        assert (weights[:, -1] == 1).all()


def test_pyramid_of_a_hand_made_map() -> None:
    """One channel of 4×4: the mean of all, then of each quarter, row by row."""
    pooling = PyramidPooling(1, 5)
    with torch.no_grad():
        pooling.classifier.weight.copy_(torch.eye(5))
        pooling.classifier.bias.zero_()
    features = torch.arange(16.0).view(1, 1, 4, 4)
    assert pooling(features)[0].tolist() == [7.5, 2.5, 4.5, 10.5, 12.5]


def test_naive_input_is_normalised_channel_by_channel() -> None:
    torch.manual_seed(0)
    images, logits = torch.randint(256, (3, 3, 8, 6), dtype=torch.uint8), torch.randn(3, 7, 8, 6)
    stacked = NaiveInput(7)(images, logits)
    assert stacked.shape == (3, 10, 8, 6)
    torch.testing.assert_close(stacked.mean(dim=(0, 2, 3)), torch.zeros(10), rtol=0, atol=1e-5)
    plain = torch.cat([images.float() / 255, logits.softmax(dim=1)], dim=1)
    expected = (plain - plain.mean(dim=(0, 2, 3), keepdim=True)) / (
        plain.var(dim=(0, 2, 3), keepdim=True, unbiased=False) + 1e-5
    ).sqrt()
    torch.testing.assert_close(stacked, expected)
