"""Heads against loops in float64 and hand-made cases, alone and behind semantic pooling, as SSP is."""

import math

import pytest
import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTE_GROUPS, ATTRIBUTES
from facelightning.models.heads import ClusterHead, GroupHead, Head, LinearHead, LocalizationHead
from facelightning.models.pooling import AveragePooling, Pooled, SemanticPooling
from tests.models.conftest import KnownRegions


def ssp(head: LocalizationHead, features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and region weights of features, where regions are known."""
    output = head(SemanticPooling(16)(features, KnownRegions(masks, stride=16)))
    return output["logits"], output["region_weights"]


def reference(head: LocalizationHead, features: Tensor, masks: Tensor) -> tuple[list[list[float]], Tensor]:
    """§3.1.2 of Kalayeh et al. in Python's own floats: logits, and weights ``(B, N, A)``; all regions present."""
    recognition, bias = head.recognition.weight.tolist(), head.recognition.bias.tolist()
    localization = head.localization.weight.tolist()
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


def small_case(dtype: torch.dtype = torch.float64) -> tuple[LocalizationHead, Tensor, Tensor]:
    """A head of 5 channels and 4 attributes, features ``(2, 5, 3, 4)``, masks ``(2, 3, 3, 4)`` without zeros."""
    torch.manual_seed(0)
    head = LocalizationHead(5, 3, 4).to(dtype)
    return head, 3 * torch.randn(2, 5, 3, 4, dtype=dtype), torch.rand(2, 3, 3, 4, dtype=dtype) + 0.01


class TestLocalizationHead:
    def test_is_the_definition(self) -> None:
        head, features, masks = small_case()
        logits, weights = ssp(head, features, masks)
        expected_logits, expected_weights = reference(head, features, masks)
        torch.testing.assert_close(logits, torch.tensor(expected_logits, dtype=torch.float64))
        torch.testing.assert_close(weights, expected_weights)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
    def test_lower_precision(self, dtype: torch.dtype, tolerance: float) -> None:
        head, features, masks = small_case(dtype)
        expected, _ = reference(head, features, masks)
        logits, _ = ssp(head, features, masks)
        torch.testing.assert_close(logits.float(), torch.tensor(expected), rtol=0, atol=tolerance)

    def test_by_hand(self) -> None:
        """Regions with means 1 and 3 weigh 1 : 2 and are scored 3 and 7."""
        head = LocalizationHead(1, 2, 1)
        with torch.no_grad():
            head.recognition.weight.fill_(2)
            head.recognition.bias.fill_(1)
            head.localization.weight.fill_(math.log(2) / 2)
        features, masks = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 0.5]]]])
        logits, weights = ssp(head, features, masks)
        torch.testing.assert_close(weights[0, :, 0], torch.tensor([1 / 3, 2 / 3]))
        torch.testing.assert_close(logits, torch.tensor([[17 / 3]]))

    def test_does_not_depend_on_the_masks_scale(self) -> None:
        head, features, masks = small_case()
        torch.testing.assert_close(ssp(head, features, masks), ssp(head, features, 1e-6 * masks))

    def test_equal_masks_are_average_pooling(self) -> None:
        head, features, _ = small_case()
        linear = LinearHead(5, 1, 4).double()
        linear.classifier.load_state_dict(head.recognition.state_dict())
        logits, weights = ssp(head, features, torch.full((2, 7, 3, 4), 1 / 7, dtype=torch.float64))
        torch.testing.assert_close(logits, linear(AveragePooling()(features))["logits"])
        torch.testing.assert_close(weights, torch.full((2, 7, 4), 1 / 7).double())

    def test_weights_sum_to_one(self) -> None:
        head, features, masks = small_case(torch.float32)
        _, weights = ssp(head, 100 * features, masks)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 4))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_absent_region_is_as_if_it_were_not_there(self, dtype: torch.dtype) -> None:
        head, features, masks = small_case(dtype)
        with_absent = masks.clone()
        with_absent[0, 1] = 0
        logits, weights = ssp(head, features, with_absent)
        assert (weights[0, 1] == 0).all()
        assert (weights[1] > 0).all()
        torch.testing.assert_close(logits[:1], ssp(head, features[:1], masks[:1, [0, 2]])[0])
        torch.testing.assert_close(logits[1:], ssp(head, features[1:], masks[1:])[0])

    @pytest.mark.parametrize("absent", [[1], [0, 1, 2]])
    def test_absent_regions_have_finite_gradients(self, absent: list[int]) -> None:
        head, features, masks = small_case(torch.float32)
        masks[0, absent] = 0
        features.requires_grad_()
        masks.requires_grad_()
        logits, _ = ssp(head, features, masks)
        logits.square().sum().backward()  # type: ignore[no-untyped-call]
        assert logits.isfinite().all()
        for x in (features, masks, *head.parameters()):
            assert x.grad is not None
            assert x.grad.isfinite().all()
            assert x.grad.any()

    def test_without_any_region_nothing_is_said(self) -> None:
        head, features, masks = small_case()
        masks[0] = 0
        features.requires_grad_()
        logits, weights = ssp(head, features, masks)
        logits.sum().backward()  # type: ignore[no-untyped-call]
        assert features.grad is not None
        assert (logits[0] == 0).all()
        assert (features.grad[0] == 0).all()
        assert features.grad[1].any()
        assert (weights[0] == 0).all()

    def test_gradients(self) -> None:
        head, features, masks = small_case()
        features.requires_grad_()
        masks.requires_grad_()
        assert torch.autograd.gradcheck(lambda x, regions: ssp(head, x, regions)[0], (features, masks))
        absent = masks.detach().clone()
        absent[0, 2] = 0
        assert torch.autograd.gradcheck(lambda x: ssp(head, x, absent)[0], features)


