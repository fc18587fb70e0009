"""Joint training (Kalayeh et al., CVPR 2017, §4.4): what is shared, what each loss reaches, whose statistics count."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.labels import HELEN7
from facelightning.losses import attribute_loss, parsing_loss
from facelightning.models.heads import LocalizationHead
from facelightning.models.joint import JointNetwork
from facelightning.models.pooling import SemanticPooling
from facelightning.models.segmentation import SegmentationNetwork
from tests.models.conftest import settle

POOLINGS = pytest.mark.parametrize("semantic", [False, True], ids=["avg", "ssp"])

SSP: dict[str, Any] = {"pooling": SemanticPooling, "head": LocalizationHead}


def make_network(semantic: bool) -> JointNetwork:
    torch.manual_seed(0)
    return JointNetwork(HELEN7, 40, width=2, **(SSP if semantic else {}))


def trained_network(semantic: bool) -> JointNetwork:
    """In training mode, with statistics of real activations."""
    network = make_network(semantic)
    settle(network, torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37))
    return network


def parse(network: JointNetwork, images: Tensor) -> list[Tensor]:
    output = network(images, wanted=["parsing"])
    assert set(output) == {"parsing"}
    logits: list[Tensor] = output["parsing"]
    return logits


def describe(network: JointNetwork, images: Tensor) -> Tensor:
    output = network(images, wanted=["attributes"])
    assert "parsing" not in output
    logits: Tensor = output["attributes"]
    return logits


def first_block(stage: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.PReLU]:
    """Of a stage of two."""
    convolution, norm, prelu = stage.get_submodule("0").children()
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(prelu, nn.PReLU)
    return convolution, norm, prelu


def losses(network: JointNetwork) -> tuple[Tensor, Tensor]:
    """Of three images to parse and four others to describe."""
    output = network(torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37))
    parsing, attributes = output["parsing"], output["attributes"]
    assert [len(logits) for logits in parsing] == [3] * 4
    assert len(attributes) == 4
    return parsing_loss(parsing, torch.randint(7, (3, 50, 37))), attribute_loss(attributes, torch.rand(4, 40).round())


def reached(network: JointNetwork) -> set[str]:
    """The halves in which a parameter has a gradient other than zero."""
    return {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


class TestGradients:
    @POOLINGS
    def test_every_parameter_learns(self, semantic: bool) -> None:
        network = make_network(semantic)
        torch.stack(losses(network)).sum().backward()  # type: ignore[no-untyped-call]
        dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not dead

    @POOLINGS
    def test_attribute_loss_does_not_reach_the_decoder(self, semantic: bool) -> None:
        network = make_network(semantic)
        losses(network)[1].backward()  # type: ignore[no-untyped-call]
        assert reached(network) == {"encoder", "tail", "head"}

    @POOLINGS
    def test_parsing_loss_reaches_encoder_and_decoder(self, semantic: bool) -> None:
        network = make_network(semantic)
        losses(network)[0].backward()  # type: ignore[no-untyped-call]
        assert reached(network) == {"encoder", "decoder"}

    @POOLINGS
    def test_on_the_same_images_too(self, semantic: bool) -> None:
        network = make_network(semantic)
        network(torch.rand(3, 3, 50, 37))["attributes"].square().sum().backward()
        assert reached(network) == {"encoder", "tail", "head"}


class TestStatistics:
    @POOLINGS
    def test_encoder_sees_both_sets_of_images(self, semantic: bool) -> None:
        network = make_network(semantic)
        parsing_images, attribute_images = torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37) ** 3
        convolution, norm, _ = first_block(network.get_submodule("encoder.conv1"))
        both = convolution(network.get_submodule("encoder.input")(torch.cat([parsing_images, attribute_images])))
        network(parsing_images, attribute_images)
        torch.testing.assert_close(norm.running_mean, 0.1 * both.mean(dim=(0, 2, 3)))
        assert norm.num_batches_tracked == 1

    @POOLINGS
    def test_decoder_sees_the_images_to_parse_alone(self, semantic: bool) -> None:
        network = trained_network(semantic)
        alone = deepcopy(network)
        parsing_images, attribute_images = torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37) ** 3
        network(parsing_images, attribute_images)
        features = alone.encoder(torch.cat([parsing_images, attribute_images]))[-1][:3]
        alone.decoder(features, (50, 37))
        for name, value in network.decoder.state_dict().items():
            torch.testing.assert_close(value, alone.decoder.state_dict()[name], msg=name)
        assert first_block(network.get_submodule("decoder.stages.0"))[1].num_batches_tracked == 2

    def test_regions_are_those_of_prediction(self) -> None:
        """In training, too, SSP's regions come from the decoder in evaluation mode."""
        network = trained_network(semantic=True)
        modes: list[tuple[bool, bool]] = []
        norm = network.get_submodule("decoder.heads.2.1")
        norm.register_forward_hook(lambda module, _, x: modes.append((module.training, x.requires_grad)))
        network(torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37))
        assert modes == [(True, True), (False, False)]
        assert all(module.training for module in network.modules())


