"""One contract for the paper's encoder and torchvision's backbones, and the networks that are made of them."""

import math
import urllib.error
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.labels import HELEN7
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.encoders import (
    Encoder,
    EncoderFactory,
    Input,
    MaskedInput,
    PaperEncoder,
    PlainInput,
    TorchvisionEncoder,
    make_encoder,
)
from facelightning.models.gating import Gate, SemanticGating, SymbioticAugmentation
from facelightning.models.heads import LinearHead, LocalizationHead
from facelightning.models.joint import JointNetwork
from facelightning.models.pooling import AveragePooling, PyramidPooling, SemanticPooling
from facelightning.models.segmentation import SegmentationNetwork
from tests.models.conftest import KnownRegions, make_parser, settle

BACKBONES = ("resnet18", "convnext_tiny", "efficientnet_b0", "mobilenet_v3_small")
"""The smallest of each family."""

ENCODERS: dict[str, EncoderFactory] = {
    "paper": partial(PaperEncoder, width=2),
    # efficientnet_b0 is built as mobilenet_v3_small is
    **{name: partial(TorchvisionEncoder, name=name) for name in BACKBONES if name != "efficientnet_b0"},
}

GATES = (SemanticGating, SymbioticAugmentation)


@pytest.fixture(scope="module", params=ENCODERS)
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[[], Encoder]]:
    """Makes an encoder, by copying one: to draw the weights of a large one takes long."""
    torch.manual_seed(0)
    encoder = ENCODERS[request.param](PlainInput())
    yield lambda: deepcopy(encoder)


def random_regions(size: tuple[int, int], count: int = 7, batch: int = 2) -> KnownRegions:
    """Soft masks of images."""
    return KnownRegions((3 * torch.randn(batch, count, *size)).softmax(dim=1))


