"""The face parser: an encoder-decoder that is supervised at every scale."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from facelightning.models.blocks import ConvBlock, conv_stage
from facelightning.models.encoders import EncoderFactory, make_encoder


class Decoder(nn.Module):
    """Deconv41 to Deconv13 with a prediction before each upsampling (Kalayeh et al., CVPR 2017, §3.2 and Table 1).

    One stage for each power of two from the coarsest map's stride to 1; upsampling repeats cells.

    Args:
        in_channels: Channels of the encoder's coarsest map.
        stride: Stride of that map; 8 in the paper.
        num_classes: K.
        width: Filters of the last stage (64 in the paper).

    Shape:
        - features: ``(B, in_channels, ⌈H/stride⌉, ⌈W/stride⌉)``.
        - return: logits ``(B, K, h, w)``, coarse to fine, at each of ``strides``.
    """

    def __init__(self, in_channels: int, stride: int, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.strides = tuple(2**depth for depth in reversed(range(stride.bit_length())))
        widths = [min(stride, 8) * width for stride in self.strides]
        self.stages = nn.ModuleList(conv_stage(a, b) for a, b in pairwise([in_channels, *widths]))
        # the paper's Deconv33, Deconv23 and Deconv13 are the last three of four
        self.heads = nn.ModuleList(ConvBlock(channels, num_classes) for channels in widths)

    def step(self, index: int, x: Tensor, image_size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The features and the prediction of one stage, from the features of the previous stage."""
        # to the encoder's size at this depth: doubling would give 56×46 where the encoder has 55×45
        size = [(side + self.strides[index] - 1) // self.strides[index] for side in image_size]  # rounded up, ONNX too
        x = self.stages[index](x if x.shape[-2:] == torch.Size(size) else interpolate(x, size, mode="nearest"))
        return x, self.heads[index](x)

    def forward(self, features: Tensor, image_size: Sequence[int]) -> list[Tensor]:
        x, predictions = features, []
        for index in range(len(self.strides)):
            x, logits = self.step(index, x, image_size)
            predictions.append(logits)
        return predictions


class SegmentationNetwork(nn.Module):
    """The face parser of Kalayeh et al. (CVPR 2017), §3.2: encoder, decoder, predictions at every scale.

    Args:
        num_classes: K, 7 in the paper.
        width: Filters of the first layer, 64 in the paper; scales every layer.
        encoder: Makes the encoder; the paper's if not given.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; 218×178 in the paper.
        - return: ``"parsing"``: logits ``(B, K, h, w)``, coarse to fine, at 1/8, 1/4, 1/2 and 1/1 of the input.

    Example:
        >>> [tuple(p.shape[2:]) for p in SegmentationNetwork(7, width=4)(torch.rand(1, 3, 218, 178))["parsing"]]
        [(28, 23), (55, 45), (109, 89), (218, 178)]
    """

    def __init__(self, num_classes: int, width: int = 64, encoder: EncoderFactory | None = None) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, width)
        self.decoder = Decoder(self.encoder.channels[-1], self.encoder.strides[-1], num_classes, width)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> dict[str, Any]:
        return {"parsing": self.decoder(self.encoder(images)[-1], images.shape[-2:])}
