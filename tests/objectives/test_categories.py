"""Categories: the loss and the probabilities against float64, the scores that are printed."""

import math

import pytest
import torch

from facelightning.objectives import Categories

NAMES = ("cat", "dog", "n02 two words", "zebra", "owl", "eel")
LOGITS = 2 * torch.randn(9, len(NAMES), generator=torch.Generator().manual_seed(0))
TRUTH = torch.tensor([0, 5, 2, 2, 1, 3, 4, 4, 0])
OUTPUT, BATCH = {"category": LOGITS}, {"category": TRUTH}


def test_loss_and_probabilities_are_the_definition() -> None:
    objective, rows = Categories(NAMES), LOGITS.double().tolist()
    likely = [[math.exp(logit) / sum(map(math.exp, row)) for logit in row] for row in rows]
    losses = [-math.log(row[number]) for row, number in zip(likely, TRUTH.tolist(), strict=True)]
    assert objective.loss(OUTPUT, BATCH).item() == pytest.approx(sum(losses) / 9, rel=1e-6)
    assert objective.sample_loss(OUTPUT, BATCH).tolist() == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(objective.predict(OUTPUT), torch.tensor(likely))
    assert objective.predict({"category": LOGITS.bfloat16()}).sum(dim=1).tolist() == pytest.approx([1] * 9)
    assert objective.columns == NAMES


def test_scores_are_logged_and_printed() -> None:
    objective = Categories(NAMES)
    scores = objective.scores()
    for part in torch.arange(9).split(4):
        objective.count(scores, {"category": LOGITS[part]}, {"category": TRUTH[part]})
    found = scores.compute()
    ranks = [sorted(row, reverse=True).index(row[n]) for row, n in zip(LOGITS.tolist(), TRUTH.tolist(), strict=True)]
    expected = {f"top_{k}": pytest.approx(100 * sum(rank < k for rank in ranks) / 9) for k in (1, 5)}
    assert objective.scalars(found) == expected
    (line,) = objective.report(found)
    assert line.split()[0] == objective.key == "category"
    assert f"top-1 {found['top_1']:.2f} %" in line and f"top-5 {found['top_5']:.2f} %" in line
    assert line.endswith("of 6 categories")


def test_is_known_where_both_sides_are() -> None:
    assert Categories(NAMES).is_known(OUTPUT, BATCH)
    assert not Categories(NAMES).is_known(OUTPUT, {"attributes": LOGITS})
    assert not Categories(NAMES).is_known({"attributes": LOGITS}, BATCH)
