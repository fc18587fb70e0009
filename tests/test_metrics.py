"""The scores against scikit-learn, confusion matrices counted by hand, and one process against two."""

import json
import math
import warnings
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference  # type: ignore[import-untyped]
from torch import Tensor

from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11, IGNORE_INDEX, LabelSpace
from facelightning.metrics import (
    AttributeScores,
    CategoryScores,
    ParsingScores,
    SubgroupScores,
    average_precision,
)
from facelightning.objectives.related import RelatedScores
from tests.processes import FORKS

NAN = float("nan")
FACE = LabelSpace(
    name="face", classes=("background", "skin", "eyes", "nose"), colors=((0, 0, 0),) * 4, parts=("eyes", "nose")
)


def parsing_scores(prediction: Tensor, mask: Tensor, labels: LabelSpace = HELEN7) -> dict[str, Any]:
    scores = ParsingScores(labels)
    scores.update(prediction, mask)
    return scores.compute()


def attribute_scores(logits: Tensor, targets: Tensor) -> dict[str, Any]:
    scores = AttributeScores([f"a{i}" for i in range(logits.shape[1])])
    scores.update(logits, targets)
    return scores.compute()


def random_masks(labels: LabelSpace = HELEN7, count: int = 13) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, len(labels), (count, 9, 8), generator=generator)
    prediction = torch.randint(0, len(labels), mask.shape, generator=generator)
    prediction = prediction.where(torch.rand(mask.shape, generator=generator) < 0.4, mask)
    return prediction, mask.masked_fill(torch.rand(mask.shape, generator=generator) < 0.1, IGNORE_INDEX)


