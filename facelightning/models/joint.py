"""One network for both tasks: the encoder is shared, each task has its own half behind it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.labels import LabelSpace
from facelightning.models.attributes import AttributeTail
from facelightning.models.blocks import Encoder
from facelightning.models.pooling import AveragePooling, SemanticPooling, region_masks
from facelightning.models.segmentation import Decoder


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run a module in evaluation mode for the time of a ``with`` block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


class JointNetwork(nn.Module):
    """Parsing and attributes with the first eight layers shared (Kalayeh et al., CVPR 2017, §4.4).

    Args:
        labels: The parsing classes.
        num_attributes: A.
        width: Filters of the first layer, 64 in the paper; scales every layer.
        semantic_pooling: Pool attribute features within the regions that this network itself parses (SSP);
            the regions are then taken as they are: attribute loss does not reach the decoder.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> parsing, attributes = JointNetwork(HELEN7, 40, width=4)(torch.rand(2, 3, 218, 178))
        >>> parsing[-1].shape, attributes.shape
        (torch.Size([2, 7, 218, 178]), torch.Size([2, 40]))
    """

    def __init__(
        self, labels: LabelSpace, num_attributes: int, width: int = 64, semantic_pooling: bool = False
    ) -> None:
        super().__init__()
        self.labels = labels
        self.encoder = Encoder(width)
        self.decoder = Decoder(len(labels), width)
        self.tail = AttributeTail(width)
        self.semantic_pooling = semantic_pooling
        pooling = SemanticPooling if semantic_pooling else AveragePooling
        self.pooling: AveragePooling | SemanticPooling = pooling(16 * width, num_attributes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Both tasks on the same pictures.

        Shape:
            - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
            - return: parsing logits ``(B, K, h, w)`` coarse to fine, and attribute logits ``(B, A)``.
        """
        features = self.encoder(images)
        parsing = self.decoder(features, images.shape[-2:])
        masks = region_masks(parsing[-2].detach(), self.labels.part_indices) if self.semantic_pooling else None
        return parsing, self._attributes(features, masks)

    def parse(self, images: Tensor) -> list[Tensor]:
        """The parsing half alone: logits, coarse to fine."""
        logits: list[Tensor] = self.decoder(self.encoder(images), images.shape[-2:])
        return logits

    def describe(self, images: Tensor) -> Tensor:
        """The attribute half alone: logits ``(B, A)``."""
        features = self.encoder(images)
        return self._attributes(features, self._masks(features, images.shape[-2:]))

    def forward_pair(self, parsing_images: Tensor, attribute_images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Each task on its own pictures, as in joint training.

        Both go through the encoder as one batch, so that its BatchNorm sees in training the mixture that its
        running statistics describe later.

        Shape:
            - parsing_images: ``(P, 3, H, W)``.
            - attribute_images: ``(Q, 3, H, W)``, of the same H and W.
            - return: parsing logits ``(P, K, h, w)`` coarse to fine, and attribute logits ``(Q, A)``.

        Raises:
            ConfigurationError: If the two differ in height or width; the message names both sizes.
        """
        if parsing_images.shape[-2:] != attribute_images.shape[-2:]:
            sizes = [" × ".join(map(str, x.shape[-2:])) for x in (parsing_images, attribute_images)]
            raise ConfigurationError(
                f"pictures to parse ({sizes[0]}) and to describe ({sizes[1]}) differ in size; give both data modules "
                "one image_size"
            )
        features = self.encoder(torch.cat([parsing_images, attribute_images]))
        features_p, features_a = features.split([len(parsing_images), len(attribute_images)])
        parsing = self.decoder(features_p, parsing_images.shape[-2:])
        return parsing, self._attributes(features_a, self._masks(features_a, attribute_images.shape[-2:]))

    def features(self, images: Tensor) -> Tensor:
        """The attributes' last map before pooling, ``(B, 16·width, ⌈H/16⌉, ⌈W/16⌉)``; it has negative values too."""
        features: Tensor = self.tail(self.encoder(images))
        return features

    def region_weights(self, images: Tensor) -> Tensor:
        """How much each region counts for each attribute, ``(B, N, A)``, summing to 1 over regions (SSP only)."""
        features = self.encoder(images)
        masks = self._masks(features, images.shape[-2:])
        if masks is None or not isinstance(self.pooling, SemanticPooling):
            raise ValueError("only a network with semantic pooling weighs regions")
        return self.pooling.scores(self.tail(features), masks)[1]

    def _masks(self, features: Tensor, input_size: Sequence[int]) -> Tensor | None:
        """SSP's regions on pictures without masks: parsed as at prediction, and teaching the decoder nothing."""
        if not self.semantic_pooling:
            return None
        with torch.no_grad(), evaluating(self.decoder):
            logits: list[Tensor] = self.decoder(features, input_size, scales=3)
        return region_masks(logits[-1], self.labels.part_indices)

    def _attributes(self, features: Tensor, masks: Tensor | None) -> Tensor:
        x = self.tail(features)
        logits: Tensor = self.pooling(x) if masks is None else self.pooling(x, masks)
        return logits
