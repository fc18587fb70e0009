"""LNet: five convolutions whose mean response points at faces, once they have learned attributes."""

from typing import cast

import torch
from torch import Tensor, nn

from facelightning.checkpoint import Checkpoint
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.models.encoders import Encoder, Input, Tail
from facelightning.models.max_pooling import MaxPool
from facelightning.models.regions import Regions


class LNet(Encoder):
    """The convolutions of LNet_o and LNet_s: global filters, overlapping max pooling after C1 and C2 [1]_.

    The paper shows sizes only in a figure; those of C2 to C4 and the strides are AlexNet's, as in its related work.
    BatchNorm stands in for AlexNet's response normalisation (ours). Any head may learn on the last map, and falls
    away: the map's mean over channels is the response (:func:`response_map`).

    Args:
        image_input: The input of C1.
        width: Filters of C1; the others have 8/3, 4, 4 and 8/3 times as many.
        kernel_size: Of C1, odd; in pixels.
        stride: Of C1; the last map has four times that.
        weights: Checkpoint of any task with such an encoder, to start from: LNet+ after object categories, or LNet_o
            for LNet_s. The filters start at random if not given. A checkpoint holds its own.

    Raises:
        ConfigurationError: If a size is out of its range.
        CheckpointError: If the file is missing or broken, or its encoder is another.

    Example:
        >>> from facelightning.models.encoders import PlainInput
        >>> net = LNet(PlainInput(), width=6)
        >>> [tuple(x.shape[1:]) for x in net(torch.rand(1, 3, 227, 227))]
        [(6, 57, 57), (16, 29, 29), (16, 15, 15)]

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, §3.1.
    """

    def __init__(
        self, image_input: Input, width: int = 96, kernel_size: int = 11, stride: int = 4, weights: str | None = None
    ) -> None:
        super().__init__()
        if width < 1 or stride < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigurationError(
                f"LNet: width {width} and stride {stride} must be positive, kernel_size {kernel_size} positive and odd"
            )
        inner, middle = width * 8 // 3, width * 4
        self.input, self.channels, self.strides = image_input, (width, inner, inner), (stride, 2 * stride, 4 * stride)
        self.offset = (4 * stride - 1) / 2  # an odd kernel, padded on both sides, is centred on a cell's first pixel
        self.conv1 = _convolution(image_input.channels, width, kernel_size, stride)
        self.conv2 = _convolution(width, inner, 5)
        self.conv3 = nn.Sequential(
            _convolution(inner, middle, 3), _convolution(middle, middle, 3), _convolution(middle, inner, 3)
        )
        self.pool = MaxPool(kernel_size=3, stride=2, padding=1)
        if weights is not None:
            self._load(weights)

    def _load(self, path: str) -> None:
        found, prefix = Checkpoint.read(path), "network.encoder."
        shapes = {key.removeprefix(prefix): x.shape for key, x in found.weights.items() if key.startswith(prefix)}
        if shapes != {key: x.shape for key, x in self.state_dict().items()}:
            raise CheckpointError(f"LNet's weights: the encoder of {path} is not an LNet of this width and kernel_size")
        found.load_into(self, prefix)

    def tail(self) -> Tail:
        """No layers."""
        return Tail(channels=self.channels[-1], stride=self.strides[-1])

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        first = self.conv1(self.input(images, regions))
        second = self.conv2(self.pool(first))
        return [first, second, cast(Tensor, self.conv3(self.pool(second)))]


def response_map(features: Tensor) -> Tensor:
    """The response at each position of a map: its mean over channels (Liu et al., ICCV 2015, §3.1), in float32.

    Shape:
        - features: ``(B, C, h, w)``.
        - return: ``(B, h, w)``.

    Example:
        >>> response_map(torch.tensor([[[[0.0]], [[3.0]]]]))
        tensor([[[1.5000]]])
    """
    return features.to(torch.float32).mean(dim=1)


def _convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
