"""Regions from a face parser: decoded only up to the resolution needed; a trained, frozen parser as their source."""

import json
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, one_hot

from facelightning.checkpoint import built_from, describe, restore_part
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import LabelSpace
from facelightning.models.blocks import Frozen, evaluating
from facelightning.models.regions import BoxRegions, Regions, RegionSource
from facelightning.models.segmentation import Decoder, SegmentationNetwork
from facelightning.models.stored_maps import MapStore


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


def pack_masks(masks: Tensor) -> Tensor:
    """Masks in a byte a cell, each in units of its own largest value, so that the faintest keeps its shape.

    Shape:
        - masks: ``(B, N, h, w)``, not negative.
        - return: ``(B, N, h·w + 4)``, uint8: the cells, and the bytes of the largest value as float32.
    """
    cells = masks.float().flatten(2)
    largest = cells.amax(dim=2, keepdim=True)
    codes = (cells * (255 / largest.clamp(min=torch.finfo(torch.float32).tiny))).round().to(torch.uint8)
    return torch.cat([codes, largest.view(torch.uint8)], dim=2)


def unpack_masks(packed: Tensor, size: Sequence[int]) -> Tensor:
    """The masks that :func:`pack_masks` packed, float32, of height and width ``size``.

    A cell is off by a 510th of its mask's largest value at most.

    Example:
        >>> masks = torch.rand(2, 7, 28, 23)
        >>> (unpack_masks(pack_masks(masks), (28, 23)) - masks).abs().max() < 1 / 500
        tensor(True)
    """
    largest = packed[:, :, -4:].contiguous().view(torch.float32)
    return (packed[:, :, :-4] * (largest / 255)).reshape(*packed.shape[:2], *size)


def spread_boxes(masks: Tensor) -> Tensor:
    """The box with a mask's mean and variance along each axis; few stray pixels hardly move it.

    Of a mask that fills a box it is that box; a mask of zeros has an empty one at the origin.

    Shape:
        - masks: ``(B, N, h, w)``, not negative.
        - return: ``(B, N, 4)``: x0, y0, x1, y1 in cells; it may leave the map.

    Example:
        >>> masks = torch.zeros(1, 1, 8, 8)
        >>> masks[..., 2:5, 1:7] = 1
        >>> spread_boxes(masks)
        tensor([[[1., 2., 7., 5.]]])
    """
    low, high = [], []
    for axis in (2, 3):  # what is left: x, then y
        profile = masks.sum(dim=axis)  # (B, N, cells)
        mass = profile.sum(dim=2)
        share = profile / mass.where(mass > 0, 1).unsqueeze(2)
        places = torch.arange(profile.shape[2], device=masks.device) + 0.5
        mean = (share * places).sum(dim=2)
        variance = (share * (places - mean.unsqueeze(2)).square()).sum(dim=2)
        # a box of side s has the variance s²/12; that of a cell, 1/12, is not in the sum over cells
        half = (12 * variance + 1).sqrt() / 2 * (mass > 0)
        low.append(mean - half)
        high.append(mean + half)
    return torch.stack(low + high, dim=2)


