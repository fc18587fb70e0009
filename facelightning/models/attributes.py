"""The attribute network: twelve layers, and the places where its variants put in something else."""

from typing import Self, cast

import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.labels import LabelSpace
from facelightning.models.blocks import ConvBlock, Encoder, max_pool
from facelightning.models.boxes import BOXES, box_masks
from facelightning.models.gating import GatedEncoder, SemanticGating, SymbioticAugmentation, gate_masks
from facelightning.models.naive import NaiveInput
from facelightning.models.pooling import AveragePooling, SemanticPooling, region_masks
from facelightning.models.pyramid import PyramidPooling
from facelightning.models.segmentation import SegmentationNetwork

POOLINGS: dict[str, type[AveragePooling] | type[PyramidPooling] | type[SemanticPooling]] = {
    "avg": AveragePooling,
    "spp": PyramidPooling,
    "ssp": SemanticPooling,
    "bbox": SemanticPooling,
}
GATES: dict[str, type[SemanticGating] | type[SymbioticAugmentation]] = {
    "ssg": SemanticGating,
    "symbiotic": SymbioticAugmentation,
}


class AttributeTail(nn.Sequential):
    """Layers 9 to 12 of the basic network: 512, 512, pool, 1024, 1024 filters (Kalayeh et al., §3.1.1).

    A pool stands before each increase of filters, so none between the encoder's 512 and these.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__(
            ConvBlock(8 * width, 8 * width),
            ConvBlock(8 * width, 8 * width),
            max_pool(),
            ConvBlock(8 * width, 16 * width),
            ConvBlock(16 * width, 16 * width),
        )


class Parser(nn.Module):
    """A trained face parser that serves another network: frozen, and always in evaluation mode.

    Args:
        labels: What its classes mean.
        width: Of its :class:`SegmentationNetwork`.
    """

    def __init__(self, labels: LabelSpace, width: int = 64) -> None:
        super().__init__()
        self.labels = labels
        self.network = SegmentationNetwork(len(labels), width)
        self.trained = False  # a parser of random weights helps nobody: who trains on it asks
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]  # torch is only partly typed
            lambda module, _: setattr(module, "trained", True)
        )
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: BatchNorm must keep the statistics the parser was trained with."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, scales: int) -> list[Tensor]:
        """The parser's logits ``(B, N, h, w)`` at the ``scales`` coarsest of its four scales, coarse to fine."""
        logits: list[Tensor] = self.network(images, scales)
        return logits


class AttributeNetwork(nn.Module):
    """The basic attribute network of Kalayeh et al. (CVPR 2017), §3.1.1, and its variants of Table 2.

    Args:
        num_attributes: A.
        width: Filters of the first layer, 64 in the paper; scales every layer.
        pooling: How the last map becomes scores: ``avg``, :class:`AveragePooling`; ``spp``, :class:`PyramidPooling`;
            ``ssp``, :class:`SemanticPooling` within the parser's regions; ``bbox``, within boxes around landmarks.
        gating: What stands in place of Conv32: ``none``; ``ssg``, :class:`SemanticGating`; ``symbiotic``,
            :class:`SymbioticAugmentation`.
        inputs: What the network sees: ``rgb``; or ``rgb_masks``, the naive approach of :class:`NaiveInput`.
        parser: For ``ssp``, gating and ``rgb_masks``.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; 218×178 in the paper.
        - landmarks: ``(B, 5, 2)``, x, y in pixels; for ``bbox`` only.
        - return: logits ``(B, A)``.

    Raises:
        ConfigurationError: In the call, if ``bbox`` gets no landmarks.

    Example:
        >>> AttributeNetwork(40, width=4)(torch.rand(2, 3, 218, 178)).shape
        torch.Size([2, 40])
    """

    def __init__(
        self,
        num_attributes: int,
        width: int = 64,
        pooling: str = "avg",
        gating: str = "none",
        inputs: str = "rgb",
        parser: Parser | None = None,
    ) -> None:
        super().__init__()
        # how many of the parser's scales are needed, 1/8 first: masks of 1/4 gate, of 1/2 pool, of 1/1 are input
        self.scales = max(2 * (gating != "none"), 3 * (pooling == "ssp"), 4 * (inputs == "rgb_masks"))
        if (parser is None) != (self.scales == 0):
            raise ValueError("a parser is for pooling ssp, gating and inputs rgb_masks, and only for them")
        regions = 0 if parser is None else len(parser.labels)
        self.input = NaiveInput(regions) if inputs == "rgb_masks" else None
        channels = 3 if self.input is None else 3 + regions
        self.encoder: Encoder
        if gating == "none":
            self.encoder = Encoder(width, channels)
        else:
            self.encoder = GatedEncoder(GATES[gating], regions, width, channels)
        self.tail = AttributeTail(width)
        self.parser = parser
        self.pooling = POOLINGS[pooling](16 * width, num_attributes)
        self.boxes = pooling == "bbox"
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        parsing = self._parse(images)
        features = self._features(images, parsing)
        if isinstance(self.pooling, SemanticPooling):
            return cast(Tensor, self.pooling(features, self._regions(images, parsing, landmarks)))
        return cast(Tensor, self.pooling(features))

    def features(self, images: Tensor) -> Tensor:
        """The last map before pooling, ``(B, 16·width, ⌈H/16⌉, ⌈W/16⌉)``; PReLU leaves negative values in it."""
        return self._features(images, self._parse(images))

    def region_weights(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """How much each region counts for each attribute, ``(B, N, A)``, summing to 1 over regions (SSP, BBox)."""
        if not isinstance(self.pooling, SemanticPooling):
            raise ValueError("only a network with semantic pooling weighs regions")
        parsing = self._parse(images)
        regions = self._regions(images, parsing, landmarks)
        return self.pooling.scores(self._features(images, parsing), regions)[1]

    @property
    def regions(self) -> tuple[str, ...] | None:
        """Names of the regions that are weighed; ``None`` if none are."""
        if self.boxes:
            return BOXES
        return self.parser.labels.classes if self.parser and isinstance(self.pooling, SemanticPooling) else None

    def _parse(self, images: Tensor) -> list[Tensor]:
        return [] if self.parser is None else cast(list[Tensor], self.parser(images, self.scales))

    def _features(self, images: Tensor, parsing: list[Tensor]) -> Tensor:
        """The last map, ``(B, 16·width, ⌈H/16⌉, ⌈W/16⌉)``."""
        x = images if self.input is None else self.input(images, parsing[3])
        gated = isinstance(self.encoder, GatedEncoder)
        return cast(Tensor, self.tail(self.encoder(x, gate_masks(parsing[1])) if gated else self.encoder(x)))

    def _regions(self, images: Tensor, parsing: list[Tensor], landmarks: Tensor | None) -> Tensor:
        """The masks to pool within, ``(B, N, ⌈H/16⌉, ⌈W/16⌉)``."""
        if self.parser is not None and not self.boxes:
            return region_masks(parsing[2], self.parser.labels.part_indices)
        if landmarks is None:
            raise ConfigurationError(
                "pooling bbox draws boxes around five landmarks, but the data has none; CelebA's copy needs "
                "list_landmarks_align_celeba.txt (for in-the-wild pictures list_landmarks_celeba.txt)"
            )
        return box_masks(landmarks, (images.shape[-2], images.shape[-1]))
