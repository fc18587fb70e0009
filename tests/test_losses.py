"""The losses against float64 loops, each sample's beside the batch's, and what must add neither loss nor gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from facelightning.labels import IGNORE_INDEX
from facelightning.losses import (
    attribute_loss,
    attribute_sample_losses,
    parsing_loss,
    parsing_sample_losses,
    similarity_loss,
    softmax_loss,
    softmax_sample_losses,
)

NAN = float("nan")


def parsing_reference(logits: list[Tensor], mask: Tensor) -> float:
    """The definition, a pixel at a time in float64: the pixel whose square holds the centre of the cell."""
    total = 0.0
    for scale in logits:
        (batch, _, height, width), losses = scale.shape, []
        for b in range(batch):
            for i in range(height):
                for j in range(width):
                    row = math.floor((i + 0.5) * mask.shape[1] / height)
                    column = math.floor((j + 0.5) * mask.shape[2] / width)
                    label = int(mask[b, row, column])
                    if label != IGNORE_INDEX:
                        scores = [float(score) for score in scale[b, :, i, j].double()]
                        losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[label])
        total += sum(losses) / len(losses) if losses else 0.0
    return total


def random_mask(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 7, (batch, height, width), generator=generator)
    return mask.masked_fill(torch.rand(mask.shape, generator=generator) < 0.2, IGNORE_INDEX)


def random_logits(*sizes: tuple[int, int], batch: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [(3 * torch.randn(batch, 7, *size, generator=generator)).to(dtype) for size in sizes]


class TestParsingLoss:
    # The parser's scales at an eighth of its input: sizes that do not divide one another.
    SIZES = ((4, 3), (7, 6), (14, 12), (27, 23))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_is_the_definition(self, dtype: torch.dtype) -> None:
        logits, mask = random_logits(*self.SIZES, dtype=dtype), random_mask(2, 27, 23)
        loss = parsing_loss(logits, mask)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert loss.item() == pytest.approx(parsing_reference(logits, mask), rel=1e-6)

    @pytest.mark.parametrize("size", [(28, 23), (55, 45), (109, 89), (300, 200)])
    def test_mask_is_resized_as_interpolate_does(self, size: tuple[int, int]) -> None:
        mask = random_mask(2, 218, 178)
        resized = F.interpolate(mask[:, None].double(), size, mode="nearest-exact")[:, 0].long()
        logits = random_logits(size)
        torch.testing.assert_close(parsing_loss(logits, mask), parsing_loss(logits, resized), rtol=0, atol=0)

    def test_mask_is_sampled_at_the_centre_of_a_cell(self) -> None:
        mask = torch.zeros(1, 1, 9, dtype=torch.int64)
        mask[..., [1, 4, 7]] = 1  # the centres of three cells of three pixels
        certain = torch.tensor([0.0, 50.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
        assert parsing_loss([certain], mask).item() == pytest.approx(0, abs=1e-6)

    def test_gradient(self) -> None:
        logits = [scale.requires_grad_() for scale in random_logits((3, 2), (4, 3), dtype=torch.float64)]
        mask = random_mask(2, 4, 3)
        assert torch.autograd.gradcheck(lambda *scales: parsing_loss(scales, mask), logits)

    def test_an_ignored_batch_gives_zero_and_no_gradient(self) -> None:
        logits = [scale.requires_grad_() for scale in random_logits((4, 3), (8, 6))]
        loss = parsing_loss(logits, torch.full((2, 8, 6), IGNORE_INDEX))
        assert loss.item() == 0
        assert not any(gradient.any() for gradient in torch.autograd.grad(loss, logits))

    def test_a_scale_without_counted_pixels_leaves_the_others(self) -> None:
        mask = torch.full((2, 9, 9), IGNORE_INDEX)
        mask[:, 0, 0] = 3  # no centre of a coarse cell
        coarse, fine = random_logits((3, 3), (9, 9))
        assert parsing_loss([coarse], mask).item() == 0
        torch.testing.assert_close(parsing_loss([coarse, fine], mask), parsing_loss([fine], mask))

    def test_ignored_pixels_get_no_gradient(self) -> None:
        (logits,) = random_logits((9, 7))
        logits.requires_grad_()
        mask = random_mask(2, 9, 7)
        (gradient,) = torch.autograd.grad(parsing_loss([logits], mask), logits)
        assert torch.equal(gradient.abs().sum(1) > 0, mask != IGNORE_INDEX)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_sample_losses_are_those_of_each_sample_alone(self, dtype: torch.dtype) -> None:
        logits, mask = random_logits(*self.SIZES, batch=5, dtype=dtype), random_mask(5, 27, 23)
        mask[1, :20] = IGNORE_INDEX
        mask[2] = IGNORE_INDEX  # nothing of it counts
        mask[3], mask[3, 0, 0] = IGNORE_INDEX, 3  # one pixel, which the coarser scales do not see
        losses = parsing_sample_losses(logits, mask)
        assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        alone = [parsing_loss([scale[i : i + 1] for scale in logits], mask[i : i + 1]).item() for i in range(5)]
        assert losses.tolist() == pytest.approx(alone, rel=1e-6, abs=1e-6)
        each = [parsing_reference([scale[i : i + 1] for scale in logits], mask[i : i + 1]) for i in range(5)]
        assert losses.tolist() == pytest.approx(each, rel=1e-6)
        assert losses[2] == 0
        assert losses[3] > 0

    def test_sample_losses_have_their_own_gradients(self) -> None:
        logits = [scale.requires_grad_() for scale in random_logits((4, 3), (8, 6), batch=3)]
        mask = random_mask(3, 8, 6)
        mask[1] = IGNORE_INDEX
        losses = parsing_sample_losses(logits, mask)
        for i in range(3):
            for gradient in torch.autograd.grad(losses[i], logits, retain_graph=True):
                reached = gradient.abs().sum(dim=(1, 2, 3)) > 0
                assert reached.tolist() == [n == i and i != 1 for n in range(3)]

    def test_a_class_outside_the_prediction_is_an_error(self) -> None:
        with pytest.raises((IndexError, ValueError), match="7"):
            parsing_loss(random_logits((8, 6)), torch.full((2, 8, 6), 7))


class TestAttributeLoss:
    TARGETS = torch.tensor([[1.0, 0.0, NAN], [NAN, 1.0, 0.0]])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_is_the_definition(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = (4 * torch.randn(8, 40, generator=generator)).to(dtype)
        targets = (torch.rand(8, 40, generator=generator) < 0.3).float()
        targets[torch.rand(8, 40, generator=generator) < 0.2] = NAN
        losses = [
            math.log1p(math.exp(-score if target else score))
            for score, target in zip(logits.double().flatten().tolist(), targets.flatten().tolist(), strict=True)
            if not math.isnan(target)
        ]
        loss = attribute_loss(logits, targets)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)

    def test_gradient(self) -> None:
        logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda scores: attribute_loss(scores, self.TARGETS), (logits,))

    @pytest.mark.parametrize("score", [0.5, float("inf"), NAN])
    def test_an_unknown_entry_adds_neither_loss_nor_gradient(self, score: float) -> None:
        logits = torch.ones(2, 3).masked_fill(self.TARGETS.isnan(), score).requires_grad_()
        loss = attribute_loss(logits, self.TARGETS)
        (gradient,) = torch.autograd.grad(loss, logits)
        expected = (2 * math.log1p(math.exp(-1)) + 2 * math.log1p(math.exp(1))) / 4
        assert loss.item() == pytest.approx(expected)
        assert gradient.isfinite().all()
        assert torch.equal(gradient != 0, ~self.TARGETS.isnan())

    def test_nothing_known_gives_zero_and_no_gradient(self) -> None:
        logits = torch.randn(2, 3, requires_grad=True)
        loss = attribute_loss(logits, torch.full((2, 3), NAN))
        assert loss.item() == 0
        assert not torch.autograd.grad(loss, logits)[0].any()

    def test_large_logits_do_not_overflow(self) -> None:
        logits, targets = torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]])
        assert attribute_loss(logits, targets).item() == 1e4

    @pytest.mark.parametrize("rates", [None, torch.tensor([0.1, 0.5, 0.0, 1.0, 0.97])])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_sample_losses_are_those_of_each_sample_alone(self, dtype: torch.dtype, rates: Tensor | None) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = (4 * torch.randn(6, 5, generator=generator)).to(dtype)
        targets = torch.randint(2, (6, 5), generator=generator).float()
        targets[torch.rand(6, 5, generator=generator) < 0.3] = NAN
        targets[2], targets[4] = NAN, torch.tensor([NAN, NAN, 1, NAN, NAN])
        losses = attribute_sample_losses(logits, targets, rates)
        assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        alone = [attribute_loss(logits[i : i + 1], targets[i : i + 1], rates).item() for i in range(6)]
        assert losses.tolist() == pytest.approx(alone, rel=1e-6, abs=1e-6)
        assert losses[2] == 0
        assert losses[4].item() == pytest.approx(math.log1p(math.exp(-logits[4, 2].item())), rel=1e-6)

    def test_shapes_must_agree(self) -> None:
        for loss in (attribute_loss, attribute_sample_losses):
            with pytest.raises(ValueError, match=r"\(2, 1\).*\(2, 3\)"):
                loss(torch.zeros(2, 1), self.TARGETS)


def test_balanced_loss_is_a_weighted_sum() -> None:
    """By hand: 1 / 2p for a positive, 1 / 2(1 - p) for a negative; an attribute that all or none have weighs 1."""
    logits, targets = torch.randn(5, 4, dtype=torch.float64), torch.randint(2, (5, 4)).double()
    targets[1, 2] = math.nan
    rates = torch.tensor([0.1, 0.5, 0.0, 1.0])
    total, count = 0.0, 0
    for row_logits, row in zip(logits.tolist(), targets.tolist(), strict=True):
        for logit, truth, rate in zip(row_logits, row, rates.double().tolist(), strict=True):
            if truth == truth:
                weight = 1.0 if rate in (0, 1) else 0.5 / rate if truth else 0.5 / (1 - rate)
                total += weight * math.log1p(math.exp(-logit if truth else logit))
                count += 1
    torch.testing.assert_close(attribute_loss(logits, targets, rates), torch.tensor(total / count).double())


def test_balanced_loss_is_the_plain_one_where_half_are_positive() -> None:
    logits, targets = torch.randn(5, 4), torch.randint(2, (5, 4)).float()
    torch.testing.assert_close(attribute_loss(logits, targets, torch.full((4,), 0.5)), attribute_loss(logits, targets))


class TestSoftmaxLoss:
    CLASSES = torch.tensor([3, -1, 0, 3, -7, 1])
    """Two images of one class, two of others, two of unknown class."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_is_the_definition(self, dtype: torch.dtype) -> None:
        logits = (3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))).to(dtype)
        expected = [
            math.log(sum(map(math.exp, row))) - row[number] if number >= 0 else 0.0
            for row, number in zip(logits.double().tolist(), self.CLASSES.tolist(), strict=True)
        ]
        loss, losses = softmax_loss(logits, self.CLASSES), softmax_sample_losses(logits, self.CLASSES)
        assert loss.dtype == losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        rounding = 1e-12 if dtype == torch.float64 else 1e-5
        assert losses.tolist() == pytest.approx(expected, rel=rounding)
        assert loss.item() == pytest.approx(sum(expected) / 4, rel=rounding)

    def test_an_unknown_class_teaches_nothing(self) -> None:
        logits = torch.randn(6, 4, requires_grad=True)
        softmax_loss(logits, self.CLASSES).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert logits.grad.any(dim=1).tolist() == (self.CLASSES >= 0).tolist()
        none = softmax_loss(logits, torch.full((6,), -1))
        assert none.item() == 0
        assert not torch.autograd.grad(none, logits)[0].any()