def projection(maps: list[Tensor]) -> Tensor:
    """One number that depends on every value; a plain sum would not change behind BatchNorm."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([(x * torch.randn(x.shape, generator=generator)).sum() for x in maps]).sum()


def dead(module: nn.Module) -> list[str]:
    """Names of the parameters without a gradient."""
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]


def is_the_contract(encoder: Encoder, maps: list[Tensor], size: tuple[int, int]) -> bool:
    """Whether maps have the channels and the sizes that an encoder says."""
    cells = [tuple(math.ceil(side / stride) for side in size) for stride in encoder.strides]
    return [tuple(x.shape[1:]) for x in maps] == [(c, *s) for c, s in zip(encoder.channels, cells, strict=True)]


class TestContract:
    def test_strides_are_powers_of_two(self, fresh: Callable[[], Encoder]) -> None:
        strides = fresh().strides
        assert strides == tuple(strides[0] * 2**depth for depth in range(len(strides)))
        assert 4 in strides  # where a gate stands
        assert strides[-1] in (8, 16, 32)

    @torch.no_grad()
    def test_channels_and_sizes(self, fresh: Callable[[], Encoder]) -> None:
        encoder = fresh().eval()
        for size in ((218, 178), (109, 89), (37, 53), (64, 64), (8, 8), (1, 1)):
            maps = encoder(torch.rand(2, 3, *size))
            assert is_the_contract(encoder, maps, size)
            assert all(x.isfinite().all() for x in maps)

    @torch.no_grad()
    def test_no_pixel_is_lost(self, fresh: Callable[[], Encoder]) -> None:
        """Every map sees the last odd row and column."""
        encoder, images = fresh().eval(), torch.rand(1, 3, 37, 53)
        settle(encoder, torch.rand(4, 3, 64, 48))
        for corner in ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)):
            changed = images.clone()
            changed[:, :, *corner] = 1 - changed[:, :, *corner]
            for before, after in zip(encoder.eval()(images), encoder(changed), strict=True):
                assert not torch.equal(before, after)

    @torch.no_grad()
    def test_uint8_and_float_input_agree(self, fresh: Callable[[], Encoder]) -> None:
        encoder, images = fresh().eval(), torch.randint(256, (2, 3, 50, 37), dtype=torch.uint8)
        torch.testing.assert_close(encoder(images), encoder(images.float() / 255))

    def test_every_parameter_learns(self, fresh: Callable[[], Encoder]) -> None:
        torch.manual_seed(0)
        encoder = fresh()
        projection(encoder(torch.rand(4, 3, 64, 48))).backward()  # type: ignore[no-untyped-call]
        assert dead(encoder) == []

    @torch.no_grad()
    def test_tail_is_what_it_says(self, fresh: Callable[[], Encoder]) -> None:
        encoder = fresh().eval()
        tail = encoder.tail().eval()
        features = tail(encoder(torch.rand(1, 3, 53, 37))[-1])
        assert features.shape == (1, tail.channels, math.ceil(53 / tail.stride), math.ceil(37 / tail.stride))

    @pytest.mark.parametrize("gate", GATES)
    def test_a_gate_keeps_the_contract(self, fresh: Callable[[], Encoder], gate: type[Gate]) -> None:
        encoder = fresh()
        encoder.add_gate(gate, 7)
        encoder.eval()
        for size in ((37, 53), (32, 32), (1, 1)):
            regions = random_regions(size, batch=1)
            with torch.no_grad():
                assert is_the_contract(encoder, encoder(torch.rand(1, 3, *size), regions), size)
            assert regions.asked == [4]

    @torch.no_grad()
    @pytest.mark.parametrize("gate", GATES)
    def test_a_gate_changes_what_stands_behind_it(self, fresh: Callable[[], Encoder], gate: type[Gate]) -> None:
        """Other regions, other maps; but not the finer ones."""
        torch.manual_seed(0)
        encoder, images = fresh(), torch.rand(2, 3, 64, 48)
        encoder.add_gate(gate, 7)
        settle(encoder, torch.rand(4, 3, 64, 48), random_regions((64, 48), batch=4))
        encoder.eval()
        some, others = (encoder(images, random_regions((64, 48))) for _ in range(2))
        for stride, a, b in zip(encoder.strides, some, others, strict=True):
            if stride < 4:
                assert torch.equal(a, b)
            elif stride > 4:
                assert not torch.allclose(a, b)

    @pytest.mark.parametrize("gate", GATES)
    def test_a_gate_learns(self, fresh: Callable[[], Encoder], gate: type[Gate]) -> None:
        """From the last map alone."""
        torch.manual_seed(0)
        encoder = fresh()
        encoder.add_gate(gate, 7)
        gates = [module for module in encoder.modules() if isinstance(module, Gate)]
        assert [type(module) for module in gates] == [gate]
        maps = encoder(torch.rand(4, 3, 64, 48), random_regions((64, 48), batch=4))
        projection(maps[-1:]).backward()  # type: ignore[no-untyped-call]
        assert dead(gates[0]) == []


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_masks_in_the_input(encoder: EncoderFactory) -> None:
    """Ten channels: the first layer sees them all, and learns from them all."""
    torch.manual_seed(0)
    masked, size = encoder(MaskedInput(7)), (50, 37)
    regions = random_regions(size, batch=4)
    maps = masked(torch.rand(4, 3, *size), regions)
    assert is_the_contract(masked, maps, size)
    assert regions.asked == [1]
    first = next(module for module in masked.modules() if isinstance(module, nn.Conv2d))
    projection(maps).backward()  # type: ignore[no-untyped-call]
    assert first.weight.grad is not None
    assert first.weight.shape[1] == 10
    assert (first.weight.grad.flatten(2).abs().amax(dim=(0, 2)) > 0).all()
    assert dead(masked) == []


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_masks_change_nothing_but_the_channels_of_the_first_convolution(encoder: EncoderFactory) -> None:
    with torch.device("meta"):
        plain, masked = encoder(PlainInput()), encoder(MaskedInput(7))
    shapes = [
        {name: tuple(p.shape) for name, p in e.named_parameters() if "input." not in name} for e in (plain, masked)
    ]
    assert shapes[0].keys() == shapes[1].keys()
    changed = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert len(changed) == 1
    (name,) = changed
    assert shapes[1][name] == (shapes[0][name][0], 10, *shapes[0][name][2:])
    old, new = (e.get_submodule(name.removesuffix(".weight")) for e in (plain, masked))
    assert (old.stride, old.padding) == (new.stride, new.padding)


class TestInput:
    def test_masked_input_is_normalised_channel_by_channel(self) -> None:
        torch.manual_seed(0)
        images, regions = torch.randint(256, (3, 3, 8, 6), dtype=torch.uint8), random_regions((8, 6), batch=3)
        stacked = MaskedInput(7)(images, regions)
        assert stacked.shape == (3, 10, 8, 6)
        assert stacked.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(stacked.mean(dim=(0, 2, 3)), torch.zeros(10), rtol=0, atol=1e-5)
        plain = torch.cat([images.float() / 255, regions.masks], dim=1)
        expected = (plain - plain.mean(dim=(0, 2, 3), keepdim=True)) / (
            plain.var(dim=(0, 2, 3), keepdim=True, unbiased=False) + 1e-5
        ).sqrt()
        torch.testing.assert_close(stacked, expected)

    @pytest.mark.parametrize("image_input", [PlainInput, MaskedInput])
    def test_channels_are_what_the_first_layer_sees(self, image_input: type[Input]) -> None:
        module = image_input(7)
        assert module(torch.rand(2, 3, 8, 6), random_regions((8, 6))).shape == (2, module.channels, 8, 6)

    def test_the_papers_encoder_if_none_is_asked_for(self) -> None:
        encoder = make_encoder(None, 3)
        assert isinstance(encoder, PaperEncoder)
        assert encoder.channels == (3, 6, 12, 24)
        other = make_encoder(partial(TorchvisionEncoder, name="mobilenet_v3_small"), 3, MaskedInput(2))
        assert isinstance(other, TorchvisionEncoder)


class TestPaperEncoder:
    def test_channels(self) -> None:
        with torch.device("meta"):
            encoder = PaperEncoder(PlainInput())
        assert (encoder.channels, encoder.strides) == ((64, 128, 256, 512), (1, 2, 4, 8))
        tail = encoder.tail()
        assert (tail.channels, tail.stride) == (1024, 16)

    @pytest.mark.parametrize("size", [(218, 178), (109, 89), (64, 64), (37, 53), (8, 8), (1, 1)])
    def test_last_map_is_an_eighth_rounded_up(self, size: tuple[int, int]) -> None:
        features = PaperEncoder(PlainInput(), width=2).eval()(torch.rand(1, 3, *size))[-1]
        assert features.shape == (1, 16, math.ceil(size[0] / 8), math.ceil(size[1] / 8))

    @pytest.mark.parametrize("gate", GATES)
    def test_a_gate_takes_the_place_of_conv32_and_its_pooling(self, gate: type[Gate]) -> None:
        encoder = PaperEncoder(PlainInput(), width=2)
        encoder.add_gate(gate, 7)
        sizes = list[tuple[int, ...]]()
        for name in ("conv3", "gate", "conv4"):
            encoder.get_submodule(name).register_forward_hook(lambda _, __, x: sizes.append(tuple(x.shape[1:])))
        encoder(torch.rand(2, 3, 50, 37), random_regions((50, 37)))
        assert sizes == [(8, 13, 10), (8, 7, 5), (16, 7, 5)]
        assert len(encoder.conv3) == 1


class TestTorchvisionEncoder:
    @pytest.mark.parametrize("name", BACKBONES)
    def test_is_the_backbone(self, name: str) -> None:
        """With the same weights, the last map is that of torchvision's own network before its pooling."""
        torch.manual_seed(0)
        model = torchvision.models.get_model(name)
        layers = model.features if hasattr(model, "features") else nn.Sequential(*list(model.children())[:-2])
        for module in layers.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.5)
        settle(layers, torch.randn(4, 3, 64, 64))
        encoder = TorchvisionEncoder(PlainInput(), name).eval()
        flat = nn.Sequential(*(layer for stage in encoder.stages for layer in stage.children()))
        flat.load_state_dict(layers.state_dict())
        for size in ((64, 96), (109, 89))[: 1 if encoder.pads else 2]:  # of a padded image the backbone sees less
            images = torch.rand(1, 3, *size)
            with torch.no_grad():
                torch.testing.assert_close(encoder(images)[-1], layers.eval()(encoder.input(images)))

    @pytest.mark.parametrize(
        ("name", "channels", "strides"),
        [
            ("resnet18", (64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
            ("convnext_tiny", (96, 192, 384, 768), (4, 8, 16, 32)),
            ("efficientnet_b0", (16, 24, 40, 112, 1280), (2, 4, 8, 16, 32)),
            ("mobilenet_v3_small", (16, 16, 24, 48, 576), (2, 4, 8, 16, 32)),
            ("mobilenet_v2", (16, 24, 32, 96, 1280), (2, 4, 8, 16, 32)),
        ],
    )
    def test_maps(self, name: str, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        """The last map of each resolution."""
        with torch.device("meta"):
            encoder = TorchvisionEncoder(PlainInput(), name)
        assert (encoder.channels, encoder.strides) == (channels, strides)
        assert len(encoder.tail()) == 0

    @pytest.mark.parametrize("name", ["resnet50", "efficientnet_v2_s", "mobilenet_v2"])
    def test_takes_other_kinds_of_block(self, name: str) -> None:
        with torch.device("meta"):
            encoder = TorchvisionEncoder(PlainInput(), name)
            assert is_the_contract(encoder, encoder.eval()(torch.rand(1, 3, 109, 89)), (109, 89))

    def test_making_one_changes_no_statistics(self) -> None:
        encoder = TorchvisionEncoder(PlainInput(), "mobilenet_v3_small")
        assert all(module.training for module in encoder.modules())
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.num_batches_tracked == 0
                assert isinstance(module.running_mean, Tensor)
                assert not module.running_mean.any()

    @pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
    def test_downloads_nothing_by_default(self, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def no_network(*_: Any, **__: Any) -> None:
            raise urllib.error.URLError("no network in this test")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.urlopen", no_network)
        TorchvisionEncoder(PlainInput(), name)
        assert not list(tmp_path.rglob("*.pth"))
        with pytest.raises(
            ConfigurationError,
            match=rf"no weights DEFAULT for {name} \(.*no network in this test.*torchvision has IMAGENET1K_V1",
        ):
            TorchvisionEncoder(PlainInput(), name, "DEFAULT")

    @pytest.mark.parametrize(("name", "close"), [("resnet19", "resnet18"), ("convnext_tini", "convnext_tiny")])
    def test_unknown_names_get_a_hint(self, name: str, close: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"no backbone is named '{name}'; did you mean {close}\?"):
            TorchvisionEncoder(PlainInput(), name)

    @pytest.mark.parametrize("name", ["alexnet", "vit_b_16", ""])
    def test_other_networks_are_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"no backbone is named '{name}'; it takes .*resnet18"):
            TorchvisionEncoder(PlainInput(), name)

    @pytest.mark.parametrize("weights", ["IMAGENET", "IMAGENET1K_V9", "ConvNeXt_Tiny_Weights.DEFAULT"])
    def test_unknown_weights_are_refused(self, weights: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"no weights {weights} for resnet18"):
            TorchvisionEncoder(PlainInput(), "resnet18", weights)

    def test_weights_see_rgb_alone(self) -> None:
        with pytest.raises(ConfigurationError, match="weights DEFAULT see RGB alone"):
            TorchvisionEncoder(MaskedInput(7), "resnet18", "DEFAULT")


SIZE = (53, 37)
"""Odd, and so that the coarsest map of a backbone is 2×2."""

PARTS = [
    (AveragePooling, LinearHead, None),
    (PyramidPooling, LocalizationHead, None),
    (SemanticPooling, LinearHead, None),
    (SemanticPooling, LocalizationHead, None),
    *((SemanticPooling, LocalizationHead, gate) for gate in GATES),
]


class TestNetworks:
    """Every part behind every encoder."""

    @torch.no_grad()
    @pytest.mark.parametrize(("pooling", "head", "gate"), PARTS)
    def test_attributes(self, fresh: Callable[[], Encoder], pooling: Any, head: Any, gate: Any) -> None:
        encoder = fresh()
        regions = None if gate is None and pooling is not SemanticPooling else make_parser
        network = AttributeNetwork(
            5, encoder=lambda _: encoder, gate=gate, pooling=pooling, head=head, regions=regions
        ).eval()
        output = network(torch.rand(2, 3, *SIZE))
        assert output["attributes"].shape == (2, 5)
        assert output["attributes"].isfinite().all()
        tail = network.tail
        assert output["features"].shape == (2, tail.channels, *(math.ceil(side / tail.stride) for side in SIZE))
        if head is LocalizationHead:
            torch.testing.assert_close(output["region_weights"].sum(dim=1), torch.ones(2, 5))

    @torch.no_grad()
    def test_segmentation(self, fresh: Callable[[], Encoder]) -> None:
        network = SegmentationNetwork(7, width=2, encoder=lambda _: fresh()).eval()
        predictions = network(torch.rand(2, 3, *SIZE))["parsing"]
        strides = [2**depth for depth in range(len(predictions))][::-1]
        assert strides[0] == network.encoder.strides[-1]
        assert [tuple(x.shape) for x in predictions] == [(2, 7, *(math.ceil(a / s) for a in SIZE)) for s in strides]
        assert all(x.isfinite().all() for x in predictions)

    @torch.no_grad()
    @pytest.mark.parametrize(("pooling", "head"), [(AveragePooling, LinearHead), (SemanticPooling, LocalizationHead)])
    def test_joint(self, fresh: Callable[[], Encoder], pooling: Any, head: Any) -> None:
        network = JointNetwork(HELEN7, 5, 2, encoder=lambda _: fresh(), pooling=pooling, head=head)
        for mode in (True, False):
            output = network.train(mode)(torch.rand(3, 3, *SIZE), torch.rand(2, 3, *SIZE))
            assert output["parsing"][-1].shape == (3, 7, *SIZE)
            assert output["attributes"].shape == (2, 5)
            assert all(x.isfinite().all() for x in (*output["parsing"], output["attributes"]))

    def test_every_parameter_of_a_backbone_learns_in_joint_training(self) -> None:
        torch.manual_seed(0)
        network = JointNetwork(
            HELEN7, 5, 2, encoder=ENCODERS["resnet18"], pooling=SemanticPooling, head=LocalizationHead
        )
        output = network(torch.rand(3, 3, 64, 48), torch.rand(4, 3, 64, 48))
        projection([*output["parsing"], output["attributes"]]).backward()  # type: ignore[no-untyped-call]
        assert dead(network) == []


def test_null_on_the_command_line_means_no_weights() -> None:
    """It arrives as this text."""
    encoder = TorchvisionEncoder(PlainInput(), "mobilenet_v3_small", "None")
    assert encoder.strides[0] == 2
