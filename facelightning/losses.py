"""What training minimises: cross-entropy of face parsing at every scale, of attributes and classes; distances.

Parsing and attributes are those of Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic
Segmentation", CVPR 2017; classes and distances those of Liu et al., ICCV 2015. Each has two versions: one loss per
batch, for training; and one loss per sample, whose mean over a data set does not depend on how samples were put into
batches. Distances are between the images of a batch, so a sample alone has none.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from facelightning.labels import IGNORE_INDEX


def parsing_loss(logits: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Softmax cross-entropy of one or several predictions of a mask: deep supervision (Kalayeh et al., §3.2).

    The mask is resized to each prediction's size, each prediction's loss is the mean over its counted pixels, and
    the losses are added with equal weights. Resizing takes the pixel under the centre of each cell (PyTorch's
    ``nearest-exact``); plain ``nearest`` takes the one at its top left corner, half a cell away: four pixels at an
    eighth of the size.

    Args:
        logits: Predictions of the same K classes at any sizes, such as the four of the parser.
        mask: Class indices below K; 255 marks ignored pixels.

    Shape:
        - logits: each ``(B, K, h, w)``, of any floating type; the arithmetic is in float32 at least.
        - mask: ``(B, H, W)``, int64.
        - return: ``()``; 0 with a zero gradient where no pixel counts.

    Example:
        >>> mask = torch.zeros(2, 8, 6, dtype=torch.int64)
        >>> parsing_loss([torch.zeros(2, 7, 8, 6), torch.zeros(2, 7, 4, 3)], mask)  # 2 log 7
        tensor(3.8918)
    """
    scales = [_pixel_losses(scale, mask) for scale in logits]
    return torch.stack([losses.sum() / counted.sum().clamp(min=1) for losses, counted in scales]).sum()


def parsing_sample_losses(logits: Sequence[Tensor], mask: Tensor) -> Tensor:
    """:func:`parsing_loss` of each sample alone, ``(B,)``."""
    scales = [_pixel_losses(scale, mask) for scale in logits]
    return torch.stack([x.sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1) for x, counted in scales]).sum(dim=0)


def attribute_loss(logits: Tensor, targets: Tensor, positive_rates: Tensor | None = None) -> Tensor:
    """Sigmoid cross-entropy, the mean over all known entries of the batch (Kalayeh et al., §3.1.1).

    With ``positive_rates`` it is balanced: positives and negatives of an attribute weigh the same in total. With
    positive rate p, a positive weighs 1 / 2p and a negative 1 / 2(1 - p), which is 1 on average. The paper fine-tunes
    with such weights for balanced accuracy (§4.3.1: weights proportional to the imbalance level).

    Args:
        logits: Scores of the attributes.
        targets: 0, 1, or NaN where the label is unknown; such an entry adds neither loss nor gradient.
        positive_rates: How often each attribute occurs, in [0, 1]; one that always or never occurs is not balanced.

    Shape:
        - logits: ``(B, A)``, of any floating type; the arithmetic is in float32 at least.
        - targets: ``(B, A)``.
        - positive_rates: ``(A,)``.
        - return: ``()``; 0 with a zero gradient where nothing is known.

    Raises:
        ValueError: If logits and targets differ in shape.

    Example:
        >>> attribute_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, float("nan")]]))  # log 2
        tensor(0.6931)
    """
    losses, known = _entry_losses(logits, targets, positive_rates)
    return losses.sum() / known.sum().clamp(min=1)


def attribute_sample_losses(logits: Tensor, targets: Tensor, positive_rates: Tensor | None = None) -> Tensor:
    """:func:`attribute_loss` of each sample alone, ``(B,)``."""
    losses, known = _entry_losses(logits, targets, positive_rates)
    return losses.sum(dim=1) / known.sum(dim=1).clamp(min=1)