class TestLinearHead:
    def test_is_the_definition(self) -> None:
        """Each place has weights of its own; their scores are added to one bias."""
        torch.manual_seed(0)
        head, vectors = LinearHead(5, 3, 4).double(), torch.randn(2, 3, 5, dtype=torch.float64)
        output = head(Pooled(vectors, torch.ones(2, 3, 1, dtype=torch.bool)))
        weight = head.classifier.weight.view(4, 3, 5)
        torch.testing.assert_close(
            output["logits"], torch.einsum("bnc,anc->ba", vectors, weight) + head.classifier.bias
        )
        assert set(output) == {"logits"}

    def test_gradients(self) -> None:
        head = LinearHead(5, 3, 4).double()
        vectors = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
        present = torch.ones(2, 3, 1, dtype=torch.bool)
        assert torch.autograd.gradcheck(lambda x: head(Pooled(x, present))["logits"], vectors)


@pytest.mark.parametrize("head", [LinearHead, LocalizationHead])
def test_every_image_is_scored_by_itself(head: type[Head]) -> None:
    torch.manual_seed(0)
    module, vectors = head(5, 3, 4), torch.randn(6, 3, 5)
    present = torch.rand(6, 3, 1) > 0.3
    together = module(Pooled(vectors, present))["logits"]
    assert together.shape == (6, 4)
    alone = [module(Pooled(vectors[[i]], present[[i]]))["logits"] for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_group_head_is_nine_heads() -> None:
    """Each group: a convolution, a hidden layer and a classifier of its own, on all places."""
    torch.manual_seed(0)
    head = GroupHead(8, 4, 40, filters=3, width=5).double()
    vectors = torch.rand(6, 4, 8, dtype=torch.float64)
    logits = head(Pooled(vectors, torch.ones(6, 4, 1, dtype=torch.bool)))["logits"]
    for number, names in enumerate(ATTRIBUTE_GROUPS.values()):
        convolution = nn.Conv2d(8, 3, kernel_size=1).double()
        hidden, classifier = nn.Linear(12, 5).double(), nn.Linear(5, len(names)).double()
        with torch.no_grad():
            rows = slice(3 * number, 3 * number + 3)
            convolution.weight.copy_(head.convolution.weight[rows, :, None, None])
            convolution.bias.copy_(head.convolution.bias[rows])
            hidden.weight.copy_(head.hidden.weight[number].T)
            hidden.bias.copy_(head.hidden.bias[number, 0])
            classifier.weight.copy_(head.classifier.weight[number, :, : len(names)].T)
            classifier.bias.copy_(head.classifier.bias[number, 0, : len(names)])
        maps = convolution(vectors.transpose(1, 2).unflatten(2, (2, 2))).relu()  # a map of 2×2 places
        expected = classifier(hidden(maps.permute(0, 2, 3, 1).flatten(1)).relu())
        found = logits[:, [ATTRIBUTES.index(name) for name in names]]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ConfigurationError, match="40 attributes, not of 3"):
        GroupHead(8, 4, 3)


