"""From images to feature maps: the paper's encoder, and torchvision's backbones, behind one contract."""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import pad

from facelightning.errors import ConfigurationError
from facelightning.models.blocks import ConvBlock, Normalize, as_floats, conv_stage, evaluating, max_pool
from facelightning.models.gating import Gate
from facelightning.models.regions import Regions, need_regions


class Input(nn.Module):
    """The input of the first layer; a part of the encoder.

    Args:
        num_regions: N, if it includes regions.
    """

    channels = 3
    needs_regions = False

    def __init__(self, num_regions: int = 0) -> None:
        super().__init__()

    def forward(self, images: Tensor, regions: Regions | None) -> Tensor:
        """Images ``(B, 3, H, W)``, uint8, or float in [0, 1], to ``(B, channels, H, W)``, float, channels-last."""
        raise NotImplementedError


class PlainInput(Input):
    """The normalised image."""

    def __init__(self, num_regions: int = 0) -> None:
        super().__init__(num_regions)
        self.normalize = Normalize()

    def forward(self, images: Tensor, regions: Regions | None = None) -> Tensor:
        return cast(Tensor, self.normalize(images))


class MaskedInput(Input):
    """RGB and the region masks as one input, normalised by BatchNorm ("Naive Approach") [1]_.

    Args:
        num_regions: N.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - return: ``(B, 3 + N, H, W)``, float, channels-last.

    .. [1] Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017, §4.3.
    """

    needs_regions = True
    stride = 1

    def __init__(self, num_regions: int) -> None:
        super().__init__(num_regions)
        need_regions(self, num_regions)
        self.channels = 3 + num_regions
        self.norm = nn.BatchNorm2d(self.channels)

    def forward(self, images: Tensor, regions: Regions | None) -> Tensor:
        assert regions is not None
        masks = regions.at(1).to(self.norm.weight.dtype)
        stacked = torch.cat([as_floats(images, masks.dtype), masks], dim=1)
        return cast(Tensor, self.norm(stacked.contiguous(memory_format=torch.channels_last)))


class Tail(nn.Sequential):
    """The layers after an encoder that only attribute prediction uses.

    Args:
        layers: The layers; none if the encoder's last map is pooled directly.
        channels: Channels of the map that they return.
        stride: Stride of that map.
    """

    def __init__(self, *layers: nn.Module, channels: int, stride: int) -> None:
        super().__init__(*layers)
        self.channels, self.stride = channels, stride


class Encoder(nn.Module):
    """The contract of all encoders: images to feature maps, fine to coarse.

    A map of stride s has ⌈H/s⌉×⌈W/s⌉ cells. ``forward(images, regions)`` takes images ``(B, 3, H, W)``, uint8, or
    float in [0, 1]; regions are for an input or a gate that needs them.
    """

    channels: tuple[int, ...]
    """Channels of each map."""
    strides: tuple[int, ...]
    """Stride of each map: width and height of a cell, in pixels."""
    networks: int | None = None
    """Of an encoder that holds a network for each attribute, their number."""
    offset = 0.0
    """Pixels by which the middle of a cell of the last map lies right of and below the centre of what the cell sees."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """Arguments that a checkpoint stores instead of the given ones, so that it needs no other file."""

    def add_gate(self, gate: Callable[[int, int, int, bool], Gate], num_regions: int) -> None:
        """Put a gate into the encoder, made by ``gate(channels, num_regions, stride, pool)``."""
        raise ConfigurationError(f"{type(self).__name__} takes no gate")

    def tail(self) -> Tail:
        """New layers 9 to 12 of the paper, or what this encoder has instead."""
        raise NotImplementedError

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        raise NotImplementedError


EncoderFactory = Callable[[Input], Encoder]


def make_encoder(encoder: EncoderFactory | None, width: int, image_input: Input | None = None) -> Encoder:
    """An encoder with its input; the paper's encoder of the given width if ``encoder`` is ``None``."""
    image_input = image_input or PlainInput()
    return PaperEncoder(image_input, width) if encoder is None else encoder(image_input)


class PaperEncoder(Encoder):
    """The first eight layers of every network of the paper, Conv11 to Conv42 (Kalayeh et al., Table 1).

    Args:
        image_input: The input of Conv11.
        width: Filters of the first resolution (64 in the paper); the others have 2, 4, 8 times as many.

    Example:
        >>> [tuple(x.shape[1:]) for x in PaperEncoder(PlainInput(), width=4)(torch.rand(1, 3, 218, 178))]
        [(4, 218, 178), (8, 109, 89), (16, 55, 45), (32, 28, 23)]
    """

    strides = (1, 2, 4, 8)

    def __init__(self, image_input: Input, width: int = 64) -> None:
        super().__init__()
        self.channels = (width, 2 * width, 4 * width, 8 * width)
        self.input = image_input
        self.conv1 = conv_stage(image_input.channels, width)
        self.conv2 = conv_stage(width, 2 * width)
        self.conv3 = conv_stage(2 * width, 4 * width)
        self.conv4 = conv_stage(4 * width, 8 * width)
        self.pool = max_pool()
        self.gate: Gate | None = None

    def add_gate(self, gate: Callable[[int, int, int, bool], Gate], num_regions: int) -> None:
        """Replace Conv32 and the pooling after it (§5)."""
        _, inner, outer, _ = self.channels
        self.conv3 = nn.Sequential(ConvBlock(inner, outer))  # Conv31
        self.gate = gate(outer, num_regions, self.strides[2], True)

    def tail(self) -> Tail:
        """Layers 9 to 12: 512, 512, pool, 1024, 1024 filters (§3.1.1).

        The paper pools before each increase of filters, so not between the encoder's 512 and these.
        """
        channels = self.channels[-1]
        return Tail(
            ConvBlock(channels, channels),
            ConvBlock(channels, channels),
            max_pool(),
            ConvBlock(channels, 2 * channels),
            ConvBlock(2 * channels, 2 * channels),
            channels=2 * channels,
            stride=2 * self.strides[-1],
        )

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        first = self.conv1(self.input(images, regions))  # 218×178
        second = self.conv2(self.pool(first))  # 109×89
        third = self.conv3(self.pool(second))  # 55×45
        fourth = self.conv4(self.pool(third) if self.gate is None else self.gate(third, regions))  # 28×23
        return [first, second, third, fourth]


