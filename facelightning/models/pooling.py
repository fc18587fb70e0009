"""From the last feature map to one vector for each place: the whole image, cells of a grid, or semantic regions."""

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from facelightning.errors import ConfigurationError
from facelightning.models.regions import Regions, need_regions


class Pooled(NamedTuple):
    """The result of pooling a map."""

    vectors: Tensor
    """The mean feature of each of N places, ``(B, N, C)``; 0 where a place is absent."""
    present: Tensor
    """Whether the place is present in the image, ``(B, N, 1)``, bool."""


class Pooling(nn.Module):
    """Pools a map's features by place, without parameters.

    Args:
        stride: Stride of the map.

    Shape:
        - features: ``(B, C, H, W)``.
        - return: :class:`Pooled`.
    """

    needs_regions = False

    def __init__(self, stride: int = 16) -> None:
        super().__init__()
        self.stride = stride

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the places, given the names of the regions."""
        raise NotImplementedError

    def forward(self, features: Tensor, regions: Regions | None) -> Pooled:
        raise NotImplementedError


class AveragePooling(Pooling):
    """Global average pooling: one place (Kalayeh et al., CVPR 2017, §3.1.1)."""

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        return ("image",)

    def forward(self, features: Tensor, regions: Regions | None = None) -> Pooled:
        return _everywhere(features.mean(dim=(2, 3)).unsqueeze(1))


class MaximumPooling(Pooling):
    """The largest value of each channel: one place."""

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        return ("image",)

    def forward(self, features: Tensor, regions: Regions | None = None) -> Pooled:
        return _everywhere(features.amax(dim=(2, 3)).unsqueeze(1))


class LogSumExpPooling(Pooling):
    """A smooth maximum of each channel, log(mean(exp(r x))) / r: one place.

    Between the mean (r → 0) and the maximum (r → ∞); after Pinheiro, Collobert, "From Image-level to Pixel-level
    Labeling with Convolutional Networks", CVPR 2015.

    Args:
        stride: Stride of the map.
        sharpness: r.

    Example:
        >>> LogSumExpPooling(sharpness=100.0)(torch.tensor([[[[0.0, 1.0]]]])).vectors
        tensor([[[0.9931]]])
    """

    def __init__(self, stride: int = 16, sharpness: float = 4.0) -> None:
        super().__init__(stride)
        self.sharpness = sharpness

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        return ("image",)

    def forward(self, features: Tensor, regions: Regions | None = None) -> Pooled:
        scaled = self.sharpness * features.to(torch.promote_types(features.dtype, torch.float32))
        total = scaled.logsumexp(dim=(2, 3)) - log(features.shape[-2] * features.shape[-1])
        return _everywhere((total / self.sharpness).to(features.dtype).unsqueeze(1))


class GridPooling(Pooling):
    """The mean of each cell of a grid, so that dense layers keep places apart on maps of any size.

    Args:
        stride: Stride of the map.
        cells: Cells along each side.

    Example:
        >>> GridPooling(cells=3)(torch.rand(2, 8, 14, 12)).vectors.shape
        torch.Size([2, 9, 8])
    """

    def __init__(self, stride: int = 16, cells: int = 6) -> None:
        super().__init__(stride)
        self.cells = cells

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"row {row}, column {column}" for row in range(self.cells) for column in range(self.cells))

    def forward(self, features: Tensor, regions: Regions | None = None) -> Pooled:
        return _everywhere(adaptive_avg_pool2d(features, self.cells).flatten(2).transpose(1, 2))


class PyramidPooling(Pooling):
    """The cells of a 1×1 and a 2×2 grid ("SPPNet*": Kalayeh et al., CVPR 2017, §4.3).

    After He, Zhang, Ren, Sun, "Spatial Pyramid Pooling in Deep Convolutional Networks", ECCV 2014, but it averages
    instead of taking maxima, so that it differs from the basic network only in where it pools.

    Example:
        >>> PyramidPooling()(torch.rand(2, 8, 14, 12)).vectors.shape
        torch.Size([2, 5, 8])
    """

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        return ("image", "upper left", "upper right", "lower left", "lower right")

    def forward(self, features: Tensor, regions: Regions | None = None) -> Pooled:
        cells = [adaptive_avg_pool2d(features, level).flatten(2) for level in (1, 2)]
        return _everywhere(torch.cat(cells, dim=2).transpose(1, 2))


class SemanticPooling(Pooling):
    """The mean feature within each region (SSP; Kalayeh et al., CVPR 2017, §3.1.2); a region of zero mass is absent.

    Raises:
        ConfigurationError: If features and masks differ in height or width; the message names both sizes.

    Example:
        >>> from facelightning.models.regions import BoxRegions
        >>> boxes = BoxRegions(torch.tensor([[[40.0, 40, 90, 60]]]), (218, 178))
        >>> SemanticPooling()(torch.rand(1, 8, 14, 12), boxes).vectors.shape
        torch.Size([1, 2, 8])
    """

    needs_regions = True

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        need_regions(self, len(regions))
        return regions

    def forward(self, features: Tensor, regions: Regions | None) -> Pooled:
        assert regions is not None
        masks = regions.at(self.stride)
        if features.shape[-2:] != masks.shape[-2:]:
            sizes = [" × ".join(map(str, x.shape[-2:])) for x in (features, masks)]
            raise ConfigurationError(
                f"SemanticPooling: features ({sizes[0]}) and masks ({sizes[1]}) must have the same height and width"
            )
        masks = masks.to(features.dtype)
        mass = masks.sum(dim=(2, 3)).unsqueeze(2)  # (B, N, 1)
        present = mass > 0
        sums = torch.einsum("bchw,bnhw->bnc", features, masks)
        return Pooled(torch.where(present, sums / mass.where(present, 1), 0), present)


def _everywhere(vectors: Tensor) -> Pooled:
    return Pooled(vectors, torch.ones_like(vectors[..., :1], dtype=torch.bool))
