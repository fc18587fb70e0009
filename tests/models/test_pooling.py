"""Pooling against loops in float64 and hand-made cases; absent regions must stay harmless."""

import math

import pytest
import torch
from torch import Tensor

from facelightning.models.pooling import (
    AveragePooling,
    GridPooling,
    LogSumExpPooling,
    MaximumPooling,
    Pooled,
    Pooling,
    PyramidPooling,
    SemanticPooling,
)
from tests.models.conftest import KnownRegions


def small_case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features ``(2, 5, 3, 4)``, and masks ``(2, 3, 3, 4)`` without zeros."""
    torch.manual_seed(0)
    return 3 * torch.randn(2, 5, 3, 4, dtype=dtype), torch.rand(2, 3, 3, 4, dtype=dtype) + 0.01


def pool(features: Tensor, masks: Tensor) -> Pooled:
    """Within regions that are known at the stride of the features, and at no finer one."""
    pooled: Pooled = SemanticPooling(16)(features, KnownRegions(masks, stride=16))
    return pooled


def means(features: Tensor, masks: Tensor) -> Tensor:
    """The mean feature of each region, §3.1.2 of Kalayeh et al., in Python's own floats; all regions are present."""
    batch = []
    for maps, regions in zip(features.tolist(), masks.tolist(), strict=True):
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
        batch.append(vectors)
    return torch.tensor(batch, dtype=torch.float64)


