"""One network for each attribute, all of them as one computation."""

from typing import cast

import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.models.blocks import PReLU, max_pool
from facelightning.models.encoders import Encoder, Input, Tail
from facelightning.models.heads import Head
from facelightning.models.pooling import Pooled
from facelightning.models.regions import Regions


class SeparateEncoder(Encoder):
    """A network for each attribute; they share nothing but the image ("Separate": Rudd et al., ECCV 2016).

    Each group of a convolution is one network: the twelve layers of Kalayeh et al. (CVPR 2017), narrower; Rudd et al.
    train forty VGG networks. Use it with :class:`SeparateHead`.

    Args:
        image_input: The input of each network's first layer.
        networks: Their number: that of the attributes.
        width: Filters of each network's first layer; the others have 2, 4, 8 and 16 times as many.

    Raises:
        ConfigurationError: If a number is not positive.

    Example:
        >>> from facelightning.models.encoders import PlainInput
        >>> [tuple(x.shape[1:]) for x in SeparateEncoder(PlainInput(), networks=3, width=1)(torch.rand(1, 3, 32, 24))]
        [(3, 32, 24), (6, 16, 12), (12, 8, 6), (24, 4, 3)]
    """

    strides = (1, 2, 4, 8)
    networks: int

    def __init__(self, image_input: Input, networks: int = 40, width: int = 4) -> None:
        super().__init__()
        if networks < 1 or width < 1:
            raise ConfigurationError(f"SeparateEncoder: networks {networks} and width {width} must be positive")
        self.input, self.networks = image_input, networks
        self.channels = tuple(networks * width * factor for factor in (1, 2, 4, 8))
        first, second, third, fourth = self.channels
        # all networks see one image: groups begin behind the first layer
        self.conv1 = nn.Sequential(*_block(image_input.channels, first, 1), *_block(first, first, networks))
        self.conv2 = _stage(first, second, networks)
        self.conv3 = _stage(second, third, networks)
        self.conv4 = _stage(third, fourth, networks)
        self.pool = max_pool()

    def tail(self) -> Tail:
        """Layers 9 to 12."""
        channels, groups = self.channels[-1], self.networks
        layers = (*_stage(channels, channels, groups), max_pool(), *_stage(channels, 2 * channels, groups))
        return Tail(*layers, channels=2 * channels, stride=2 * self.strides[-1])

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        maps = [self.conv1(self.input(images, regions))]
        for stage in (self.conv2, self.conv3, self.conv4):
            maps.append(cast(Tensor, stage(self.pool(maps[-1]))))
        return maps


class SeparateHead(Head):
    """Each attribute's linear classifier sees the features of its own network alone; after a :class:`SeparateEncoder`.

    Raises:
        ConfigurationError: If the channels cannot be shared among the attributes.

    Example:
        >>> pooled = Pooled(torch.rand(2, 1, 12), torch.ones(2, 1, 1, dtype=torch.bool))
        >>> SeparateHead(12, 1, 3)(pooled)["logits"].shape
        torch.Size([2, 3])
    """

    needs_networks = True

    def __init__(self, channels: int, num_places: int, num_outputs: int) -> None:
        super().__init__(channels, num_places, num_outputs)
        if channels % num_outputs:
            raise ConfigurationError(
                f"SeparateHead: {channels} channels cannot be shared among {num_outputs} attributes; take a "
                "SeparateEncoder"
            )
        inputs = num_places * channels // num_outputs
        layers = [nn.Linear(inputs, 1) for _ in range(num_outputs)]
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        images, places, _ = pooled.vectors.shape
        own = pooled.vectors.reshape(images, places, len(self.bias), -1)  # (B, N, A, C / A)
        weight = self.weight.reshape(len(self.bias), places, -1)
        return {"logits": torch.einsum("bnac,anc->ba", own, weight) + self.bias}


def _stage(in_channels: int, out_channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(*_block(in_channels, out_channels, groups), *_block(out_channels, out_channels, groups))


def _block(in_channels: int, out_channels: int, groups: int) -> list[nn.Module]:
    """The layers of :class:`~facelightning.models.blocks.ConvBlock`, in groups."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), PReLU(out_channels)]