FAMILIES = ("resnet", "convnext", "efficientnet", "mobilenet")
"""The torchvision backbones that :class:`TorchvisionEncoder` takes, by the start of their names."""


class TorchvisionEncoder(Encoder):
    """A torchvision classification network without its classifier: one map for each resolution.

    Args:
        image_input: The input of its first convolution.
        name: As ``torchvision.models.list_models`` spells it: a ResNet, ConvNeXt, EfficientNet or MobileNet.
        weights: Name of torchvision's pretrained weights, such as ``IMAGENET1K_V1`` or ``DEFAULT``, which are then
            downloaded; random weights if not given. A checkpoint holds its own.

    Raises:
        ConfigurationError: If there is no such network or weights, or the weights do not fit the input's channels.

    Example:
        >>> encoder = TorchvisionEncoder(PlainInput(), "resnet18")
        >>> encoder.strides, encoder.channels
        ((2, 4, 8, 16, 32), (64, 64, 128, 256, 512))
        >>> [tuple(x.shape[2:]) for x in encoder(torch.rand(1, 3, 109, 89))]
        [(55, 45), (28, 23), (14, 12), (7, 6), (4, 3)]
    """

    def __init__(self, image_input: Input, name: str, weights: str | None = None) -> None:
        super().__init__()
        known = [model for model in torchvision.models.list_models(torchvision.models) if model.startswith(FAMILIES)]
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}"
            raise ConfigurationError(f"TorchvisionEncoder: no backbone is named {name!r}; {hint}")
        weights = None if weights == "None" else weights  # so the command line gives null
        if weights is not None and image_input.channels != 3:
            raise ConfigurationError(f"TorchvisionEncoder: weights {weights} see RGB alone, not masks beside it")
        try:
            model = torchvision.models.get_model(name, weights=weights)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"TorchvisionEncoder: no weights {weights} for {name} ({error}); torchvision has "
                f"{', '.join(model.name for model in torchvision.models.get_model_weights(name))}"
            ) from None
        layers = model.features if hasattr(model, "features") else nn.Sequential(*list(model.children())[:-2])
        _see(layers, image_input.channels)
        self.input = image_input
        self.stages, self.channels, self.strides, self.pads = _stages(layers, image_input.channels)
        self.gates = nn.ModuleDict()

    def add_gate(self, gate: Callable[[int, int, int, bool], Gate], num_regions: int) -> None:
        """Put it after the stage of stride 4; the next stage's convolution downsamples instead of a pooling."""
        self.gates["4"] = gate(self.channels[self.strides.index(4)], num_regions, 4, False)

    def tail(self) -> Tail:
        """No layers: a backbone's last stage is deep enough."""
        return Tail(channels=self.channels[-1], stride=self.strides[-1])

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        x, before, maps = self.input(images, regions), 1, []
        for stride, stage in zip(self.strides, self.stages, strict=True):
            if self.pads:
                step, (height, width) = stride // before, x.shape[-2:]
                x = pad(x, (0, -width % step, 0, -height % step))
            x = stage(x)
            if str(stride) in self.gates:
                x = self.gates[str(stride)](x, regions)
            maps.append(x)
            before = stride
        return maps


def _see(layers: nn.Sequential, channels: int) -> None:
    """Replace the first convolution, made for RGB, by one that takes any number of channels."""
    if channels == 3:
        return
    name, old = next((name, module) for name, module in layers.named_modules() if isinstance(module, nn.Conv2d))
    size, stride, padding = (cast(tuple[int, int], x) for x in (old.kernel_size, old.stride, old.padding))
    new = nn.Conv2d(channels, old.out_channels, size, stride, padding, bias=old.bias is not None)
    parent, _, last = name.rpartition(".")
    setattr(layers.get_submodule(parent), last, new)


@torch.no_grad()
def _stages(layers: nn.Sequential, channels: int) -> tuple[nn.ModuleList, tuple[int, ...], tuple[int, ...], bool]:
    """Stages of layers with one resolution each, the channels and strides of their maps, and whether maps must be
    padded: a backbone that halves without padding would lose a last odd row (109 → 54)."""
    size, strides, found, widths = 64, list[int](), list[list[nn.Module]](), list[int]()
    with evaluating(layers):
        x = torch.zeros(1, channels, size, size)
        for layer in layers:
            x = layer(x)
            stride = size // x.shape[-1]
            if not strides or strides[-1] != stride:
                found.append([])
                strides.append(stride)
                widths.append(0)
            found[-1].append(layer)
            widths[-1] = x.shape[1]
        odd = layers(torch.zeros(1, channels, size + 1, size + 1)).shape[-1]
    stages = nn.ModuleList(nn.Sequential(*stage) for stage in found)
    return stages, tuple(widths), tuple(strides), odd < -(-(size + 1) // strides[-1])
