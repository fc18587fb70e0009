"""Building blocks of every network: normalised input, the convolution block, pooling between resolutions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from facelightning.checkpoint import weights_digest
from facelightning.errors import DataFormatError
from facelightning.models.max_pooling import MaxPool


def as_floats(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Images ``(B, 3, H, W)``, uint8, or float in [0, 1], as floats in [0, 1].

    Raises:
        DataFormatError: If they are anything else, such as floats up to 255 or around 0.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise DataFormatError(f"images must be (B, 3, H, W), RGB; found {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.to(dtype) / 255
    if not images.is_floating_point():
        raise DataFormatError(f"images must be uint8 in 0...255 or float in [0, 1]; found {images.dtype}")
    if images.numel() and not (images.is_meta or torch.compiler.is_compiling()):
        low, high = images.detach().aminmax()
        if not (low >= 0 and high <= 1):  # not so for NaN either
            raise DataFormatError(
                f"images of type float must lie in [0, 1]; found {low:.4g}...{high:.4g}: pass uint8 images unchanged, "
                "or divide by 255; a network normalises its input itself"
            )
    return images


class Normalize(nn.Module):
    """Turn images into zero-centred floats; a part of the network, so that no caller can forget it.

    Mean and standard deviation are ImageNet's; the first BatchNorm makes the exact numbers unimportant.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; RGB.
        - return: ``(B, 3, H, W)``, float, channels-last, which makes convolutions faster.

    Example:
        >>> Normalize()(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).mean(dim=(0, 2, 3))
        tensor([2.2489, 2.4286, 2.6400])
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scaled = as_floats(images, self.mean.dtype)
        return ((scaled - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class PReLU(nn.PReLU):
    """PyTorch's PReLU with a slope for each channel, faster on a CPU: see :func:`prelu`.

    Shape:
        - x and return: ``(B, C, ...)``.

    Example:
        >>> PReLU(2)(torch.tensor([[-1.0, 2.0]])).tolist()
        [[-0.25, 2.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        return prelu(x, self.weight)


def prelu(x: Tensor, slopes: Tensor) -> Tensor:
    """The same as ``torch.nn.functional.prelu``, and the same gradients if they are finite, to the last bit.

    PyTorch is slow at channels-last maps on a CPU: it reads the slopes again for each pixel, a few at a time.

    Example:
        >>> prelu(torch.tensor([[-1.0, 2.0]]), torch.tensor([0.5, 0.5])).tolist()
        [[-0.5, 2.0]]
    """
    rows = x.device.type == "cpu" and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if not rows or torch.compiler.is_compiling():
        return functional.prelu(x, slopes)
    return cast(Tensor, _PReLU.apply(x, slopes.to(x.dtype)))


class _PReLU(torch.autograd.Function):
    """Of channels-last maps, each row of pixels as one run, with slopes as often as it has pixels."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, slopes: Tensor) -> Tensor:
        each = slopes.expand(x.shape[3], -1).flatten()
        return functional.prelu(_rows(x), each).view(_last(x).shape).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, slopes = ctx.saved_tensors
        rows, given, each = _rows(x), _rows(gradient), slopes.expand(x.shape[3], -1).flatten()
        positive = torch.ops.aten.threshold_backward(given, rows, 0)
        rest = given - positive
        if torch.is_grad_enabled():  # a second derivative needs what is overwritten below
            both = positive + rest * each, rest * rows
        else:
            both = positive.addcmul_(rest, each), rest.mul_(rows)
        of_x, of_slopes = (part.view(_last(x).shape) for part in both)
        return of_x.permute(0, 3, 1, 2), of_slopes.sum((0, 1, 2))


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _rows(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` as ``(B·H, W·C)``: of channels-last maps, the same memory."""
    return _last(x).flatten(2).flatten(0, 1)


class ConvBlock(nn.Sequential):
    """3×3 convolution, BatchNorm, PReLU (Kalayeh et al., Table 1); keeps height and width.

    It also serves as the paper's "Deconv": a transposed convolution of stride 1 and padding 1 is a convolution
    with mirrored kernel, so the two compute the same functions. The convolution has no bias: BatchNorm would
    cancel it, and AdaGrad would amplify the rounding noise of its zero gradient to full steps.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            PReLU(out_channels),
        )


def conv_stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two convolution blocks, for one resolution of a network."""
    return nn.Sequential(ConvBlock(in_channels, out_channels), ConvBlock(out_channels, out_channels))


def max_pool() -> MaxPool:
    """2×2 max pooling of stride 2; a last odd row or column is kept (ceil mode: 218×178 → 109×89 → 55×45)."""
    return MaxPool(kernel_size=2, stride=2, ceil_mode=True)


class Exact(nn.Module):
    """A module whose own buffers stay as they are in a network of another precision, where small changes would be lost.

    Example:
        >>> part = Exact()
        >>> part.register_buffer("total", torch.tensor(1.001))
        >>> part.to(torch.bfloat16).total
        tensor(1.0010)
    """

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch is only partly typed
        for name, exact in before.items():
            moved = self._buffers[name]
            if exact is not None and moved is not None and not (exact.is_meta or moved.is_meta):
                self._buffers[name] = exact.to(moved.device)
        return self


class Frozen(nn.Module):
    """A module that learns nothing: after :meth:`freeze`, no parameter has a gradient, and BatchNorm stays as it is.

    Example:
        >>> part = Frozen()
        >>> part.layer = nn.Linear(2, 1)
        >>> part.freeze()
        >>> part.train().training, part.layer.weight.requires_grad
        (False, False)
    """

    _digest: str | None = None

    def freeze(self) -> None:
        """Freeze what it has; call it once all parts are there."""
        self.requires_grad_(False)
        self.eval()
        for module in self.modules():
            module.register_load_state_dict_post_hook(self._forget_digest)  # type: ignore[no-untyped-call]  # not typed

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def digest(self) -> str:
        """What tells its weights from all others.

        It is computed once, and again after weights were loaded: nothing else may change them.
        """
        if self._digest is None:
            self._digest = weights_digest(self.state_dict())
        return self._digest

    def _forget_digest(self, *_: Any) -> None:
        self._digest = None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Keep a module in evaluation mode during a ``with`` block; after it, each part is in the mode it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
