"""Bootstrap intervals, which tell a difference between two methods from chance."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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
    _, identity = np.unique(np.arange(len(truth)) if identities is None else identities, return_inverse=True)
    number = int(identity.max()) + 1
    draws = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), size=resamples)
    weights = np.vstack([np.ones((1, len(truth))), draws[:, identity]])  # the first is the test set itself
    result = {}
    for name, score in (("error", _errors), ("mean_ap", _mean_aps)):
        differences = [score(ours, truth, weights) - score(theirs, truth, weights) for ours, theirs in pairs]
        value, *resampled = np.mean(differences, axis=0)
        low, high = 2 * value - np.quantile(resampled, (0.975, 0.025))
        result[name] = [float(value), float(low), float(high)]
    return result


def _errors(probabilities: Floats, truth: Bools, weights: Floats) -> Floats:
    """Error in percent for each weighting of the images, ``(R, n)`` to ``(R,)``."""
    wrong = ((probabilities > 0.5) != truth).mean(axis=1)
    errors: Floats = 100 * (weights @ wrong) / weights.sum(axis=1)
    return errors


def _mean_aps(probabilities: Floats, truth: Bools, weights: Floats) -> Floats:
    """Mean average precision in percent for each weighting of the images, ``(R, n)`` to ``(R,)``."""
    total, defined = np.zeros(len(weights)), np.zeros(len(weights))
    for scores, labels in zip(probabilities.T, truth.T, strict=True):
        order = np.argsort(-scores, kind="stable")
        last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores share one threshold
        for start in range(0, len(weights), 100):  # a hundred at a time, to save memory
            drawn = weights[start : start + 100, order]
            hits = (drawn * labels[order]).cumsum(axis=1)[:, last]
            precision = hits / np.maximum(drawn.cumsum(axis=1)[:, last], 1)
            gained = np.diff(hits, axis=1, prepend=0)
            some = hits[:, -1] > 0
            total[start : start + 100] += (gained * precision).sum(axis=1) / np.where(some, hits[:, -1], 1)
            defined[start : start + 100] += some
    return 100 * total / np.maximum(defined, 1)