def class_masks(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """A mask of each class from a parser's logits: their softmax, sharper below a temperature of 1, softer above.

    A temperature of 0 gives each cell to its likeliest class alone.

    Shape:
        - logits: ``(B, K, h, w)``.
        - return: ``(B, K, h, w)``, in [0, 1], float32 at least; the K sum to 1.

    Example:
        >>> logits = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> [class_masks(logits, temperature)[0, 0].item() for temperature in (0, 0.01, 1000)]
        [1.0, 1.0, 0.500249981880188]
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature == 0:
        return one_hot(logits.argmax(dim=1), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    return (logits / temperature).softmax(dim=1)


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
        temperature: Of the softmax; see :func:`class_masks`.
    """

    def __init__(
        self,
        decoder: Decoder,
        features: Tensor,
        image_size: Sequence[int],
        label_space: LabelSpace,
        predictions: Sequence[Tensor] = (),
        temperature: float = 1.0,
    ) -> None:
        self._decoder, self._features, self._image_size = decoder, features, image_size
        self._temperature = temperature
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
        masks = class_masks(self._predictions[index], self._temperature)
        return masks if source == stride else pool_masks(masks, self._parts, stride // source)

    @torch.no_grad()
    def boxes(self) -> Tensor:
        """The box of each class, ``(B, K, 4)``, from the classes at half size; see :func:`spread_boxes`."""
        masks = self.at(2)
        classes = one_hot(masks.argmax(dim=1), masks.shape[1]).movedim(-1, 1)
        height, width = self._image_size
        limits = masks.new_tensor([width, height, width, height])
        return (2 * spread_boxes(classes.to(masks.dtype))).clamp(min=0).minimum(limits)


class ParserRegions(Frozen, RegionSource):
    """The classes of a trained :class:`~facelightning.tasks.SegNet`, frozen and always in evaluation mode.

    Args:
        checkpoint: The SegNet's checkpoint, or a description from one, for a parser whose weights are loaded later.
        temperature: Of the softmax that makes masks of its logits, 0, which gives each cell to its likeliest class
            alone, or in [0.001, 1000]: a large one blurs the classes; see :func:`class_masks`.
        store: A file in which the masks are kept, so that each image is parsed once: see
            :class:`~facelightning.models.stored_maps.MapStore` and :class:`StoredRegions`. A checkpoint does not know
            it.

    Raises:
        CheckpointError: If the file is missing, broken, or of another task.
        ConfigurationError: If the temperature is out of its range.
    """

    def __init__(self, checkpoint: str, temperature: float = 1.0, store: str | None = None) -> None:
        super().__init__()
        if temperature != 0 and not 0.001 <= temperature <= 1000:
            raise ConfigurationError(f"ParserRegions: temperature must be 0 or lie in [0.001, 1000], not {temperature}")
        self.temperature = temperature
        description, trained = describe(checkpoint, "SegNet", "ParserRegions", "segnet")
        self.description = json.dumps(description)
        self.settings = {"checkpoint": self.description, "store": None}
        with built_from(checkpoint):
            space = DataFacts.of(description["facts"]).label_space
            assert space is not None, "a parser without a label space"
            width, encoder = (description["settings"][key] for key in ("width", "encoder"))
            self.network = SegmentationNetwork(len(space), width, restore_part(encoder))
        self.label_space, self.names = space, space.classes
        if trained is not None:
            trained.load_into(self.network, "network.")
        self.store = None if store is None else MapStore(store)
        self.freeze()

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> Regions:
        return self._find(images, self.strides)

    def _find(self, images: Tensor, strides: Sequence[int] = ()) -> "ParsedRegions | StoredRegions":
        return self.parse(images) if self.store is None else self._read(self.store, images, strides)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch is only partly typed
    def _read(self, store: MapStore, images: Tensor, strides: Sequence[int]) -> "StoredRegions":
        regions = StoredRegions(self, store, images)
        for stride in strides:  # here, outside the compiled graph, so that the network after it is one graph
            regions.at(stride)
        return regions

    @torch.no_grad()
    def parse(self, images: Tensor) -> ParsedRegions:
        """The regions as the parser finds them now."""
        features = self.network.encoder(images)[-1]
        size, temperature = images.shape[-2:], self.temperature
        return ParsedRegions(self.network.decoder, features, size, self.label_space, temperature=temperature)


class ParserBoxes(ParserRegions):
    """Upright boxes around a parser's classes, and the whole image: "BBox" by what SSP knows, without landmarks.

    They tell what the shape of a mask adds to its place. Its arguments are those of :class:`ParserRegions`; a box is
    that of the likeliest classes, at any temperature.
    """

    def __init__(self, checkpoint: str, temperature: float = 1.0, store: str | None = None) -> None:
        super().__init__(checkpoint, temperature, store)
        self.names = (*self.names, "image")

    @torch.no_grad()
    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> BoxRegions:
        height, width = images.shape[-2:]
        return BoxRegions(self._find(images).boxes(), (height, width))


class StoredRegions:
    """The same from a file, for images that are in it; what is missing is parsed and added.

    The masks of each stride are kept by themselves, in a byte a cell: see :func:`pack_masks`. That moves the logits of
    a network by a hundredth of their standard deviation, as root mean square. Boxes are exact.

    Args:
        parser: Finds the regions of images that are not in the file.
        store: The file.
        images: ``(B, 3, H, W)``.
    """

    def __init__(self, parser: ParserRegions, store: MapStore, images: Tensor) -> None:
        self._parser, self._store, self._images = parser, store, images
        self._masks: dict[int, Tensor] = {}

    def at(self, stride: int) -> Tensor:
        """Probabilities ``(B, K, ⌈H/stride⌉, ⌈W/stride⌉)``, float32."""
        if stride not in self._masks:
            packed = self._kept(f"masks of stride {stride}", lambda found: pack_masks(found.at(stride)))
            size = [(side + stride - 1) // stride for side in self._images.shape[-2:]]
            self._masks[stride] = unpack_masks(packed, size)
        return self._masks[stride]

    def boxes(self) -> Tensor:
        """The box of each class, ``(B, K, 4)``."""
        boxes: Tensor = self._kept("boxes", lambda found: found.boxes())
        return boxes

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch is only partly typed
    def _kept(self, what: str, of: Callable[[ParsedRegions], Tensor]) -> Tensor:
        parser = self._parser
        network = f"{parser.digest()} {parser.description} {parser.temperature} {what}"
        kept: Tensor = self._store.maps(network, self._images, lambda new: of(parser.parse(new)))
        return kept
