"""The basic network of Kalayeh et al. (CVPR 2017), §3.1.1, and the frozen parser inside its SSP variant."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adagrad

from facelightning.errors import ConfigurationError
from facelightning.labels import HELEN7, HELEN11, LabelSpace
from facelightning.losses import attribute_loss
from facelightning.models.attributes import AttributeNetwork, Parser
from facelightning.models.blocks import ConvBlock
from facelightning.models.pooling import SemanticPooling, region_masks

CHANNELS = (3, 64, 64, 128, 128, 256, 256, 512, 512, 512, 512, 1024, 1024)
"""Of the picture and the twelve layers."""


VARIANTS: dict[str, dict[str, str]] = {
    "avg": {},
    "spp": {"pooling": "spp"},
    "ssp": {"pooling": "ssp"},
    "bbox": {"pooling": "bbox"},
    "ssg": {"gating": "ssg"},
    "symbiotic": {"gating": "symbiotic"},
    "naive": {"inputs": "rgb_masks"},
    "everything": {"pooling": "ssp", "gating": "ssg", "inputs": "rgb_masks"},
}


def make_network(variant: str) -> AttributeNetwork:
    """A small network; a parser in it has statistics of real activations, so that its regions differ."""
    torch.manual_seed(0)
    settings = VARIANTS[variant]
    if variant in ("avg", "spp", "bbox"):
        return AttributeNetwork(40, 2, **settings)
    parser = Parser(HELEN7, width=2)
    parser.network.train()
    norms = [module for module in parser.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    parser.network(torch.rand(3, 3, 50, 37))
    for norm in norms:
        norm.momentum = 0.1
    parser.eval()
    return AttributeNetwork(40, 2, **settings, parser=parser)


def landmarks(count: int) -> Tensor:
    """Five points in a picture of 50×37."""
    return torch.tensor([[10.0, 20], [27, 20], [18, 28], [12, 38], [25, 38]]).repeat(count, 1, 1)


def train_step(network: AttributeNetwork) -> None:
    network.train()
    optimizer = Adagrad([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    attribute_loss(network(torch.rand(3, 3, 50, 37), landmarks(3)), torch.randint(2, (3, 40)).float()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


class TestAttributeNetwork:
    def test_twelve_layers(self) -> None:
        """Channels and sizes; a pool stands before each increase of filters, 512 to 512 is none."""
        shapes: list[tuple[int, ...]] = []
        with torch.device("meta"):
            network = AttributeNetwork(40)
            for block in (module for module in network.modules() if isinstance(module, ConvBlock)):
                block.register_forward_hook(lambda _, __, x: shapes.append(tuple(x.shape[1:])))
            assert network(torch.rand(1, 3, 218, 178)).shape == (1, 40)
        sizes = [(218, 178)] * 2 + [(109, 89)] * 2 + [(55, 45)] * 2 + [(28, 23)] * 4 + [(14, 12)] * 2
        assert shapes == [(c, *size) for c, size in zip(CHANNELS[1:], sizes, strict=True)]

    def test_parameters(self) -> None:
        """3×3 kernels without bias, BatchNorm's scale and shift, PReLU's slopes, and the classifier: 24 M."""
        expected = sum(9 * a * b + 3 * b for a, b in pairwise(CHANNELS)) + 1024 * 40 + 40
        with torch.device("meta"):
            network = AttributeNetwork(40)
        assert sum(p.numel() for p in network.parameters()) == expected == 23_613_800

    @pytest.mark.parametrize("size", [(109, 89), (64, 64), (37, 53), (1, 1)])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_any_input_size(self, variant: str, size: tuple[int, int]) -> None:
        logits = make_network(variant).eval()(torch.rand(2, 3, *size), landmarks(2))
        assert logits.shape == (2, 40)
        assert logits.isfinite().all()

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_uint8_and_float_input_agree(self, variant: str) -> None:
        network, images = make_network(variant).eval(), torch.randint(256, (2, 3, 50, 37), dtype=torch.uint8)
        torch.testing.assert_close(network(images, landmarks(2)), network(images.float() / 255, landmarks(2)))

    def test_is_average_pooling_of_the_last_map(self) -> None:
        network, images = make_network("avg"), torch.rand(2, 3, 50, 37)
        last: list[Tensor] = []
        network.tail.register_forward_hook(lambda _, __, x: last.append(x))
        logits = network(images)
        classifier = network.pooling.get_submodule("classifier")
        assert last[0].shape == (2, 32, math.ceil(50 / 16), math.ceil(37 / 16))
        torch.testing.assert_close(logits, classifier(last[0].flatten(2).mean(dim=2)))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_every_parameter_but_the_parsers_learns(self, variant: str) -> None:
        network = make_network(variant)
        train_step(network)
        learns = {name: p.grad is not None and bool(p.grad.any()) for name, p in network.named_parameters()}
        assert {name for name, does in learns.items() if not does} == {n for n in learns if n.startswith("parser.")}

    def test_region_weights(self) -> None:
        network, images = make_network("ssp"), torch.rand(2, 3, 50, 37)
        weights = network.region_weights(images)
        assert weights.shape == (2, 7, 40)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 40))
        assert weights.std(dim=1).max() > 1e-3  # the test would else prove little
        assert network.parser is not None
        assert isinstance(network.pooling, SemanticPooling)
        recognition = network.pooling.scores(
            network.tail(network.encoder(images)), region_masks(network.parser(images, 3)[2], HELEN7.part_indices)
        )[0]
        torch.testing.assert_close((weights * recognition).sum(dim=1), network(images))

    def test_boxes_need_landmarks(self) -> None:
        with pytest.raises(ConfigurationError, match=r"list_landmarks_align_celeba\.txt"):
            make_network("bbox")(torch.rand(1, 3, 50, 37))

    def test_weights_of_boxes(self) -> None:
        network = make_network("bbox")
        assert network.regions is not None
        assert (len(network.regions), network.regions[-1]) == (16, "picture")
        assert network.region_weights(torch.rand(2, 3, 50, 37), landmarks(2)).shape == (2, 16, 40)

    @pytest.mark.parametrize("variant", ["avg", "ssp"])
    def test_parser_and_use_go_together(self, variant: str) -> None:
        with pytest.raises(ValueError, match="a parser is for"):
            AttributeNetwork(40, 2, variant, parser=Parser(HELEN7, 2) if variant == "avg" else None)

    def test_a_mirrored_picture_has_mirrored_regions(self) -> None:
        """Nothing but the network's kernels may tell left from right: with mirrored kernels, nothing changes."""
        network = make_network("everything").double().eval()
        images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
        expected = network(images)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.flip(3)
        torch.testing.assert_close(network(images.flip(3)), expected, rtol=1e-4, atol=1e-6)

    def test_average_pooling_weighs_no_regions(self) -> None:
        with pytest.raises(ValueError, match="semantic pooling"):
            AttributeNetwork(40, 2).region_weights(torch.rand(1, 3, 50, 37))


