"""Finding faces in whole photographs: by the responses of one or two LNets, coarse to fine."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align

from facelightning.boxes import Floats, around, clipped, containing, rescaled
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.blocks import Frozen, as_floats
from facelightning.models.density_peaks import FRACTION, Peak, find_peaks, windows
from facelightning.models.lnet import response_map

MARGINS = (1.2, 1.8, 2.7)
"""LNet_s learns from cuts of 1.8 times LNet_o's window. The wider one holds what that cuts off, the narrower one shows
larger what is small in it."""


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
    points: Floats | None = None
    """Left eye, right eye, nose tip, left and right mouth corner, ``(F, 5, 2)``, x and y in pixels like the boxes, NaN
    if unknown; left is the image's left. ``None`` if the finder knows none."""

    def by_image(self) -> list[npt.NDArray[np.int64]]:
        """For each image, the indices of its faces."""
        return [np.flatnonzero(self.image == number) for number in range(self.images)]


class Finder(Frozen):
    """The contract of all that finds faces."""

    aligned: tuple[float, float] = (1.55, -0.09)
    """What of a face CelebA's aligned images show: the smallest cut of their shape that holds a square of so many times
    the longer side of its box, moved down by so many heights of the box. These suit boxes from forehead to chin."""
    unsure = False
    """Whether many of its boxes are no face, or one of several around the same, and its responses do not tell."""
    knows_points = False
    """Whether it finds eyes, nose and mouth with a face."""

    def forward(self, images: Tensor, frames: Floats, sizes: Floats, names: Sequence[str]) -> FoundFaces:
        """Find the faces of a batch.

        Args:
            images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
            frames: Where the photograph lies within its image, which is padded: boxes ``(B, 4)``.
            sizes: Height and width of the photographs' files, ``(B, 2)``.
            names: The images' names, ``B``.
        """
        raise NotImplementedError

    def check(self, names: Collection[str]) -> None:
        """Refuse images that this finder cannot know, before the first of them; ``names`` are those of all images."""


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
        low, high = np.split(self.seen(boxes)[..., None], 2, axis=1)
        # what the cells see the middles of
        x, y = ((low + (high - low) * (np.arange(n) + 0.5) / n)[:, axis] for axis, n in enumerate(maps.shape[:0:-1]))
        left, top, right, bottom = frames[index].T[..., None]
        inside = ((top <= y) & (y < bottom))[:, :, None] & ((left <= x) & (x < right))[:, None]
        return np.where(inside, maps, 0)

    def windows(self, response: Floats, peaks: Sequence[Peak], box: Floats) -> Floats:
        """The window of each peak in the response map of a box, ``(len(peaks), 4)``, in pixels of the image."""
        found = windows(response, peaks, self.size, self.level)
        moved: Floats = np.tile(self.seen(box)[:2], 2) + found * np.tile(self.scale(box), 2)
        return moved

    def together(self, looks: Sequence["Look"]) -> "Look":
        """The mean of looks at the same faces, in pixels of the last cuts, which hold the others.

        A cut adds nothing beyond itself. So what responds in all of them counts most.
        """
        widest = looks[-1].cuts
        total, index = np.zeros((len(widest), *self.size)), np.arange(len(widest))
        for cuts, maps in looks:
            seen = self.seen(cuts)
            cells = maps.shape[:0:-1] / (seen[:, 2:] - seen[:, :2])  # in a pixel of the image
            boxes = (self.seen(widest) - np.tile(seen[:, :2], 2)) * np.tile(cells, 2)
            rois = torch.from_numpy(np.column_stack([index, boxes]))
            values = roi_align(torch.from_numpy(maps)[:, None], rois, self.size, sampling_ratio=1, aligned=True)
            total += values[:, 0].numpy()
        return Look(widest, total / len(looks))

    def seen(self, boxes: Floats) -> Floats:
        """Where the response maps of boxes lie in the image: moved by the encoder's offset; ``(…, 4)``."""
        moved: Floats = boxes - self.encoder.offset * np.tile(self.scale(boxes), 2)
        return moved

    def scale(self, boxes: Floats) -> Floats:
        """Pixels of the image in a pixel of the cut, horizontally and vertically: ``(…, 4)`` to ``(…, 2)``."""
        return (boxes[..., 2:] - boxes[..., :2]) / self.size[::-1]


