"""How differences are told from chance: against scikit-learn, and where the answer is known."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from facelightning.metrics.statistics import (
    _errors,
    _mean_aps,
    balanced_accuracies,
    bootstrap_differences,
    calibration_errors,
    image_weights,
    reliability,
)


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


class TestCalibration:
    """Against loops over attributes, bins and images, drawn as often as a resample says."""

    def data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(3)
        probabilities = rng.random((40, 3))
        probabilities[0] = (0, 1, 1 / 15)  # the ends, and the border of two bins
        truth = (rng.random((40, 3)) < probabilities**2).astype(float)
        truth[rng.random((40, 3)) < 0.2] = np.nan
        truth[:, 2] = np.where(np.isnan(truth[:, 2]), np.nan, 0)  # never there
        return probabilities, truth, image_weights(40, resamples=5)

    def test_calibration_errors(self) -> None:
        probabilities, truth, weights = self.data()
        for found, drawn in zip(calibration_errors(probabilities, truth, weights), weights, strict=True):
            errors = []
            for column in range(3):
                bins: dict[int, list[float]] = {}
                for p, y, times in zip(probabilities[:, column], truth[:, column], drawn.astype(int), strict=True):
                    if not np.isnan(y):
                        bins.setdefault(min(int(15 * p), 14), []).extend([p - y] * times)
                total = sum(map(len, bins.values()))
                errors.append(sum(len(gaps) / total * abs(np.mean(gaps)) for gaps in bins.values() if gaps))
            assert found == pytest.approx(100 * np.mean(errors))

    def test_balanced_accuracies(self) -> None:
        probabilities, truth, weights = self.data()
        for found, drawn in zip(balanced_accuracies(probabilities > 0.4, truth, weights), weights, strict=True):
            scores = []
            for column in range(2):  # the third has no positive
                known = ~np.isnan(truth[:, column])
                said = probabilities[known, column] > 0.4
                scores.append(balanced_accuracy_score(truth[known, column], said, sample_weight=drawn[known]))
            assert found == pytest.approx(100 * np.mean(scores))

    def test_reliability_counts_every_known_entry(self) -> None:
        probabilities, truth, _ = self.data()
        bins = reliability(probabilities, truth)
        assert sum(count for *_, count in bins) == np.count_nonzero(~np.isnan(truth))
        assert sum(share * count for _, share, count in bins) == pytest.approx(np.nansum(truth))