class TestPrediction:
    @POOLINGS
    def test_forward_is_parse_and_describe(self, semantic: bool) -> None:
        network, images = trained_network(semantic).eval(), torch.rand(3, 3, 50, 37)
        output = network(images)
        torch.testing.assert_close(output["parsing"], parse(network, images))
        torch.testing.assert_close(output["attributes"], describe(network, images))

    @POOLINGS
    def test_pairs_do_not_mix(self, semantic: bool) -> None:
        network = trained_network(semantic).eval()
        to_parse, to_describe = torch.rand(3, 3, 50, 37), torch.rand(3, 3, 50, 37)
        output = network(to_parse, to_describe)
        torch.testing.assert_close(output["parsing"], parse(network, to_parse))
        torch.testing.assert_close(output["attributes"], describe(network, to_describe))
        torch.testing.assert_close(output["features"], network(to_describe)["features"])

    def test_regions_are_those_that_it_parses(self) -> None:
        """SSP written out: the tail's map, pooled within the half-size prediction of the same images."""
        network, images = trained_network(semantic=True).eval(), torch.rand(2, 3, 50, 37)
        output = network(images)
        half = output["parsing"][-2].softmax(dim=1)
        masks = F.avg_pool2d(half, 8, ceil_mode=True)
        for part in ("eyes", "eyebrows", "nose", "mouth"):
            n = HELEN7.index(part)
            masks[:, n] = F.max_pool2d(half[:, n], 8, ceil_mode=True)
        features = network.tail(network.encoder(images)[-1])
        torch.testing.assert_close(output["features"], features)
        means = torch.einsum("bchw,bnhw->bnc", features, masks) / masks.sum(dim=(2, 3)).unsqueeze(2)
        weights = network.get_submodule("head.localization")(means).softmax(dim=1)
        torch.testing.assert_close(output["region_weights"], weights)
        recognition = network.get_submodule("head.recognition")(means)
        torch.testing.assert_close(output["attributes"], (recognition * weights).sum(dim=1))

    @POOLINGS
    def test_computes_what_is_wanted_alone(self, semantic: bool) -> None:
        """Attributes need the decoder for SSP alone, and never its finest stage."""
        network = trained_network(semantic).eval()
        runs: list[str] = []
        for name in ("tail", *(f"decoder.stages.{number}" for number in range(4))):
            module = network.get_submodule(name)
            module.register_forward_hook(lambda _, __, x, name=name: runs.append(name))
        stages = [f"decoder.stages.{number}" for number in range(4)]
        describe(network, torch.rand(2, 3, 50, 37))
        assert runs == ["tail", *(stages[:3] if semantic else [])]
        runs.clear()
        parse(network, torch.rand(2, 3, 50, 37))
        assert runs == stages
        runs.clear()
        network(torch.rand(2, 3, 50, 37))  # the regions are parsed already
        assert runs == [*stages, "tail"]

    def test_parsing_half_is_the_segmentation_network(self) -> None:
        network, images = trained_network(semantic=False).eval(), torch.rand(2, 3, 50, 37)
        parser = SegmentationNetwork(7, width=2).eval()
        halves = ("encoder.", "decoder.")
        parser.load_state_dict({k: v for k, v in network.state_dict().items() if k.startswith(halves)})
        torch.testing.assert_close(parse(network, images), parser(images)["parsing"])

    @POOLINGS
    def test_uint8_and_float_input_agree(self, semantic: bool) -> None:
        network, images = trained_network(semantic).eval(), torch.randint(256, (2, 3, 50, 37), dtype=torch.uint8)
        torch.testing.assert_close(network(images), network(images.float() / 255))

    @POOLINGS
    @pytest.mark.parametrize("size", [(109, 89), (64, 64), (37, 53)])
    def test_any_input_size(self, semantic: bool, size: tuple[int, int]) -> None:
        output = make_network(semantic).eval()(torch.rand(1, 3, *size))
        assert output["parsing"][-1].shape == (1, 7, *size)
        assert output["attributes"].shape == (1, 40)

    def test_region_weights(self) -> None:
        network, images = trained_network(semantic=True).eval(), torch.rand(2, 3, 50, 37)
        weights = network(images)["region_weights"]
        assert network.places == HELEN7.classes
        assert weights.shape == (2, 7, 40)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 40))
        assert weights.std(dim=1).max() > 1e-3
        assert "region_weights" not in make_network(semantic=False)(images)


def test_images_of_two_sizes_are_an_error_that_names_both() -> None:
    with pytest.raises(ConfigurationError, match=r"50 × 37.*64 × 48"):
        make_network(semantic=False)(torch.rand(2, 3, 50, 37), torch.rand(2, 3, 64, 48))
