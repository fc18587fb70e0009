"""LNet: sizes of its maps, where its weights may come from, and the response."""

from functools import partial
from pathlib import Path

import pytest
import torch

from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.models.encoders import PlainInput
from facelightning.models.heads import DenseHead
from facelightning.models.lnet import LNet, response_map
from facelightning.models.pooling import GridPooling, LogSumExpPooling
from facelightning.tasks import AttributeNet, load_model
from tests.tasks.tiny import FACTS, QUIET, assert_equal, save

pytestmark = QUIET

SMALL = partial(LNet, width=6, kernel_size=7, stride=2)


@pytest.mark.parametrize("size", [(128, 128), (61, 90), (9, 200)])
@pytest.mark.parametrize(("kernel_size", "stride"), [(11, 4), (7, 2)])
def test_a_map_of_stride_s_has_a_cell_for_every_s_pixels(size: tuple[int, int], kernel_size: int, stride: int) -> None:
    net = LNet(PlainInput(), 6, kernel_size, stride)
    maps = net(torch.rand(2, 3, *size))
    assert net.strides == (stride, 2 * stride, 4 * stride)
    for each, channels, step in zip(maps, net.channels, net.strides, strict=True):
        assert each.shape == (2, channels, *(-(-side // step) for side in size))


def test_the_filters_are_those_of_the_paper() -> None:
    """C1: 96 of 11×11×3, and 384 channels before the 256 of C5; C2 to C4 as in AlexNet."""
    shapes = [tuple(x.shape) for name, x in LNet(PlainInput()).named_parameters() if x.ndim == 4]
    assert shapes == [(96, 3, 11, 11), (256, 96, 5, 5), (384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3)]


@pytest.mark.parametrize(("kernel_size", "stride"), [(11, 4), (7, 2), (3, 1)])
def test_what_a_cell_sees_is_centred_before_its_middle(kernel_size: int, stride: int) -> None:
    """The pixels whose change moves a cell in the middle of a map, which is linear where nothing is cut off."""
    net = LNet(PlainInput(), 3, kernel_size, stride).double()
    net.pool = torch.nn.AvgPool2d(3, 2, 1)
    for module in net.modules():
        if isinstance(module, torch.nn.Sequential) and isinstance(module[-1], torch.nn.ReLU):
            module[-1] = torch.nn.Identity()
    size = 64 * stride
    images = torch.rand(1, 3, size, size, dtype=torch.double, requires_grad=True)
    net.eval()(images)[-1][0, :, 8, 8].sum().backward()
    assert images.grad is not None
    rows = images.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    middle = (rows.min() + rows.max() + 1).item() / 2
    assert middle == 8.5 * 4 * stride - net.offset


def test_pooling_windows_overlap() -> None:
    """A cell takes the largest of three columns, one of them its neighbour's."""
    row = torch.tensor([[[[0.0, 0, 0, 5, 0, 0, 0]]]])
    assert LNet(PlainInput(), 3).pool(row).flatten().tolist() == [0, 5, 5, 0]


def test_the_response_is_the_mean_of_the_channels() -> None:
    features = torch.rand(2, 5, 3, 4)
    expected = [[[sum(features[b, :, y, x].tolist()) / 5 for x in range(4)] for y in range(3)] for b in range(2)]
    torch.testing.assert_close(response_map(features), torch.tensor(expected))
    assert response_map(features.bfloat16()).dtype == torch.float32


def test_a_training_starts_from_another(tmp_path: Path) -> None:
    first = AttributeNet(encoder=SMALL, pooling=GridPooling, head=partial(DenseHead, width=5)).build(FACTS)
    path = save(first, tmp_path / "first.ckpt")
    start = partial(SMALL, weights=str(path))
    second = AttributeNet(encoder=start, pooling=LogSumExpPooling).build(FACTS)
    assert_equal(second.network.encoder.state_dict(), first.network.encoder.state_dict())
    path.rename(tmp_path / "moved.ckpt")
    again = load_model(save(second, tmp_path / "second.ckpt"))
    assert_equal(again.network.state_dict(), second.network.state_dict())


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    for task in (AttributeNet(width=2), AttributeNet(encoder=partial(LNet, width=3))):
        path = save(task.build(FACTS), tmp_path / "other.ckpt")
        with pytest.raises(CheckpointError, match=r"encoder of .*other.ckpt is not an LNet of this width"):
            AttributeNet(encoder=partial(SMALL, weights=str(path))).build(FACTS)
    with pytest.raises(CheckpointError, match=r"none.ckpt does not exist"):
        AttributeNet(encoder=partial(SMALL, weights="none.ckpt")).build(FACTS)


@pytest.mark.parametrize("sizes", [{"width": 0}, {"stride": 0}, {"kernel_size": 4}, {"kernel_size": -3}])
def test_sizes_that_are_none_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=r"LNet: width .* must be positive, kernel_size .* odd"):
        LNet(PlainInput(), **sizes)