def random_attributes(count: int = 13, columns: int = 40) -> tuple[Tensor, Tensor]:
    """Scores with many ties (rounded), a fifth of the targets unknown."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(count, columns, generator=generator) < 0.4).float()
    logits = (torch.randn(count, columns, generator=generator) + targets).mul(2).round()
    return logits, targets.masked_fill(torch.rand(count, columns, generator=generator) < 0.2, NAN)


def random_squares(count: int = 13) -> Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) ** 8


def random_categories(count: int = 13, columns: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(columns, (count,), generator=generator)
    logits = torch.randn(count, columns, generator=generator)
    return logits.scatter_add(1, truth[:, None], torch.ones(count, 1)), truth


class TestParsingScores:
    # Truth and prediction of 20 pixels: rows are truth, columns prediction.
    #                  background skin eyes nose
    CONFUSION = ([6, 1, 0, 0], [2, 4, 1, 0], [0, 1, 2, 1], [0, 0, 0, 2])

    def from_confusion(self, confusion: tuple[list[int], ...]) -> dict[str, Any]:
        pairs = [(t, p) for t, row in enumerate(confusion) for p, count in enumerate(row) for _ in range(count)]
        mask, prediction = torch.tensor(pairs).T.reshape(2, 1, 1, -1)
        return parsing_scores(prediction, mask, FACE)

    def test_numbers_written_out(self) -> None:
        scores = self.from_confusion(self.CONFUSION)
        iou = {"background": 6 / 9, "skin": 4 / 9, "eyes": 2 / 5, "nose": 2 / 3}
        f1 = {"background": 12 / 15, "skin": 8 / 13, "eyes": 4 / 7, "nose": 4 / 5}
        assert scores["iou"] == pytest.approx({name: 100 * value for name, value in iou.items()})
        assert scores["f1"] == pytest.approx({name: 100 * value for name, value in f1.items()})
        assert scores["mean_iou"] == pytest.approx(100 * sum(iou.values()) / 4)
        assert scores["mean_f1"] == pytest.approx(100 * (f1["skin"] + f1["eyes"] + f1["nose"]) / 3)
        # Eyes and nose as one class: 6 true, 6 predicted, 5 both, the eye taken for a nose among them.
        assert scores["overall_f1"] == pytest.approx(100 * 2 * 5 / (6 + 6))

    def test_absent_class_is_left_out_and_false_class_counts_zero(self) -> None:
        scores = self.from_confusion(([3, 0, 1, 0], [1, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]))
        assert scores["iou"]["eyes"] == scores["f1"]["eyes"] == scores["overall_f1"] == 0
        assert math.isnan(scores["iou"]["nose"])
        assert math.isnan(scores["f1"]["nose"])
        assert scores["mean_iou"] == pytest.approx(100 * (3 / 5 + 5 / 6 + 0) / 3)
        assert scores["mean_f1"] == pytest.approx(100 * (10 / 11 + 0) / 2)

    @pytest.mark.parametrize("labels", [HELEN7, HELEN11])
    def test_agrees_with_scikit_learn(self, labels: LabelSpace) -> None:
        prediction, mask = random_masks(labels)
        scores = parsing_scores(prediction, mask, labels)
        truth, predicted = mask[mask != IGNORE_INDEX].numpy(), prediction[mask != IGNORE_INDEX].numpy()
        iou = 100 * reference.jaccard_score(truth, predicted, average=None)
        f1 = 100 * reference.f1_score(truth, predicted, average=None)
        assert list(scores["iou"]) == list(scores["f1"]) == list(labels.classes)
        np.testing.assert_allclose(list(scores["iou"].values()), iou, rtol=1e-12)
        np.testing.assert_allclose(list(scores["f1"].values()), f1, rtol=1e-12)
        assert scores["mean_iou"] == pytest.approx(iou.mean())
        assert scores["mean_f1"] == pytest.approx(f1[1:].mean())
        merged = [np.isin(index, labels.part_indices) for index in (truth, predicted)]
        assert scores["overall_f1"] == pytest.approx(100 * reference.f1_score(*merged))

    def test_counts_over_batches(self) -> None:
        prediction, mask = random_masks()
        scores = ParsingScores(HELEN7)
        for start in range(0, 13, 5):
            scores.update(prediction[start : start + 5], mask[start : start + 5])
        assert scores.compute() == parsing_scores(prediction, mask)
        truth, predicted = mask[mask != IGNORE_INDEX], prediction[mask != IGNORE_INDEX]
        np.testing.assert_array_equal(scores.confusion, reference.confusion_matrix(truth, predicted))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_takes_logits(self, dtype: torch.dtype) -> None:
        prediction, mask = random_masks()
        logits = torch.nn.functional.one_hot(prediction, 7).movedim(-1, 1).to(dtype)
        assert parsing_scores(logits, mask) == parsing_scores(prediction, mask)

    def test_takes_uint8(self) -> None:
        prediction, mask = random_masks()
        assert parsing_scores(prediction.byte(), mask.byte()) == parsing_scores(prediction, mask)

    def test_ignored_pixels_do_not_count_whatever_is_predicted(self) -> None:
        prediction, mask = random_masks()
        other = prediction.where(mask != IGNORE_INDEX, IGNORE_INDEX)
        assert parsing_scores(other, mask) == parsing_scores(prediction, mask)

    def test_nothing_counted_is_nan(self) -> None:
        scores = parsing_scores(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), IGNORE_INDEX))
        values = [*scores.pop("iou").values(), *scores.pop("f1").values(), *scores.values()]
        assert len(values) == 17
        assert all(type(value) is float and math.isnan(value) for value in values)

    @pytest.mark.parametrize(
        ("prediction", "mask", "message"),
        [
            (torch.zeros(1, 2, 2).long(), torch.full((1, 2, 2), 7), r"the mask holds 7\.\.\.7"),
            (torch.full((1, 2, 2), -1), torch.zeros(1, 2, 2).long(), r"the prediction holds -1\.\.\.-1"),
            (torch.zeros(1, 6, 2, 2), torch.zeros(1, 2, 2).long(), "logits with 7 channels"),
            (torch.zeros(1, 2, 3).long(), torch.zeros(1, 2, 2).long(), r"\(1, 2, 2\).*\(1, 2, 3\)"),
            (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2).long(), "float32"),
        ],
    )
    def test_bad_input_is_named(self, prediction: Tensor, mask: Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ParsingScores(HELEN7).update(prediction, mask)


class TestAveragePrecision:
    def test_agrees_with_scikit_learn_despite_ties_and_unknown_targets(self) -> None:
        scores, targets = random_attributes(200)
        known = ~targets.isnan()
        expected = [
            reference.average_precision_score(targets[known[:, i], i], scores[known[:, i], i]) for i in range(40)
        ]
        result = average_precision(scores, targets)
        assert result.dtype == torch.float64
        np.testing.assert_allclose(result, expected, rtol=1e-12)
        np.testing.assert_allclose(average_precision(scores[:, 3], targets[:, 3]), expected[3], rtol=1e-12)

    def test_numbers_written_out(self) -> None:
        scores, targets = torch.tensor([3.0, 2.0, 2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0])
        # Thresholds 3, 2, 1, 0 retrieve 1, 3, 4, 5 samples with 0, 1, 2, 2 hits of 2.
        assert average_precision(scores, targets).item() == pytest.approx(1 / 2 * 1 / 3 + 1 / 2 * 2 / 4)

    def test_infinite_scores_tie_with_one_another_only(self) -> None:
        scores, targets = torch.tensor([-torch.inf, -torch.inf, 5.0]), torch.tensor([1.0, NAN, 0.0])
        assert average_precision(scores, targets).item() == 1 / 2

    def test_without_a_positive_is_nan(self) -> None:
        result = average_precision(torch.zeros(3, 2), torch.tensor([[0.0, 1.0], [0.0, 0.0], [NAN, NAN]]))
        assert result[0].isnan()
        assert result[1] == 0.5
        assert average_precision(torch.empty(0), torch.empty(0)).isnan()

    @pytest.mark.parametrize(
        ("scores", "targets", "message"),
        [
            ([0.0, NAN], [0.0, 1.0], "diverged"),
            ([0.0, 1.0], [-1.0, 1.0], "-1 and 1"),
            ([0.0], [0.0, 1.0], "one shape"),
        ],
    )
    def test_bad_input_is_named(self, scores: list[float], targets: list[float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            average_precision(torch.tensor(scores), torch.tensor(targets))


class TestAttributeScores:
    def test_agrees_with_scikit_learn(self) -> None:
        logits, targets = random_attributes(200)
        scores = AttributeScores(ATTRIBUTES)
        for start in range(0, 200, 32):
            scores.update(logits[start : start + 32], targets[start : start + 32])
        result = scores.compute()
        rows = []
        for i, name in enumerate(ATTRIBUTES):
            known = ~targets[:, i].isnan()
            truth, score = targets[known, i].numpy(), logits[known, i].numpy()
            rows.append(
                {
                    "error": 100 * (1 - reference.accuracy_score(truth, score > 0)),
                    "ap": 100 * reference.average_precision_score(truth, score),
                    "balanced_accuracy": 100 * reference.balanced_accuracy_score(truth, score > 0),
                }
            )
            assert result["per_attribute"][name] == pytest.approx(rows[-1], rel=1e-12)
        assert list(result["per_attribute"]) == list(ATTRIBUTES)
        assert result["error"] == pytest.approx(np.mean([row["error"] for row in rows]))
        assert result["mean_ap"] == pytest.approx(np.mean([row["ap"] for row in rows]))
        assert result["balanced_accuracy"] == pytest.approx(np.mean([row["balanced_accuracy"] for row in rows]))
        assert result["undefined"] == []

    def test_missing_classes_are_left_out_and_named(self) -> None:
        targets = torch.tensor([[1.0, 0.0, 1.0, NAN], [0.0, 0.0, 1.0, NAN], [1.0, NAN, NAN, NAN]])
        logits = torch.tensor([[2.0, 1.0, 1.0, 1.0], [-1.0, -1.0, 0.0, 1.0], [-2.0, 9.0, -9.0, 1.0]])
        result = attribute_scores(logits, targets)
        complete, no_positive, no_negative, unknown = result["per_attribute"].values()
        ap = 100 * (1 / 2 * 1 + 1 / 2 * 2 / 3)
        assert complete == pytest.approx({"error": 100 / 3, "ap": ap, "balanced_accuracy": 100 * (1 / 2 + 1) / 2})
        assert no_positive == pytest.approx({"error": 50, "ap": NAN, "balanced_accuracy": NAN}, nan_ok=True)
        # A logit of exactly 0 is negative.
        assert no_negative == pytest.approx({"error": 50, "ap": 100, "balanced_accuracy": NAN}, nan_ok=True)
        assert unknown == pytest.approx({"error": NAN, "ap": NAN, "balanced_accuracy": NAN}, nan_ok=True)
        assert result["undefined"] == ["a1", "a2", "a3"]
        assert result["error"] == pytest.approx((100 / 3 + 50 + 50) / 3)
        assert result["mean_ap"] == pytest.approx((ap + 100) / 2)
        assert result["balanced_accuracy"] == complete["balanced_accuracy"]

    def test_the_order_of_samples_is_of_no_account(self) -> None:
        logits, targets = random_attributes(200)
        expected = attribute_scores(logits, targets)
        for seed in range(5):
            order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
            assert attribute_scores(logits[order], targets[order]) == expected

    def test_takes_bfloat16(self) -> None:
        logits, targets = random_attributes(200)
        assert attribute_scores(logits.bfloat16(), targets.bfloat16()) == attribute_scores(logits, targets)

    def test_results_are_plain_floats(self) -> None:
        result = attribute_scores(*random_attributes(20, 3))
        values = [result["error"], result["mean_ap"], result["balanced_accuracy"]]
        values += [value for row in result["per_attribute"].values() for value in row.values()]
        assert len(values) == 12
        assert all(type(value) is float for value in values)

    def test_without_samples_everything_is_nan(self) -> None:
        with pytest.warns(UserWarning, match="before the ``update``"):
            result = AttributeScores(["a", "b"]).compute()
        assert all(math.isnan(result[key]) for key in ("error", "mean_ap", "balanced_accuracy"))
        assert result["undefined"] == ["a", "b"]

    def test_reset_forgets(self) -> None:
        scores = AttributeScores(["a"])
        scores.update(torch.ones(2, 1), torch.zeros(2, 1))
        assert scores.compute()["error"] == 100
        scores.reset()
        scores.update(-torch.ones(2, 1), torch.zeros(2, 1))
        assert scores.compute()["error"] == 0

    @pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 4), (2, 4)), ((3,), (3,))])
    def test_bad_shapes_are_named(self, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        with pytest.raises(ValueError, match=r"must both be \(B, 3\)"):
            AttributeScores(["a", "b", "c"]).update(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


class TestCategoryScores:
    @pytest.mark.parametrize("columns", [6, 40])
    def test_agrees_with_scikit_learn(self, columns: int) -> None:
        logits, truth = random_categories(200, columns)
        scores = CategoryScores()
        for start in range(0, 200, 32):
            scores.update(logits[start : start + 32], truth[start : start + 32])
        labels = range(columns)
        expected = [100 * reference.top_k_accuracy_score(truth, logits, k=k, labels=labels) for k in (1, 5)]
        assert list(scores.compute().values()) == pytest.approx(expected)
        assert expected[0] < expected[1] < 100

    def test_of_equal_scores_the_earlier_counts(self) -> None:
        """A network that says the same of all categories is right by chance."""
        scores = CategoryScores()
        scores.update(torch.zeros(10, 10), torch.arange(10))
        assert scores.compute() == {"top_1": 10.0, "top_5": 50.0}

    def test_fewer_than_five_categories(self) -> None:
        scores = CategoryScores()
        scores.update(torch.tensor([[1.0, 0.0, 2.0]]).bfloat16(), torch.tensor([0]))
        assert scores.compute() == {"top_1": 0.0, "top_5": 100.0}


# How 13 samples fall to two processes, one of which may see none.
SHARES = {
    "7+6": (range(0, 13, 2), range(1, 13, 2)),
    "13+0": (range(13), range(0)),
    "0+13": (range(0), range(13)),
}


def score_shares(rank: int, store: Path) -> list[str]:
    """One of two processes: scores its share of every division; what it computed for both together, as JSON."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*before the ``update``")  # a process that saw no sample
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results = []
    for shares in SHARES.values():
        parsing, attributes, categories = ParsingScores(HELEN7), AttributeScores(ATTRIBUTES), CategoryScores()
        related = RelatedScores(ATTRIBUTES)
        # a task in bf16-true converts its metrics too
        torch.nn.ModuleList([parsing, attributes, categories, related]).to(torch.bfloat16)
        for start in range(0, len(shares[rank]), 3):
            part = torch.tensor(shares[rank][start : start + 3])
            parsing.update(*(tensor[part] for tensor in random_masks()))
            attributes.update(*(tensor[part] for tensor in random_attributes()))
            categories.update(*(tensor[part] for tensor in random_categories()))
            related.update(*(tensor[part] for tensor in (*random_attributes(), random_squares())))
        results.append(json.dumps([metric.compute() for metric in (parsing, attributes, categories, related)]))
    torch.distributed.destroy_process_group()
    return results