class TestClusterHead:
    """The rule of LMLE: the class with the larger margin, by the nearest clusters of each."""

    def head(self, neighbours: int = 2) -> ClusterHead:
        torch.manual_seed(0)
        head = ClusterHead(6, 2, 4, dimensions=3, clusters=3, neighbours=neighbours)
        # as means of vectors of length 1 are
        head.sums.copy_(0.9 * nn.functional.normalize(torch.randn(4, 2, 3, 3), dim=3))
        head.sizes.fill_(3)
        head.sums.mul_(3)
        return head

    def distances(self, head: ClusterHead, embedding: Tensor, a: int, kind: int) -> list[float]:
        """Squared ones to the clusters of a class that are not empty, ascending."""
        there = [k for k in range(3) if head.sizes[a, kind, k] >= 0.5]
        return sorted(
            math.dist(embedding.tolist(), (head.sums[a, kind, k] / head.sizes[a, kind, k]).tolist()) ** 2 for k in there
        )

    @pytest.mark.parametrize("neighbours", [1, 2, 3])
    def test_is_the_definition(self, neighbours: int) -> None:
        head = self.head(neighbours)
        head.sizes[1, 0, 2] = 0.4  # one cluster is empty, and one class has one alone
        head.sizes[2, 1, 1:] = 0
        output = head(Pooled(torch.randn(5, 2, 6), torch.ones(5, 2, 1, dtype=torch.bool)))
        torch.testing.assert_close(output["embeddings"].norm(dim=2), torch.ones(5, 4))
        for b in range(5):
            for a in range(4):
                near = [self.distances(head, output["embeddings"][b, a], a, kind)[:neighbours] for kind in (0, 1)]
                margin = [min(near[1 - kind]) - max(near[kind]) for kind in (0, 1)]
                assert output["logits"][b, a].item() == pytest.approx(margin[1] - margin[0], abs=1e-5)

    def test_a_class_without_clusters_is_as_far_as_can_be(self) -> None:
        head = self.head()
        head.sizes[0, 1], head.sizes[3] = 0, 0
        output = head(Pooled(torch.randn(2, 2, 6), torch.ones(2, 2, 1, dtype=torch.bool)))
        near = self.distances(head, output["embeddings"][1, 0], 0, 0)
        assert output["logits"][1, 0].item() == pytest.approx(near[0] + near[1] - 8, abs=1e-5)
        assert output["logits"][:, 3].tolist() == [0, 0]

    def test_a_network_of_lower_precision_keeps_its_clusters(self) -> None:
        head = self.head()
        sums = head.sums.clone()
        head.to(torch.bfloat16)
        pooled = Pooled(torch.randn(2, 2, 6, dtype=torch.bfloat16), torch.ones(2, 2, 1, dtype=torch.bool))
        assert torch.equal(head.sums, sums) and head(pooled)["logits"].dtype == torch.float32

    def test_a_trained_head_is_kept_in_a_checkpoint(self) -> None:
        head, fresh = self.head(), ClusterHead(6, 2, 4, dimensions=3, clusters=3)
        fresh.load_state_dict(head.state_dict())
        assert torch.equal(fresh.sums, head.sums) and torch.equal(fresh.sizes, head.sizes)

    @pytest.mark.parametrize("options", [{"dimensions": 0}, {"neighbours": 0}, {"neighbours": 5}])
    def test_numbers_out_of_range_are_refused(self, options: dict[str, int]) -> None:
        with pytest.raises(ConfigurationError, match="must be positive, and neighbours"):
            ClusterHead(6, 2, 4, **options)
