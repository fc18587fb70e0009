"""The face parser: an encoder-decoder that is supervised at every scale."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from facelightning.models.blocks import ConvBlock, Encoder, conv_stage


class Decoder(nn.Module):
    """Deconv41 to Deconv13 with a prediction before each upsampling (Kalayeh et al., §3.2 and Table 1).

    Args:
        num_classes: K.
        width: Filters of the last stage (64 in the paper).

    Shape:
        - features: ``(B, 8·width, ⌈H/8⌉, ⌈W/8⌉)``, of :class:`Encoder`.
        - return: logits ``(B, K, h, w)``, coarse to fine, at 1/8, 1/4, 1/2 and 1/1 of the input.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.deconv4 = conv_stage(8 * width, 8 * width)
        self.deconv3 = conv_stage(8 * width, 4 * width)
        self.deconv2 = conv_stage(4 * width, 2 * width)
        self.deconv1 = conv_stage(2 * width, width)
        self.predict4 = ConvBlock(8 * width, num_classes)
        self.predict3 = ConvBlock(4 * width, num_classes)  # the paper's Deconv33
        self.predict2 = ConvBlock(2 * width, num_classes)  # Deconv23
        self.predict1 = ConvBlock(width, num_classes)  # Deconv13

    def forward(self, features: Tensor, input_size: Sequence[int], scales: int = 4) -> list[Tensor]:
        """Predict at the ``scales`` coarsest of the four scales; the finer ones are then not computed."""
        stages = (self.deconv4, self.deconv3, self.deconv2, self.deconv1)
        heads = (self.predict4, self.predict3, self.predict2, self.predict1)
        logits: list[Tensor] = []
        x = features
        for depth, stage, head in list(zip((3, 2, 1, 0), stages, heads, strict=True))[:scales]:
            # to the encoder's size at this depth: doubling would give 56×46 where the encoder has 55×45
            size = [-(-side // 2**depth) for side in input_size]
            x = stage(x if x.shape[-2:] == torch.Size(size) else interpolate(x, size, mode="nearest"))
            logits.append(head(x))
        return logits


class SegmentationNetwork(nn.Module):
    """The face parser of Kalayeh et al. (CVPR 2017), §3.2: encoder, decoder, predictions at four scales.

    Args:
        num_classes: K, 7 in the paper.
        width: Filters of the first layer, 64 in the paper; scales every layer.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; 218×178 in the paper.
        - return: logits ``(B, K, h, w)``, coarse to fine, at 1/8, 1/4, 1/2 and 1/1 of the input.

    Example:
        >>> [tuple(p.shape[2:]) for p in SegmentationNetwork(7, width=4)(torch.rand(1, 3, 218, 178))]
        [(28, 23), (55, 45), (109, 89), (218, 178)]
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.decoder = Decoder(num_classes, width)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, scales: int = 4) -> list[Tensor]:
        logits: list[Tensor] = self.decoder(self.encoder(images), images.shape[-2:], scales)
        return logits
