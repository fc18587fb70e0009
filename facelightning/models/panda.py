"""A small network for each part of a face, all evaluated as one."""

from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.models.blocks import PReLU, max_pool
from facelightning.models.encoders import Encoder, Input, Tail
from facelightning.models.parts import need_parts
from facelightning.models.regions import Regions

WIDTHS = (1, 2, 4, 4)
"""Filters of the four convolutions, as multiples of the first one's."""


class PANDA(Encoder):
    """Part networks, whose features are concatenated: after PANDA [1]_, as Liu et al. [2]_ adapt it to faces.

    Each part has a network of its own: four 3×3 convolutions with max pooling, and a fully connected layer. Groups of
    one convolution are the parts' filters, so that all networks are evaluated at once. The result is a map of one cell,
    whose channels are the features of the first part, then of the next. Sizes, BatchNorm and PReLU are ours.

    Args:
        image_input: :class:`~facelightning.models.parts.PartCrops`, of a size that 16 divides.
        width: Filters of each part's first convolution; the others have 2, 4 and 4 times as many, as has the fully
            connected layer.

    Raises:
        ConfigurationError: If the input is another, or a size is out of its range.

    Example:
        >>> from facelightning.models.parts import PartCrops
        >>> PANDA(PartCrops(num_regions=11), width=32).channels
        (1408,)

    .. [1] Zhang, Paluri, Ranzato, Darrell, Bourdev, "PANDA: Pose Aligned Networks for Deep Attribute Modeling", CVPR
       2014.
    .. [2] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, §5.
    """

    def __init__(self, image_input: Input, width: int = 32) -> None:
        super().__init__()
        parts = need_parts(self, image_input)
        if parts.size % 16 or not 1 <= width <= 1024:
            raise ConfigurationError(
                f"PANDA: 16 must divide the size of PartCrops, not {parts.size}, and width must lie in 1...1024, "
                f"not {width}"
            )
        count, widths = parts.num_parts, [3, *(width * factor for factor in WIDTHS)]
        self.input = image_input
        self.norm = nn.BatchNorm2d(3 * count)
        stages = ([*_layer(count, a, b, 3, padding=1), max_pool()] for a, b in pairwise(widths))
        self.stages = nn.Sequential(*(nn.Sequential(*stage) for stage in stages))
        self.dense = nn.Sequential(*_layer(count, widths[-1], widths[-1], parts.size // 16))
        self.channels, self.strides = (count * widths[-1],), (parts.size,)

    def tail(self) -> Tail:
        """No layers."""
        return Tail(channels=self.channels[-1], stride=self.strides[-1])

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        crops = self.input(images, regions).to(self.norm.weight.dtype)
        return [cast(Tensor, self.dense(self.stages(self.norm(crops))))]


def _layer(parts: int, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> list[nn.Module]:
    """Convolution, BatchNorm and PReLU, of each part its own."""
    return [
        nn.Conv2d(parts * in_channels, parts * out_channels, kernel_size, padding=padding, groups=parts, bias=False),
        nn.BatchNorm2d(parts * out_channels),
        PReLU(parts * out_channels),
    ]
