"""Attribute networks: the twelve-layer basic network, with plain or semantic pooling."""

from typing import Self, cast

import torch
from torch import Tensor, nn

from facelightning.labels import LabelSpace
from facelightning.models.blocks import ConvBlock, Encoder, max_pool
from facelightning.models.pooling import AveragePooling, SemanticPooling, region_masks
from facelightning.models.segmentation import SegmentationNetwork


class AttributeTail(nn.Sequential):
    """Layers 9 to 12 of the basic network: 512, 512, pool, 1024, 1024 filters (Kalayeh et al., §3.1.1).

    A pool stands before each increase of filters, so none between the encoder's 512 and these.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__(
            ConvBlock(8 * width, 8 * width),
            ConvBlock(8 * width, 8 * width),
            max_pool(),
            ConvBlock(8 * width, 16 * width),
            ConvBlock(16 * width, 16 * width),
        )


class Parser(nn.Module):
    """A trained face parser that serves another network: frozen, and always in evaluation mode.

    Args:
        labels: What its classes mean.
        width: Of its :class:`SegmentationNetwork`.
    """

    def __init__(self, labels: LabelSpace, width: int = 64) -> None:
        super().__init__()
        self.labels = labels
        self.network = SegmentationNetwork(len(labels), width)
        self.trained = False  # a parser of random weights helps nobody: who trains on it asks
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]  # torch is only partly typed
            lambda module, _: setattr(module, "trained", True)
        )
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: BatchNorm must keep the statistics the parser was trained with."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The region masks of :func:`region_masks`, from the prediction at half the input's size."""
        return region_masks(self.network(images, scales=3)[-1], self.labels.part_indices)


class AttributeNetwork(nn.Module):
    """The basic attribute network of Kalayeh et al. (CVPR 2017), §3.1.1, or its SSP variant, §3.1.2.

    Args:
        num_attributes: A.
        width: Filters of the first layer, 64 in the paper; scales every layer.
        parser: With a parser, features are pooled within its regions (SSP); without, over the whole map.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; 218×178 in the paper.
        - return: logits ``(B, A)``.

    Example:
        >>> AttributeNetwork(40, width=4)(torch.rand(2, 3, 218, 178)).shape
        torch.Size([2, 40])
    """

    def __init__(self, num_attributes: int, width: int = 64, parser: Parser | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.tail = AttributeTail(width)
        self.parser = parser
        pooling = AveragePooling if parser is None else SemanticPooling
        self.pooling = pooling(16 * width, num_attributes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        features = self.tail(self.encoder(images))  # (B, 16·width, 14, 12)
        if self.parser is None:
            return cast(Tensor, self.pooling(features))
        return cast(Tensor, self.pooling(features, self.parser(images)))

    def region_weights(self, images: Tensor) -> Tensor:
        """How much each region counts for each attribute, ``(B, N, A)``, summing to 1 over regions (SSP only)."""
        if not isinstance(self.pooling, SemanticPooling) or self.parser is None:
            raise ValueError("only a network with semantic pooling weighs regions")
        return self.pooling.scores(self.tail(self.encoder(images)), self.parser(images))[1]
