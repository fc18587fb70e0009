"""How differences are told from chance: against scikit-learn, and where the answer is known."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from facelightning.statistics import _errors, _mean_aps, bootstrap_differences


class TestBootstrap:
    def test_scores_are_scikit_learns(self) -> None:
        """With weights, with equal scores, and with an attribute that a weighting leaves without positives."""
        rng = np.random.default_rng(0)
        scores, truth = rng.integers(5, size=(40, 3)) / 5, rng.random((40, 3)) < 0.3
        truth[:, 2] = False
        truth[7, 2] = True
        weights = rng.integers(3, size=(6, 40)).astype(float)
        weights[:3, 7] = 0
        for row, found in zip(weights, _mean_aps(scores, truth, weights), strict=True):
            aps = [
                average_precision_score(truth[:, a], scores[:, a], sample_weight=row)
                for a in range(3)
                if (truth[:, a] * row).any()
            ]
            assert found == pytest.approx(100 * np.mean(aps))
        for row, found in zip(weights, _errors(scores, truth, weights), strict=True):
            wrong = [row[i] * ((scores[i, a] > 0.5) != truth[i, a]) for i in range(40) for a in range(3)]
            assert found == pytest.approx(100 * sum(wrong) / 3 / row.sum())

    def test_interval_holds_the_difference_and_not_its_absence(self) -> None:
        rng = np.random.default_rng(0)
        truth = rng.random((400, 5)) < 0.4
        good = truth + rng.normal(0, 0.4, truth.shape)
        bad = truth + rng.normal(0, 1.5, truth.shape)
        value, low, high = bootstrap_differences([(good, bad)], truth, 200)["mean_ap"]
        assert 0 < low < value < high
        assert bootstrap_differences([(good, good)], truth, 50) == {"error": [0, 0, 0], "mean_ap": [0, 0, 0]}

    def test_equal_images_of_an_identity_tell_nothing_more(self) -> None:
        """Four copies of each image: the interval is that of one copy, and not half as wide."""
        rng = np.random.default_rng(0)
        truth = rng.random((100, 5)) < 0.4
        pair = tuple(truth + rng.normal(0, noise, truth.shape) for noise in (0.4, 1.5))
        once = bootstrap_differences([(pair[0], pair[1])], truth, 200)
        four = [np.repeat(array, 4, axis=0) for array in (*pair, truth)]
        copies = bootstrap_differences([(four[0], four[1])], four[2], 200, np.repeat(np.arange(100), 4))
        for name in once:
            assert copies[name] == pytest.approx(once[name])
        apart = bootstrap_differences([(four[0], four[1])], four[2], 200)["error"]
        assert apart[2] - apart[1] < 0.7 * (once["error"][2] - once["error"][1])