class TestSemanticPooling:
    def test_is_the_definition(self) -> None:
        features, masks = small_case()
        vectors, present = pool(features, masks)
        torch.testing.assert_close(vectors, means(features, masks))
        assert present.shape == (2, 3, 1)
        assert present.all()

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
    def test_lower_precision(self, dtype: torch.dtype, tolerance: float) -> None:
        features, masks = small_case(dtype)
        vectors = pool(features, masks).vectors
        assert vectors.dtype == dtype
        torch.testing.assert_close(vectors.double(), means(features, masks), rtol=0, atol=tolerance)

    def test_by_hand(self) -> None:
        features, masks = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 0.5]], [[0.5, 0.5]]]])
        assert pool(features, masks).vectors[0, :, 0].tolist() == [1, 3, 2]

    def test_region_means_do_not_depend_on_the_masks_scale(self) -> None:
        features, masks = small_case()
        torch.testing.assert_close(pool(features, masks).vectors, pool(features, 1e-6 * masks).vectors)

    def test_equal_masks_are_average_pooling(self) -> None:
        features, _ = small_case()
        vectors = pool(features, torch.full((2, 7, 3, 4), 1 / 7, dtype=torch.float64)).vectors
        torch.testing.assert_close(vectors, AveragePooling()(features).vectors.expand(2, 7, 5))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_absent_region_is_as_if_it_were_not_there(self, dtype: torch.dtype) -> None:
        features, masks = small_case(dtype)
        with_absent = masks.clone()
        with_absent[0, 1] = 0
        vectors, present = pool(features, with_absent)
        assert present.squeeze(2).tolist() == [[True, False, True], [True, True, True]]
        assert (vectors[0, 1] == 0).all()
        torch.testing.assert_close(vectors[:1, [0, 2]], pool(features[:1], masks[:1, [0, 2]]).vectors)
        torch.testing.assert_close(vectors[1:], pool(features[1:], masks[1:]).vectors)

    @pytest.mark.parametrize("absent", [[1], [0, 1, 2]])
    def test_absent_regions_have_finite_gradients(self, absent: list[int]) -> None:
        features, masks = small_case(torch.float32)
        masks[0, absent] = 0
        features.requires_grad_()
        masks.requires_grad_()
        vectors = pool(features, masks).vectors
        vectors.square().sum().backward()  # type: ignore[no-untyped-call]
        assert vectors.isfinite().all()
        for x in (features, masks):
            assert x.grad is not None
            assert x.grad.isfinite().all()
            assert x.grad.any()

    def test_gradients(self) -> None:
        features, masks = small_case()
        features.requires_grad_()
        masks.requires_grad_()
        assert torch.autograd.gradcheck(lambda x, regions: pool(x, regions).vectors, (features, masks))
        absent = masks.detach().clone()
        absent[0, 2] = 0
        assert torch.autograd.gradcheck(lambda x: pool(x, absent).vectors, features)

    @pytest.mark.parametrize("stride", [16, 32])
    def test_asks_at_its_own_stride(self, stride: int) -> None:
        regions = KnownRegions(torch.rand(2, 3, 64, 32))
        vectors = SemanticPooling(stride)(torch.rand(2, 5, 64 // stride, 32 // stride), regions).vectors
        assert vectors.shape == (2, 3, 5)
        assert regions.asked == [stride]

    def test_other_size_is_an_error_that_names_both(self) -> None:
        features, _ = small_case()
        with pytest.raises(ValueError, match=r"3 × 4.*28 × 23"):
            pool(features, torch.rand(2, 3, 28, 23))


class TestAveragePooling:
    def test_is_the_definition(self) -> None:
        features, _ = small_case()
        expected = torch.tensor([[sum(map(sum, maps)) / 12 for maps in image] for image in features.tolist()]).double()
        vectors, present = AveragePooling()(features)
        torch.testing.assert_close(vectors[:, 0], expected, rtol=1e-6, atol=1e-6)
        assert present.all()


class TestPyramidPooling:
    def test_of_a_hand_made_map(self) -> None:
        """One channel of 4×4: the mean of all, then of each quarter, row by row."""
        vectors, present = PyramidPooling()(torch.arange(16.0).view(1, 1, 4, 4))
        assert vectors[0, :, 0].tolist() == [7.5, 2.5, 4.5, 10.5, 12.5]
        assert present.shape == (1, 5, 1)
        assert present.all()

    def test_of_many_maps(self) -> None:
        """Places stand before channels."""
        features = torch.randn(3, 6, 14, 12)
        vectors = PyramidPooling()(features).vectors
        quarters = [
            features[:, :, rows, columns]
            for rows in (slice(7), slice(7, None))
            for columns in (slice(6), slice(6, None))
        ]
        expected = torch.stack([x.mean(dim=(2, 3)) for x in (features, *quarters)], dim=1)
        torch.testing.assert_close(vectors, expected)


@pytest.mark.parametrize("pooling", [AveragePooling, PyramidPooling, SemanticPooling])
@pytest.mark.parametrize("size", [(14, 12), (7, 6), (3, 5), (1, 1)])
def test_places_are_named(pooling: type[Pooling], size: tuple[int, int]) -> None:
    """One name for each vector, in the order of the regions."""
    names = ("skin", "hair", "nose")
    places = pooling(16).places(names)
    pooled = pooling(16)(torch.rand(2, 4, *size), KnownRegions(torch.rand(2, 3, *size), stride=16))
    assert pooled.vectors.shape == (2, len(places), 4)
    assert pooled.present.shape == (2, len(places), 1)
    assert len(set(places)) == len(places)
    assert places == names or pooling is not SemanticPooling
    assert not list(pooling(16).parameters())


class TestLogSumExpPooling:
    @pytest.mark.parametrize("sharpness", [0.5, 4.0, 20.0])
    def test_is_the_definition(self, sharpness: float) -> None:
        features, _ = small_case()
        vectors = LogSumExpPooling(16, sharpness)(features, None).vectors
        for found, maps in zip(vectors[:, 0].tolist(), features.flatten(2).tolist(), strict=True):
            for value, cells in zip(found, maps, strict=True):
                mean = math.fsum(math.exp(sharpness * cell) for cell in cells) / len(cells)
                assert value == pytest.approx(math.log(mean) / sharpness, rel=1e-12)

    def test_lies_between_mean_and_maximum(self) -> None:
        features, _ = small_case()
        mean, highest = features.mean(dim=(2, 3)), features.amax(dim=(2, 3))
        vectors = [LogSumExpPooling(16, sharpness)(features, None).vectors[:, 0] for sharpness in (1e-6, 4.0, 1e4)]
        torch.testing.assert_close(vectors[0], mean, rtol=0, atol=1e-4)
        torch.testing.assert_close(vectors[2], highest, rtol=0, atol=1e-3)
        assert ((mean < vectors[1]) & (vectors[1] < highest)).all()

    def test_large_values_do_not_overflow(self) -> None:
        features = torch.full((1, 1, 2, 2), 1000.0, dtype=torch.bfloat16)
        assert LogSumExpPooling()(features, None).vectors.item() == 1000


def test_maximum_pooling() -> None:
    features, _ = small_case()
    vectors, present = MaximumPooling()(features, None)
    assert vectors[:, 0].tolist() == [[max(cells) for cells in maps] for maps in features.flatten(2).tolist()]
    assert present.all()


def test_grid_pooling_keeps_places_apart() -> None:
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooling = GridPooling(cells=2)
    assert pooling(features, None).vectors.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooling.places(()) == ("row 0, column 0", "row 0, column 1", "row 1, column 0", "row 1, column 1")
    assert GridPooling()(torch.rand(2, 5, 3, 4), None).vectors.shape == (2, 36, 5)
