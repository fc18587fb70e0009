"""Retrieval against a loop in float64, whatever the order of the images and the number of processes."""

import json
import math
import warnings
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facelightning.errors import DivergenceError
from facelightning.losses import similarity_loss
from facelightning.metrics.retrieval import GRID, ROWS, RetrievalScores
from tests.processes import FORKS

COUNT = 40


def scores_of(features: Tensor, identities: Tensor, batch: int = 7) -> dict[str, Any]:
    scores = RetrievalScores()
    for start in range(0, len(features), batch):
        scores.update(features[start : start + batch], identities[start : start + batch])
    return scores.compute()


def random_faces(count: int = COUNT, people: int = 12, dimensions: int = 5) -> tuple[Tensor, Tensor]:
    """Features that tell identities apart, but not well; of any size and number, and some identities have one image."""
    generator = torch.Generator().manual_seed(3)
    person = torch.randint(people, (count,), generator=generator)
    centres = torch.randn(people, dimensions, generator=generator)
    features = centres[person] + torch.randn(count, dimensions, generator=generator)
    features *= 10 ** torch.randn(count, 1, generator=generator)  # a cosine does not see it
    numbers = torch.randperm(people, generator=generator) * 1_000_003 - 5
    numbers[0] = 2**53
    return features, numbers[person]


def by_loop(features: Tensor, identities: Tensor) -> tuple[float, int]:
    """Rank-1 retrieval in percent, and how many images count, in Python's own floats."""
    vectors, persons, found = features.double().tolist(), identities.tolist(), []
    for i, vector in enumerate(vectors):
        nearest, best = [], -math.inf
        for j, other in enumerate(vectors):
            if i == j:
                continue
            norms = math.hypot(*vector) * math.hypot(*other)
            cosine = sum(a * b for a, b in zip(vector, other, strict=True)) / norms if norms else 0.0
            if cosine > best + 1e-12:
                nearest, best = [persons[j]], cosine
            elif cosine > best - 1e-12:
                nearest.append(persons[j])
        if persons.count(persons[i]) > 1:
            found.append(set(nearest) == {persons[i]})
    return 100 * sum(found) / len(found), len(found)


def true_accepts_by_loop(features: Tensor, identities: Tensor) -> float:
    """The true accept rate at the lowest threshold that takes no more than 1 % of the pairs of two identities."""
    vectors, persons, cosines = features.double().tolist(), identities.tolist(), ([], [])
    for i, vector in enumerate(vectors):
        for j, other in enumerate(vectors[:i]):
            product = sum(a * b for a, b in zip(vector, other, strict=True))
            cosines[persons[i] == persons[j]].append(product / (math.hypot(*vector) * math.hypot(*other)))
    others, same = cosines
    allowed = math.floor(len(others) / 100)
    reached = sorted(others, reverse=True)[allowed]  # a threshold must lie above this one
    return 100 * sum(cosine > reached for cosine in same) / len(same)


