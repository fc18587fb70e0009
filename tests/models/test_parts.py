"""Crops of parts, and what describes them: gradients and colours by hand, part networks one by one."""

import sys
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.encoders import PlainInput
from facelightning.models.facetracer import FaceTracer
from facelightning.models.panda import PANDA
from facelightning.models.parts import PartCrops
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import BoxRegions, FaceParts
from tests.models.conftest import SIZE, landmarks, make_parser, settle

Floats = npt.NDArray[np.float64]


def images(count: int, height: int = 48, width: int = 64) -> Tensor:
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class TestPartCrops:
    def test_are_means_of_the_pixels_that_they_cover(self) -> None:
        """Boxes of whole pixels, twice and three times as large as a crop."""
        boxes = torch.tensor([[[0.0, 0, 16, 16], [13, 5, 37, 29]], [[48, 32, 64, 48], [0, 24, 24, 48]]])
        photographs = images(2)
        found = PartCrops(3, size=8)(photographs, BoxRegions(boxes, (48, 64))).unflatten(1, (3, 3))
        for number, parts in enumerate(boxes.int().tolist()):
            for part, (x0, y0, x1, y1) in enumerate(parts):
                pixels = photographs[number, :, y0:y1, x0:x1].double() / 255
                cell = (y1 - y0) // 8
                expected = pixels.reshape(3, 8, cell, 8, cell).mean(dim=(2, 4))
                torch.testing.assert_close(found[number, part].double(), expected, rtol=0, atol=1e-6)

    def test_one_size_of_any_shape(self) -> None:
        gradient = torch.linspace(0, 1, 64).expand(1, 3, 48, 64)
        crop = PartCrops(2, size=16)(gradient, BoxRegions(torch.tensor([[[10.0, 7, 42, 11]]]), (48, 64)))[:, :3]
        expected = (torch.arange(16) * 2 + 10.5) / 63  # the middle of each column, in pixels
        torch.testing.assert_close(crop, expected.expand(1, 3, 16, 16))

    def test_an_absent_part_is_black(self) -> None:
        boxes = BoxRegions(torch.tensor([[[-30.0, -30, -10, -10], [10, 10, 10, 10]]]), (48, 64))
        crops = PartCrops(3, size=8)(torch.ones(1, 3, 48, 64), boxes)
        assert crops[:, :6].eq(0).all()
        assert crops[:, 6:].eq(1).all()

    def test_of_a_parsers_regions(self) -> None:
        photographs = torch.rand(2, 3, *SIZE)
        crops = PartCrops(7, size=16)(photographs, make_parser()(photographs))
        assert crops.shape == (2, 21, 16, 16)
        assert crops.unflatten(1, (7, 3)).flatten(2).amax(dim=2).gt(0).any(dim=1).all()

    def test_what_cannot_be_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"PartCrops needs regions: .*FaceParts"):
            PartCrops(0)
        for size in (0, 7, 513):
            with pytest.raises(ConfigurationError, match=rf"PartCrops: size must lie in 8...512, not {size}"):
                PartCrops(3, size)


def gradients(part: Floats) -> Floats:
    """Histograms of oriented gradients of a part ``(h, h, 3)`` of levels in 0...255, one pixel at a time."""
    side, cell = len(part), len(part) // 4
    cells = np.zeros((4, 4, 9))
    for y in range(side):
        for x in range(side):
            best = (0.0, 0.0)
            for channel in range(3):
                level = part[:, :, channel]
                dy = level[y + 1, x] - level[y - 1, x] if 0 < y < side - 1 else 0.0
                dx = level[y, x + 1] - level[y, x - 1] if 0 < x < side - 1 else 0.0
                if np.hypot(dx, dy) > np.hypot(*best):
                    best = (dx, dy)
            angle = np.rad2deg(np.arctan2(best[1], best[0])) % 180
            cells[y // cell, x // cell, int(angle // 20)] += np.hypot(*best) / cell**2
    found = cells.ravel()
    found = np.minimum(found / np.sqrt((found**2).sum() + 1e-10), 0.2)
    return found / np.sqrt((found**2).sum() + 1e-10)


def colours(part: Floats) -> Floats:
    """The share of a part's pixels in each eighth of the levels of a channel."""
    shares = [[((32 * n <= part[..., c]) & (part[..., c] < 32 * n + 32)).mean() for n in range(8)] for c in range(3)]
    return np.array(shares).ravel()


class TestFaceTracer:
    def encoder(self, num_parts: int = 11, size: int = 16) -> FaceTracer:
        return FaceTracer(PartCrops(num_parts, size))

    def test_is_gradients_and_colours_by_hand(self) -> None:
        """Of boxes that are as large as a crop, so that the pixels are the photograph's own."""
        photographs, corners = images(2), [(3, 4), (40, 30)]
        boxes = torch.tensor([[[x, y, x + 16, y + 16] for x, y in corners]] * 2).float()
        (found,) = self.encoder(3)(photographs, BoxRegions(boxes, (48, 64)))
        assert found.shape == (2, 3 * 168, 1, 1)
        rows = found.reshape(2, 3, 168).double().numpy()
        for number, photograph in enumerate(photographs.permute(0, 2, 3, 1).double().numpy()):
            for row, (x, y) in zip(rows[number], corners, strict=False):
                part = photograph[y : y + 16, x : x + 16]
                np.testing.assert_allclose(row[:144], gradients(part), rtol=0, atol=1e-6)
                np.testing.assert_allclose(row[144:], colours(part), rtol=0, atol=1e-7)

    def test_is_the_same_in_any_batch_and_as_float(self) -> None:
        encoder, points = self.encoder(), landmarks(3) + torch.arange(3)[:, None, None]
        photographs = images(3, *SIZE)
        (together,) = encoder(photographs, FaceParts()(photographs, points))
        for number in range(3):
            alone = photographs[number : number + 1] / 255
            (one,) = encoder(alone, FaceParts()(alone, points[number : number + 1]))
            assert torch.equal(one[0], together[number])
        assert not torch.equal(together[0], together[1])

    def test_levels_are_rounded(self) -> None:
        """31.6 is nearer to 32, the first of the second eighth."""
        photograph = torch.full((1, 3, 48, 64), 31.6 / 255)
        (found,) = self.encoder(1)(photograph, BoxRegions(torch.empty(1, 0, 4), (48, 64)))
        assert found[0, 144:].view(3, 8).argmax(dim=1).tolist() == [1, 1, 1]

    def test_needs_parts(self) -> None:
        with pytest.raises(ConfigurationError, match="FaceTracer sees the parts of a face: set `image_input` to PartC"):
            FaceTracer(PlainInput())
        with pytest.raises(ConfigurationError, match="4 must divide the size of PartCrops, not 30"):
            self.encoder(3, 30)

    def test_needs_scikit_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "skimage.feature", None)
        with pytest.raises(ConfigurationError, match=r"scikit-image's, which is not installed: pip .*\[facetracer\]"):
            self.encoder()

    def test_takes_no_gate(self) -> None:
        with pytest.raises(ConfigurationError, match="FaceTracer takes no gate"):
            self.encoder().add_gate(nn.Module, 11)  # type: ignore[arg-type]  # refused, whatever it is


