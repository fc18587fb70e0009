"""Several trained networks as one encoder: their last maps, side by side."""

import json
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from facelightning.checkpoint import built_from, describe, restore_part
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.blocks import Frozen, as_floats
from facelightning.models.encoders import Encoder, Input, PlainInput, Tail, make_encoder
from facelightning.models.gating import Gate
from facelightning.models.regions import Regions
from facelightning.models.stored_maps import MapStore

PREFIX = "network.encoder."
"""How the names of an encoder's weights begin in a checkpoint."""


class TrainedNet(nn.Module):
    """The encoder of a trained network; it sees images at the size that it was trained on.

    Args:
        source: A checkpoint, or a description from one, for an encoder whose weights are loaded later.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - return: its last map, ``(B, C, h, w)``.

    Raises:
        CheckpointError: If the file is missing or broken, or its network has no encoder, or one that needs regions.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        description, trained = describe(source, None, "Fusion", "avg")
        settings, kept = description["settings"], ("width", "encoder", "image_input", "regions")
        if trained is not None and not any(name.startswith(PREFIX) for name in trained.weights):
            raise CheckpointError(f"Fusion: {source} holds {description['task']}, whose network has no encoder")
        if settings.get("regions") is not None:
            raise CheckpointError(f"Fusion: the encoder of {source} may need regions: fuse a network without any")
        with built_from(source):
            facts = DataFacts.of(description["facts"])
            image_input = restore_part(settings.get("image_input"))
            encoder = restore_part(settings.get("encoder"))
            self.encoder = make_encoder(encoder, settings.get("width", 64), image_input and image_input(0))
        self.image_size = facts.image_size
        # neither identities nor attributes: what is fused has no head
        of_encoder = {"settings": {key: settings.get(key) for key in kept}, "facts": DataFacts(self.image_size).plain()}
        self.description = json.dumps(description | of_encoder)
        if trained is not None:
            trained.load_into(self.encoder, PREFIX)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != self.image_size:
            dtype = next(self.encoder.parameters()).dtype
            resized = interpolate(as_floats(images, torch.float32), self.image_size, mode="bilinear", antialias=True)
            images = resized.clamp(0, 1).to(dtype)
        return cast(Tensor, self.encoder(images)[-1])


class FrozenNet(Frozen, TrainedNet):
    """The same, always in evaluation mode and without gradients of its weights: they stay as they were trained.

    Args:
        source: As above.
        store: Where its maps are kept; nowhere if not given.
    """

    def __init__(self, source: str, store: MapStore | None = None) -> None:
        super().__init__(source)
        self.store = store
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        if self.store is None or images.requires_grad:
            return super().forward(images)
        network = f"{self.digest()} {self.description}"
        return cast(Tensor, self.store.maps(network, images, super().forward))


class Fusion(Encoder):
    """The last maps of trained encoders, concatenated along channels (Wang, Su, Zhao, §II-B).

    The paper fuses the convolutions of networks that know identities, ages and races, and then "finetunes" what comes
    after them, AttributeNet: we read that its three networks are frozen. Any checkpoint whose network has an encoder
    may be fused, such as a parser's; of an :class:`~facelightning.tasks.AttributeNet` it is the encoder, not its tail.

    Each network normalises its input itself, and sees the image at the size that it was trained on, as if a data module
    had resized it. Each map is averaged to the grid of the coarsest stride, where cells that are too large are
    repeated.

    A checkpoint of the whole holds all weights and needs none of these files.

    Args:
        image_input: The normalised image; each network has its own.
        frozen: Checkpoints of networks whose weights stay as they are.
        tuned: Checkpoints of networks that are trained further.
        store: A file in which the maps of the frozen ones are kept, so that only what comes after them is trained:
            see :class:`~facelightning.models.stored_maps.MapStore`. A checkpoint does not know it.

    Raises:
        ConfigurationError: If no network is named, or another input is given.
        CheckpointError: If a file is missing or broken, or its network has no encoder, or one that needs regions.

    Example:
        >>> Fusion(PlainInput(), frozen=["runs/racenet/missing.ckpt"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: Fusion: checkpoint runs/racenet/missing.ckpt does not exist; ...
    """

    def __init__(
        self,
        image_input: Input,
        frozen: Sequence[str] = (),
        tuned: Sequence[str] = (),
        store: str | None = None,
    ) -> None:
        super().__init__()
        if type(image_input) is not PlainInput:
            raise ConfigurationError("Fusion: each network has its own input: leave out `image_input`")
        if isinstance(frozen, str) or isinstance(tuned, str):
            raise ConfigurationError("Fusion: `frozen` and `tuned` must be lists of checkpoints, also of a single one")
        if not (frozen or tuned):
            raise ConfigurationError("Fusion: `frozen` and `tuned` must name a checkpoint of a trained network")
        kept = None if store is None else MapStore(store)
        first, rest = [FrozenNet(source, kept) for source in frozen], [TrainedNet(source) for source in tuned]
        descriptions = {"frozen": [net.description for net in first], "tuned": [net.description for net in rest]}
        self.settings = descriptions | {"store": None}
        nets = [*first, *rest]
        self.nets = nn.ModuleList(nets)
        self.channels = (sum(net.encoder.channels[-1] for net in nets),)
        self.strides = (max(net.encoder.strides[-1] for net in nets),)
        self.gate: Gate | None = None

    def add_gate(self, gate: Callable[[int, int, int, bool], Gate], num_regions: int) -> None:
        """Put it after the fused map, whose resolution it keeps."""
        self.gate = gate(self.channels[-1], num_regions, self.strides[-1], False)

    def tail(self) -> Tail:
        """No layers."""
        return Tail(channels=self.channels[-1], stride=self.strides[-1])

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        height, width = ((side + self.strides[-1] - 1) // self.strides[-1] for side in images.shape[-2:])
        fused = torch.cat([_on_grid(net(images), height, width) for net in self.nets], dim=1)
        return [fused if self.gate is None else self.gate(fused, regions)]


def _on_grid(maps: Tensor, height: int, width: int) -> Tensor:
    same = maps.shape[-2:] == (height, width)  # pooling would be the identity, but a slow one
    return maps if same else adaptive_avg_pool2d(maps, (height, width))
