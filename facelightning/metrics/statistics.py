"""Bootstrap intervals, which tell a difference between two methods from chance."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINS = 15
"""Bins of probability in which calibration is measured."""


def bootstrap_differences(
    pairs: Sequence[tuple[Floats, Floats]],
    truth: Bools,
    resamples: int = 1000,
    identities: npt.NDArray[np.int64] | None = None,
) -> dict[str, dict[str, list[float]]]:
    """The difference between two methods on the same images, with paired bootstrap intervals.

    Each resample draws identities of the test set with replacement, each with all its images, the same for both
    methods and all trainings; the difference is the mean over trainings. An attribute without positives in a resample
    is left out of its mean. The interval is the basic bootstrap interval, which corrects for bias: images that are
    drawn twice rank side by side, which biases average precision.

    That covers variation between persons. Where there are at least two trainings, a second interval covers both kinds:
    each resample also draws trainings with replacement, one fewer than there are, see :func:`training_weights`. All
    trainings of a resample are tested on the same draw of persons, as they are in truth: with persons drawn anew for
    each training, what all have in common by being tested on few persons would wrongly average out.

    Args:
        pairs: Probabilities ``(n, A)`` of the method and of the baseline, a pair for each training.
        truth: The labels, ``(n, A)``.
        resamples: Number of resamples.
        identities: Identity of each image, ``(n,)``; if not given, each image is its own identity.

    Returns:
        For ``persons``, and with several trainings for ``persons_and_trainings``: of ``error`` and ``mean_ap`` the
        difference in percentage points and the ends of its 95 % interval.

    Example:
        >>> truth = np.array([[True], [False], [True], [False]])
        >>> perfect, useless = truth * 1.0, np.full((4, 1), 0.4)
        >>> bootstrap_differences([(perfect, useless)], truth)["persons"]["error"][0]
        -50.0
    """
    weights = image_weights(len(truth), resamples, identities)
    drawn = {"persons": np.full((1 + resamples, len(pairs)), 1 / len(pairs))}
    if len(pairs) > 1:
        drawn["persons_and_trainings"] = training_weights(len(pairs), resamples)
    result: dict[str, dict[str, list[float]]] = {over: {} for over in drawn}
    for name, score in (("error", _errors), ("mean_ap", _mean_aps)):
        differences = [score(ours, truth, weights) - score(theirs, truth, weights) for ours, theirs in pairs]
        for over, trainings in drawn.items():
            result[over][name] = interval((np.stack(differences, axis=1) * trainings).sum(axis=1))
    return result


def training_weights(trainings: int, resamples: int = 1000) -> Floats:
    """The share of each of S trainings in the mean of all, which comes first, and in each resample: ``(1 + R, S)``.

    S - 1 are drawn with replacement. Of S draws, the mean would vary less than that of S new trainings: their variance
    is too small by (S - 1) / S, which is a half of two trainings (Rao and Wu, JASA 1988).

    Example:
        >>> training_weights(3, resamples=2)
        array([[0.33333333, 0.33333333, 0.33333333],
               [0.5       , 0.5       , 0.        ],
               [0.        , 1.        , 0.        ]])
    """
    draws = np.random.default_rng(1).multinomial(trainings - 1, np.full(trainings, 1 / trainings), size=resamples)
    return np.vstack([np.full((1, trainings), 1 / trainings), draws / (trainings - 1)])


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
    """Mean average precision in percent for each weighting of the images, ``(R, n)`` to ``(R,)``.

    Weights are whole numbers. Average precision is the mean over the drawn positives of the precision at their
    threshold, so only images in their order need to be counted, which takes most of the time.
    """
    counts = weights.astype(np.int32)  # small ones are gathered faster
    total, defined = np.zeros(len(counts)), np.zeros(len(counts))
    for scores, labels in zip(probabilities.T, truth.T, strict=True):
        order = np.argsort(-scores, kind="stable")
        falling, positives = -scores[order], np.flatnonzero(labels[order])
        last = np.searchsorted(falling, falling[positives], side="right") - 1  # equal scores share one threshold
        last_positive = np.searchsorted(positives, last, side="right") - 1
        for start in range(0, len(counts), 32):  # few at a time stay in the processor's cache
            drawn = counts[start : start + 32].take(order, axis=1)
            drawn_positives = drawn.take(positives, axis=1)
            seen = _cumulated(drawn).take(last, axis=1)
            hits = _cumulated(drawn_positives).take(last_positive, axis=1)
            found = drawn_positives.sum(axis=1)
            gained = np.einsum("rp,rp->r", drawn_positives, hits / np.maximum(seen, 1))
            total[start : start + 32] += gained / np.maximum(found, 1)
            defined[start : start + 32] += found > 0
    return 100 * total / np.maximum(defined, 1)


def _cumulated(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Cumulative sums along each row, for which torch takes a quarter of NumPy's time."""
    sums: npt.NDArray[np.int32] = torch.from_numpy(counts).cumsum(1, dtype=torch.int32).numpy()
    return sums
