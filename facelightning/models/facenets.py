"""A network whose features tell faces apart: IdentityNet of Wang, Su, Zhao."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from facelightning.models.encoders import EncoderFactory, make_encoder
from facelightning.models.pooling import AveragePooling, Pooling


class EmbeddingNetwork(nn.Module):
    """One vector for each face, its embedding, and a linear classifier of that.

    From Wang, Su, Zhao, "Joint Multi-Feature Fusion and Attribute Relationships for Facial Attribute Prediction",
    §II-A. The paper describes the convolutions alone, which resemble AlexNet's with a smaller stride and receptive
    field: :class:`~facelightning.models.lnet.LNet` with other arguments. The embedding follows Wen, Zhang, Li, Qiao, "A
    Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016: a fully connected layer without an
    activation, on which both the softmax and the center loss act.

    Args:
        num_outputs: I, the identities.
        num_features: D, the numbers of the embedding.
        width: Filters of the first layer of Kalayeh et al.'s encoder.
        encoder: Makes the encoder; Kalayeh et al.'s if not given.
        pooling: Makes the pooling of the last map; all its places make one embedding.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - return: ``"features"``: ``(B, D)``; ``"identity"``: logits ``(B, I)``.

    Example:
        >>> output = EmbeddingNetwork(9, num_features=32, width=4)(torch.rand(2, 3, 64, 64))
        >>> output["features"].shape, output["identity"].shape
        (torch.Size([2, 32]), torch.Size([2, 9]))
    """

    def __init__(
        self,
        num_outputs: int,
        num_features: int = 512,
        width: int = 64,
        encoder: EncoderFactory | None = None,
        pooling: Callable[[int], Pooling] = AveragePooling,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.encoder = make_encoder(encoder, width)
        self.tail = self.encoder.tail()
        self.pooling = pooling(self.tail.stride)
        self.embedding = nn.Linear(len(self.pooling.places(())) * self.tail.channels, num_features)
        self.head = nn.Linear(num_features, num_outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        pooled = self.pooling(self.tail(self.encoder(images)[-1]), None)
        features = self.embedding(pooled.vectors.flatten(1))
        return {"features": cast(Tensor, features), "identity": self.head(features)}
