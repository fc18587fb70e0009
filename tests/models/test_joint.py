"""Joint training (Kalayeh et al., CVPR 2017, §4.4): what is shared, what each loss reaches, whose statistics count."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from facelightning.labels import HELEN7
from facelightning.losses import attribute_loss, parsing_loss
from facelightning.models.joint import JointNetwork, evaluating
from facelightning.models.segmentation import SegmentationNetwork

POOLINGS = pytest.mark.parametrize("semantic", [False, True], ids=["avg", "ssp"])


def make_network(semantic: bool) -> JointNetwork:
    torch.manual_seed(0)
    return JointNetwork(HELEN7, 40, width=2, semantic_pooling=semantic)


def trained_network(semantic: bool) -> JointNetwork:
    """Running statistics of real activations, as after training; with the initial ones signals fade layer by layer."""
    network = make_network(semantic)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.forward_pair(torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37))
    for norm in norms:
        norm.momentum = 0.1
    return network


def first_block(stage: nn.Sequential) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.PReLU]:
    """Of a stage of two."""
    convolution, norm, prelu = stage.get_submodule("0").children()
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(prelu, nn.PReLU)
    return convolution, norm, prelu


def losses(network: JointNetwork) -> tuple[Tensor, Tensor]:
    """Of three pictures to parse and four others to describe."""
    parsing, attributes = network.forward_pair(torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37))
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
        assert reached(network) == {"encoder", "tail", "pooling"}

    @POOLINGS
    def test_parsing_loss_reaches_encoder_and_decoder(self, semantic: bool) -> None:
        network = make_network(semantic)
        losses(network)[0].backward()  # type: ignore[no-untyped-call]
        assert reached(network) == {"encoder", "decoder"}

    @POOLINGS
    def test_on_the_same_pictures_too(self, semantic: bool) -> None:
        network = make_network(semantic)
        network(torch.rand(3, 3, 50, 37))[1].square().sum().backward()
        assert reached(network) == {"encoder", "tail", "pooling"}


class TestStatistics:
    @POOLINGS
    def test_encoder_sees_both_sets_of_pictures(self, semantic: bool) -> None:
        network = make_network(semantic)
        parsing_images, attribute_images = torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37) ** 3
        convolution, norm, _ = first_block(network.encoder.conv1)
        both = convolution(network.encoder.normalize(torch.cat([parsing_images, attribute_images])))
        network.forward_pair(parsing_images, attribute_images)
        torch.testing.assert_close(norm.running_mean, 0.1 * both.mean(dim=(0, 2, 3)))
        assert norm.num_batches_tracked == 1

    @POOLINGS
    def test_decoder_sees_the_pictures_to_parse_alone(self, semantic: bool) -> None:
        network = trained_network(semantic)
        alone = deepcopy(network)
        parsing_images, attribute_images = torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37) ** 3
        network.forward_pair(parsing_images, attribute_images)
        features = alone.encoder(torch.cat([parsing_images, attribute_images]))[:3]
        alone.decoder(features, (50, 37))
        for name, value in network.decoder.state_dict().items():
            torch.testing.assert_close(value, alone.decoder.state_dict()[name], msg=name)
        assert first_block(network.decoder.deconv4)[1].num_batches_tracked == 2

    def test_regions_are_those_of_prediction(self) -> None:
        """In training, too, SSP's regions come from the decoder in evaluation mode."""
        network = trained_network(semantic=True)
        modes: list[tuple[bool, bool]] = []
        head = network.decoder.predict2[1]
        head.register_forward_hook(lambda module, _, x: modes.append((module.training, x.requires_grad)))
        network.forward_pair(torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37))
        assert modes == [(True, True), (False, False)]
        assert all(module.training for module in network.modules())


class TestPrediction:
    @POOLINGS
    def test_forward_is_parse_and_describe(self, semantic: bool) -> None:
        network, images = trained_network(semantic).eval(), torch.rand(3, 3, 50, 37)
        parsing, attributes = network(images)
        torch.testing.assert_close(parsing, network.parse(images))
        torch.testing.assert_close(attributes, network.describe(images))

    @POOLINGS
    def test_pairs_do_not_mix(self, semantic: bool) -> None:
        network = trained_network(semantic).eval()
        to_parse, to_describe = torch.rand(3, 3, 50, 37), torch.rand(4, 3, 50, 37)
        parsing, attributes = network.forward_pair(to_parse, to_describe)
        torch.testing.assert_close(parsing, network.parse(to_parse))
        torch.testing.assert_close(attributes, network.describe(to_describe))

    def test_parsing_half_is_the_segmentation_network(self) -> None:
        network, images = trained_network(semantic=False).eval(), torch.rand(2, 3, 50, 37)
        parser = SegmentationNetwork(7, width=2).eval()
        halves = ("encoder.", "decoder.")
        parser.load_state_dict({k: v for k, v in network.state_dict().items() if k.startswith(halves)})
        torch.testing.assert_close(network.parse(images), parser(images))

    @POOLINGS
    def test_uint8_and_float_input_agree(self, semantic: bool) -> None:
        network, images = trained_network(semantic).eval(), torch.randint(256, (2, 3, 50, 37), dtype=torch.uint8)
        torch.testing.assert_close(network(images), network(images.float() / 255))

    @POOLINGS
    @pytest.mark.parametrize("size", [(109, 89), (64, 64), (37, 53)])
    def test_any_input_size(self, semantic: bool, size: tuple[int, int]) -> None:
        parsing, attributes = make_network(semantic).eval()(torch.rand(1, 3, *size))
        assert parsing[-1].shape == (1, 7, *size)
        assert attributes.shape == (1, 40)

    def test_region_weights(self) -> None:
        network, images = trained_network(semantic=True).eval(), torch.rand(2, 3, 50, 37)
        weights = network.region_weights(images)
        assert weights.shape == (2, 7, 40)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 40))
        with pytest.raises(ValueError, match="semantic pooling"):
            make_network(semantic=False).region_weights(images)


def test_pictures_of_two_sizes_are_an_error_that_names_both() -> None:
    with pytest.raises(ValueError, match=r"50 × 37.*64 × 48"):
        make_network(semantic=False).forward_pair(torch.rand(2, 3, 50, 37), torch.rand(2, 3, 64, 48))


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode(training: bool) -> None:
    module = nn.Sequential(nn.BatchNorm2d(2)).train(training)

    def fail() -> None:
        with evaluating(module):
            assert not module[0].training
            raise RuntimeError("from inside")

    with pytest.raises(RuntimeError, match="from inside"):
        fail()
    assert module.training is module[0].training is training
