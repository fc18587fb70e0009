"""Finding faces in whole photographs: by the responses of one or two LNets, coarse to fine."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align

from facelightning.boxes import Floats, around, clipped, containing, rescaled
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.blocks import Frozen, as_floats
from facelightning.models.density_peaks import find_peaks, windows
from facelightning.models.lnet import response_map


class FoundFaces(NamedTuple):
    """The F faces found in a batch: in the order of the images, and in each image the most certain first."""

    image: npt.NDArray[np.int64]
    """Index of a face's image in the batch, ``(F,)``."""
    boxes: Floats
    """x0, y0, x1, y1 in pixels of the batch's images, ``(F, 4)``; x1 and y1 are exclusive."""
    responses: Floats
    """How strong the evidence is, ``(F,)``; the scale is the finder's own."""
    images: int
    """Number of images in the batch."""

    def by_image(self) -> list[npt.NDArray[np.int64]]:
        """For each image, the indices of its faces."""
        return [np.flatnonzero(self.image == number) for number in range(self.images)]


class Finder(Frozen):
    """The contract of all that finds faces."""

    def forward(self, images: Tensor, frames: Floats, sizes: Floats, names: Sequence[str]) -> FoundFaces:
        """Find the faces of a batch.

        Args:
            images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
            frames: Where the photograph lies within its image, which is padded: boxes ``(B, 4)``.
            sizes: Height and width of the photographs' files, ``(B, 2)``.
            names: The images' names, ``B``.
        """
        raise NotImplementedError


def crop(images: Tensor, index: npt.NDArray[np.int64], boxes: Floats, size: tuple[int, int]) -> Tensor:
    """Cut boxes out of a batch and bring them to one size; black beyond the images, as padded images are.

    Args:
        images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        index: The image of each box, ``(F,)``.
        boxes: ``(F, 4)``, in pixels; they may leave the image.
        size: Height and width of a cut.

    Returns:
        ``(F, 3, *size)``, float in [0, 1]; the mean of the pixels that a new pixel covers.

    Example:
        >>> image = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
        >>> (255 * crop(image, np.array([0]), np.array([[0.0, 0, 4, 2]]), (1, 2)))[0, 0]
        tensor([[2.5000, 4.5000]])
    """
    rois = torch.from_numpy(np.column_stack([index, boxes])).to(images.device, torch.float32)
    # the whole-number box of a pixel is around its centre: aligned
    cuts: Tensor = roi_align(as_floats(images, torch.float32), rois, size, sampling_ratio=-1, aligned=True)
    return cuts.clamp(0, 1)


class Localizer(nn.Module):
    """One LNet without its head: from images to boxes around the summits of its response.

    Args:
        network: The trained network; its encoder and the layers behind it are kept.
        size: Height and width that it was trained for.
        level: A window holds the responses above this fraction of its summit's.
    """

    def __init__(self, network: AttributeNetwork, size: tuple[int, int], level: float) -> None:
        super().__init__()
        self.encoder, self.tail, self.size, self.level = network.encoder, network.tail, size, level

    def responses(self, images: Tensor, index: npt.NDArray[np.int64], boxes: Floats, frames: Floats) -> Floats:
        """The response maps of boxes, ``(F, h, w)``; 0 outside the photograph."""
        cuts = crop(images, index, boxes, self.size)
        features = self.tail(self.encoder(cuts.to(next(self.encoder.parameters(), cuts).dtype))[-1])
        maps: Floats = response_map(features).double().cpu().numpy()
        # what a cell sees the middle of, in pixels of the cut, and then of the image
        rows, columns = (
            (np.arange(n) + 0.5) * side / n - self.encoder.offset
            for n, side in zip(maps.shape[1:], self.size, strict=True)
        )
        scale = (boxes[:, 2:] - boxes[:, :2]) / self.size[::-1]
        x, y = (boxes[:, axis, None] + cells * scale[:, axis, None] for axis, cells in enumerate((columns, rows)))
        left, top, right, bottom = frames[index].T[..., None]
        inside = ((top <= y) & (y < bottom))[:, :, None] & ((left <= x) & (x < right))[:, None]
        return np.where(inside, maps, 0)

    def to_image(self, found: Floats, box: Floats) -> Floats:
        """Windows in pixels of a cut of ``size``, brought back to the image that the box was cut from."""
        scale = (box[2:] - box[:2]) / self.size[::-1]
        moved: Floats = np.tile(box[:2], 2) + (found - self.encoder.offset) * np.tile(scale, 2)
        return moved


class LNetFinder(Finder):
    """LNet_o finds each face's head and shoulders in the whole image, LNet_s the face in them [1]_.

    Args:
        stages: LNet_o; or LNet_o and LNet_s, trained on cuts of ``margin`` times the windows of LNet_o.
        margin: A head with shoulders is a square of this many times the longer side of LNet_o's window.
        least: The least response of LNet_o in an image with a face.
        fraction: Other faces respond more than this fraction of the strongest.
        rescale: Width and height of a face as multiples of its window's, and the shift of its centre down in heights
            of the window; fitted on boxes, which attribute tags do not give. None if not given.

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, §3.1.
    """

    def __init__(
        self,
        stages: Sequence[Localizer],
        margin: float = 1.8,
        least: float = 0.0,
        fraction: float = 0.5,
        rescale: tuple[float, float, float] | None = None,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.margin, self.least, self.fraction, self.rescale = margin, least, fraction, rescale
        self.freeze()

    @torch.no_grad()
    def forward(
        self, images: Tensor, frames: Floats, sizes: Floats | None = None, names: Sequence[str] = ()
    ) -> FoundFaces:
        first, *rest = self.stages
        assert isinstance(first, Localizer)
        every = np.arange(len(images))
        whole = containing(frames, first.size)
        faces = []
        for number, response in enumerate(first.responses(images, every, whole, frames)):
            peaks = find_peaks(response, self.least, self.fraction)
            boxes = first.to_image(windows(response, peaks, first.size, first.level), whole[number])
            faces += [(number, box, peak.rho) for box, peak in zip(boxes, peaks, strict=True)]
        image = np.array([number for number, *_ in faces], dtype=np.int64)
        found = np.array([box for _, box, _ in faces]).reshape(-1, 4)
        for stage in rest:
            assert isinstance(stage, Localizer)
            found = self._refined(stage, images, image, found, frames)
        if self.rescale is not None:
            found = rescaled(found, *self.rescale)
        found = clipped(found, frames[image])
        # the windows of two summits may have become one face: the more certain one stays
        corners, order = torch.from_numpy(found), torch.arange(len(found), dtype=torch.float64)
        kept = batched_nms(corners, -order, torch.from_numpy(image), iou_threshold=0.5).sort().values.numpy()
        return FoundFaces(image[kept], found[kept], np.array([rho for *_, rho in faces])[kept], len(images))

    def _refined(
        self, stage: Localizer, images: Tensor, image: npt.NDArray[np.int64], found: Floats, frames: Floats
    ) -> Floats:
        """Each window replaced by the strongest one in the head and shoulders around it, if anything responds there."""
        if not len(found):
            return found
        wide, finer = around(found, self.margin, stage.size), found.copy()
        for number, response in enumerate(stage.responses(images, image, wide, frames)):
            if peaks := find_peaks(response)[:1]:
                (window,) = windows(response, peaks, stage.size, stage.level)
                finer[number] = stage.to_image(window, wide[number])
        return finer
