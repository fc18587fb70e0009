"""Regions from a face parser: decoded only up to the resolution needed; and a trained, frozen parser as source."""

import json
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from facelightning.checkpoint import built_from, describe, restore_part
from facelightning.facts import DataFacts
from facelightning.labels import LabelSpace
from facelightning.models.blocks import Frozen, evaluating
from facelightning.models.regions import RegionSource
from facelightning.models.segmentation import Decoder, SegmentationNetwork


def pool_masks(masks: Tensor, parts: Sequence[int], factor: int) -> Tensor:
    """Region masks at a coarser resolution, for SSP (Kalayeh et al., CVPR 2017, §5).

    Small facial parts are max-pooled, which includes some context; all others are average-pooled. Windows are
    aligned with the coarser cells; the last one may be partial.

    Args:
        masks: Probabilities.
        parts: Indices of the regions to max-pool.
        factor: Ratio of the two resolutions.

    Shape:
        - masks: ``(B, N, h, w)``.
        - return: ``(B, N, ⌈h/factor⌉, ⌈w/factor⌉)``, in [0, 1].

    Example:
        >>> pool_masks(torch.rand(2, 7, 109, 89), parts=(3, 4, 5, 6), factor=8).shape
        torch.Size([2, 7, 14, 12])
    """
    pooled = avg_pool2d(masks, factor, ceil_mode=True)
    parts = list(parts)
    pooled[:, parts] = max_pool2d(masks[:, parts], factor, ceil_mode=True)
    return pooled


class ParsedRegions:
    """A parser's classes as masks: the softmax of its prediction.

    Masks down to 1/8 of the image size are the parser's own predictions at that size; coarser masks are pooled from its
    prediction at half size, as in the paper. The parser learns nothing from them: no gradient, evaluation mode.

    Args:
        decoder: The parser's decoder.
        features: The decoder's input: the encoder's coarsest map.
        image_size: Height and width of the images.
        label_space: The classes; those in its ``parts`` are max-pooled.
        predictions: Logits at all strides, coarse to fine, if they are known already.
    """

    def __init__(
        self,
        decoder: Decoder,
        features: Tensor,
        image_size: Sequence[int],
        label_space: LabelSpace,
        predictions: Sequence[Tensor] = (),
    ) -> None:
        self._decoder, self._features, self._image_size = decoder, features, image_size
        self._parts = label_space.part_indices
        self._predictions = list(predictions)

    @torch.no_grad()
    def at(self, stride: int) -> Tensor:
        """Probabilities ``(B, K, ⌈H/stride⌉, ⌈W/stride⌉)``, float32 at least."""
        source = stride if stride <= 8 else 2
        index = self._decoder.strides.index(source)
        with evaluating(self._decoder):
            for stage in range(len(self._predictions), index + 1):
                self._features, logits = self._decoder.step(stage, self._features, self._image_size)
                self._predictions.append(logits)
        logits = self._predictions[index]
        masks = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
        return masks if source == stride else pool_masks(masks, self._parts, stride // source)


class ParserRegions(Frozen, RegionSource):
    """The classes of a trained :class:`~facelightning.tasks.SegNet`, frozen and always in evaluation mode.

    Args:
        checkpoint: The SegNet's checkpoint, or a description from one, for a parser whose weights are loaded later.

    Raises:
        CheckpointError: If the file is missing, broken, or of another task.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        description, trained = describe(checkpoint, "SegNet", "ParserRegions", "segnet")
        self.settings = {"checkpoint": json.dumps(description)}
        with built_from(checkpoint):
            space = DataFacts.of(description["facts"]).label_space
            assert space is not None, "a parser without a label space"
            width, encoder = (description["settings"][key] for key in ("width", "encoder"))
            self.network = SegmentationNetwork(len(space), width, restore_part(encoder))
        self.label_space, self.names = space, space.classes
        if trained is not None:
            trained.load_into(self.network, "network.")
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> ParsedRegions:
        features = self.network.encoder(images)[-1]
        return ParsedRegions(self.network.decoder, features, images.shape[-2:], self.label_space)
