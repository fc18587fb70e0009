"""Online Batch Relation: which attributes go together, estimated from the labels of one mini-batch after another.

Wang, Su, Zhao, "A Unified Framework with a Novel Loss Function for Facial Attribute Prediction", §II-C.
"""

import torch
from torch import Tensor, distributed


def pair_sums(targets: Tensor) -> Tensor:
    """What the correlations of attributes follow from; the sums of several batches may be added.

    Args:
        targets: ``(B, A)``: 0, 1, or NaN where unknown. An unknown entry leaves out the pairs that it is in.

    Returns:
        ``(4, A, A)``, float32: for each pair (i, j) over the images that know both, their number, the sum of i, that of
        i², and that of i·j. Exact for up to 2²⁴ images.
    """
    known = (~targets.isnan()).float()
    values = targets.float().nan_to_num()
    return torch.stack([known.T @ known, values.T @ known, values.square().T @ known, values.T @ values])


def correlations(sums: Tensor) -> Tensor:
    """Pearson's correlation of each pair of attributes.

    Args:
        sums: Of :func:`pair_sums`, ``(4, A, A)``.

    Returns:
        ``(A, A)``, in [-1, 1]; NaN where one of both is constant, or too few images know both.

    Example:
        >>> targets = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
        >>> correlations(pair_sums(targets))
        tensor([[ 1., -1., nan],
                [-1.,  1., nan],
                [nan, nan, nan]])
    """
    number, first, squares, products = sums
    variance = number * squares - first.square()
    scale = (variance * variance.T).sqrt()
    covariance = number * products - first * first.T
    return torch.where(scale > 0, covariance / scale, torch.nan).clamp(-1, 1)


def all_processes(values: Tensor) -> Tensor:
    """The sum over all processes; the values themselves if there is only one."""
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def relation_losses(probabilities: Tensor, attract: Tensor, repel: Tensor) -> Tensor:
    """The relation loss of each image: equation (2), without its mean over the batch.

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