def similarity_reference(features: Tensor, identities: Tensor) -> float:
    """The definition, a pair at a time in Python's own floats: every ordered pair of one known identity."""
    vectors, people, distances = features.double().tolist(), identities.tolist(), []
    for i, first in enumerate(vectors):
        for j, second in enumerate(vectors):
            if i != j and people[i] == people[j] >= 0:
                distances.append(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)))
    return sum(distances) / len(distances) if distances else 0.0


class TestSimilarityLoss:
    IDENTITIES = torch.tensor([7, -1, 2, 7, 2, 5, -1, 7, 10_176])
    """Three images of one person, two of another, two with one image each, two of unknown people."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_is_the_definition(self, dtype: torch.dtype) -> None:
        features = (3 * torch.randn(9, 6, generator=torch.Generator().manual_seed(0)) + 2).to(dtype)
        loss = similarity_loss(features, self.IDENTITIES)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert loss.item() == pytest.approx(similarity_reference(features, self.IDENTITIES), rel=1e-5)

    @pytest.mark.parametrize("people", [1, 3, 20])
    def test_any_number_of_people(self, people: int) -> None:
        generator = torch.Generator().manual_seed(people)
        features = torch.randn(40, 5, generator=generator, dtype=torch.float64)
        identities = torch.randint(-1, people, (40,), generator=generator)
        loss = similarity_loss(features, identities)
        assert loss.item() == pytest.approx(similarity_reference(features, identities), rel=1e-12)

    def test_by_hand(self) -> None:
        """Distances 1, 4 and 9 of three images on a line, and 16 of two: each counts once in either order."""
        features = torch.tensor([[0.0], [1.0], [3.0], [10.0], [14.0]])
        loss = similarity_loss(features, torch.tensor([0, 0, 0, 1, 1]))
        assert loss.item() == pytest.approx((1 + 4 + 9 + 16) / 4)

    def test_gradient(self) -> None:
        features = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda vectors: similarity_loss(vectors, self.IDENTITIES), (features,))

    def test_far_from_the_origin_it_keeps_its_precision(self) -> None:
        features = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)) + 1000
        expected = similarity_reference(features, self.IDENTITIES)
        assert similarity_loss(features, self.IDENTITIES).item() == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("value", [0.5, float("inf"), NAN])
    def test_unknown_people_add_neither_loss_nor_gradient(self, value: float) -> None:
        features = torch.randn(9, 6)
        known = similarity_loss(features[self.IDENTITIES >= 0], self.IDENTITIES[self.IDENTITIES >= 0])
        features[self.IDENTITIES < 0] = value
        features.requires_grad_()
        loss = similarity_loss(features, self.IDENTITIES)
        (gradient,) = torch.autograd.grad(loss, features)
        torch.testing.assert_close(loss, known)
        reached = gradient.abs().sum(dim=1) > 0
        assert gradient.isfinite().all()
        assert reached.tolist() == [person in (2, 7) for person in self.IDENTITIES.tolist()]

    @pytest.mark.parametrize("identities", [[3, 1, 2], [-1, -1, -1], [-1, 4, -1], []])
    def test_no_pair_gives_zero_and_no_gradient(self, identities: list[int]) -> None:
        features = torch.randn(len(identities), 6, requires_grad=True)
        loss = similarity_loss(features, torch.tensor(identities, dtype=torch.int64))
        (gradient,) = torch.autograd.grad(loss, features)
        assert loss.item() == 0
        assert gradient.shape == features.shape
        assert (gradient == 0).all()

    @pytest.mark.parametrize("shapes", [((4, 2), (3,)), ((4,), (4,)), ((4, 2), (4, 1))])
    def test_shapes_must_agree(self, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        with pytest.raises(ValueError, match=r"\(B, D\) and identities \(B,\); found \(4"):
            similarity_loss(torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.int64))
