"""Gating in the middle of an encoder: activations are kept apart by semantic region while they are pooled."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import conv2d, max_pool2d
from torch.utils.checkpoint import checkpoint

from facelightning.models.blocks import PReLU, max_pool, prelu
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

    Before pooling, the N·C maps never exist together: BatchNorm's statistics are matrix products of masks and maps, and
    a region's C maps are pooled first, then normalised and activated, which gives the same numbers. Only what is
    exported has them at once, and what is compiled for a GPU, where :func:`torch.compile` keeps few of them by itself.

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
        # on a processor, a compiled training is faster with a gate that is not
        if torch.compiler.is_compiling() and not (self.training and x.device.type == "cpu"):
            return cast(Tensor, self.restored(self._all_at_once(x, masks)))
        return cast(Tensor, self.restored(self._one_by_one(x, masks)))

    def _all_at_once(self, x: Tensor, masks: Tensor) -> Tensor:
        gated = (masks.unsqueeze(2) * x.unsqueeze(1)).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.restore(self.pool(self.activation(self.norm(gated)))))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch is only partly typed
    def _one_by_one(self, x: Tensor, masks: Tensor) -> Tensor:
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            scale, shift = self._normalization(x, masks)
        slopes, weights = self.activation.weight, self.restore.weight
        # pooling before or after them makes no difference, unless one of them turns large into small
        in_order = x.is_meta or bool(((scale >= 0) & (slopes >= 0)).all())
        # maps that are not pooled are too large to exist all at once
        parts = masks.chunk(masks.shape[1], dim=1) if isinstance(self.pool, nn.Identity) else [masks]
        sizes = [x.shape[1] * part.shape[1] for part in parts]
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        of_parts = [torch.split(each, sizes, dim) for each, dim in ((scale, 0), (shift, 0), (slopes, 0), (weights, 1))]
        for part, *own in zip(parts, *of_parts, strict=True):
            maps = [self._pooled(x, part)] if in_order else [self._pooled(x, part), -self._pooled(x, -part)]
            total = total + checkpoint(_mixed, own, *maps, use_reentrant=False, preserve_rng_state=False)
        return total

    def _pooled(self, x: Tensor, masks: Tensor) -> Tensor:
        if isinstance(self.pool, nn.Identity):
            return x * masks
        return cast(Tensor, LargestOfWindow.apply(x, masks))

    def _normalization(self, x: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What the BatchNorm multiplies and adds, ``(N·C,)`` each: its statistics are products of masks and maps."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        mean, variance = norm.running_mean, norm.running_var
        if norm.training:
            masks = masks.to(torch.promote_types(x.dtype, torch.float32))
            count = _total(torch.tensor(float(masks[:, 0].numel()), device=x.device), norm)
            if not count.is_meta and count < 2:
                raise ValueError("SemanticGating in training needs more than one value of each map, as BatchNorm does")
            # one row for each map's, and each mask's, values in all images: a sum over them is one product
            x, masks = x.movedim(1, -1).flatten(0, -2), masks.transpose(0, 1).flatten(1)
            # the variance is a small difference of large squares, unless the maps lie around 0
            centre = _total(x.detach().sum(dim=0, dtype=masks.dtype), norm) / count
            first, mixed, second = _total(Moments.apply(x, centre, masks), norm) / count
            squares = masks.square()
            of_masks = torch.stack([masks.sum(dim=1), squares.sum(dim=1)])[..., None]
            of_mask, of_square = _total(of_masks, norm) / count
            mean = (first + of_mask * centre).flatten()
            variance = second - first.square() + 2 * centre * (mixed - of_mask * first)
            variance = (variance + centre.square() * (of_square - of_mask.square())).clamp(min=0).flatten()
            with torch.no_grad():
                norm.num_batches_tracked += 1
                share = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
                norm.running_mean += share * (mean - norm.running_mean)
                norm.running_var += share * (variance * count / (count - 1) - norm.running_var)
        scale = norm.weight * (variance + norm.eps).rsqrt()
        return scale, norm.bias - mean * scale


def _total(values: Tensor, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> Tensor:
    """The sum over all processes whose batches a BatchNorm sees."""
    if isinstance(norm, nn.SyncBatchNorm) and distributed.is_available() and distributed.is_initialized():
        return cast(Tensor, all_reduce(values, group=norm.process_group))  # type: ignore[no-untyped-call]  # torch is only partly typed
    return values


class Moments(torch.autograd.Function):
    """The sums of m·x, m²·x and m²·x² for each mask m and map x; it keeps neither squares nor x in single precision.

    Shape:
        - x: ``(P, C)``, from which ``centre``, ``(C,)``, is taken first.
        - masks: ``(N, P)``.
        - return: ``(3, N, C)``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, centre: Tensor, masks: Tensor) -> Tensor:
        ctx.save_for_backward(x, centre, masks)
        x, squares = x - centre, masks.square()
        return torch.stack([masks @ x, squares @ x, squares @ x.square()])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        kept, centre, masks = ctx.saved_tensors
        x, squares, (first, mixed, second), of_x, of_masks = kept - centre, masks.square(), gradient, None, None
        if ctx.needs_input_grad[0]:
            of_x = torch.cat([masks, squares]).t() @ torch.cat([first, mixed])
            of_x = of_x.addcmul_(squares.t() @ second, x, value=2).to(kept.dtype)
        if ctx.needs_input_grad[2]:
            of_masks = first @ x.t() + 2 * masks * (mixed @ x.t() + second @ x.square().t())
        return of_x, None, of_masks