def focal_sample_losses(
    logits: Tensor, targets: Tensor, positive_focus: float, negative_focus: float, margin: float = 0.0
) -> Tensor:
    """Cross-entropy that looks away from what is already right, the mean over each image's known entries.

    With p the probability of an attribute and p' = max(p - margin, 0), a positive loses -(1 - p)^γ₊ log p, a negative
    -p'^γ₋ log(1 - p'). Equal focuses and no margin are the focal loss (Lin et al., "Focal Loss for Dense Object
    Detection", ICCV 2017, without its α); a larger focus on negatives and a margin the asymmetric loss (Ridnik et al.,
    "Asymmetric Loss for Multi-Label Classification", ICCV 2021); no focus is cross-entropy.

    Args:
        logits: Scores of the attributes.
        targets: 0, 1, or NaN where the label is unknown; such an entry adds neither loss nor gradient.
        positive_focus: γ₊: 0, or from 1 on; between both its gradient has no bound.
        negative_focus: γ₋: likewise.
        margin: In [0, 1); a negative of this probability or less loses nothing.

    Shape:
        - logits: ``(B, A)``, of any floating type; the arithmetic is in float32 at least.
        - targets: ``(B, A)``.
        - return: ``(B,)``.

    Example:
        >>> focal_sample_losses(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 2, 2)  # log 2 / 4
        tensor([0.1733])
    """
    losses, known = _entry_losses(logits, targets, None)
    likely = _at_least_float32(logits).where(known, 0).sigmoid()
    shifted = (likely - margin).clamp(min=0)
    if margin:
        losses = torch.where(targets == 0, -torch.log1p(-shifted), losses)
    focus = torch.where(targets == 1, (1 - likely) ** positive_focus, shifted**negative_focus)
    return (focus * losses).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def adapted_sample_losses(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Squared distances to 1 for a positive and -1 for a negative, weighted; the mean over each image's known entries.

    Rudd, Günther, Boult, "MOON: A Mixed Objective Optimization Network for the Recognition of Facial Attributes", ECCV
    2016.

    Args:
        outputs: Scores of the attributes.
        targets: 0, 1, or NaN where the label is unknown; such an entry adds neither loss nor gradient.
        weights: Of a negative and of a positive of each attribute; see :func:`domain_weights`.

    Shape:
        - outputs: ``(B, A)``, of any floating type; the arithmetic is in float32 at least.
        - targets: ``(B, A)``.
        - weights: ``(2, A)``.
        - return: ``(B,)``.

    Example:
        >>> adapted_sample_losses(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5], [1.0, 1.0]]))
        tensor([0.7500])
    """
    known = ~targets.isnan()
    truth = targets.where(known, 0)
    outputs = _at_least_float32(outputs).where(known, 0)
    weight = torch.where(truth > 0.5, weights[1], weights[0]).to(outputs.dtype) * known
    return (weight * (outputs - (2 * truth - 1)).square()).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def domain_weights(source: Tensor, target: Tensor) -> Tensor:
    """Weights that make training data of one balance act as data of another (MOON, §3).

    The class that the source has too many of weighs less than 1, so that both weigh as in the target; the other weighs
    1: for a rate s of positives in the source and t in the target, a positive weighs (1 - s) t / s (1 - t) if t < s,
    and a negative s (1 - t) / (1 - s) t if t > s.

    Args:
        source: How often each attribute occurs in the training data, ``(A,)``, in [0, 1].
        target: How often it occurs where the network will be used, ``(A,)``, in (0, 1).

    Returns:
        Of a negative and of a positive of each attribute, ``(2, A)``. An attribute that always or never occurs in the
        source keeps weights of 1.

    Example:
        >>> domain_weights(torch.tensor([0.8, 0.2, 0.5]), torch.tensor([0.5, 0.5, 0.5]))
        tensor([[1.0000, 0.2500, 1.0000],
                [0.2500, 1.0000, 1.0000]])
    """
    odds = source * (1 - target) / ((1 - source) * target)  # of a positive, in the source against the target
    odds = odds.where((source > 0) & (source < 1), 1)
    return torch.stack([odds, 1 / odds]).clamp(max=1)


def effective_rates(rates: Tensor, images: int, beta: float) -> Tensor:
    """Positive rates of effective numbers of images, for :func:`attribute_loss`.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019: n images of a class tell as much
    as E = (1 - β^n) / (1 - β) that do not overlap, so the class weighs 1 / E. Theirs add up to 2; ours average 1.

    Args:
        rates: How often each attribute occurs in the training data, ``(A,)``, in [0, 1].
        images: How many images that has.
        beta: β, in [0, 1): 0 balances nothing; with β near 1 rates stay what they are.

    Returns:
        E₊ / (E₊ + E₋), ``(A,)``, in [0, 1].

    Example:
        >>> effective_rates(torch.tensor([0.5, 0.01, 0.0]), images=10_000, beta=0.999)
        tensor([0.5000, 0.0869, 0.0000])
    """
    effective = 1 - beta ** (images * torch.stack([rates, 1 - rates]).double())
    return (effective[0] / effective.sum(dim=0)).to(rates.dtype)


def relation_losses(probabilities: Tensor, attract: Tensor, repel: Tensor) -> Tensor:
    """The Online Batch Relation Loss of each image (Wang, Su, Zhao, equation (2), without its mean over the batch).

    Attributes that attract each other should have equal probabilities; those that repel each other, opposite ones:
    the loss of an image is Σ_ij [attract_ij d² + repel_ij (1 - d²)²] / 2A², where d = p_i - p_j.

    Args:
        probabilities: ``(B, A)``, in float32 at least.
        attract: Which pairs should be equal, ``(A, A)``, bool or weights.
        repel: Which pairs should be opposite, ``(A, A)``, bool or weights.

    Returns:
        ``(B,)``.

    Example:
        >>> pairs = torch.tensor([[0, 1], [1, 0]])
        >>> relation_losses(torch.tensor([[0.5, 0.25]]), pairs, 0 * pairs)  # 2 (1/4)² / (2 · 2²)
        tensor([0.0156])
    """
    squares = (probabilities.unsqueeze(2) - probabilities.unsqueeze(1)).square()  # (B, A, A)
    pairs = attract * squares + repel * (1 - squares).square()
    return pairs.sum(dim=(1, 2)) / (2 * probabilities.shape[1] ** 2)


def softmax_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Softmax cross-entropy, the mean over the images of known class (Liu et al., ICCV 2015, §4).

    Args:
        logits: Scores of the K classes, which are object categories or identities.
        classes: The class of each image, below K; a negative number where unknown, which adds neither loss nor
            gradient.

    Shape:
        - logits: ``(B, K)``, of any floating type; the arithmetic is in float32 at least.
        - classes: ``(B,)``, int64.
        - return: ``()``; 0 with a zero gradient where none is known.

    Example:
        >>> softmax_loss(torch.zeros(2, 5), torch.tensor([3, -1]))  # log 5
        tensor(1.6094)
    """
    return softmax_sample_losses(logits, classes).sum() / (classes >= 0).sum().clamp(min=1)


