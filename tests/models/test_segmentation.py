"""The parser against Table 1 of Kalayeh et al. (CVPR 2017), layer by layer and size by size."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from facelightning.labels import IGNORE_INDEX
from facelightning.losses import parsing_loss
from facelightning.models.blocks import ConvBlock
from facelightning.models.segmentation import Decoder, SegmentationNetwork

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
        for side, stage in (("Conv", f"encoder.conv{depth}"), ("Deconv", f"decoder.stages.{4 - depth}")):
            for number in (0, 1):
                block = network.get_submodule(f"{stage}.{number}")
                assert isinstance(block, ConvBlock)
                name = f"{side}{depth}{number + 1}"
                block.register_forward_hook(lambda _, __, x, name=name: record(name, x))
    for depth in (1, 2, 3):
        deconv = network.decoder.stages[4 - depth]
        deconv.register_forward_pre_hook(lambda _, x, name=f"UpSample{depth}": record(name, x[0]))
    network.get_submodule("encoder.pool").register_forward_hook(lambda _, __, x: record(next(pools), x))
    network.decoder.heads[3].register_forward_hook(lambda _, __, x: record("Deconv13", x))
    network(images)
    return rows


class TestTable1:
    def test_layers(self) -> None:
        with torch.device("meta"):  # sizes without arithmetic
            assert tuple(traced_layers(SegmentationNetwork(7), torch.rand(1, 3, 218, 178))) == TABLE_1

    def test_predictions(self) -> None:
        with torch.device("meta"):
            predictions = SegmentationNetwork(7)(torch.rand(1, 3, 218, 178))["parsing"]
        assert tuple(tuple(logits.shape[1:]) for logits in predictions) == PREDICTIONS

    def test_predictions_are_made_before_each_upsampling(self) -> None:
        """From what Deconv42, 32, 22 and 12 return, whose sizes the table gives."""
        network = SegmentationNetwork(7, width=2)
        seen: list[tuple[str, Tensor]] = []
        for stage, head in zip(network.decoder.stages, network.decoder.heads, strict=True):
            stage.register_forward_hook(lambda _, __, x: seen.append(("stage", x)))
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
    predictions = SegmentationNetwork(11, width=2).eval()(torch.rand(1, 3, *size))["parsing"]
    expected = [tuple(math.ceil(side / 2**depth) for side in size) for depth in (3, 2, 1, 0)]
    assert [tuple(logits.shape) for logits in predictions] == [(1, 11, *scale) for scale in expected]


@pytest.mark.parametrize("size", [(32, 48), (37, 53), (218, 178)])
def test_upsampling_repeats(size: tuple[int, int]) -> None:
    """Nearest neighbour (§3.2): every value stands twice in both directions, the last odd one once."""
    decoder = SegmentationNetwork(7, width=1).eval().decoder
    outputs, inputs = [], []
    for coarse, fine in pairwise(decoder.stages):
        coarse.register_forward_hook(lambda _, __, x: outputs.append(x))
        fine.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    decoder(torch.randn(1, 8, math.ceil(size[0] / 8), math.ceil(size[1] / 8)), size)
    for before, after in zip(outputs, inputs, strict=True):
        rows, columns = torch.arange(after.shape[2]) // 2, torch.arange(after.shape[3]) // 2
        assert torch.equal(after, before[:, :, rows[:, None], columns])


def test_stage_by_stage_is_the_whole() -> None:
    """Each stage goes on from the features of the one before."""
    torch.manual_seed(0)
    decoder, x = SegmentationNetwork(7, width=2).eval().decoder, torch.randn(2, 16, 5, 7)
    every = decoder(x, (37, 53))
    for index, logits in enumerate(every):
        x, prediction = decoder.step(index, x, (37, 53))
        assert torch.equal(prediction, logits)


def test_uint8_and_float_input_agree() -> None:
    network, images = SegmentationNetwork(7, width=2), torch.randint(256, (2, 3, 24, 20), dtype=torch.uint8)
    for a, b in zip(network(images)["parsing"], network(images.float() / 255)["parsing"], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("size", [(109, 89), (64, 64), (37, 53), (1, 1)])
def test_a_stage_for_each_power_of_two(stride: int, size: tuple[int, int]) -> None:
    """From the stride of any encoder to the images' own size; the last four stages are the paper's."""
    decoder = Decoder(in_channels=5, stride=stride, num_classes=7, width=2).eval()
    assert decoder.strides == tuple(s for s in (32, 16, 8, 4, 2, 1) if s <= stride)
    widths = [module.in_channels for module in decoder.heads.modules() if isinstance(module, nn.Conv2d)]
    assert widths == [16, 16, 16, 8, 4, 2][-len(widths) :]
    predictions = decoder(torch.randn(2, 5, *(math.ceil(side / stride) for side in size)), size)
    assert [x.shape[2:] for x in predictions] == [tuple(math.ceil(a / s) for a in size) for s in decoder.strides]


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork(7, width=2)
    mask = torch.randint(7, (3, 37, 53))
    mask[0] = IGNORE_INDEX
    parsing_loss(network(torch.rand(3, 3, 37, 53))["parsing"], mask).backward()  # type: ignore[no-untyped-call]
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name
