"""The basic network of Kalayeh et al. (CVPR 2017), §3.1.1, its variants, and the frozen parser inside them."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adagrad

from facelightning.errors import ConfigurationError
from facelightning.losses import attribute_loss
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.blocks import ConvBlock
from facelightning.models.encoders import MaskedInput
from facelightning.models.gating import SemanticGating, SymbioticAugmentation
from facelightning.models.heads import LinearHead, LocalizationHead
from facelightning.models.pooling import AveragePooling, PyramidPooling, SemanticPooling
from facelightning.models.regions import BOXES, LandmarkBoxes
from tests.models.conftest import SIZE, landmarks, make_parser

CHANNELS = (3, 64, 64, 128, 128, 256, 256, 512, 512, 512, 512, 1024, 1024)
"""Of the image and the twelve layers."""

SSP: dict[str, Any] = {"pooling": SemanticPooling, "head": LocalizationHead}

VARIANTS: dict[str, dict[str, Any]] = {
    "avg": {},
    "spp": {"pooling": PyramidPooling},
    "ssp": SSP | {"regions": make_parser},
    "bbox": SSP | {"regions": LandmarkBoxes},
    "ssg": {"gate": SemanticGating, "regions": make_parser},
    "symbiotic": {"gate": SymbioticAugmentation, "regions": make_parser},
    "naive": {"image_input": MaskedInput, "regions": make_parser},
    "everything": SSP | {"gate": SemanticGating, "image_input": MaskedInput, "regions": make_parser},
}


def make_network(variant: str) -> AttributeNetwork:
    """A small network."""
    torch.manual_seed(0)
    return AttributeNetwork(40, 2, **VARIANTS[variant])


def train_step(network: AttributeNetwork) -> None:
    network.train()
    optimizer = Adagrad([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    logits = network(torch.rand(3, 3, *SIZE), landmarks(3))["attributes"]
    attribute_loss(logits, torch.randint(2, (3, 40)).float()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


class TestAttributeNetwork:
    def test_twelve_layers(self) -> None:
        """Channels and sizes; a pool stands before each increase of filters, 512 to 512 is none."""
        shapes: list[tuple[int, ...]] = []
        with torch.device("meta"):
            network = AttributeNetwork(40)
            for block in (module for module in network.modules() if isinstance(module, ConvBlock)):
                block.register_forward_hook(lambda _, __, x: shapes.append(tuple(x.shape[1:])))
            assert network(torch.rand(1, 3, 218, 178))["attributes"].shape == (1, 40)
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
        output = make_network(variant).eval()(torch.rand(2, 3, *size), landmarks(2))
        assert output["attributes"].shape == (2, 40)
        assert output["attributes"].isfinite().all()
        assert output["features"].shape == (2, 32, *(math.ceil(side / 16) for side in size))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_uint8_and_float_input_agree(self, variant: str) -> None:
        network, images = make_network(variant).eval(), torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8)
        torch.testing.assert_close(network(images, landmarks(2)), network(images.float() / 255, landmarks(2)))

    def test_is_average_pooling_of_the_last_map(self) -> None:
        network, images = make_network("avg"), torch.rand(2, 3, *SIZE)
        last: list[Tensor] = []
        network.tail.register_forward_hook(lambda _, __, x: last.append(x))
        output = network(images)
        classifier = network.get_submodule("head.classifier")
        assert last[0].shape == (2, 32, math.ceil(50 / 16), math.ceil(37 / 16))
        assert torch.equal(output["features"], last[0])
        torch.testing.assert_close(output["attributes"], classifier(last[0].flatten(2).mean(dim=2)))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_every_parameter_but_the_parsers_learns(self, variant: str) -> None:
        network = make_network(variant)
        train_step(network)
        learns = {name: p.grad is not None and bool(p.grad.any()) for name, p in network.named_parameters()}
        assert {name for name, does in learns.items() if not does} == {n for n in learns if n.startswith("regions.")}

    def test_region_weights(self) -> None:
        network, images = make_network("ssp"), torch.rand(2, 3, *SIZE)
        output = network(images)
        weights = output["region_weights"]
        assert weights.shape == (2, 7, 40)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 40))
        assert weights.std(dim=1).max() > 1e-3  # the test would else prove little
        assert network.regions is not None
        masks = network.regions(images, None).at(16)
        features = network.tail(network.encoder(images)[-1])
        means = torch.einsum("bchw,bnhw->bnc", features, masks) / masks.sum(dim=(2, 3)).unsqueeze(2)
        recognition = network.get_submodule("head.recognition")(means)
        torch.testing.assert_close((weights * recognition).sum(dim=1), output["attributes"])

    def test_boxes_need_landmarks(self) -> None:
        with pytest.raises(ConfigurationError, match=r"list_landmarks_align_celeba\.txt"):
            make_network("bbox")(torch.rand(1, 3, *SIZE))

    def test_weights_of_boxes(self) -> None:
        network = make_network("bbox")
        assert network.places == BOXES
        assert (len(network.places), network.places[-1]) == (16, "image")
        assert network(torch.rand(2, 3, *SIZE), landmarks(2))["region_weights"].shape == (2, 16, 40)

    def test_boxes_follow_the_landmarks(self) -> None:
        network, images = make_network("bbox").eval(), torch.rand(1, 3, *SIZE)
        there, elsewhere = (network(images, points)["attributes"] for points in (landmarks(1), landmarks(1) / 2))
        assert not torch.allclose(there, elsewhere)

    @pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
    @pytest.mark.parametrize("part", ["ssp", "ssg", "symbiotic", "naive"])
    def test_regions_and_their_use_go_together(self, part: str) -> None:
        settings = {key: value for key, value in VARIANTS[part].items() if key != "regions"}
        with pytest.raises(ConfigurationError, match=r"needs regions: set `regions` to ParserRegions"):
            AttributeNetwork(40, 2, **settings)
        with pytest.raises(ConfigurationError, match=r"no part .* needs regions, but `regions` is ParserRegions"):
            AttributeNetwork(40, 2, regions=make_parser)

    def test_a_mirrored_image_has_mirrored_regions(self) -> None:
        """Nothing but the network's kernels may tell left from right: with mirrored kernels, nothing changes."""
        network = make_network("everything").double().eval()
        images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
        expected = network(images)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.flip(3)
        mirrored = network(images.flip(3))
        for key in ("attributes", "region_weights"):
            torch.testing.assert_close(mirrored[key], expected[key], rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("variant", ["avg", "spp", "ssg"])
    def test_a_linear_head_weighs_no_regions(self, variant: str) -> None:
        assert set(make_network(variant)(torch.rand(2, 3, *SIZE))) == {"attributes", "features"}

    @pytest.mark.parametrize("pooling", [AveragePooling, PyramidPooling, SemanticPooling])
    @pytest.mark.parametrize("head", [LinearHead, LocalizationHead])
    def test_poolings_and_heads_are_free_to_combine(self, pooling: Any, head: Any) -> None:
        regions = make_parser if pooling is SemanticPooling else None
        network = AttributeNetwork(40, 2, pooling=pooling, head=head, regions=regions)
        output = network(torch.rand(2, 3, *SIZE))
        assert output["attributes"].shape == (2, 40)
        assert ("region_weights" in output) == (head is LocalizationHead)
        if head is LocalizationHead:
            assert output["region_weights"].shape == (2, len(network.places), 40)


class TestParserInside:
    def test_stays_in_evaluation_mode(self) -> None:
        network = make_network("ssp")
        for _ in range(2):
            network.train()
            assert network.regions is not None
            assert not any(module.training for module in network.regions.modules())
            assert all(module.training for module in network.tail.modules())
            assert all(module.training for module in network.encoder.modules())
            network(torch.rand(2, 3, *SIZE))
            assert not any(module.training for module in network.regions.modules())
            network.eval()

    def test_a_training_step_changes_nothing_of_it(self) -> None:
        network = make_network("ssp")
        before = {name: value.clone() for name, value in network.state_dict().items()}
        train_step(network)
        assert network.regions is not None
        assert all(p.grad is None and not p.requires_grad for p in network.regions.parameters())
        changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        assert not {name for name in changed if name.startswith("regions.")}
        assert "encoder.conv1.0.1.running_mean" in changed
        assert "head.localization.weight" in changed

    def test_parses_an_image_once(self) -> None:
        """Input, gate and pooling share one parsing."""
        network, runs = make_network("everything").eval(), list[str]()
        for name in ("encoder", *(f"decoder.stages.{number}" for number in range(4))):
            module = network.get_submodule(f"regions.network.{name}")
            module.register_forward_hook(lambda _, __, x, name=name: runs.append(name))
        network(torch.rand(2, 3, *SIZE))
        assert runs == ["encoder", *(f"decoder.stages.{number}" for number in range(4))]