def test_two_processes_score_exactly_as_one(tmp_path: Path) -> None:
    attributes, categories, related = AttributeScores(ATTRIBUTES), CategoryScores(), RelatedScores(ATTRIBUTES)
    attributes.update(*random_attributes())
    categories.update(*random_categories())
    related.update(*random_attributes(), random_squares())
    scores = [metric.compute() for metric in (attributes, categories, related)]
    expected = json.dumps([parsing_scores(*random_masks()), *scores])
    with ProcessPoolExecutor(2, mp_context=FORKS) as pool:
        for results in pool.map(score_shares, range(2), [tmp_path / "store"] * 2):
            assert dict(zip(SHARES, results, strict=True)) == dict.fromkeys(SHARES, expected)


def test_contradictions_are_counted_by_image() -> None:
    names = ["No_Beard", "Male", "Goatee", "Mustache"]
    scores = AttributeScores(names)
    logits = torch.tensor([[1.0, 1, 1, 1], [1, 1, -1, -1], [-1, 1, 1, 1], [1, -1, -1, 1]])
    targets = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0], [math.nan, 1, 1, 1], [0, 0, 0, 0]])
    scores.update(logits, targets)
    assert scores.compute()["contradictions"] == {"predicted": 50, "labelled": 25}
    scores = AttributeScores(names[:2])
    scores.update(logits[:, :2], targets[:, :2])
    assert "contradictions" not in scores.compute()