class Look(NamedTuple):
    """What an LNet sees of N cuts."""

    cuts: Floats
    """Boxes, ``(N, 4)``, in pixels of the images, which they may leave."""
    responses: Floats
    """A map of each, ``(N, h, w)``."""


class LNetFinder(Finder):
    """LNet_o finds each face's head and shoulders in the whole image, LNet_s the face in them [1]_.

    Args:
        stages: LNet_o; or LNet_o and LNet_s, trained on heads with shoulders.
        margins: A head with shoulders is a square of this many times the longer side of LNet_o's window. The mean
            response of several such cuts depends less on the size of that window; the paper has one.
        least: The least response of LNet_o in an image with a face.
        fraction: Other faces respond more than this fraction of the strongest.
        rescale: Width and height of a face as multiples of its window's, and the shift of its centre down in heights
            of the window; fitted on boxes, which attribute tags do not give. None if not given.

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, §3.1.
    """

    aligned = (1.8, 0.0)  # as CascadeNet's face_margin

    def __init__(
        self,
        stages: Sequence[Localizer],
        margins: Sequence[float] = MARGINS,
        least: float = 0.0,
        fraction: float = FRACTION,
        rescale: tuple[float, float, float] | None = None,
    ) -> None:
        super().__init__()
        # stored as modules, typed as the localisers that they are
        self.stages = cast(Sequence[Localizer], nn.ModuleList(stages))
        self.margins, self.least, self.fraction, self.rescale = sorted(margins), least, fraction, rescale
        self.freeze()

    @torch.no_grad()
    def forward(
        self, images: Tensor, frames: Floats, sizes: Floats | None = None, names: Sequence[str] = ()
    ) -> FoundFaces:
        _, found = self.search(images, frames)
        image, boxes, responses = found[:3]
        for stage in self.stages[1:]:
            boxes, _ = self.refine(stage, images, image, boxes, frames)
        if self.rescale is not None:
            boxes = rescaled(boxes, *self.rescale)
        boxes = clipped(boxes, frames[image])
        # the windows of two summits may have become one face: the more certain one stays
        corners, order = torch.from_numpy(boxes), torch.arange(len(boxes), dtype=torch.float64)
        kept = batched_nms(corners, -order, torch.from_numpy(image), iou_threshold=0.5).sort().values.numpy()
        return FoundFaces(image[kept], boxes[kept], responses[kept], len(images))

    @torch.no_grad()
    def search(self, images: Tensor, frames: Floats) -> tuple[Look, FoundFaces]:
        """What LNet_o sees in the whole images, and its windows: heads and shoulders, as faces."""
        first = self.stages[0]
        every, whole = np.arange(len(images)), containing(frames, first.size)
        look = Look(whole, first.responses(images, every, whole, frames))
        peaks = [find_peaks(response, self.least, self.fraction) for response in look.responses]
        boxes = [first.windows(*each) for each in zip(look.responses, peaks, whole, strict=True)]
        image = np.repeat(every, list(map(len, peaks)))
        responses = np.array([peak.rho for found in peaks for peak in found])
        return look, FoundFaces(image, np.concatenate([np.empty((0, 4)), *boxes]), responses, len(images))

    @torch.no_grad()
    def refine(
        self, stage: Localizer, images: Tensor, image: npt.NDArray[np.int64], boxes: Floats, frames: Floats
    ) -> tuple[Floats, Look]:
        """Windows replaced by the strongest one in the head and shoulders around each, and what the stage sees there.

        A window stays as it is where nothing responds.
        """
        finer, heads = boxes.copy(), [around(boxes, margin, stage.size) for margin in self.margins]
        if not len(boxes):
            return finer, Look(heads[-1], np.empty((0, *stage.size)))
        look = stage.together([Look(cuts, stage.responses(images, image, cuts, frames)) for cuts in heads])
        for number, (cut, response) in enumerate(zip(*look, strict=True)):
            if peaks := find_peaks(response)[:1]:
                (finer[number],) = stage.windows(response, peaks, cut)
        return finer, look
