"""From a whole photograph to the attributes of every face in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facelightning.boxes import Floats, around, containing
from facelightning.models.blocks import Frozen
from facelightning.models.finding import Finder, crop


class CascadeNetwork(Frozen):
    """Find faces, cut each out, and describe it (Liu et al., ICCV 2015, Figure 3).

    It has nothing to learn: its parts are frozen, and always in evaluation mode.

    Args:
        finder: Finds the faces.
        describer: An attribute or joint network; none to only find faces.
        size: Height and width of the describer's images.
        margin: A face is described in a cut of this many times its box's longer side, of the shape of ``size``.

    Shape:
        - images: ``(B, 3, H, W)`` of any size, uint8, or float in [0, 1].
        - frames: Where the photograph lies within each image, ``(B, 4)``; the whole image if not given.
        - sizes: Height and width of the photographs' files, ``(B, 2)``; those of the frames if not given.
        - return: ``"faces"``: :class:`~facelightning.models.finding.FoundFaces`; with a describer,
          ``"face_attributes"``: logits ``(F, A)`` of each, and ``"attributes"``: logits ``(B, A)`` of each image's most
          certain face, or of the whole image, if it has none.
    """

    def __init__(self, finder: Finder, describer: nn.Module | None, size: tuple[int, int], margin: float) -> None:
        super().__init__()
        self.finder, self.describer, self.size, self.margin = finder, describer, size, margin
        self.freeze()

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,
        frames: Floats | None = None,
        sizes: Floats | None = None,
        names: Sequence[str] = (),
    ) -> dict[str, Any]:
        if frames is None:
            frames = whole(images)
        if sizes is None:
            sizes = (frames[:, 2:] - frames[:, :2])[:, ::-1]
        faces = self.finder(images, frames, sizes, names)
        if self.describer is None:
            return {"faces": faces}
        without = np.setdiff1d(np.arange(len(images)), faces.image)
        image = np.concatenate([faces.image, without])
        cuts = np.concatenate([around(faces.boxes, self.margin, self.size), containing(frames[without], self.size)])
        seen = crop(images, image, cuts, self.size)
        logits: Tensor = self.describer(seen.to(next(self.describer.parameters(), seen).dtype))["attributes"]
        _, first = np.unique(image, return_index=True)
        return {"faces": faces, "face_attributes": logits[: len(faces.image)], "attributes": logits[first.tolist()]}


def whole(images: Tensor) -> Floats:
    """A box around each image, ``(B, 4)``.

    Example:
        >>> whole(torch.zeros(1, 3, 20, 30))
        array([[ 0.,  0., 30., 20.]])
    """
    return np.tile([0.0, 0.0, images.shape[3], images.shape[2]], (len(images), 1))
