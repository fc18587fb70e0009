"""Gating in the middle of the encoder: activations are kept apart by semantic region while they are pooled."""

from typing import cast

import torch
from torch import Tensor, nn

from facelightning.models.blocks import ConvBlock, Encoder, max_pool


def gate_masks(logits: Tensor) -> Tensor:
    """Turn a parser's prediction into the gates of SSG: each region's mask has mean 1 over the picture.

    The paper normalises each mask to sum to 1 [1]_, which makes activations some thousand times smaller. A mean of 1
    is the same up to a constant, which the BatchNorm after the gate removes, and keeps half precision and BatchNorm's
    epsilon out of the matter.

    Args:
        logits: The parser's prediction at the size of the maps to gate.

    Shape:
        - logits: ``(B, N, H, W)``.
        - return: ``(B, N, H, W)``, non-negative, float32 at least.

    Example:
        >>> gate_masks(torch.randn(2, 7, 55, 45)).mean(dim=(2, 3))[0, :3].round(decimals=3)
        tensor([1., 1., 1.])

    .. [1] Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017, §3.1.3.
    """
    probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
    mean = probabilities.mean(dim=(2, 3), keepdim=True)
    return probabilities / mean.clamp(min=torch.finfo(mean.dtype).tiny)


class SemanticGating(nn.Module):
    """Convolve, gate by each region, normalise, activate, pool; then mix the regions' maps (SSG) [1]_.

    It takes the place of a convolution block and the max pooling behind it. Each of N regions gates each of C maps
    before BatchNorm, so that pooling never compares activations of two regions; a 1×1 convolution brings the N·C maps
    back to C. It has no bias: the convolution and BatchNorm behind it would cancel one. Its weights begin as the mean
    over a map's N versions, a case of the sparse weights with which SSG mimics plain max pooling: the layers behind
    meet the same map in each region, and learn from there what to tell apart.

    Args:
        channels: C.
        num_regions: N.

    Shape:
        - x: ``(B, C, H, W)``.
        - masks: ``(B, N, H, W)``, non-negative, of :func:`gate_masks`.
        - return: ``(B, C, ⌈H/2⌉, ⌈W/2⌉)``.

    Raises:
        ValueError: If maps and masks differ in height or width; the message names both sizes.

    Example:
        >>> SemanticGating(8, 7)(torch.rand(2, 8, 55, 45), torch.rand(2, 7, 55, 45)).shape
        torch.Size([2, 8, 28, 23])

    .. [1] Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017, §3.1.3.
    """

    def __init__(self, channels: int, num_regions: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(num_regions * channels)
        self.activation = nn.PReLU(num_regions * channels)
        self.pool = max_pool()
        self.restore = nn.Conv2d(num_regions * channels, channels, kernel_size=1, bias=False)
        with torch.no_grad():
            self.restore.weight.copy_(torch.eye(channels).repeat(1, num_regions)[..., None, None] / num_regions)

    def forward(self, x: Tensor, masks: Tensor) -> Tensor:
        x = self.convolution(x)
        masks = _like(masks, x)
        gated = (masks.unsqueeze(2) * x.unsqueeze(1)).flatten(1, 2)  # (B, N·C, H, W), region by region
        gated = gated.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.restore(self.pool(self.activation(self.norm(gated)))))


class SymbioticAugmentation(nn.Module):
    """Gate each map by a learnt mixture of the regions' masks [1]_: SSG at a fraction of its maps.

    Args:
        channels: C.
        num_regions: N.

    Shape:
        - x: ``(B, C, H, W)``.
        - masks: ``(B, N, H, W)``, non-negative, of :func:`gate_masks`.
        - return: ``(B, C, ⌈H/2⌉, ⌈W/2⌉)``.

    Raises:
        ValueError: If maps and masks differ in height or width; the message names both sizes.

    Example:
        >>> SymbioticAugmentation(8, 7)(torch.rand(2, 8, 55, 45), torch.rand(2, 7, 55, 45)).shape
        torch.Size([2, 8, 28, 23])

    .. [1] Kalayeh, Shah, "On Symbiosis of Attribute Prediction and Semantic Segmentation", TPAMI 2019.
    """

    def __init__(self, channels: int, num_regions: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.mixture = nn.Conv2d(num_regions, channels, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = nn.PReLU(channels)
        self.pool = max_pool()

    def forward(self, x: Tensor, masks: Tensor) -> Tensor:
        x = self.convolution(x)
        gated = x * self.mixture(_like(masks, x))
        return cast(Tensor, self.pool(self.activation(self.norm(gated))))


class GatedEncoder(Encoder):
    """The encoder with a gate in place of Conv32 and the pooling behind it (Kalayeh et al., CVPR 2017, §5).

    Args:
        gate: :class:`SemanticGating` or :class:`SymbioticAugmentation`.
        num_regions: N.
        width: Filters of the first layer (64 in the paper).
        in_channels: As of :class:`Encoder`.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - masks: ``(B, N, ⌈H/4⌉, ⌈W/4⌉)``, of :func:`gate_masks`.
        - return: ``(B, 8·width, ⌈H/8⌉, ⌈W/8⌉)``.

    Example:
        >>> GatedEncoder(SemanticGating, 7, width=4)(torch.rand(1, 3, 218, 178), torch.rand(1, 7, 55, 45)).shape
        torch.Size([1, 32, 28, 23])
    """

    def __init__(
        self,
        gate: type[SemanticGating] | type[SymbioticAugmentation],
        num_regions: int,
        width: int = 64,
        in_channels: int = 3,
    ) -> None:
        super().__init__(width, in_channels)
        self.conv3 = nn.Sequential(ConvBlock(2 * width, 4 * width))  # Conv31
        self.gate = gate(4 * width, num_regions)  # Conv32 and its pooling

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:  # type: ignore[override]  # it needs both
        x = self.conv1(self.normalize(images))  # 218×178
        x = self.conv2(self.pool(x))  # 109×89
        x = self.conv3(self.pool(x))  # 55×45
        return cast(Tensor, self.conv4(self.gate(x, masks)))  # 28×23


def _like(masks: Tensor, x: Tensor) -> Tensor:
    """Masks in the type of the maps they gate, or one clear sentence."""
    if x.shape[-2:] != masks.shape[-2:]:
        sizes = [" × ".join(map(str, t.shape[-2:])) for t in (x, masks)]
        raise ValueError(f"maps ({sizes[0]}) and masks ({sizes[1]}) must have one height and width")
    return masks.to(x.dtype)
