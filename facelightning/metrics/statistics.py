"""Bootstrap intervals, which tell a difference between two methods from chance."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINS = 15
"""Bins of probability in which calibration is measured."""


def bootstrap_differences(
    pairs: Sequence[tuple[Floats, Floats]],
    truth: Bools,
    resamples: int = 1000,
    identities: npt.NDArray[np.int64] | None = None,
) -> dict[str, list[float]]:
    """The difference between two methods on the same images, with a paired bootstrap interval.

    Each resample draws identities of the test set with replacement, each with all its images, the same for both
    methods and all seeds; the difference is the mean over seeds. An attribute without positives in a resample is left
    out of its mean. The interval is the basic bootstrap interval, which corrects for bias: images that are drawn twice
    rank side by side, which biases average precision. It covers variation between test images, not between trainings.

    Args:
        pairs: Probabilities ``(n, A)`` of the method and of the baseline, a pair for each seed.
        truth: The labels, ``(n, A)``.
        resamples: Number of resamples.
        identities: Identity of each image, ``(n,)``; if not given, each image is its own identity.

    Returns:
        For ``error`` and ``mean_ap`` the difference in percentage points and the ends of its 95 % interval.

    Example:
        >>> truth = np.array([[True], [False], [True], [False]])
        >>> perfect, useless = truth * 1.0, np.full((4, 1), 0.4)
        >>> bootstrap_differences([(perfect, useless)], truth)["error"][0]
        -50.0
    """
    weights = image_weights(len(truth), resamples, identities)
    result = {}
    for name, score in (("error", _errors), ("mean_ap", _mean_aps)):
        differences = [score(ours, truth, weights) - score(theirs, truth, weights) for ours, theirs in pairs]
        result[name] = interval(np.mean(differences, axis=0))
    return result


def image_weights(images: int, resamples: int = 1000, identities: npt.NDArray[np.int64] | None = None) -> Floats:
    """How often each image is in the set itself, which comes first, and in each resample: ``(1 + R, n)``.

    Identities are drawn with replacement, each with all its images.

    Example:
        >>> image_weights(3, resamples=2)
        array([[1., 1., 1.],
               [1., 1., 1.],
               [0., 0., 3.]])
    """
    if images == 0:
        return np.ones((1 + resamples, 0))
    _, identity = np.unique(np.arange(images) if identities is None else identities, return_inverse=True)
    number = int(identity.max()) + 1
    draws = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), size=resamples)
    return np.vstack([np.ones((1, images)), draws[:, identity]])


def interval(values: Floats) -> list[float]:
    """A score of the set itself, the first, and the ends of its 95 % basic bootstrap interval from all others.

    Resamples in which the score is undefined do not count; all three are NaN if it is undefined in the set itself.
    """
    value, *resampled = values
    if np.isnan(value):
        return [math.nan] * 3
    low, high = 2 * value - np.nanquantile(resampled, (0.975, 0.025))
    return [float(value), float(low), float(high)]


def mean_errors(decisions: Bools, truth: Floats | Bools, weights: Floats) -> Floats:
    """Error in percent for each weighting of the images, ``(R, n)`` to ``(R,)``; the mean over attributes.

    Unknown entries of ``truth`` are NaN; an attribute without a known one is left out.
    """
    true, false = truth == 1, truth == 0
    wrong = (true & ~decisions) | (false & decisions)
    with np.errstate(invalid="ignore"):
        scores = 100 * (weights @ wrong) / (weights @ (true | false))
    return _means(scores)


def balanced_accuracies(decisions: Bools, truth: Floats, weights: Floats) -> Floats:
    """Balanced accuracy in percent for each weighting of the images, ``(R, n)`` to ``(R,)``; the mean over attributes.

    An attribute without positives or without negatives is left out. Unknown entries of ``truth`` are NaN.
    """
    counts = [weights @ each for each in (truth == 1, truth == 0, (truth == 1) & decisions, (truth == 0) & ~decisions)]
    with np.errstate(invalid="ignore"):
        scores = 50 * (counts[2] / counts[0] + counts[3] / counts[1])
    return _means(scores)


def calibration_errors(probabilities: Floats, truth: Floats, weights: Floats) -> Floats:
    """Expected calibration error in percent for each weighting of the images, ``(R, n)`` to ``(R,)``.

    The mean over attributes; for one, the sum over 15 equal bins of the probability of |Σ probability - positives|,
    divided by the number of images (Naeini, Cooper, Hauskrecht, AAAI 2015). Unknown entries of ``truth`` are NaN.
    """
    known, bins = ~np.isnan(truth), _bins(probabilities)
    gaps = np.where(known, probabilities - truth, 0)
    errors = np.empty((len(weights), truth.shape[1]))
    for column in range(truth.shape[1]):  # one at a time, to save memory
        parts = gaps[:, column, None] * (bins[:, column, None] == np.arange(BINS))
        with np.errstate(invalid="ignore"):
            errors[:, column] = 100 * np.abs(weights @ parts).sum(axis=1) / (weights @ known[:, column])
    return _means(errors)


def reliability(probabilities: Floats, truth: Floats) -> list[tuple[float, float, int]]:
    """Mean probability, share of positives and number of entries of each bin that has some; all attributes together.

    Example:
        >>> reliability(np.array([[0.9], [0.92], [0.1]]), np.array([[1.0], [0.0], [np.nan]]))
        [(0.91, 0.5, 2)]
    """
    known = ~np.isnan(truth)
    probabilities, truth = probabilities[known], truth[known]
    bins = _bins(probabilities)
    members = [bins == number for number in np.unique(bins)]
    return [(float(probabilities[each].mean()), float(truth[each].mean()), int(each.sum())) for each in members]


def _bins(probabilities: Floats) -> npt.NDArray[np.int64]:
    return np.minimum((BINS * probabilities).astype(np.int64), BINS - 1)


def _means(scores: Floats) -> Floats:
    """The mean of each row's numbers that are defined; NaN without any."""
    defined = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(defined, scores, 0).sum(axis=1) / defined.sum(axis=1)
    return means


