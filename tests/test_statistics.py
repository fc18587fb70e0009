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
    training_weights,
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
        value, low, high = bootstrap_differences([(good, bad)], truth, 200)["persons"]["mean_ap"]
        assert 0 < low < value < high
        nothing = {"error": [0, 0, 0], "mean_ap": [0, 0, 0]}
        assert bootstrap_differences([(good, good)], truth, 50) == {"persons": nothing}

    def test_equal_images_of_an_identity_tell_nothing_more(self) -> None:
        """Four copies of each image: the interval is that of one copy, and not half as wide."""
        rng = np.random.default_rng(0)
        truth = rng.random((100, 5)) < 0.4
        pair = tuple(truth + rng.normal(0, noise, truth.shape) for noise in (0.4, 1.5))
        once = bootstrap_differences([(pair[0], pair[1])], truth, 200)["persons"]
        four = [np.repeat(array, 4, axis=0) for array in (*pair, truth)]
        copies = bootstrap_differences([(four[0], four[1])], four[2], 200, np.repeat(np.arange(100), 4))["persons"]
        for name in once:
            assert copies[name] == pytest.approx(once[name])
        apart = bootstrap_differences([(four[0], four[1])], four[2], 200)["persons"]["error"]
        assert apart[2] - apart[1] < 0.7 * (once["error"][2] - once["error"][1])

    def test_over_trainings_is_a_loop(self) -> None:
        """Every resample by itself: its images as often as they are drawn, scored one by one, for each training."""
        rng = np.random.default_rng(0)
        truth, identities = rng.random((30, 2)) < 0.4, rng.integers(12, size=30)
        noises = ((0.5, 1.0), (0.8, 1.1), (0.2, 1.2))
        pairs = [(truth + rng.normal(0, a, truth.shape), truth + rng.normal(0, b, truth.shape)) for a, b in noises]

        def scores(probabilities: np.ndarray, images: np.ndarray) -> np.ndarray:
            drawn, labels = probabilities[images], truth[images]
            aps = []
            for own, positive in zip(drawn.T, labels.T, strict=True):
                precisions = [positive[own >= score].mean() for score in own[positive]]
                aps += [np.mean(precisions)] if precisions else []
            return 100 * np.array([((drawn > 0.5) != labels).mean(), np.mean(aps)])

        differences = []
        for times, shares in zip(image_weights(30, 40, identities), training_weights(3, 40), strict=True):
            images = np.repeat(np.arange(30), times.astype(int))
            trainings = np.repeat(np.arange(3), np.round(6 * shares).astype(int))
            parts = [scores(pairs[number][0], images) - scores(pairs[number][1], images) for number in trainings]
            differences.append(np.mean(parts, axis=0))
        value, resampled = differences[0], np.array(differences[1:])
        ends = 2 * value - np.quantile(resampled, (0.975, 0.025), axis=0)
        found = bootstrap_differences(pairs, truth, 40, identities)
        for number, name in enumerate(("error", "mean_ap")):
            both = found["persons_and_trainings"][name]
            assert both == pytest.approx([value[number], *ends[:, number]])
            assert both[0] == pytest.approx(found["persons"][name][0])

    @pytest.mark.parametrize("trainings", [2, 3, 8])
    def test_trainings_vary_as_new_ones_would(self, trainings: int) -> None:
        """The mean of drawn trainings has the variance s² / S that is estimated for the mean of S."""
        values = np.random.default_rng(0).normal(size=trainings)
        own, *drawn = training_weights(trainings, 20_000) @ values
        assert own == pytest.approx(values.mean())
        assert np.var(drawn) == pytest.approx(values.var(ddof=1) / trainings, rel=0.05)
        assert np.mean(drawn) == pytest.approx(own, abs=0.02)

    def test_trainings_that_disagree_widen_the_interval(self) -> None:
        """On many persons, two trainings of opposite difference: certain over persons, and nothing over both."""
        rng = np.random.default_rng(0)
        truth = rng.random((2000, 2)) < 0.5
        good, bad = truth + rng.normal(0, 0.5, truth.shape), truth + rng.normal(0, 0.7, truth.shape)
        best = truth + rng.normal(0, 0.3, truth.shape)
        found = bootstrap_differences([(best, bad), (bad, good)], truth, 100)
        assert found["persons"]["error"][2] < 0
        low, high = found["persons_and_trainings"]["error"][1:]
        assert low < -10 < 5 < high


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
