"""The average of several attribute networks' predictions."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from facelightning.models.attributes import AttributeNetwork
from facelightning.models.blocks import Frozen


class EnsembleNetwork(Frozen):
    """Average the probabilities of trained attribute networks ("SSP + SSG": Kalayeh et al., CVPR 2017, §4.3.1).

    It has nothing to learn: its members are frozen, and always in evaluation mode.

    Args:
        members: The networks.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - landmarks: ``(B, 5, 2)``, if a member needs them.
        - return: ``"attributes"``: logits ``(B, A)`` of the mean probabilities.

    Example:
        >>> members = [AttributeNetwork(40, width=4) for _ in range(2)]
        >>> EnsembleNetwork(members)(torch.rand(1, 3, 64, 64))["attributes"].shape
        torch.Size([1, 40])
    """

    def __init__(self, members: Iterable[AttributeNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.freeze()

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, Any]:
        logits = torch.stack([member(images, landmarks)["attributes"] for member in self.members]).float()
        # the logit of mean p is log Σ p - log Σ (1 - p), computed in logarithms: p itself rounds to 0 and 1
        return {"attributes": logsigmoid(logits).logsumexp(dim=0) - logsigmoid(-logits).logsumexp(dim=0)}
