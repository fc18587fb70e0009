"""Pooling against loops in float64 and hand-made cases; absent regions must stay harmless."""

import math

import pytest
import torch
from torch import Tensor

from facelightning.labels import HELEN7, HELEN11
from facelightning.models.pooling import AveragePooling, SemanticPooling, region_masks


def pooling_reference(pooling: SemanticPooling, features: Tensor, masks: Tensor) -> tuple[list[list[float]], Tensor]:
    """§3.1.2 of Kalayeh et al. in Python's own floats: logits, and weights ``(B, N, A)``; all regions present."""
    recognition, bias = pooling.recognition.weight.tolist(), pooling.recognition.bias.tolist()
    localization = pooling.localization.weight.tolist()
    logits: list[list[float]] = []
    weights = torch.zeros(len(features), masks.shape[1], len(bias), dtype=torch.float64)
    for b, (maps, regions) in enumerate(zip(features.tolist(), masks.tolist(), strict=True)):
        vectors = []
        for region in regions:
            mass, vector = 0.0, []
            for row in region:
                for weight in row:
                    mass += weight
            for channel in maps:
                total = 0.0
                for values, row in zip(channel, region, strict=True):
                    for value, weight in zip(values, row, strict=True):
                        total += value * weight
                vector.append(total / mass)
            vectors.append(vector)
        logits.append([])
        for a in range(len(bias)):
            exponentials = [
                math.exp(sum(w * v for w, v in zip(localization[a], vector, strict=True))) for vector in vectors
            ]
            logit = 0.0
            for n, vector in enumerate(vectors):
                score = bias[a] + sum(w * v for w, v in zip(recognition[a], vector, strict=True))
                weights[b, n, a] = exponentials[n] / sum(exponentials)
                logit += float(weights[b, n, a]) * score
            logits[b].append(logit)
    return logits, weights


def small_case(dtype: torch.dtype = torch.float64) -> tuple[SemanticPooling, Tensor, Tensor]:
    """A module of 5 channels and 4 attributes, features ``(2, 5, 3, 4)``, masks ``(2, 3, 3, 4)`` without zeros."""
    torch.manual_seed(0)
    pooling = SemanticPooling(5, 4).to(dtype)
    return pooling, 3 * torch.randn(2, 5, 3, 4, dtype=dtype), torch.rand(2, 3, 3, 4, dtype=dtype) + 0.01


class TestSemanticPooling:
    def test_is_the_definition(self) -> None:
        pooling, features, masks = small_case()
        logits, weights = pooling_reference(pooling, features, masks)
        torch.testing.assert_close(pooling(features, masks), torch.tensor(logits, dtype=torch.float64))
        torch.testing.assert_close(pooling.scores(features, masks)[1], weights)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
    def test_lower_precision(self, dtype: torch.dtype, tolerance: float) -> None:
        pooling, features, masks = small_case(dtype)
        logits, _ = pooling_reference(pooling, features, masks)
        torch.testing.assert_close(pooling(features, masks).float(), torch.tensor(logits), rtol=0, atol=tolerance)

    def test_by_hand(self) -> None:
        """Regions with means 1 and 3 weigh 1 : 2 and are scored 3 and 7."""
        pooling = SemanticPooling(1, 1)
        with torch.no_grad():
            pooling.recognition.weight.fill_(2)
            pooling.recognition.bias.fill_(1)
            pooling.localization.weight.fill_(math.log(2) / 2)
        features, masks = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 0.5]]]])
        recognition, weights = pooling.scores(features, masks)
        torch.testing.assert_close(recognition[0, :, 0], torch.tensor([3.0, 7.0]))
        torch.testing.assert_close(weights[0, :, 0], torch.tensor([1 / 3, 2 / 3]))
        torch.testing.assert_close(pooling(features, masks), torch.tensor([[17 / 3]]))

    def test_region_means_do_not_depend_on_the_masks_scale(self) -> None:
        pooling, features, masks = small_case()
        torch.testing.assert_close(pooling(features, masks), pooling(features, 1e-6 * masks))

    def test_equal_masks_are_average_pooling(self) -> None:
        pooling, features, _ = small_case()
        average = AveragePooling(5, 4).double()
        average.classifier.load_state_dict(pooling.recognition.state_dict())
        masks = torch.full((2, 7, 3, 4), 1 / 7, dtype=torch.float64)
        torch.testing.assert_close(pooling(features, masks), average(features))
        torch.testing.assert_close(pooling.scores(features, masks)[1], torch.full((2, 7, 4), 1 / 7).double())

    def test_weights_sum_to_one(self) -> None:
        pooling, features, masks = small_case(torch.float32)
        weights = pooling.scores(100 * features, masks)[1]
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 4))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_absent_region_is_as_if_it_were_not_there(self, dtype: torch.dtype) -> None:
        pooling, features, masks = small_case(dtype)
        with_absent = masks.clone()
        with_absent[0, 1] = 0
        weights = pooling.scores(features, with_absent)[1]
        assert (weights[0, 1] == 0).all()
        assert (weights[1] > 0).all()
        logits = pooling(features, with_absent)
        torch.testing.assert_close(logits[:1], pooling(features[:1], masks[:1, [0, 2]]))
        torch.testing.assert_close(logits[1:], pooling(features[1:], masks[1:]))

    @pytest.mark.parametrize("absent", [[1], [0, 1, 2]])
    def test_absent_regions_have_finite_gradients(self, absent: list[int]) -> None:
        pooling, features, masks = small_case(torch.float32)
        masks[0, absent] = 0
        features.requires_grad_()
        masks.requires_grad_()
        logits = pooling(features, masks)
        logits.square().sum().backward()
        assert logits.isfinite().all()
        for x in (features, masks, *pooling.parameters()):
            assert x.grad is not None
            assert x.grad.isfinite().all()
            assert x.grad.any()

    def test_without_any_region_nothing_is_said(self) -> None:
        pooling, features, masks = small_case()
        masks[0] = 0
        features.requires_grad_()
        logits = pooling(features, masks)
        logits.sum().backward()
        assert features.grad is not None
        assert (logits[0] == 0).all()
        assert (features.grad[0] == 0).all()
        assert features.grad[1].any()
        assert (pooling.scores(features, masks)[1][0] == 0).all()

    def test_gradients(self) -> None:
        pooling, features, masks = small_case()
        features.requires_grad_()
        masks.requires_grad_()
        assert torch.autograd.gradcheck(pooling, (features, masks))
        absent = masks.detach().clone()
        absent[0, 2] = 0
        assert torch.autograd.gradcheck(lambda x: pooling(x, absent), features)

    def test_other_size_is_an_error_that_names_both(self) -> None:
        pooling, features, _ = small_case()
        with pytest.raises(ValueError, match=r"3 × 4.*28 × 23"):
            pooling(features, torch.rand(2, 3, 28, 23))