class TestSubgroups:
    NAMES = ("Male", "Smiling", "Young", "Bald")

    def data(self, count: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        targets = (torch.rand(count, 4, generator=generator) < torch.tensor([0.4, 0.5, 0.7, 0.3])).float()
        decisions = torch.where(torch.rand(count, 4, generator=generator) < 0.8, targets, 1 - targets) - 0.5
        men = targets[:, 0] == 1
        decisions[men, 3] = torch.rand(int(men.sum()), generator=generator) - 0.5  # nothing is known of men's hair
        targets[torch.rand(count, 4, generator=generator) < 0.05] = math.nan
        return decisions, targets

    def test_each_is_scored_as_a_set_of_its_own(self) -> None:
        decisions, targets = self.data()
        scores = SubgroupScores(self.NAMES, ["Male", "Male*Young"])
        scores.update(decisions[:100], targets[:100])
        scores.update(decisions[100:], targets[100:])
        result = scores.compute()
        assert list(result["Male*Young"]["groups"]) == [
            "Male, Young", "Male, not Young", "not Male, Young", "not Male, not Young"
        ]  # fmt: skip
        for name, group in result["Male*Young"]["groups"].items():
            male, young = "not Male" not in name, "not Young" not in name
            chosen = (targets[:, 0] == male) & (targets[:, 2] == young)
            alone = AttributeScores(("Smiling", "Bald"))
            alone.update(decisions[chosen][:, [1, 3]], targets[chosen][:, [1, 3]])
            expected = alone.compute()
            assert group["images"] == int(chosen.sum())
            for key in ("error", "balanced_accuracy"):
                value, low, high = group[key]
                assert value == pytest.approx(expected[key])
                assert low < value < high
        gap = result["Male"]["largest_gap"]
        assert (gap["attribute"], gap["groups"]) == ("Bald", ["not Male", "Male"])
        value, low, high = gap["difference"]
        assert value == pytest.approx(gap["balanced_accuracy"][0] - gap["balanced_accuracy"][1])
        assert 0 < low < value < high

    def test_intervals_hold_the_truth_as_often_as_they_say(self) -> None:
        """Errors of 20 % in subgroups of about 60: in 95 of 100 sets, give or take a few."""
        generator, held = torch.Generator().manual_seed(1), 0
        for _ in range(100):
            targets = (torch.rand(120, 2, generator=generator) < 0.5).float()
            decisions = torch.where(torch.rand(120, 2, generator=generator) < 0.8, targets, 1 - targets) - 0.5
            scores = SubgroupScores(("Male", "Smiling"), ["Male"])
            scores.update(decisions, targets)
            _, low, high = scores.compute()["Male"]["groups"]["Male"]["error"]
            held += low <= 20 <= high
        assert 87 <= held <= 100

    def test_the_order_of_the_images_changes_nothing(self) -> None:
        decisions, targets = self.data(60)
        computed = []
        for order in (torch.arange(60), torch.arange(59, -1, -1)):
            scores = SubgroupScores(self.NAMES, ["Male"])
            scores.update(decisions[order], targets[order])
            computed.append(scores.compute())
        assert computed[0] == computed[1]

    def test_an_empty_subgroup_has_no_score(self) -> None:
        scores = SubgroupScores(self.NAMES, ["Male"])
        scores.update(torch.ones(3, 4), torch.ones(3, 4))
        result = scores.compute()["Male"]
        assert result["groups"]["not Male"]["images"] == 0
        assert all(map(math.isnan, result["groups"]["not Male"]["error"]))
        assert result["largest_gap"] is None