def _mixed(own: Sequence[Tensor], *extremes: Tensor) -> Tensor:
    """What regions add to the mixture, of the largest, and perhaps the smallest, of their activations in each window.

    Whatever the sign of a slope, what is largest after normalisation and activation was largest or smallest before.
    """
    scale, shift, slopes, weights = (each.to(extremes[0].dtype) for each in own)
    ends = [prelu(torch.addcmul(shift.view(-1, 1, 1), maps, scale.view(-1, 1, 1)), slopes) for maps in extremes]
    return conv2d(ends[0] if len(ends) == 1 else torch.maximum(*ends), weights)


class LargestOfWindow(torch.autograd.Function):
    """The largest of each region's activations in each window of 2×2; for the gradient it keeps their places alone.

    Shape:
        - x: ``(B, C, H, W)``.
        - masks: ``(B, N, H, W)``.
        - return: ``(B, N·C, ⌈H/2⌉, ⌈W/2⌉)``, the first region's maps first; of equal values the first has the gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, masks: Tensor) -> Tensor:
        number = masks.shape[1]
        small = torch.int16 if x.shape[2] * x.shape[3] < 2**15 else torch.int32
        largest, places = [], []
        for mask in masks.chunk(number, dim=1):
            values, indices = max_pool2d(x * mask, 2, ceil_mode=True, return_indices=True)
            largest.append(values)
            places.append(indices.to(small))
        ctx.save_for_backward(x, masks, *places)
        return torch.cat(largest, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, masks, *places = ctx.saved_tensors
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        number, (needs_x, needs_masks) = masks.shape[1], ctx.needs_input_grad
        of_x, of_masks = torch.zeros_like(x) if needs_x else None, []
        for mask, part, place in zip(masks.chunk(number, dim=1), gradient.chunk(number, dim=1), places, strict=True):
            part, place = (each.contiguous(memory_format=layout) for each in (part, place.long()))
            # as that of the plain pooling, which reads no more of x than its size
            spread = torch.ops.aten.max_pool2d_with_indices_backward(part, x, [2], [2], [0], [1], True, place)
            if of_x is not None:
                of_x.addcmul_(spread, mask)
            if needs_masks:
                of_masks.append((spread * x).sum(dim=1, keepdim=True))
        return of_x, torch.cat(of_masks, dim=1) if needs_masks else None


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