class TestRetrieval:
    @pytest.mark.parametrize("seed", range(5))
    def test_agrees_with_a_loop(self, seed: int) -> None:
        features, identities = random_faces()
        order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed))
        found = scores_of(features[order], identities[order])
        rank, images = by_loop(features, identities)
        assert found["rank_1"] == pytest.approx(rank, rel=1e-12)
        assert found["images"] == images
        assert 20 < rank < 80
        assert 0 < images < COUNT
        assert found["true_accepts"] == pytest.approx(true_accepts_by_loop(features, identities), rel=1e-12)
        assert 0 < found["true_accepts"] < 100
        assert found["distance"] == pytest.approx(float(similarity_loss(features.double(), identities.clamp(min=0))))

    def test_numbers_written_out(self) -> None:
        """By angle: 0°, 10° and 100° of one identity, 11° of another, 101° of a third, alone."""
        angles, identities = torch.tensor([0.0, 10, 100, 11, 60, 101]).deg2rad(), torch.tensor([4, 4, 4, 9, 9, 7])
        found = scores_of(torch.stack([angles.cos(), angles.sin()], dim=1), identities)
        # 0° finds 10°; 10° finds 11°, 100° finds 101°, 11° finds 10°, 60° finds 100°, 101° does not count
        assert (found["rank_1"], found["images"]) == (20.0, 5)
        chords = [4 * math.sin(math.radians(degrees) / 2) ** 2 for degrees in (10, 100, 90, 49)]
        assert found["distance"] == pytest.approx(sum(chords) / 4)

    def test_one_false_accept_in_a_hundred(self) -> None:
        """Of 100 pairs of two identities one is nearer than the five pairs of one identity; then two are."""
        features, persons = torch.eye(15), torch.tensor([*range(5), *range(5), *range(5, 10)])
        features[5:10, :5] = 2 * torch.eye(5)  # a cosine of 0.89 between both images of an identity
        features[11, 10] = 3  # 0.95
        assert scores_of(features, persons)["true_accepts"] == 100
        features[13, 12] = 3
        assert scores_of(features, persons)["true_accepts"] == 0
        same = torch.ones(4, 2)  # no threshold tells them apart
        assert scores_of(same, torch.tensor([1, 1, 2, 2]))["true_accepts"] == 0
        assert math.isnan(scores_of(same, torch.tensor([1, 1, 1, 1]))["true_accepts"])

    def test_cosines_not_distances(self) -> None:
        """The first image is nearest to the third, but its angle to the second's."""
        features = torch.tensor([[1.0, 0.0], [100.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
        assert scores_of(features, torch.tensor([1, 1, 2, 2]))["rank_1"] == 75.0

    def test_as_near_an_image_of_another_identity_is_a_miss(self) -> None:
        twins = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [0.3, 0.6]])
        assert scores_of(twins, torch.tensor([1, 1, 2, 2]))["rank_1"] == 0
        assert scores_of(twins[:3], torch.tensor([1, 1, 1]))["rank_1"] == 100
        assert scores_of(torch.zeros(4, 3), torch.tensor([1, 1, 2, 2])) == {
            "rank_1": 0.0, "images": 4, "true_accepts": 0.0, "distance": 0.0
        }  # fmt: skip

    def test_the_order_of_samples_is_of_no_account(self) -> None:
        """Many dimensions and equal vectors, whose sums in another order would round to other numbers."""
        features, identities = random_faces(200, 30, 400)
        features[100:] = features[:100] * 3
        found = set()
        for seed in range(6):
            order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
            scores = scores_of(features[order], identities[order], batch=1 + 37 * seed)
            found.add((scores["rank_1"], scores["images"], scores["true_accepts"]))
        assert len(found) == 1

    @pytest.mark.parametrize("seed", range(12))
    def test_sums_are_exact(self, seed: int) -> None:
        """The same numbers in another order are as near, which sums that round would break."""
        generator = torch.Generator().manual_seed(seed)
        near = torch.rand(1000, generator=generator)
        as_near = near[torch.randperm(1000, generator=generator)]
        found = scores_of(torch.stack([torch.ones(1000), near, as_near]), torch.tensor([1, 1, 2]))
        assert (found["rank_1"], found["images"]) == (50.0, 2)  # a miss of the first, and a hit of the second
        assert GRID**2 * 2**17 <= 2**53  # whole numbers that float64 knows

    def test_more_images_than_are_compared_at_once(self) -> None:
        features, identities = random_faces(ROWS + 44, 60, 4)
        found, (rank, images) = scores_of(features, identities, batch=64), by_loop(features, identities)
        assert (found["rank_1"], found["images"]) == (pytest.approx(rank), images)
        assert found["true_accepts"] == pytest.approx(true_accepts_by_loop(features, identities), rel=1e-12)

    def test_takes_bfloat16(self) -> None:
        features, identities = random_faces()
        assert scores_of(features.bfloat16(), identities) == scores_of(features.bfloat16().float(), identities)

    def test_without_pairs_nothing_counts(self) -> None:
        found = scores_of(torch.eye(3), torch.tensor([3, 1, 2]))
        assert math.isnan(found.pop("rank_1"))
        assert math.isnan(found.pop("true_accepts"))
        assert found == {"images": 0, "distance": 0.0}
        with pytest.warns(UserWarning, match="before the ``update``"):
            nothing = {"rank_1": math.nan, "images": 0, "true_accepts": math.nan, "distance": 0.0}
            assert repr(RetrievalScores().compute()) == repr(nothing)

    def test_reset_forgets(self) -> None:
        scores = RetrievalScores()
        scores.update(*random_faces())
        scores.reset()
        scores.update(torch.eye(3), torch.tensor([1, 1, 2]))
        assert scores.compute() == {"rank_1": 0.0, "images": 2, "true_accepts": 0.0, "distance": 2.0}

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_diverged_network_is_an_error(self, value: float) -> None:
        features, identities = random_faces()
        features[5, 2] = value
        with pytest.raises(DivergenceError, match="not finite: the training has diverged"):
            scores_of(features, identities)

    @pytest.mark.parametrize(("features", "identities"), [((3, 2), (2,)), ((3,), (3,)), ((3, 2), (3, 1))])
    def test_bad_shapes_are_named(self, features: tuple[int, ...], identities: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"\(B, D\) and identities \(B,\); found \(3"):
            RetrievalScores().update(torch.zeros(features), torch.zeros(identities, dtype=torch.int64))


SHARES = {
    "half": (range(0, COUNT, 2), range(1, COUNT, 2)),
    "all+none": (range(COUNT), range(0)),
    "none+all": (range(0), range(COUNT)),
    "37+3": (range(3, COUNT), range(3)),
}
"""How the faces fall to two processes, one of which may see none."""


def score_shares(rank: int, store: Path) -> list[str]:
    """One of two processes: scores its share of every division; what it computed for both together, as JSON."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*before the ``update``")  # a process that saw no sample
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results = []
    for shares in SHARES.values():
        scores = RetrievalScores()
        torch.nn.ModuleList([scores]).to(torch.bfloat16)  # a task in bf16-true converts its metrics too
        for start in range(0, len(shares[rank]), 7):
            part = torch.tensor(shares[rank][start : start + 7])
            scores.update(*(tensor[part] for tensor in random_faces()))
        found = scores.compute()
        results.append(json.dumps(found | {"distance": float(f"{found['distance']:.12g}")}))
    torch.distributed.destroy_process_group()
    return results


def test_two_processes_score_exactly_as_one(tmp_path: Path) -> None:
    found = scores_of(*random_faces())
    expected = json.dumps(found | {"distance": float(f"{found['distance']:.12g}")})
    with ProcessPoolExecutor(2, mp_context=FORKS) as pool:
        for results in pool.map(score_shares, range(2), [tmp_path / "store"] * 2):
            assert dict(zip(SHARES, results, strict=True)) == dict.fromkeys(SHARES, expected)