class TestParser:
    def test_stays_in_evaluation_mode(self) -> None:
        network = make_network("ssp")
        for _ in range(2):
            network.train()
            assert network.parser is not None
            assert not any(module.training for module in network.parser.modules())
            assert all(module.training for module in network.tail.modules())
            assert all(module.training for module in network.encoder.modules())
            network.eval()

    def test_a_training_step_changes_nothing_of_it(self) -> None:
        network = make_network("ssp")
        before = {name: value.clone() for name, value in network.state_dict().items()}
        train_step(network)
        assert network.parser is not None
        assert all(p.grad is None and not p.requires_grad for p in network.parser.parameters())
        changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        assert not {name for name in changed if name.startswith("parser.")}
        assert "encoder.conv1.0.1.running_mean" in changed
        assert "pooling.localization.weight" in changed

    @pytest.mark.parametrize("labels", [HELEN7, HELEN11])
    def test_masks_are_probabilities_on_the_last_map(self, labels: LabelSpace) -> None:
        parser = Parser(labels, width=1)
        masks = region_masks(parser(torch.rand(1, 3, 218, 178), 3)[2], labels.part_indices)
        assert masks.shape == (1, len(labels), 14, 12)
        assert not masks.requires_grad
        large = [index for index in range(len(labels)) if index not in labels.part_indices]
        assert ((masks >= 0) & (masks <= 1 + 1e-6)).all()
        assert (masks[:, large].sum(dim=1) < 1).all()

    def test_masks_come_from_the_half_size_prediction(self) -> None:
        """Hair is predicted everywhere at half size alone."""
        parser = Parser(HELEN7, width=1)
        head = parser.network.decoder.predict2[1]
        assert isinstance(head, nn.BatchNorm2d)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        head.bias.data[HELEN7.index("hair")] = 100
        masks = region_masks(parser(torch.rand(2, 3, 50, 37), 3)[2], HELEN7.part_indices)
        hair = torch.zeros(7)
        hair[HELEN7.index("hair")] = 1
        torch.testing.assert_close(masks, hair.view(1, 7, 1, 1).expand(2, 7, 4, 3))