def _errors(probabilities: Floats, truth: Bools, weights: Floats) -> Floats:
    return mean_errors(probabilities > 0.5, truth, weights)


def _mean_aps(probabilities: Floats, truth: Bools, weights: Floats) -> Floats:
    """Mean average precision in percent for each weighting of the images, ``(R, n)`` to ``(R,)``."""
    total, defined = np.zeros(len(weights)), np.zeros(len(weights))
    columns = [_thresholds(*column) for column in zip(probabilities.T, truth.T, strict=True)]
    for start in range(0, len(weights), 100):  # a hundred at a time, to save memory
        some = slice(start, start + 100)
        drawn = np.ascontiguousarray(weights[some].T)  # (n, 100): what is sorted lies in whole rows
        for order, positives, first_positives, begins in columns:
            if not len(positives):
                continue
            hits = np.add.reduceat(drawn[positives], first_positives).cumsum(axis=0)  # (thresholds, 100)
            retrieved = np.add.reduceat(drawn[order], begins).cumsum(axis=0)
            gained = np.diff(hits, axis=0, prepend=0)
            total[some] += (gained * (hits / np.maximum(retrieved, 1))).sum(axis=0) / np.maximum(hits[-1], 1)
            defined[some] += hits[-1] > 0
    return 100 * total / np.maximum(defined, 1)


def _thresholds(scores: Floats, labels: Bools) -> tuple[npt.NDArray[np.int64], ...]:
    """What average precision needs of one attribute, however images are weighted: its thresholds with a positive.

    Returns:
        The images by falling score, down to the last positive; the positives among them; in the positives and in the
        images the places where what each threshold adds begins. Equal scores share one threshold.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    places = np.flatnonzero(labels[order])
    reached, first_positives = np.unique(np.searchsorted(ends, places), return_index=True)
    begins = np.append(0, ends[reached] + 1)
    return order[: begins[-1]], order[places], first_positives, begins[:-1]
