"""The parts of every network: what a block computes, at what sizes, and what it has no parameters for."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facelightning.errors import DataFormatError
from facelightning.labels import HELEN7
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.blocks import ConvBlock, Normalize, PReLU, evaluating, max_pool, prelu
from facelightning.models.heads import LocalizationHead
from facelightning.models.joint import JointNetwork
from facelightning.models.pooling import SemanticPooling
from facelightning.models.segmentation import SegmentationNetwork
from tests.models.conftest import make_parser

SSP = {"pooling": SemanticPooling, "head": LocalizationHead}


class TestNormalize:
    def test_is_zero_mean_and_unit_deviation_of_imagenet(self) -> None:
        image = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) + torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        torch.testing.assert_close(Normalize()(image), torch.ones(1, 3, 1, 1))

    def test_uint8_and_float_agree(self) -> None:
        values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
        torch.testing.assert_close(Normalize()(values), Normalize()(values.float() / 255))

    def test_is_channels_last(self) -> None:
        normalized = Normalize()(torch.rand(2, 3, 5, 4))
        assert normalized.is_contiguous(memory_format=torch.channels_last)
        assert normalized.shape == (2, 3, 5, 4)

    def test_is_not_learned(self) -> None:
        assert not list(Normalize().parameters())
        assert set(Normalize().state_dict()) == {"mean", "std"}  # travels in the checkpoint


class TestPReLU:
    @pytest.mark.parametrize("slopes", [(0.25, 0.0, 1.0), (0.5, -0.5, 1.5)], ids=["as trained", "any"])
    @pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels last", "first"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_is_pytorchs_to_the_last_bit(
        self, dtype: torch.dtype, layout: torch.memory_format, slopes: tuple[float, ...]
    ) -> None:
        torch.manual_seed(0)
        x = torch.randn(4, 3, 9, 7, dtype=dtype).contiguous(memory_format=layout)
        x[0, 0, 0, :2] = torch.tensor([0.0, -0.0])
        gradient = torch.randn_like(x)
        ours, theirs = ((x.clone().requires_grad_(), torch.tensor(slopes, dtype=dtype).requires_grad_()) for _ in "12")
        y, expected = prelu(*ours), nn.functional.prelu(*theirs)
        assert torch.equal(y, expected)
        y.backward(gradient)
        expected.backward(gradient)
        for value, reference in zip(ours, theirs, strict=True):
            assert value.grad is not None
            assert reference.grad is not None
            assert torch.equal(value.grad, reference.grad)

    def test_in_bfloat16_by_autocast(self) -> None:
        ours, theirs = PReLU(3), nn.PReLU(3)
        x = torch.randn(2, 3, 5, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            y, expected = ours(x), theirs(x)
        assert y.dtype == torch.bfloat16
        assert torch.equal(y, expected)
        y.sum().backward()
        expected.sum().backward()
        assert ours.weight.grad is not None
        assert ours.weight.grad.dtype == torch.float32
        assert torch.equal(ours.weight.grad, theirs.weight.grad)

    @pytest.mark.parametrize("shape", [(2, 2, 3, 2), (3, 2, 1, 1), (3, 2)])
    def test_derivatives(self, shape: tuple[int, ...]) -> None:
        """The first and the second, by finite differences."""
        torch.manual_seed(0)
        x, slopes = torch.randn(shape, dtype=torch.float64), torch.tensor([0.3, 1.7], dtype=torch.float64)
        if len(shape) == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        values = x.requires_grad_(), slopes.requires_grad_()
        assert torch.autograd.gradcheck(prelu, values)
        assert torch.autograd.gradgradcheck(prelu, values)

    def test_of_no_image(self) -> None:
        assert PReLU(3)(torch.empty(0, 3, 4, 5, memory_format=torch.channels_last)).shape == (0, 3, 4, 5)


class TestConvBlock:
    def test_is_convolution_batchnorm_prelu(self) -> None:
        """The three operations written out in float64, in training mode."""
        torch.manual_seed(0)
        block = ConvBlock(3, 5).double()
        conv, norm, prelu = block[0], block[1], block[2]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(prelu, nn.PReLU)
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
        nn.init.uniform_(prelu.weight)
        x = torch.randn(2, 3, 6, 7, dtype=torch.float64)

        padded = torch.zeros(2, 3, 8, 9, dtype=torch.float64)
        padded[:, :, 1:-1, 1:-1] = x
        y = torch.zeros(2, 5, 6, 7, dtype=torch.float64)
        for i in range(3):
            for j in range(3):
                y += torch.einsum("oc,bchw->bohw", conv.weight[:, :, i, j], padded[:, :, i : i + 6, j : j + 7])
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), unbiased=False, keepdim=True)
        y = (y - mean) / (var + 1e-5).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        y = y.clamp(min=0) + prelu.weight.view(-1, 1, 1) * y.clamp(max=0)
        torch.testing.assert_close(block(x), y)

    def test_serves_as_deconvolution(self) -> None:
        """A transposed convolution of stride 1 is a convolution with mirrored kernel and swapped channels."""
        torch.manual_seed(0)
        conv = ConvBlock(4, 6).double()[0]
        assert isinstance(conv, nn.Conv2d)
        x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
        deconvolved = F.conv_transpose2d(x, conv.weight.flip(2, 3).transpose(0, 1), stride=1, padding=1)
        torch.testing.assert_close(conv(x), deconvolved, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(conv(x), F.conv_transpose2d(x, conv.weight.transpose(0, 1), stride=1, padding=1))

    @pytest.mark.parametrize(
        ("network", "layers"),
        [
            pytest.param(SegmentationNetwork(7, 2), 8 + 8 + 4, id="segmentation"),
            pytest.param(AttributeNetwork(40, 2), 12, id="attributes"),
            pytest.param(AttributeNetwork(40, 2, regions=make_parser, **SSP), 12 + 20, id="attributes with parser"),
            pytest.param(JointNetwork(HELEN7, 40, 2, **SSP), 12 + 12, id="joint"),
        ],
    )
    def test_every_convolution_is_in_a_block_and_has_no_bias(self, network: nn.Module, layers: int) -> None:
        blocks = [module for module in network.modules() if isinstance(module, ConvBlock)]
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert [block[0] for block in blocks] == convolutions
        assert len(convolutions) == layers
        for block in blocks:
            conv = block[0]
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is None
            assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
            assert [type(part) for part in block] == [nn.Conv2d, nn.BatchNorm2d, PReLU]


class TestMaxPool:
    def test_keeps_the_last_odd_row_and_column(self) -> None:
        image = torch.arange(15.0).view(1, 1, 3, 5)
        assert max_pool()(image)[0, 0].tolist() == [[6, 8, 9], [11, 13, 14]]


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode(training: bool) -> None:
    module = nn.Sequential(nn.BatchNorm2d(2)).train(training)

    def fail() -> None:
        with evaluating(module):
            assert not module.training
            assert not module[0].training
            raise RuntimeError("from inside")

    with pytest.raises(RuntimeError, match="from inside"):
        fail()
    assert module.training is module[0].training is training


def test_evaluating_leaves_frozen_parts_frozen() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout())
    module[0].eval()
    with evaluating(module):
        assert not module[1].training
    assert [part.training for part in module.modules()] == [True, False, True]


@pytest.mark.parametrize("part", [Normalize, lambda: AttributeNetwork(2, width=2)], ids=["input", "network"])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 3, 40, 32) * 255, r"must lie in \[0, 1\]; found .* divide by 255"),
        (torch.rand(1, 3, 40, 32) * 2 - 1, r"must lie in \[0, 1\]"),
        (torch.full((1, 3, 40, 32), float("nan")), r"must lie in \[0, 1\]; found nan"),
        (torch.zeros(1, 3, 40, 32, dtype=torch.int64), "must be uint8 .* found torch.int64"),
        (torch.zeros(1, 3, 40, 32, dtype=torch.uint16), "must be uint8"),
        (torch.zeros(1, 3, 40, 32, dtype=torch.bool), "must be uint8"),
        (torch.rand(1, 1, 40, 32), r"must be \(B, 3, H, W\), RGB; found \(1, 1, 40, 32\)"),
        (torch.rand(1, 40, 32, 3), r"must be \(B, 3, H, W\)"),
        (torch.rand(3, 40, 32), r"must be \(B, 3, H, W\)"),
    ],
)
def test_images_of_another_kind_are_refused(part: Callable[[], nn.Module], images: Tensor, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        part()(images)
