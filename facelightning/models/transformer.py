"""A spatial transformer in front of any network: it learns to turn, scale and move the image."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, affine_grid, grid_sample

from facelightning.errors import ConfigurationError
from facelightning.models.blocks import ConvBlock, Normalize, max_pool
from facelightning.models.encoders import Input
from facelightning.models.regions import Regions


class SpatialTransformer(Input):
    """The normalised image, aligned by an affine map that a small network reads off it (FaceSTN).

    Tan, Li, Yu, "Deep Face Attributes Recognition Using Spatial Transformer Network", ICIA 2016, after Jaderberg et
    al., "Spatial Transformer Networks", NIPS 2015. Sizes of the small network are ours. At first the map is the
    identity: the network in front of which it is put sees the image as it is.

    Regions are where they were in the image before, so no part behind it may need any.

    Args:
        num_regions: 0.
        width: Filters of its first layer.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - return: ``(B, 3, H, W)``, float, channels-last.

    Raises:
        ConfigurationError: With regions.

    Example:
        >>> transformer = SpatialTransformer(width=4).eval()
        >>> image = torch.rand(1, 3, 32, 24)
        >>> torch.allclose(transformer(image), Normalize()(image), atol=1e-5)
        True
    """

    def __init__(self, num_regions: int = 0, width: int = 16) -> None:
        super().__init__(num_regions)
        if num_regions:
            raise ConfigurationError(
                "SpatialTransformer moves the image, so regions would not fit: leave out `regions`"
            )
        self.normalize = Normalize()
        self.localization = nn.Sequential(
            ConvBlock(3, width), max_pool(), ConvBlock(width, width), max_pool(), ConvBlock(width, 2 * width)
        )
        self.motion = nn.Linear(2 * width * 16, 6)
        with torch.no_grad():
            self.motion.weight.zero_()
            self.motion.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, images: Tensor, regions: Regions | None = None) -> Tensor:
        normal = self.normalize(images)
        seen = adaptive_avg_pool2d(self.localization(normal), 4).flatten(1)
        # AdaGrad and AdamW move each weight by the learning rate: all together, they would lose the face in one step
        maps = self.motion(seen / seen.shape[1]).reshape(-1, 2, 3)
        with torch.autocast(normal.device.type, enabled=False):  # in bfloat16, a place would be off by 0.2 pixels
            grid = affine_grid(maps.float(), list(normal.shape), align_corners=False)
            moved = grid_sample(normal.float(), grid, padding_mode="border", align_corners=False).to(normal.dtype)
        return moved.contiguous(memory_format=torch.channels_last)
