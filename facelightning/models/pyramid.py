"""Pyramid pooling: cells of a fixed grid instead of regions with a meaning."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d


class PyramidPooling(nn.Module):
    """Average features in the cells of a 1×1 and a 2×2 grid, then one linear classifier ("SPPNet*") [1]_.

    Averages, not maxima, so that it differs from the basic network in nothing but where it pools.

    Args:
        in_channels: Channels C of the feature map.
        num_attributes: A.

    Shape:
        - features: ``(B, C, H, W)``.
        - return: logits ``(B, A)``.

    Example:
        >>> PyramidPooling(8, 40)(torch.rand(2, 8, 14, 12)).shape
        torch.Size([2, 40])

    .. [1] Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017, §4.3,
       after He, Zhang, Ren, Sun, "Spatial Pyramid Pooling in Deep Convolutional Networks", ECCV 2014.
    """

    levels = (1, 2)

    def __init__(self, in_channels: int, num_attributes: int) -> None:
        super().__init__()
        cells = sum(level * level for level in self.levels)
        self.classifier = nn.Linear(cells * in_channels, num_attributes)

    def forward(self, features: Tensor) -> Tensor:
        pooled = [adaptive_avg_pool2d(features, level).flatten(1) for level in self.levels]
        return cast(Tensor, self.classifier(torch.cat(pooled, dim=1)))
