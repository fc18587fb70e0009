"""Found faces against true boxes: recall by counting, unknown boxes, rows for each face."""

import numpy as np
import pytest
import torch

from facelightning.boxes import overlap
from facelightning.metrics import OVERLAPS, LocalizationScores
from facelightning.models.finding import FoundFaces
from facelightning.objectives import Faces

TRUE = np.array([[0.0, 0, 10, 10], [5, 5, 25, 15], [0, 0, 8, 8], [np.nan] * 4, [30, 30, 40, 40]])
FOUND = FoundFaces(
    np.array([0, 0, 1, 3]),
    np.array([[50.0, 50, 60, 60], [0, 0, 10, 7], [5, 5, 15, 15], [1, 1, 5, 5]]),
    np.array([3.0, 2, 1, 4]),
    5,
)
OUTPUT = {"faces": FOUND, "face_attributes": torch.zeros(4, 2)}
BATCH = {"box": torch.tensor(TRUE, dtype=torch.float32)}


def scored(objective: Faces) -> dict[str, object]:
    scores = objective.scores()
    objective.count(scores, OUTPUT, BATCH)
    found: dict[str, object] = scores.compute()
    return found


def test_scores_by_hand() -> None:
    """Best overlaps 0.7, 0.5, 0 and 0; the fourth image's box is unknown; nothing is found in two of five."""
    scores = scored(Faces())
    assert scores["recall_50"] == 50
    assert scores["recall_70"] == 25
    assert scores["mean_overlap"] == pytest.approx(30)
    assert scores["no_face"] == pytest.approx(40)
    assert (1 - Faces().sample_loss(OUTPUT, BATCH)).tolist() == pytest.approx([0.7, 0.5, 0, 1, 0])


def test_the_curve_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 50, (200, 2)).repeat(2, axis=0).reshape(200, 4) + [0, 0, 20, 20]
    found = [box + rng.normal(0, 4, (rng.integers(0, 3), 4)) for box in true]
    best = torch.tensor([overlap(boxes, box[None]).max(initial=0) for boxes, box in zip(found, true, strict=True)])
    scores = LocalizationScores()
    for part in torch.arange(200).split(64):
        scores.update(best[part], torch.tensor([len(found[n]) for n in part]))
    expected = [100 * sum(value >= least for value in best.tolist()) / 200 for least in OVERLAPS]
    assert list(scores.compute()["recall"].values()) == pytest.approx(expected)
    assert scores.compute()["mean_overlap"] == pytest.approx(100 * best.mean().item(), abs=1e-3)


def test_processes_are_added() -> None:
    """The sum of two halves is the whole, to the last digit."""
    best, counts = torch.rand(100, generator=torch.Generator().manual_seed(0)).double(), torch.arange(100) % 3
    whole, first, second = LocalizationScores(), LocalizationScores(), LocalizationScores()
    whole.update(best, counts)
    first.update(best[:37], counts[:37])
    second.update(best[37:], counts[37:])
    for name in ("found", "known", "total", "images", "empty"):
        setattr(first, name, getattr(first, name) + getattr(second, name))
    assert first.compute() == whole.compute()


def test_a_row_for_each_face() -> None:
    tables = Faces(("Bald", "Male")).predict(OUTPUT)
    assert [len(table) for table in tables] == [2, 1, 0, 1, 0]
    assert tables[0].tolist() == [[50, 50, 60, 60, 3, 0.5, 0.5], [0, 0, 10, 7, 2, 0.5, 0.5]]
    assert Faces(("Bald", "Male")).columns == ("x0", "y0", "x1", "y1", "response", "Bald", "Male")
    assert Faces().predict(OUTPUT)[1].shape == (1, 5)
