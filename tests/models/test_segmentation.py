"""The parser against Table 1 of Kalayeh et al. (CVPR 2017), layer by layer and size by size."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from facelightning.labels import IGNORE_INDEX
from facelightning.losses import parsing_loss
from facelightning.models.blocks import ConvBlock
from facelightning.models.segmentation import SegmentationNetwork

TABLE_1 = (
    # layer, channels, height, width
    ("Conv11", 64, 218, 178),
    ("Conv12", 64, 218, 178),
    ("MaxPool1", 64, 109, 89),
    ("Conv21", 128, 109, 89),
    ("Conv22", 128, 109, 89),
    ("MaxPool2", 128, 55, 45),
    ("Conv31", 256, 55, 45),
    ("Conv32", 256, 55, 45),
    ("MaxPool3", 256, 28, 23),
    ("Conv41", 512, 28, 23),
    ("Conv42", 512, 28, 23),
    ("Deconv41", 512, 28, 23),
    ("Deconv42", 512, 28, 23),
    ("UpSample3", 512, 55, 45),
    ("Deconv31", 256, 55, 45),
    ("Deconv32", 256, 55, 45),
    ("UpSample2", 256, 109, 89),
    ("Deconv21", 128, 109, 89),
    ("Deconv22", 128, 109, 89),
    ("UpSample1", 128, 218, 178),
    ("Deconv11", 64, 218, 178),
    ("Deconv12", 64, 218, 178),
    ("Deconv13", 7, 218, 178),
)
PREDICTIONS = ((7, 28, 23), (7, 55, 45), (7, 109, 89), (7, 218, 178))


def traced_layers(network: SegmentationNetwork, images: Tensor) -> list[tuple[str, int, int, int]]:
    """What really runs, in order, in the table's names; the three coarser predictions are no rows of it."""
    rows: list[tuple[str, int, int, int]] = []
    pools = iter(("MaxPool1", "MaxPool2", "MaxPool3"))

    def record(name: str, x: Tensor) -> None:
        rows.append((name, *x.shape[1:]))

    for depth in (1, 2, 3, 4):
        for side, stage in (("Conv", f"encoder.conv{depth}"), ("Deconv", f"decoder.deconv{depth}")):
            for number in (0, 1):
                block = network.get_submodule(f"{stage}.{number}")
                assert isinstance(block, ConvBlock)
                name = f"{side}{depth}{number + 1}"
                block.register_forward_hook(lambda _, __, x, name=name: record(name, x))
    for depth in (1, 2, 3):
        stage_module = network.get_submodule(f"decoder.deconv{depth}")
        stage_module.register_forward_pre_hook(lambda _, x, name=f"UpSample{depth}": record(name, x[0]))
    network.encoder.pool.register_forward_hook(lambda _, __, x: record(next(pools), x))
    network.decoder.predict1.register_forward_hook(lambda _, __, x: record("Deconv13", x))
    network(images)
    return rows


class TestTable1:
    def test_layers(self) -> None:
        with torch.device("meta"):  # sizes without arithmetic
            assert tuple(traced_layers(SegmentationNetwork(7), torch.rand(1, 3, 218, 178))) == TABLE_1

    def test_predictions(self) -> None:
        with torch.device("meta"):
            predictions = SegmentationNetwork(7)(torch.rand(1, 3, 218, 178))
        assert tuple(tuple(logits.shape[1:]) for logits in predictions) == PREDICTIONS

    def test_predictions_are_made_before_each_upsampling(self) -> None:
        """From what Deconv42, 32, 22 and 12 return, whose sizes the table gives."""
        network = SegmentationNetwork(7, width=2)
        seen: list[tuple[str, Tensor]] = []
        for depth in (4, 3, 2, 1):
            stage = network.get_submodule(f"decoder.deconv{depth}")
            stage.register_forward_hook(lambda _, __, x: seen.append(("stage", x)))
            head = network.get_submodule(f"decoder.predict{depth}")
            head.register_forward_pre_hook(lambda _, x: seen.append(("head", x[0])))
        network(torch.rand(2, 3, 24, 20))
        assert [name for name, _ in seen] == ["stage", "head"] * 4
        assert all(stage is head for (_, stage), (_, head) in zip(seen[::2], seen[1::2], strict=True))

    def test_parameters(self) -> None:
        """Counted from the table: 3×3 kernels without bias, BatchNorm's scale and shift, PReLU's slopes."""
        channels = [c for name, c, *_ in TABLE_1 if "onv" in name]  # Conv and Deconv
        blocks = [*pairwise([3, *channels]), (512, 7), (256, 7), (128, 7)]
        expected = sum(9 * inputs * outputs + 3 * outputs for inputs, outputs in blocks)
        with torch.device("meta"):
            network = SegmentationNetwork(7)
        assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("size", [(109, 89), (64, 64), (37, 53), (8, 8), (1, 1)])
def test_any_input_size(size: tuple[int, int]) -> None:
    predictions = SegmentationNetwork(11, width=2).eval()(torch.rand(1, 3, *size))
    expected = [tuple(math.ceil(side / 2**depth) for side in size) for depth in (3, 2, 1, 0)]
    assert [tuple(logits.shape) for logits in predictions] == [(1, 11, *scale) for scale in expected]


@pytest.mark.parametrize("size", [(32, 48), (37, 53), (218, 178)])
def test_upsampling_repeats(size: tuple[int, int]) -> None:
    """Nearest neighbour (§3.2): every value stands twice in both directions, the last odd one once."""
    decoder = SegmentationNetwork(7, width=1).eval().decoder
    outputs, inputs = [], []
    for coarse, fine in ((decoder.deconv4, decoder.deconv3), (decoder.deconv3, decoder.deconv2)):
        coarse.register_forward_hook(lambda _, __, x: outputs.append(x))
        fine.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    decoder(torch.randn(1, 8, math.ceil(size[0] / 8), math.ceil(size[1] / 8)), size)
    for before, after in zip(outputs, inputs, strict=True):
        rows, columns = torch.arange(after.shape[2]) // 2, torch.arange(after.shape[3]) // 2
        assert torch.equal(after, before[:, :, rows[:, None], columns])


def test_fewer_scales_are_the_same_predictions_and_skip_the_rest() -> None:
    torch.manual_seed(0)
    network, images = SegmentationNetwork(7, width=2).eval(), torch.rand(2, 3, 37, 53)
    every = network(images)
    network.decoder.deconv1.register_forward_hook(lambda *_: pytest.fail("the finest scale was computed"))
    some = network(images, scales=3)
    assert len(some) == 3
    assert all(torch.equal(a, b) for a, b in zip(some, every[:3], strict=True))


def test_uint8_and_float_input_agree() -> None:
    network, images = SegmentationNetwork(7, width=2), torch.randint(256, (2, 3, 24, 20), dtype=torch.uint8)
    for a, b in zip(network(images), network(images.float() / 255), strict=True):
        torch.testing.assert_close(a, b)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork(7, width=2)
    mask = torch.randint(7, (3, 37, 53))
    mask[0] = IGNORE_INDEX
    parsing_loss(network(torch.rand(3, 3, 37, 53)), mask).backward()  # type: ignore[no-untyped-call]
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name
