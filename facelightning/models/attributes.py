"""The attribute network: an encoder, layers of its own, a pooling and a head; regions for the parts that need them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.models.encoders import EncoderFactory, Input, make_encoder
from facelightning.models.gating import Gate
from facelightning.models.heads import HeadFactory, LinearHead
from facelightning.models.pooling import AveragePooling, Pooling
from facelightning.models.regions import RegionSource


class AttributeNetwork(nn.Module):
    """The basic attribute network of Kalayeh et al. (CVPR 2017), §3.1.1, and its variants with other parts.

    Args:
        num_outputs: What the head predicts: A attributes, or as many categories.
        width: Filters of the first layer, 64 in the paper; scales every layer of the paper's encoder.
        encoder: Makes the encoder; the paper's if not given.
        image_input: Makes the input of the first layer; the normalised image if not given.
        gate: Makes the gate in the encoder; none if not given.
        pooling: Makes the pooling of the last map.
        head: Makes the classifier.
        regions: Makes the source of regions, for the parts that need them.
        key: The key of the logits in the output.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1]; 218×178 in the paper.
        - landmarks: ``(B, 5, 2)``, x, y in pixels; for boxes only.
        - masks: ``(B, H, W)``, classes; for known masks only.
        - return: ``key``: logits ``(B, A)``; ``"features"``: the last map before pooling, ``(B, C, h, w)``, which may
          be negative after PReLU; and what else the head returns, such as ``"region_weights"``: ``(B, N, A)``.

    Raises:
        ConfigurationError: If a part needs regions and there are none, or no part needs the given ones.

    Example:
        >>> AttributeNetwork(40, width=4)(torch.rand(2, 3, 218, 178))["attributes"].shape
        torch.Size([2, 40])
    """

    def __init__(
        self,
        num_outputs: int,
        width: int = 64,
        encoder: EncoderFactory | None = None,
        image_input: Callable[[int], Input] | None = None,
        gate: Callable[[int, int, int, bool], Gate] | None = None,
        pooling: Callable[[int], Pooling] = AveragePooling,
        head: HeadFactory = LinearHead,
        regions: Callable[[], RegionSource] | None = None,
        key: str = "attributes",
    ) -> None:
        super().__init__()
        self.key = key
        self.regions = None if regions is None else regions()
        names = () if self.regions is None else self.regions.names
        self.encoder = make_encoder(encoder, width, None if image_input is None else image_input(len(names)))
        if self.encoder.networks not in (None, num_outputs):
            raise ConfigurationError(
                f"{type(self.encoder).__name__} holds {self.encoder.networks} networks for {num_outputs} attributes: "
                "set its `networks` to their number"
            )
        if gate is not None:
            self.encoder.add_gate(gate, len(names))
        self.tail = self.encoder.tail()
        self.pooling = pooling(self.tail.stride)
        self.places = self.pooling.places(names)
        self.head = head(self.tail.channels, len(self.places), num_outputs)
        if self.head.needs_networks and self.encoder.networks is None:
            raise ConfigurationError(
                f"{type(self.head).__name__} needs a network for each attribute: set `encoder` to SeparateEncoder"
            )
        if self.regions is not None:
            asking = [part for part in self.modules() if getattr(part, "needs_regions", False)]
            if not asking:
                raise ConfigurationError(
                    f"no part of this network needs regions, but `regions` is {type(self.regions).__name__}"
                )
            strides = {getattr(part, "stride", 0) for part in asking} - {0}  # parts without one ask for boxes
            self.regions.strides = tuple(sorted(strides))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, landmarks: Tensor | None = None, masks: Tensor | None = None) -> dict[str, Any]:
        regions = None
        if self.regions is not None:
            regions = self.regions(images, masks if self.regions.needs_masks else landmarks)
        features = self.tail(self.encoder(images, regions)[-1])
        said = self.head(self.pooling(features, regions))
        return {"features": features, self.key: said.pop("logits"), **said}