class TestRegionMasks:
    @pytest.mark.parametrize(
        ("size", "factor", "cells"),
        [((109, 89), 8, (14, 12)), ((16, 8), 8, (2, 1)), ((5, 9), 2, (3, 5)), ((3, 3), 8, (1, 1))],
    )
    def test_is_the_definition(self, size: tuple[int, int], factor: int, cells: tuple[int, int]) -> None:
        """Softmax, then each cell's own pixels: the largest for small parts, the mean for others."""
        torch.manual_seed(0)
        logits = 3 * torch.randn(2, len(HELEN7), *size)
        masks = region_masks(logits, HELEN7.part_indices, factor)
        assert masks.shape == (2, len(HELEN7), *cells)

        exponentials = logits.double().exp()
        probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
        expected = torch.zeros(masks.shape, dtype=torch.float64)
        for n, name in enumerate(HELEN7.classes):
            for i in range(cells[0]):
                for j in range(cells[1]):
                    rows, columns = slice(i * factor, (i + 1) * factor), slice(j * factor, (j + 1) * factor)
                    window = probabilities[:, n, rows, columns].flatten(1)
                    small = name in ("eyes", "eyebrows", "nose", "mouth")
                    expected[:, n, i, j] = window.max(dim=1).values if small else window.mean(dim=1)
        torch.testing.assert_close(masks.double(), expected, rtol=1e-5, atol=1e-7)

    def test_small_parts_of_eleven_labels(self) -> None:
        """One sure pixel of 64 makes a part's cell 1, any other class's cell 1/64."""
        masks = torch.zeros(1, len(HELEN11), 1, 1)
        for index in range(len(HELEN11)):
            logits = torch.zeros(1, len(HELEN11), 8, 8)
            logits[:, (index + 1) % len(HELEN11)] = 100
            logits[0, :, 2, 5] = 0
            logits[0, index, 2, 5] = 100
            masks[0, index] = region_masks(logits, HELEN11.part_indices)[0, index]
        large = torch.tensor([name in ("background", "face_skin", "hair") for name in HELEN11.classes])
        torch.testing.assert_close(masks.flatten(), torch.where(large, 1 / 64, 1.0))

    def test_low_precision_logits(self) -> None:
        logits = torch.randn(1, 7, 16, 16)
        masks = region_masks(logits.bfloat16(), (3, 4, 5, 6))
        assert masks.dtype == torch.float32
        torch.testing.assert_close(masks, region_masks(logits.bfloat16().float(), (3, 4, 5, 6)))


class TestAveragePooling:
    def test_is_the_definition(self) -> None:
        torch.manual_seed(0)
        pooling, features = AveragePooling(5, 4).double(), torch.randn(2, 5, 3, 4, dtype=torch.float64)
        means = torch.tensor([[sum(map(sum, maps)) / 12 for maps in image] for image in features.tolist()]).double()
        expected = means @ pooling.classifier.weight.T + pooling.classifier.bias
        torch.testing.assert_close(pooling(features), expected, rtol=1e-6, atol=1e-6)