def softmax_sample_losses(logits: Tensor, classes: Tensor) -> Tensor:
    """:func:`softmax_loss` of each sample alone, ``(B,)``."""
    return F.cross_entropy(_at_least_float32(logits), classes.clamp(min=-1), ignore_index=-1, reduction="none")


def similarity_loss(features: Tensor, identities: Tensor) -> Tensor:
    """The mean squared distance between features of one identity (Liu et al., ICCV 2015, §4).

    The paper adds ‖f_i - f_j‖² over all ordered pairs of one identity. Dividing by the number of pairs with i ≠ j is
    ours: the sum grows with the square of an identity's images in the batch. Alone it draws all features into one
    point, so it needs the softmax loss beside it; and a batch needs several images of an identity.

    The distances to an identity's mean give the same sum, in time linear in B: Σ_i 2 n_i ‖f_i - mean_i‖², where n_i is
    the number of images of i's identity.

    Args:
        features: A vector for each image.
        identities: The person in each image; a negative number where unknown, which adds neither loss nor gradient.

    Shape:
        - features: ``(B, D)``, of any floating type; the arithmetic is in float32 at least.
        - identities: ``(B,)``, int64.
        - return: ``()``, not negative; 0 with a zero gradient where there is no pair.

    Raises:
        ValueError: If there is not one identity for each vector.

    Example:
        >>> features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [7.0, 7.0], [9.0, 9.0]])
        >>> similarity_loss(features, torch.tensor([5, 5, 8, -1]))  # one pair, in two orders: (25 + 25) / 2
        tensor(25.)
    """
    if features.ndim != 2 or identities.shape != features.shape[:1]:
        raise ValueError(
            f"Features must be (B, D) and identities (B,); found {tuple(features.shape)} and {tuple(identities.shape)}."
        )
    known = identities >= 0
    vectors = _at_least_float32(features).where(known.unsqueeze(1), 0)  # before any product: 0 x NaN would be NaN
    _, groups, counts = torch.unique(identities, return_inverse=True, return_counts=True)
    means = vectors.new_zeros(len(counts), vectors.shape[1]).index_add(0, groups, vectors) / counts.unsqueeze(1)
    images: Tensor = counts[groups].where(known, 0)
    distances: Tensor = (vectors - means[groups]).square().sum(dim=1)
    return (2 * images * distances).sum() / (images - 1).clamp(min=0).sum().clamp(min=1)


def _entry_losses(logits: Tensor, targets: Tensor, positive_rates: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weighted loss of each entry, 0 where it is unknown, and whether it is known: both ``(B, A)``."""
    if logits.shape != targets.shape:
        raise ValueError(f"Logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have one shape (B, A).")
    logits = _at_least_float32(logits)
    known = ~targets.isnan()
    # Both are replaced before the product: 0 x NaN would still be NaN, in the loss or in the gradient.
    truth = targets.to(logits.dtype).where(known, 0)
    weight = known.to(logits.dtype)
    if positive_rates is not None:
        rates = positive_rates.to(logits.dtype)
        imbalance = 0.5 / torch.where(truth > 0.5, rates, 1 - rates)
        weight = weight * imbalance.where((rates > 0) & (rates < 1), 1)
    return F.binary_cross_entropy_with_logits(logits.where(known, 0), truth, weight, reduction="none"), known


def _pixel_losses(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each pixel, 0 where it does not count, and whether it counts: both ``(B, h, w)``."""
    target = _resize_nearest(mask, logits.shape[-2], logits.shape[-1])
    # The caller sums: CUDA's own sum over pixels is not deterministic.
    losses = F.cross_entropy(_at_least_float32(logits), target, ignore_index=IGNORE_INDEX, reduction="none")
    return losses, target != IGNORE_INDEX


def _resize_nearest(mask: Tensor, height: int, width: int) -> Tensor:
    """The pixels under the cells' centres, ``(B, H, W)`` to ``(B, height, width)``, in exact integer arithmetic."""
    if mask.shape[-2:] == (height, width):
        return mask
    rows, columns = (
        (2 * torch.arange(new, device=mask.device) + 1) * old // (2 * new)  # floor((i + 1/2) old / new)
        for new, old in zip((height, width), mask.shape[-2:], strict=True)
    )
    return mask[:, rows[:, None], columns]


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
