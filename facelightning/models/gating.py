"""Gating in the middle of an encoder: activations are kept apart by semantic region while they are pooled."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv2d, prelu
from torch.utils.checkpoint import checkpoint

from facelightning.models.blocks import max_pool
from facelightning.models.regions import Regions, need_regions


def gate_masks(masks: Tensor) -> Tensor:
    """Scale each region's mask to mean 1 over the image, for SSG's gates.

    Kalayeh et al. (CVPR 2017), §3.1.3, scale each mask to sum 1, which makes activations some thousand times smaller.
    Mean 1 is the same up to a constant, which the BatchNorm after the gate removes; and it is safe in half precision.

    Shape:
        - masks: ``(B, N, H, W)``, non-negative.
        - return: ``(B, N, H, W)``, non-negative, float32 at least; an empty mask stays empty.

    Example:
        >>> gate_masks(torch.rand(2, 7, 55, 45)).mean(dim=(2, 3))[0, :3].round(decimals=3)
        tensor([1., 1., 1.])
    """
    masks = masks.to(torch.promote_types(masks.dtype, torch.float32))
    mean = masks.mean(dim=(2, 3), keepdim=True)
    return masks / mean.clamp(min=torch.finfo(mean.dtype).tiny)


class Gate(nn.Module):
    """Replaces a convolution block of an encoder, and the pooling after it if there is one.

    Args:
        channels: C.
        num_regions: N.
        stride: Stride of the gated maps.
        pool: Whether to halve their resolution by pooling.

    Shape:
        - x: ``(B, C, H, W)``.
        - regions: N regions, which give the masks at the gate's stride.
        - return: ``(B, C, ⌈H/2⌉, ⌈W/2⌉)``, or ``(B, C, H, W)`` without pooling.
    """

    needs_regions = True

    def __init__(self, channels: int, num_regions: int, stride: int = 4, pool: bool = True) -> None:
        super().__init__()
        need_regions(self, num_regions)
        self.stride = stride
        self.pool = max_pool() if pool else nn.Identity()

    def masks(self, x: Tensor, regions: Regions | None) -> Tensor:
        """The regions' gates, in the maps' dtype; raises ``ValueError`` if height or width differ."""
        assert regions is not None
        masks = gate_masks(regions.at(self.stride))
        if x.shape[-2:] != masks.shape[-2:]:
            sizes = [" × ".join(map(str, t.shape[-2:])) for t in (x, masks)]
            raise ValueError(f"maps ({sizes[0]}) and masks ({sizes[1]}) must have the same height and width")
        return masks.to(x.dtype)

    def forward(self, x: Tensor, regions: Regions | None) -> Tensor:
        raise NotImplementedError


class SemanticGating(Gate):
    """Convolve, gate by each region, normalise, activate, pool; then mix the regions' maps.

    This is SSG (Kalayeh et al., CVPR 2017, §3.1.3). Each region gates each map before BatchNorm, so that pooling never
    compares activations of two regions; a 1×1 convolution reduces the N·C maps to C. It has no bias: the BatchNorm
    after it would cancel one. Its initial weights average a map's N versions, a case of the sparse weights with which
    SSG mimics plain max pooling; where regions differ, their average is not what the plain block gives.

    The N·C maps never exist together: each region's C are made, mixed and forgotten, and made again for the gradient.
    Only :func:`torch.compile` gets them at once, and keeps few of them by itself.

    Args:
        channels: C.
        num_regions: N.
        stride: Stride of the gated maps.
        pool: Whether to halve their resolution by pooling.
        begin_plain: Also gate by the whole image, a region more, and begin with that version alone: the network begins
            as the plain one, whatever the regions, and learns what to add of them.
        norm_restored: BatchNorm and PReLU after the 1×1 convolution too: every convolution has them (§3.1.1), of this
            one the paper does not say it.
    """

    def __init__(
        self,
        channels: int,
        num_regions: int,
        stride: int = 4,
        pool: bool = True,
        begin_plain: bool = False,
        norm_restored: bool = False,
    ) -> None:
        super().__init__(channels, num_regions, stride, pool)
        self.begin_plain = begin_plain
        num_regions += begin_plain
        self.convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(num_regions * channels)
        self.activation = nn.PReLU(num_regions * channels)
        self.restore = nn.Conv2d(num_regions * channels, channels, kernel_size=1, bias=False)
        last = [nn.BatchNorm2d(channels), nn.PReLU(channels)] if norm_restored else []
        self.restored = nn.Sequential(*last)
        with torch.no_grad():
            self.restore.weight.copy_(torch.eye(channels).repeat(1, num_regions)[..., None, None] / num_regions)
            if begin_plain:
                nn.init.dirac_(self.restore.weight.zero_()[:, -channels:])  # the whole image is the last region

    def masks(self, x: Tensor, regions: Regions | None) -> Tensor:
        """The regions' gates; with ``begin_plain`` the whole image's last, which is open everywhere."""
        masks = super().masks(x, regions)
        return torch.cat([masks, torch.ones_like(masks[:, :1])], dim=1) if self.begin_plain else masks

    def forward(self, x: Tensor, regions: Regions | None) -> Tensor:
        x = self.convolution(x)
        masks = self.masks(x, regions)
        if torch.compiler.is_compiling():  # which by itself keeps few maps, but takes long for a loop
            gated = (masks.unsqueeze(2) * x.unsqueeze(1)).flatten(1, 2).contiguous(memory_format=torch.channels_last)
            return cast(Tensor, self.restored(self.restore(self.pool(self.activation(self.norm(gated))))))
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        statistics = []
        for number, mask in enumerate(masks.unbind(dim=1)):
            if self.training:
                mixed, after = checkpoint(self._region, x, mask, number, use_reentrant=False, preserve_rng_state=False)
            else:
                mixed, after = self._region(x, mask, number)
            total = total + mixed
            statistics.append(after)
        if self.norm.training:
            self._keep(statistics)
        return cast(Tensor, self.restored(total))

    def _region(self, x: Tensor, mask: Tensor, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """What a region adds to the mixture, and the statistics of its share of the BatchNorm after this batch."""
        own = slice(number * x.shape[1], (number + 1) * x.shape[1])
        weights, statistics = (
            {name: value[own] if value.ndim else value for name, value in state}
            for state in (self.norm.named_parameters(), self.norm.named_buffers())
        )
        # copies: this runs a second time for the gradient, but the batch counts once
        statistics = {name: value.clone() for name, value in statistics.items()}
        maps = functional_call(self.norm, weights | statistics, x * mask.unsqueeze(1))
        maps = self.pool(prelu(maps, self.activation.weight[own]))
        return conv2d(maps, self.restore.weight[:, own]), statistics

    @torch.no_grad()
    def _keep(self, statistics: Sequence[Mapping[str, Tensor]]) -> None:
        for name, value in self.norm.named_buffers():
            new = [each[name] for each in statistics]
            value.copy_(torch.cat(new) if value.ndim else new[0])


class SymbioticAugmentation(Gate):
    """Gate each map by a learnt mixture of the regions' masks [1]_: SSG at a fraction of its maps.

    .. [1] Kalayeh, Shah, "On Symbiosis of Attribute Prediction and Semantic Segmentation", TPAMI 2019.
    """

    def __init__(self, channels: int, num_regions: int, stride: int = 4, pool: bool = True) -> None:
        super().__init__(channels, num_regions, stride, pool)
        self.convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.mixture = nn.Conv2d(num_regions, channels, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = nn.PReLU(channels)

    def forward(self, x: Tensor, regions: Regions | None) -> Tensor:
        x = self.convolution(x)
        gated = x * self.mixture(self.masks(x, regions))
        return cast(Tensor, self.pool(self.activation(self.norm(gated))))
