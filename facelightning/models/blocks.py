"""What every network is made of: normalised input, the convolution block, and the shared encoder."""

from typing import cast

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Turn pictures into zero-centred floats; a part of the network, so that no caller can forget it.

    Mean and deviation are ImageNet's; the first BatchNorm makes the exact numbers unimportant.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; RGB.
        - return: ``(B, 3, H, W)``, float, laid out channels-last, which convolutions run faster on.

    Example:
        >>> Normalize()(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).mean(dim=(0, 2, 3))
        tensor([2.2489, 2.4286, 2.6400])
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        return ((scaled - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class ConvBlock(nn.Sequential):
    """3×3 convolution, BatchNorm, PReLU (Kalayeh et al., Table 1); keeps height and width.

    It serves as the paper's "Deconv" too: a transposed convolution of stride 1 and padding 1 is a convolution
    with mirrored kernel, so the two compute the same functions. The convolution has no bias: BatchNorm would
    cancel it, and AdaGrad would blow the rounding noise of its zero gradient up to full steps.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.PReLU(out_channels),
        )


def conv_stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two convolution blocks: one resolution of a network."""
    return nn.Sequential(ConvBlock(in_channels, out_channels), ConvBlock(out_channels, out_channels))


def max_pool() -> nn.MaxPool2d:
    """2×2 max pooling of stride 2; a last odd row or column is kept (ceil mode: 218×178 → 109×89 → 55×45)."""
    return nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)


class Encoder(nn.Module):
    """The first eight layers of every network, Conv11 to Conv42 (Kalayeh et al., Table 1).

    Args:
        width: Filters of the first layer (64 in the paper); the others are 2, 4, 8 times as many.
        in_channels: 3: RGB, which is normalised here; any other input is taken as it is.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; or ``(B, in_channels, H, W)``.
        - return: ``(B, 8·width, ⌈H/8⌉, ⌈W/8⌉)``.

    Example:
        >>> Encoder(width=4)(torch.rand(1, 3, 218, 178)).shape
        torch.Size([1, 32, 28, 23])
    """

    def __init__(self, width: int = 64, in_channels: int = 3) -> None:
        super().__init__()
        self.out_channels = 8 * width
        self.normalize = Normalize() if in_channels == 3 else nn.Identity()
        self.conv1 = conv_stage(in_channels, width)
        self.conv2 = conv_stage(width, 2 * width)
        self.conv3 = conv_stage(2 * width, 4 * width)
        self.conv4 = conv_stage(4 * width, 8 * width)
        self.pool = max_pool()

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(self.normalize(images))  # 218×178
        x = self.conv2(self.pool(x))  # 109×89
        x = self.conv3(self.pool(x))  # 55×45
        return cast(Tensor, self.conv4(self.pool(x)))  # 28×23
