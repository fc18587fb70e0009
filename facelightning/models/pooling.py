"""From the last feature map to attribute scores: plain and semantic pooling."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d


def region_masks(logits: Tensor, parts: Sequence[int], factor: int = 8) -> Tensor:
    """Turn a parser's prediction into the region masks of SSP (Kalayeh et al., §5).

    Softmax over classes, then pooling: by maximum for small facial parts, which takes some context along, and by
    average for all others. Windows are aligned with the cells of the smaller map, a last partial one included.

    Args:
        logits: The parser's prediction at half the input's size.
        parts: Class indices that are pooled by maximum.
        factor: Ratio of the two maps' sizes: three poolings of 2 lie between half size and the last map.

    Shape:
        - logits: ``(B, N, h, w)``.
        - return: probabilities ``(B, N, ⌈h/factor⌉, ⌈w/factor⌉)``, in [0, 1].

    Example:
        >>> region_masks(torch.randn(2, 7, 109, 89), parts=(3, 4, 5, 6)).shape
        torch.Size([2, 7, 14, 12])
    """
    probabilities = logits.float().softmax(dim=1)
    masks = avg_pool2d(probabilities, factor, ceil_mode=True)
    parts = list(parts)
    masks[:, parts] = max_pool2d(probabilities[:, parts], factor, ceil_mode=True)
    return masks


class AveragePooling(nn.Module):
    """Global average pooling and a linear classifier (Kalayeh et al., §3.1.1).

    Args:
        in_channels: Channels C of the feature map.
        num_attributes: A.

    Shape:
        - features: ``(B, C, H, W)``.
        - return: logits ``(B, A)``.
    """

    def __init__(self, in_channels: int, num_attributes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(in_channels, num_attributes)

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(features.mean(dim=(2, 3))))


class SemanticPooling(nn.Module):
    """Average features within semantic regions and let each attribute choose its region (SSP) [1]_.

    Each region's mean feature passes two linear maps that all regions share: recognition scores an attribute,
    localization, after a softmax over regions, says how much that region counts for it.

    Args:
        in_channels: Channels C of the feature map.
        num_attributes: A.

    Shape:
        - features: ``(B, C, H, W)``.
        - masks: ``(B, N, H, W)``, non-negative; a region of zero mass contributes nothing and gets no weight.
        - return: logits ``(B, A)``.

    Raises:
        ValueError: If features and masks differ in height or width; the message names both sizes.

    Example:
        >>> SemanticPooling(8, 40)(torch.rand(2, 8, 14, 12), torch.rand(2, 7, 14, 12)).shape
        torch.Size([2, 40])

    .. [1] Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017, §3.1.2.
    """

    def __init__(self, in_channels: int, num_attributes: int) -> None:
        super().__init__()
        self.recognition = nn.Linear(in_channels, num_attributes)
        # no bias: one constant for all regions would cancel in the softmax over them
        self.localization = nn.Linear(in_channels, num_attributes, bias=False)

    def scores(self, features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Each region's recognition scores and weights, both ``(B, N, A)``; weights sum to 1 over regions."""
        if features.shape[-2:] != masks.shape[-2:]:
            sizes = [" × ".join(map(str, x.shape[-2:])) for x in (features, masks)]
            raise ValueError(f"features ({sizes[0]}) and masks ({sizes[1]}) must have one height and width")
        masks = masks.to(features.dtype)
        mass = masks.sum(dim=(2, 3)).unsqueeze(2)  # (B, N, 1)
        present = mass > 0
        sums = torch.einsum("bchw,bnhw->bnc", features, masks)
        means = torch.where(present, sums / mass.where(present, 1), 0)  # (B, N, C)
        evidence = self.localization(means)  # (B, N, A)
        evidence = evidence.to(torch.promote_types(evidence.dtype, torch.float32))
        evidence = evidence.masked_fill(~present, torch.finfo(evidence.dtype).min)
        # the product matters where no region is present: the softmax is then uniform
        return self.recognition(means), evidence.softmax(dim=1) * present

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        recognition, weights = self.scores(features, masks)
        return (recognition * weights).sum(dim=1)
