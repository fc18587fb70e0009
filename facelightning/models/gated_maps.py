"""The arithmetic of semantic gating, without N·C maps: sums over all of them, and a few regions' maps at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, prelu

from facelightning.models.max_pooling import pooled, spread


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
        x, squares = x.to(centre.dtype, copy=True).sub_(centre), masks.square()
        first, mixed = (torch.cat([masks, squares]) @ x).chunk(2)
        return torch.stack([first, mixed, squares @ x.square_()])

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


WINDOWS = 2, 2, 0, True
"""Side, stride and padding of what is pooled, and that a last odd row or column is kept."""

AT_ONCE = 4
"""Regions whose pooled maps take as much memory as those of one region before pooling."""


class MixedRegions(torch.autograd.Function):
    """Gate by each region, pool, normalise, activate, and mix, also for the gradient.

    It gates and pools one region at a time; the pooled maps, a quarter as large, of :data:`AT_ONCE` regions are then
    taken together. For the gradient it keeps, besides its inputs, what was chosen in each window of 2×2, and where;
    without pooling, it gates again. Of equal values the first has the gradient.

    Shape:
        - x: ``(B, C, H, W)``.
        - masks: ``(B, N, H, W)``.
        - scale, shift, slopes: ``(N·C,)``, of normalisation and activation; the first region's first.
        - weights: ``(D, N·C, 1, 1)``.
        - return: ``(B, D, ⌈H/2⌉, ⌈W/2⌉)``, or ``(B, D, H, W)`` without pooling.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, masks: Tensor, scale: Tensor, shift: Tensor, slopes: Tensor, weights: Tensor, pool: bool
    ) -> Tensor:
        # pooling before or after them makes no difference, unless one of them turns large into small
        in_order = x.is_meta or bool(((scale >= 0) & (slopes >= 0)).all())
        # the sum over regions is rounded once
        total = x.new_zeros(1, len(weights), dtype=torch.promote_types(x.dtype, torch.float32))
        kept: list[Tensor] = []
        for some, *vectors, of_weights in _groups(pool, masks, scale, shift, slopes, weights):
            gated = []
            for mask, *own in _regions(some, *vectors):
                maps = x * mask
                if pool:
                    compared = maps if in_order else _as_maps(_activated(_pixels(maps), *own), maps)
                    largest, places = pooled(compared, *WINDOWS)
                    maps = largest if in_order else maps.flatten(2).gather(2, places.long().flatten(2)).view_as(places)
                    kept.append(places)
                gated.append(_pixels(maps))
            rows = torch.cat(gated, dim=1)
            kept += [rows] if pool else []
            total = total + _activated(rows, *vectors) @ of_weights.t()
        ctx.save_for_backward(x, masks, scale, shift, slopes, weights, *kept)
        ctx.pool = pool
        return _as_maps(total.to(x.dtype), maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, masks, *saved = ctx.saved_tensors
        parameters, kept = saved[:4], iter(saved[4:])
        needs_x, needs_masks, *_ = ctx.needs_input_grad
        given, of_x = _pixels(gradient), torch.zeros_like(x) if needs_x else None
        of_masks: list[Tensor] = []
        of_parameters: list[tuple[Tensor, ...]] = []
        for some, scale, shift, slopes, weights in _groups(ctx.pool, masks, *parameters):
            regions = torch.split(some, 1, dim=1)
            places = [next(kept) for _ in regions if ctx.pool]
            rows = next(kept) if ctx.pool else torch.cat([_pixels(x * mask) for mask in regions], dim=1)
            normed = torch.addcmul(shift, rows, scale)
            of_activated = given @ weights
            of_positive = torch.ops.aten.threshold_backward(of_activated, normed, 0)
            of_negative = of_activated.sub_(of_positive)
            of_normed = of_positive.addcmul_(of_negative, slopes)
            of_slopes, of_weights = of_negative.mul_(normed).sum(dim=0), given.t() @ prelu(normed, slopes)
            of_scale = torch.mul(of_normed, rows, out=normed).sum(dim=0)
            of_parameters.append((of_scale, of_normed.sum(dim=0), of_slopes, of_weights))
            of_rows = of_normed.mul_(scale).split(x.shape[1], dim=1)
            for number, mask in enumerate(regions):
                of_maps = _as_maps(of_rows[number], gradient)
                if ctx.pool:
                    of_maps = spread(of_maps, places[number], x.shape[2], x.shape[3], *WINDOWS)
                if needs_masks:
                    of_masks.append((of_maps * x).sum(dim=1, keepdim=True))
                if of_x is not None:
                    of_x.addcmul_(of_maps, mask)
        *vectors, matrices = zip(*of_parameters, strict=True)
        rest = (*(torch.cat(each) for each in vectors), torch.cat(matrices, dim=1)[..., None, None], None)
        return of_x, torch.cat(of_masks, dim=1) if needs_masks else None, *rest


def _activated(rows: Tensor, scale: Tensor, shift: Tensor, slopes: Tensor) -> Tensor:
    return prelu(torch.addcmul(shift, rows, scale), slopes)


def _groups(pool: bool, masks: Tensor, *parameters: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Of some regions, masks ``(B, G, H, W)``, scale, shift and slopes ``(G·C,)``, and weights ``(D, G·C)``."""
    *vectors, matrix = parameters
    some = AT_ONCE if pool else 1
    size = len(vectors[0]) // masks.shape[1] * some
    parts = [*(torch.split(each, size) for each in vectors), torch.split(matrix.flatten(1), size, dim=1)]
    return zip(torch.split(masks, some, dim=1), *parts, strict=True)


def _regions(masks: Tensor, *vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Of each region, its mask ``(B, 1, H, W)``, and its part of vectors."""
    return zip(torch.split(masks, 1, dim=1), *(each.chunk(masks.shape[1]) for each in vectors), strict=True)


def _pixels(maps: Tensor) -> Tensor:
    """``(B, C, H, W)`` to a row for each pixel, ``(B·H·W, C)``."""
    return maps.movedim(1, -1).flatten(0, -2)


def _as_maps(pixels: Tensor, like: Tensor) -> Tensor:
    """A row for each pixel, ``(B·H·W, C)``, to maps of the size of others, ``(B, C, H, W)``."""
    return pixels.view(len(like), *like.shape[2:], pixels.shape[1]).movedim(-1, 1)


def corners(maps: Tensor, side: int) -> list[Tensor]:
    """The pixels of each window of ``side``², row by row: ``(B, C, H, W)`` to ``(B, ⌈H/side⌉, ⌈W/side⌉, C)`` each.

    At the edge, where a window of 2×2 has no second row or column, it has the first one twice.
    """
    for dim in (2, 3):
        if maps.shape[dim] % side:
            maps = torch.cat([maps, maps.narrow(dim, -1, 1)], dim=dim)
    return [maps[:, :, row::side, column::side].movedim(1, -1) for row in range(side) for column in range(side)]


def mix_windows(
    pixels: list[Tensor], masks: Tensor, scale: Tensor, shift: Tensor, slopes: Tensor, weights: Tensor
) -> Tensor:
    """Gate the pixels of each window by each region, normalise, activate, take the largest, and mix.

    A compiler fuses these operations, each on single pixels, into one loop; a pooling it would not fuse. Whatever the
    sign of a slope, what is largest after normalisation and activation was largest or smallest before.

    Shape:
        - pixels: those of ``corners``, four of ``(B, ⌈H/2⌉, ⌈W/2⌉, C)``; without pooling one, ``(B, H, W, C)``.
        - masks: ``(N, B, H, W)``.
        - scale, shift, slopes: ``(N, C)``, of normalisation and activation.
        - weights: ``(N, D, C)``.
        - return: ``(B, D, ⌈H/2⌉, ⌈W/2⌉)``, or ``(B, D, H, W)`` without pooling.
    """
    window = zip(pixels, corners(masks.movedim(0, 1), 1 if len(pixels) == 1 else 2), strict=True)
    gated = [values.unsqueeze(3) * mask.unsqueeze(4) for values, mask in window]  # (B, H, W, N, C)
    extremes = [_reduce(compare, gated) for compare in (torch.maximum, torch.minimum)[: len(gated)]]
    normed = (scale * each + shift for each in extremes)
    activated = [torch.where(each > 0, each, slopes * each) for each in normed]
    maps = _reduce(torch.maximum, activated).flatten(3).movedim(-1, 1)
    return conv2d(maps, weights.movedim(0, 1).flatten(1)[..., None, None])


def _reduce(compare: Callable[[Tensor, Tensor], Tensor], window: list[Tensor]) -> Tensor:
    """The largest or smallest pixel of a window, compared in pairs: a long chain is slow when it is compiled."""
    if len(window) == 1:
        return window[0]
    return compare(_reduce(compare, window[::2]), _reduce(compare, window[1::2]))