def alone(network: nn.Module, part: int, parts: int) -> nn.Sequential:
    """The layers of one part's network, without groups, in order."""
    layers: list[nn.Module] = []
    for layer in network.modules():
        own: nn.Module
        if isinstance(layer, nn.Conv2d):
            sizes: Any = (layer.kernel_size, layer.stride, layer.padding)
            own = nn.Conv2d(layer.in_channels // parts, layer.out_channels // parts, *sizes, bias=False)
        elif isinstance(layer, nn.BatchNorm2d):
            own = nn.BatchNorm2d(layer.num_features // parts)
        elif isinstance(layer, nn.PReLU):
            own = nn.PReLU(layer.num_parameters // parts)
        elif isinstance(layer, nn.MaxPool2d):
            own = nn.MaxPool2d(2, ceil_mode=True)
        else:
            continue
        own.double()
        for name, value in own.state_dict().items():
            value.copy_(layer.state_dict()[name].chunk(parts)[part] if value.ndim else layer.state_dict()[name])
        layers.append(own)
    return nn.Sequential(*layers)


class TestPANDA:
    def encoder(self, size: int = 32) -> PANDA:
        torch.manual_seed(0)
        return PANDA(PartCrops(11, size), width=2)

    @pytest.mark.parametrize("training", [True, False])
    def test_is_a_network_for_each_part(self, training: bool) -> None:
        """In training too, where BatchNorm takes the batch's own statistics; to 1e-10, and so are the gradients."""
        encoder = self.encoder()
        photographs, points = torch.rand(4, 3, *SIZE, dtype=torch.float64), landmarks(4)
        regions = FaceParts()(photographs, points)
        settle(encoder, photographs.float(), regions)
        encoder.double().train(training)
        networks = [alone(encoder, part, 11).train(training) for part in range(11)]
        (found,) = encoder(photographs, regions)
        crops = encoder.input(photographs, regions).double()
        separate = torch.cat([net(part) for net, part in zip(networks, crops.chunk(11, dim=1), strict=True)], dim=1)
        assert found.shape == (4, 11 * 8, 1, 1)
        torch.testing.assert_close(found, separate, rtol=1e-10, atol=1e-10)
        direction = torch.randn_like(found)
        (found * direction).sum().backward()
        (separate * direction).sum().backward()
        grads = [layer.weight.grad for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
        first: Any = networks[0]
        own = [layer.weight.grad for layer in first if isinstance(layer, nn.Conv2d)]
        for ours, theirs in zip(grads, own, strict=True):
            assert ours is not None
            torch.testing.assert_close(ours.chunk(11)[0], theirs, rtol=1e-8, atol=1e-10)

    def test_everything_learns_and_follows_the_landmarks(self) -> None:
        torch.manual_seed(0)
        crops, make = partial(PartCrops, size=16), partial(PANDA, width=2)
        network = AttributeNetwork(5, encoder=make, image_input=crops, regions=FaceParts)
        photographs = torch.rand(4, 3, *SIZE)
        output = network(photographs, landmarks(4))
        assert (output["attributes"].shape, output["features"].shape) == ((4, 5), (4, 88, 1, 1))
        output["attributes"].square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
        network.eval()
        assert not torch.allclose(
            network(photographs, landmarks(4))["features"], network(photographs, landmarks(4) / 2)["features"]
        )

    def test_what_cannot_be_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="PANDA sees the parts of a face: set `image_input` to PartCrops"):
            PANDA(PlainInput())
        for size, width in ((40, 8), (32, 0)):
            with pytest.raises(ConfigurationError, match=f"16 must divide .*, not {size}, and width .*, not {width}"):
                PANDA(PartCrops(3, size), width)
        parts = {"image_input": partial(PartCrops, size=16), "encoder": partial(PANDA, width=2), "regions": FaceParts}
        network = AttributeNetwork(5, pooling=SemanticPooling, **parts)
        with pytest.raises(ConfigurationError, match=r"SemanticPooling: features \(1 × 1\) and masks \(4 × 3\) must"):
            network(torch.rand(2, 3, *SIZE), landmarks(2))
