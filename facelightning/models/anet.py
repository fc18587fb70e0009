"""ANet: attributes of a face that need not be aligned, from filters that differ from one part of the face to another.

From Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, §3.2. The figure that held the sizes
is lost; the shape of the network follows DeepID2 (Sun et al., NIPS 2014), which has the same layers and which the paper
builds on: filters 1 : 2 : 3 : 4. Kernels, grids and features are ours.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from facelightning.errors import ConfigurationError
from facelightning.models.blocks import Normalize
from facelightning.models.heads import HeadFactory, LinearHead
from facelightning.models.max_pooling import MaxPool
from facelightning.models.pooling import Pooled

VIEWS = {
    1: {"face": (0, 0)},
    5: {"centre": (1, 1), "upper left": (0, 0), "upper right": (0, 2), "lower left": (2, 0), "lower right": (2, 2)},
}
"""Where each view of C4's map begins, row and column, by the number of views: the whole map, or centre and corners."""


class LocallyShared(nn.Module):
    """A valid convolution with other filters in each cell of a grid; without ReLU (Liu et al., ICCV 2015, equation 4).

    The grid has G×G cells of n×n outputs. One face needs a map of side S = G n + k - 1. On a larger map the grid can be
    placed in several ways; a placement is the place of its first row and column. The interweaved operation (§3.2,
    Fig. 5) evaluates them all: each cell's filters run once over all positions where any placement needs them, and
    the responses of one placement are then put beside one another. It equals running the grid on every S×S crop.

    Args:
        in_channels: C.
        out_channels: O.
        grid: G, cells along each side.
        cell: n, outputs along each side of a cell.
        kernel_size: k.
        bias: Whether each cell's filters have biases.

    Shape:
        - x: ``(B, C, S + R - 1, S + Q - 1)``, R×Q placements.
        - return: ``(B, R, Q, O, G n, G n)``.

    Raises:
        ValueError: If the map is smaller than S×S; the message names both sizes.

    Example:
        >>> layer = LocallyShared(8, 16, grid=4, cell=3, kernel_size=3)
        >>> layer(torch.rand(2, 8, 14, 14)).shape, layer(torch.rand(2, 8, 14, 18)).shape
        (torch.Size([2, 1, 1, 16, 12, 12]), torch.Size([2, 1, 5, 16, 12, 12]))
    """

    def __init__(
        self, in_channels: int, out_channels: int, grid: int, cell: int, kernel_size: int, bias: bool = True
    ) -> None:
        super().__init__()
        self.grid, self.cell, self.size = grid, cell, grid * cell + kernel_size - 1
        # One group a cell, row by row: its weights are (G² O, C, k, k), so that fan-in is that of one cell.
        groups = grid * grid
        self.filters = nn.Conv2d(groups * in_channels, groups * out_channels, kernel_size, groups=groups, bias=bias)
        nn.init.kaiming_normal_(self.filters.weight, nonlinearity="relu")
        if self.filters.bias is not None:
            nn.init.zeros_(self.filters.bias)

    def responses(self, x: Tensor) -> Tensor:
        """Each cell's filters where any placement needs them, ``(B, G² O, n + R - 1, n + Q - 1)``, cells row by row."""
        height, width = x.shape[-2:]
        if min(height, width) < self.size:
            raise ValueError(f"a map of {height} × {width} is smaller than the grid's {self.size} × {self.size}")
        rest = (self.grid - 1) * self.cell
        windows = x.unfold(2, height - rest, self.cell).unfold(3, width - rest, self.cell)  # (B, C, G, G, h, w)
        return cast(Tensor, self.filters(windows.permute(0, 2, 3, 1, 4, 5).flatten(1, 3)))

    def weave(self, responses: Tensor) -> Tensor:
        """The interweaved map of every placement, ``(B, R, Q, O, G n, G n)``, each channels-last."""
        batch, _, height, width = responses.shape
        # Channels come last here: a copy of whole vectors, not of n numbers at a time, is several times faster.
        cells = responses.movedim(1, -1).reshape(batch, height, width, self.grid, self.grid, -1)
        placed = cells.unfold(1, self.cell, 1).unfold(2, self.cell, 1)  # (B, R, Q, G, G, O, n, n)
        return placed.permute(0, 1, 2, 3, 6, 4, 7, 5).flatten(5, 6).flatten(3, 4).movedim(-1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.weave(self.responses(x))


class LocalBlock(LocallyShared):
    """The same with BatchNorm and ReLU: every cell has its own statistics, scale and shift, as it has its own filters.

    Placements equal crops in evaluation mode; in training, statistics are those of all positions.
    """

    def __init__(self, in_channels: int, out_channels: int, grid: int, cell: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, grid, cell, kernel_size, bias=False)
        self.norm = nn.BatchNorm2d(grid * grid * out_channels)

    def responses(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(super().responses(x))).relu()


def shared_block(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU, overlapping max pooling (equations 1 and 2).

    No layer pads: a crop's zeros in place of its surroundings would make placements differ from crops.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        MaxPool(kernel_size=3, stride=2),
    )


class VectorNorm(nn.BatchNorm1d):
    """BatchNorm of vectors. One alone, such as the last image of an epoch, is normalised by the running statistics.

    Example:
        >>> VectorNorm(2, eps=0)(torch.tensor([[3.0, -4.0]]))
        tensor([[ 3., -4.]], grad_fn=<NativeBatchNormBackward0>)
    """

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class ANetwork(nn.Module):
    """Four convolutional layers, three max poolings and a fully connected layer (Liu et al., ICCV 2015, §3.2).

    - C1: ``width`` filters of 5×5, stride 2; max pooling 3×3, stride 2.
    - C2: 2 ``width`` filters of 3×3; max pooling 3×3, stride 2.
    - C3: 3 ``width`` filters of 3×3 in 4×4 cells of n×n; max pooling 2×2, stride 2.
    - C4: 4 ``width`` filters of 3×3 in 2×2 cells of (n-1)×(n-1).
    - FC: 8 ``width`` units for each view.

    The paper has no BatchNorm; ours follows every layer, so that training from random weights works. Without it, many
    units of FC are soon 0 for all images: its inputs have a common positive mean.

    A larger image holds the face anywhere: it has one placement for every 8 pixels, and the network describes the best.
    The best has the largest response of C4 (equation 5) over cells, positions and channels; the paper shows one
    channel, and the maximum over channels is our choice. Of equal placements the first counts. Up to 7 last rows and
    columns that fill no placement are not seen. Train on images of ``image_size``, which have one placement.

    Several views of the best map of C4 go through FC each (§3.2). Where the paper crops is not known; ours are its
    centre and its four corners, two rows and columns smaller than the map; one view is the whole map.

    Args:
        num_outputs: What the head predicts: A attributes; or I identities, for pre-training (§4).
        width: Filters of the first layer; scales every layer.
        cell: n, at least 3; the face is 32 n + 33 pixels wide and high: 161 by default.
        views: V, 1 or 5.
        head: Makes the classifier of the views' features.
        key: The key of its logits in the output.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; RGB.
        - return: ``key``: logits ``(B, A)``; ``"features"``: ``(B, V D)``, D = 8 width, not negative; ``"placement"``:
          row and column of the best placement in pixels, ``(B, 2)``, int64; ``"region_weights"``: ``(B, V, A)``, if the
          head weighs views.

    Raises:
        ConfigurationError: If views or cell do not fit, or images are smaller than ``image_size``.

    Example:
        >>> network = ANetwork(40, width=4, cell=3, views=5)
        >>> output = network(torch.rand(2, 3, 161, 145))
        >>> output["attributes"].shape, output["features"].shape
        (torch.Size([2, 40]), torch.Size([2, 160]))
        >>> network.image_size, network.placements(torch.rand(2, 3, 161, 145)).shape
        ((129, 129), torch.Size([2, 5, 3, 16, 4, 4]))
    """

    stride = 8
    """Pixels between neighbouring placements."""

    def __init__(
        self,
        num_outputs: int,
        width: int = 64,
        cell: int = 4,
        views: int = 1,
        head: HeadFactory = LinearHead,
        key: str = "attributes",
    ) -> None:
        super().__init__()
        if views not in VIEWS:
            raise ConfigurationError(f"ANet: views must be 1 or 5, not {views}")
        if cell < 3:  # a map that five views of at least 2×2 fit into
            raise ConfigurationError(f"ANet: cell must be at least 3, not {cell}")
        self.key, self.image_size = key, (32 * cell + 33, 32 * cell + 33)
        self.views, self.places = VIEWS[views], tuple(VIEWS[views])
        self.window, self.num_features = 2 * (cell - 1) - (0 if views == 1 else 2), views * 8 * width
        self.normalize = Normalize()
        self.shared = nn.Sequential(shared_block(3, width, 5, 2), shared_block(width, 2 * width, 3, 1))
        self.conv3 = LocalBlock(2 * width, 3 * width, 4, cell, 3)
        self.pool = MaxPool(2)
        self.conv4 = LocalBlock(3 * width, 4 * width, 2, cell - 1, 3)
        inputs = 4 * width * self.window**2
        self.fc = nn.Sequential(nn.Linear(inputs, 8 * width, bias=False), VectorNorm(8 * width), nn.ReLU())
        self.head = head(8 * width, views, num_outputs)
        self.to(memory_format=torch.channels_last)

    def placements(self, images: Tensor) -> Tensor:
        """C4's map of every placement, ``(B, R, Q, 4 width, M, M)``, M = 2 (n - 1); rows and columns 8 pixels apart."""
        side, (height, width) = self.image_size[0], images.shape[-2:]
        if min(height, width) < side:
            raise ConfigurationError(
                f"ANet: images of {height} × {width} are smaller than its {side} × {side}; give the data module an "
                f"image_size of [{side}, {side}] or more (a network of cell 3, the smallest, needs 129 × 129)"
            )
        woven = self.conv3(self.shared(self.normalize(images)))  # (B, R, Q, 3 width, 4 n, 4 n)
        faces = self.conv4(self.pool(woven.flatten(0, 2)))  # each has one placement: (B R Q, 1, 1, ...)
        return cast(Tensor, faces.reshape(*woven.shape[:3], *faces.shape[3:]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.placements(images)
        columns, faces = maps.shape[2], maps.flatten(1, 2)
        best = faces.detach().amax(dim=(2, 3, 4)).argmax(dim=1)  # equation 5
        face = faces[torch.arange(len(best), device=best.device), best]
        side = self.window
        starts = self.views.values()
        views = torch.stack([face[..., y : y + side, x : x + side].flatten(1) for y, x in starts], dim=1)
        vectors = self.fc(views.flatten(0, 1)).unflatten(0, views.shape[:2])  # (B, V, D)
        placement = self.stride * torch.stack([best // columns, best % columns], dim=1)
        pooled = Pooled(vectors, torch.ones_like(vectors[..., :1], dtype=torch.bool))
        said = self.head(pooled)
        return {"features": vectors.flatten(1), "placement": placement, self.key: said.pop("logits"), **said}
