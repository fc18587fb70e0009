"""Max pooling that a compiled training leaves to PyTorch's own loops."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.library import custom_op
from torch.nn.functional import max_pool2d


class MaxPool(nn.MaxPool2d):
    """Max pooling of square windows, as :class:`torch.nn.MaxPool2d`.

    In a compiled training on a processor it still pools with PyTorch's own loops: those that the compiler writes take
    several times as long.

    Example:
        >>> MaxPool(2)(torch.arange(4.0).view(1, 1, 2, 2)).item()
        3.0
    """

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0, ceil_mode: bool = False) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.device.type == "cpu" and torch.compiler.is_dynamo_compiling():  # not in exports
            maps, _ = _largest(input, self.kernel_size, self.stride, self.padding, self.ceil_mode)
            return cast(Tensor, maps)
        return cast(Tensor, super().forward(input))


def pooled(x: Tensor, size: int, stride: int, padding: int, ceil: bool) -> tuple[Tensor, Tensor]:
    """The largest of each window, and its place in the map."""
    maps, places = max_pool2d(x, size, stride, padding, ceil_mode=ceil, return_indices=True)
    return maps, places.to(torch.int16 if x.shape[2] * x.shape[3] < 2**15 else torch.int32)


def spread(
    gradient: Tensor, places: Tensor, height: int, width: int, size: int, stride: int, padding: int, ceil: bool
) -> Tensor:
    """The gradient of maps of this height and width from that of the largest of each window."""
    maps, given = _empty(gradient, places, height, width), gradient.contiguous(memory_format=_layout(places))
    # which reads no more of the maps than their size
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return cast(Tensor, backward(given, maps, [size], [stride], [padding], [1], ceil, places.long()))


def _empty(gradient: Tensor, places: Tensor, height: int, width: int, *_: Any) -> Tensor:
    shape = (*places.shape[:2], height, width)
    return torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=_layout(places))


def _layout(maps: Tensor) -> torch.memory_format:
    last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


# a compiler sees the name of such an operation, not what is in it
_largest = custom_op("facelightning::max_pool", pooled, mutates_args=())
_largest.register_fake(pooled)
_gradient = custom_op("facelightning::max_pool_backward", spread, mutates_args=())
_gradient.register_fake(_empty)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *ctx.windows = inputs
    ctx.size = x.shape[2:]
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Any, ...]:
    return _gradient(gradient, *ctx.saved_tensors, *ctx.size, *ctx.windows), None, None, None, None


_largest.register_autograd(_backward, setup_context=_keep)
