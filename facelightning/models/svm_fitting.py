"""Fitting SVMs to features and attributes: the one module that needs scikit-learn."""

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from facelightning.models.svm import LinearSVMs

GRID = (1e-4, 1e-3, 1e-2, 1e-1)
"""The values of C to choose from: with few images, scikit-learn's own 1 decides worse than the majority does."""

FOLDS = 5

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def fit_svms(features: Tensor, targets: Tensor) -> LinearSVMs:
    """A linear SVM and a sigmoid for each attribute, each fitted to the images where it is known.

    Features are standardised. C is that of ``GRID`` with the most correct decisions on held-out folds; of several, the
    smallest. The sigmoid is Platt's, fitted to the same held-out decisions: those on images that an SVM was fitted to
    are too certain. The same data gives the same SVMs.

    An attribute with fewer than two positives or fewer than two negatives cannot be held out. Its decision is that of
    the majority, 1 or -1, or -1 if there is none; its probability is (positives + 1) / (images + 2).

    Args:
        features: Of each image.
        targets: Which attributes each image has.

    Shape:
        - features: ``(n, D)``, of any floating type.
        - targets: ``(n, A)``: 0, 1, or NaN where unknown.

    Example:
        >>> features = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> svms = fit_svms(features, torch.tensor([[0.0], [0.0], [1.0], [1.0]]))
        >>> svms(features).sign().flatten().tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    x, y = (each.double().cpu().numpy() for each in (features, targets))
    svms = LinearSVMs(x.shape[1], y.shape[1])
    rows = np.zeros((y.shape[1], x.shape[1] + 3))
    for row, column in zip(rows, y.T, strict=True):
        known = ~np.isnan(column)
        row[:] = _fit(x[known], column[known] == 1)
    svms.coefficients = torch.from_numpy(rows)
    return svms


def svm(c: float) -> LinearSVC:
    """An SVM that is not fitted, for standardised features."""
    return LinearSVC(C=c, dual=False)  # the primal problem: several times faster than the dual, and without chance


def _fit(x: Floats, positive: Bools) -> Floats:
    positives, negatives = int(positive.sum()), int((~positive).sum())
    rarer = min(positives, negatives)
    if rarer < 2:
        bias = 1.0 if positives > negatives else -1.0
        return np.array([*np.zeros(x.shape[1]), bias, 0, np.log((positives + 1) / (negatives + 1))])
    held_out = {c: np.zeros(len(x)) for c in GRID}
    for others, fold in StratifiedKFold(min(FOLDS, rarer)).split(x, positive):
        scaler = StandardScaler().fit(x[others])
        seen, unseen, _ = rotated(scaler.transform(x[others]), scaler.transform(x[fold]))
        for c in GRID:
            held_out[c][fold] = svm(c).fit(seen, positive[others]).decision_function(unseen)
    best = max(GRID, key=lambda c: np.count_nonzero((held_out[c] > 0) == positive))
    scaler = StandardScaler().fit(x)
    seen, _, axes = rotated(scaler.transform(x), x[:0])
    classifier = svm(best).fit(seen, positive)
    weights = axes @ classifier.coef_[0] / scaler.scale_
    return np.array([*weights, classifier.intercept_[0] - weights @ scaler.mean_, *platt(held_out[best], positive)])


def rotated(seen: Floats, unseen: Floats) -> tuple[Floats, Floats, Floats]:
    """The same features in no more dimensions than there are images to fit to, where an SVM is fitted faster.

    It decides alike: its weights are a weighted sum of those images' features; other directions do not count.

    Args:
        seen: Of the images that an SVM is fitted to, ``(n, D)``.
        unseen: Of any others, ``(m, D)``.

    Returns:
        ``(n, r)`` and ``(m, r)``, r the smaller of n and D, and the axes, ``(D, r)``: the old weights are
        ``axes @ weights``.
    """
    images, dimensions = seen.shape
    if dimensions <= images:
        return seen, unseen, np.eye(dimensions)
    axes = np.linalg.qr(seen.T)[0]
    return seen @ axes, unseen @ axes, axes


def platt(decisions: Floats, positive: Bools) -> tuple[float, float]:
    """Slope and offset of Platt's sigmoid; its smoothed targets keep them finite where a threshold separates all.

    Args:
        decisions: ``(n,)``.
        positive: The truth, ``(n,)``.
    """
    count = np.count_nonzero(positive)
    smoothed = np.where(positive, (count + 1) / (count + 2), 1 / (len(positive) - count + 2))
    # a target of 0.9 is a positive of weight 0.9 and a negative of weight 0.1
    model = LogisticRegression(C=np.inf, tol=1e-10)
    twice = np.concatenate([decisions, decisions])[:, None]
    model.fit(twice, np.repeat([True, False], len(decisions)), np.concatenate([smoothed, 1 - smoothed]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])
