"""Gating in the middle of an encoder: activations are kept apart by semantic region while they are pooled."""

from contextlib import nullcontext
from functools import reduce
from typing import cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

from facelightning.models.blocks import PReLU, max_pool
from facelightning.models.gated_maps import MixedRegions, Moments, corners, mix_windows
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

    Before pooling, the N·C maps never exist together, unless the network is exported: BatchNorm's statistics are matrix
    products of masks and maps, and one group of regions follows another. In a compiled training, a window of pixels
    follows another too. The results are the same but for rounding.

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
        self.activation = PReLU(num_regions * channels)
        self.restore = nn.Conv2d(num_regions * channels, channels, kernel_size=1, bias=False)
        last = [nn.BatchNorm2d(channels), PReLU(channels)] if norm_restored else []
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
        compiled = torch.compiler.is_compiling()
        if compiled and not self.training:
            mixed = self._all_at_once(x, masks)
        elif compiled and not isinstance(self.norm, nn.SyncBatchNorm):  # a wait for other processes is not compiled
            mixed = self._by_window(x, masks)
        else:
            mixed = self._by_region(x, masks)
        return cast(Tensor, self.restored(mixed))

    def _all_at_once(self, x: Tensor, masks: Tensor) -> Tensor:
        gated = (masks.unsqueeze(2) * x.unsqueeze(1)).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.restore(self.pool(self.activation(self.norm(gated)))))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch is only partly typed
    def _by_region(self, x: Tensor, masks: Tensor) -> Tensor:
        scale, shift = self._normalization(x, masks)
        parameters = (each.to(x.dtype) for each in (scale, shift, self.activation.weight, self.restore.weight))
        return cast(Tensor, MixedRegions.apply(x, masks, *parameters, self._pools))

    def _by_window(self, x: Tensor, masks: Tensor) -> Tensor:
        scale, shift = self._normalization(x, masks)
        vectors = (each.to(x.dtype).view(-1, x.shape[1]) for each in (scale, shift, self.activation.weight))
        matrices = self.restore.weight.view(x.shape[1], -1, x.shape[1]).movedim(1, 0)
        pixels = corners(x, 2 if self._pools else 1)
        # a few regions at a time, so that not all of their gradients exist together
        groups = (each.tensor_split(min(3, len(matrices))) for each in (masks.movedim(1, 0), *vectors, matrices))
        wide = torch.promote_types(x.dtype, torch.float32)
        mixed = (mix_windows(pixels, *group).to(wide) for group in zip(*groups, strict=True))
        return reduce(torch.add, mixed).to(x.dtype)

    @property
    def _pools(self) -> bool:
        return not isinstance(self.pool, nn.Identity)

    def _normalization(self, x: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What the BatchNorm multiplies and adds, ``(N·C,)`` each: its statistics are products of masks and maps."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        mean, variance = norm.running_mean, norm.running_var
        if norm.training:
            with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
                mean, variance, count = self._statistics(x, masks)
            with torch.no_grad():
                norm.num_batches_tracked += 1
                share = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
                norm.running_mean += share * (mean - norm.running_mean)
                norm.running_var += share * (variance * count / (count - 1) - norm.running_var)
        scale = norm.weight * (variance + norm.eps).rsqrt()
        return scale, norm.bias - mean * scale

    def _statistics(self, x: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """Mean and variance of the gated maps, ``(N·C,)`` each, and how many values of each there are."""
        masks = masks.to(torch.promote_types(x.dtype, torch.float32))
        count: Tensor | float = float(masks[:, 0].numel())
        if isinstance(self.norm, nn.SyncBatchNorm):
            count = _total(torch.tensor(count, device=x.device), self.norm)
        if not x.is_meta and count < 2:
            raise ValueError("SemanticGating in training needs more than one value of each map, as BatchNorm does")
        # one row for each map's, and each mask's, values in all images: a sum over them is one product
        x, masks = x.movedim(1, -1).flatten(0, -2), masks.transpose(0, 1).flatten(1)
        # the variance is a small difference of large squares, unless the maps lie around 0
        centre = _total(x.detach().sum(dim=0, dtype=masks.dtype), self.norm) / count
        first, mixed, second = _total(Moments.apply(x, centre, masks), self.norm) / count
        squares = masks.square()
        of_masks = torch.stack([masks.sum(dim=1), squares.sum(dim=1)])[..., None]
        of_mask, of_square = _total(of_masks, self.norm) / count
        variance = second - first.square() + 2 * centre * (mixed - of_mask * first)
        variance = (variance + centre.square() * (of_square - of_mask.square())).clamp(min=0)
        return (first + of_mask * centre).flatten(), variance.flatten(), count


def _total(values: Tensor, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> Tensor:
    """The sum over all processes whose batches a BatchNorm sees."""
    if isinstance(norm, nn.SyncBatchNorm) and distributed.is_available() and distributed.is_initialized():
        return cast(Tensor, all_reduce(values, group=norm.process_group))  # type: ignore[no-untyped-call]  # torch is only partly typed
    return values


class SymbioticAugmentation(Gate):
    """Gate each map by a learnt mixture of the regions' masks [1]_: SSG at a fraction of its maps.

    .. [1] Kalayeh, Shah, "On Symbiosis of Attribute Prediction and Semantic Segmentation", TPAMI 2019.
    """

    def __init__(self, channels: int, num_regions: int, stride: int = 4, pool: bool = True) -> None:
        super().__init__(channels, num_regions, stride, pool)
        self.convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.mixture = nn.Conv2d(num_regions, channels, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = PReLU(channels)

    def forward(self, x: Tensor, regions: Regions | None) -> Tensor:
        x = self.convolution(x)
        gated = x * self.mixture(self.masks(x, regions))
        return cast(Tensor, self.pool(self.activation(self.norm(gated))))
