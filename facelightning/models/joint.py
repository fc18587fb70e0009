"""One network for both tasks: a shared encoder, followed by each task's own layers."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.labels import LabelSpace
from facelightning.models.encoders import EncoderFactory, make_encoder
from facelightning.models.heads import HeadFactory, LinearHead
from facelightning.models.parser import ParsedRegions
from facelightning.models.pooling import AveragePooling, Pooling
from facelightning.models.segmentation import Decoder


class JointNetwork(nn.Module):
    """Parsing and attributes with the first eight layers shared (Kalayeh et al., CVPR 2017, §4.4).

    A pooling that needs regions gets this network's own parsing, without gradients: the attribute loss does not
    reach the decoder.

    Args:
        label_space: The parsing classes.
        num_attributes: A.
        width: Filters of the first layer, 64 in the paper; scales every layer.
        encoder: Makes the encoder; the paper's if not given.
        pooling: Makes the pooling of the attributes' last map.
        head: Makes their classifier.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> output = JointNetwork(HELEN7, 40, width=4)(torch.rand(2, 3, 218, 178))
        >>> output["parsing"][-1].shape, output["attributes"].shape
        (torch.Size([2, 7, 218, 178]), torch.Size([2, 40]))
    """

    def __init__(
        self,
        label_space: LabelSpace,
        num_attributes: int,
        width: int = 64,
        encoder: EncoderFactory | None = None,
        pooling: Callable[[int], Pooling] = AveragePooling,
        head: HeadFactory = LinearHead,
    ) -> None:
        super().__init__()
        self.label_space = label_space
        self.encoder = make_encoder(encoder, width)
        self.decoder = Decoder(self.encoder.channels[-1], self.encoder.strides[-1], len(label_space), width)
        self.tail = self.encoder.tail()
        self.pooling = pooling(self.tail.stride)
        self.places = self.pooling.places(label_space.classes)
        self.head = head(self.tail.channels, len(self.places), num_attributes)
        if self.head.needs_networks:
            raise ConfigurationError(
                f"{type(self.head).__name__} needs a network for each attribute, but one is shared here"
            )
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        images: Tensor,
        attribute_images: Tensor | None = None,
        wanted: Collection[str] = ("parsing", "attributes"),
    ) -> dict[str, Any]:
        """Parse images, and predict attributes of them or of other images.

        In joint training each task has its own images. Both go through the encoder as one batch, so that its
        BatchNorm normalises the same mixture that its running statistics describe. The decoder trains only on the
        images to parse; for the others' regions it runs in evaluation mode.

        Args:
            images: Images to parse; also to predict attributes of, without ``attribute_images``.
            attribute_images: Other images to predict attributes of, of the same size.
            wanted: The outputs to compute.

        Shape:
            - images: ``(P, 3, H, W)``, uint8, or float in [0, 1].
            - attribute_images: ``(Q, 3, H, W)``.
            - return: ``"parsing"``: logits ``(P, K, h, w)``, coarse to fine; ``"attributes"``: logits ``(Q, A)``;
              ``"features"`` and ``"region_weights"`` as in :class:`~facelightning.models.attributes.AttributeNetwork`.

        Raises:
            ConfigurationError: If the two differ in height or width; the message names both sizes.
        """
        size, output = images.shape[-2:], dict[str, Any]()
        if attribute_images is None:
            to_parse = to_describe = self.encoder(images)[-1]
        else:
            if attribute_images.shape[-2:] != size:
                sizes = [" × ".join(map(str, x.shape[-2:])) for x in (images, attribute_images)]
                raise ConfigurationError(
                    f"images to parse ({sizes[0]}) and to describe ({sizes[1]}) differ in size; give both data modules "
                    "one image_size"
                )
            features = self.encoder(torch.cat([images, attribute_images]))[-1]
            to_parse, to_describe = features.split([len(images), len(attribute_images)])
        if "parsing" in wanted:
            output["parsing"] = self.decoder(to_parse, size)
        if "attributes" in wanted:
            known = output.get("parsing", ()) if attribute_images is None else ()
            regions = ParsedRegions(self.decoder, to_describe, size, self.label_space, known)
            output["features"] = self.tail(to_describe)
            said = self.head(self.pooling(output["features"], regions))
            output |= {"attributes": said.pop("logits"), **said}
        return output
