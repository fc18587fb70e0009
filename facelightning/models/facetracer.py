"""Hand-crafted features of the parts of a face: the one encoder that learns nothing."""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facelightning.errors import ConfigurationError
from facelightning.models.encoders import Encoder, Input, Tail
from facelightning.models.parts import need_parts
from facelightning.models.regions import Regions

CELLS, ORIENTATIONS, BINS = 4, 9, 8
"""Cells along each side of a part, orientations of gradients in a cell, levels of a colour channel."""

LENGTH = CELLS**2 * ORIENTATIONS + 3 * BINS
"""Numbers that describe a part; the time to fit SVMs grows with them."""


class FaceTracer(Encoder):
    """Gradients and colours of each part, for SVMs: after FaceTracer [1]_, as Liu et al. [2]_ compare with it.

    A part has a histogram of nine oriented gradients (Dalal, Triggs, CVPR 2005) in each of 4×4 cells, normalised as one
    block, and one of each colour channel, with eight bins: 168 numbers. The sizes are ours. FaceTracer itself chooses
    among features for each attribute.

    The features of an image are a map of one cell. They are computed on the CPU, image by image: the same in any batch.

    Args:
        image_input: :class:`~facelightning.models.parts.PartCrops`, of a size that 4 divides.

    Raises:
        ConfigurationError: If the input is another, or scikit-image is missing.

    Example:
        >>> from facelightning.models.parts import PartCrops
        >>> FaceTracer(PartCrops(num_regions=11)).channels
        (1848,)

    .. [1] Kumar, Belhumeur, Nayar, "FaceTracer: A Search Engine for Large Collections of Images with Faces", ECCV 2008.
    .. [2] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, §5.
    """

    def __init__(self, image_input: Input) -> None:
        super().__init__()
        try:
            from skimage.feature import hog  # here, because only this needs scikit-image
        except ImportError:
            raise ConfigurationError(
                "FaceTracer's gradients are scikit-image's, which is not installed: "
                "pip install 'facelightning[facetracer]'"
            ) from None
        parts = need_parts(self, image_input)
        if parts.size % CELLS:
            raise ConfigurationError(f"FaceTracer: {CELLS} must divide the size of PartCrops, not {parts.size}")
        self.input, self.hog = image_input, hog
        self.channels, self.strides = (parts.num_parts * LENGTH,), (parts.size,)

    def tail(self) -> Tail:
        """No layers."""
        return Tail(channels=self.channels[-1], stride=self.strides[-1])

    def describe(self, part: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The features ``(168,)`` of a part ``(h, h, 3)``, RGB: gradients, then shares of each channel's levels."""
        cell, block = (len(part) // CELLS,) * 2, (CELLS, CELLS)
        gradients = self.hog(part, ORIENTATIONS, pixels_per_cell=cell, cells_per_block=block, channel_axis=2)
        colours = [cv2.calcHist([part], [channel], None, [BINS], [0, 256]).ravel() for channel in range(3)]
        return np.concatenate([gradients, np.concatenate(colours) / part[..., 0].size], dtype=np.float32)

    @torch.no_grad()
    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        crops = self.input(images, regions)
        features = crops.new_empty(len(crops), self.channels[-1], 1, 1)
        if not features.is_meta:  # as it is where only shapes are asked for
            parts = (255 * crops).round().byte().unflatten(1, (-1, 3)).permute(0, 1, 3, 4, 2).cpu().contiguous().numpy()
            rows = [np.concatenate([self.describe(part) for part in image]) for image in parts]
            features.copy_(torch.from_numpy(np.stack(rows))[..., None, None])
        return [features]
