"""The naive use of a parser: its masks as further channels of the input."""

from typing import cast

import torch
from torch import Tensor, nn


class NaiveInput(nn.Module):
    """RGB and the region masks as one input, normalised by BatchNorm ("Naive Approach") [1]_.

    Args:
        num_regions: N.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - logits: ``(B, N, H, W)``, the parser's prediction at the size of the input.
        - return: ``(B, 3 + N, H, W)``, float, channels-last.

    Example:
        >>> NaiveInput(7)(torch.rand(2, 3, 218, 178), torch.randn(2, 7, 218, 178)).shape
        torch.Size([2, 10, 218, 178])

    .. [1] Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017, §4.3.
    """

    def __init__(self, num_regions: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3 + num_regions)

    def forward(self, images: Tensor, logits: Tensor) -> Tensor:
        masks = logits.float().softmax(dim=1).to(self.norm.weight.dtype)
        scaled = images.to(masks.dtype) / 255 if images.dtype == torch.uint8 else images
        stacked = torch.cat([scaled, masks], dim=1).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.norm(stacked))
