"""Related attributes against loops in float64: correlations, moving means, loss; a whole batch on several processes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from facelightning.errors import ConfigurationError
from facelightning.losses import relation_losses
from facelightning.objectives import Attributes, RelatedAttributes
from facelightning.objectives.related import correlations, pair_sums
from tests.processes import FORKS

NAMES = tuple("abcdef")
WIDE: dict[str, Any] = {"relation_weight": 2.0, "decay": 0.9, "attract": 0.6, "repel": 0.4}
"""Thresholds between which few pairs lie."""


def pearson(first: list[float], second: list[float]) -> float:
    """The correlation of what both know; NaN where one of both is constant."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if a == a and b == b]
    if not both:
        return math.nan
    means = [sum(side) / len(both) for side in zip(*both, strict=True)]
    xs, ys = ([pair[side] - means[side] for pair in both] for side in (0, 1))
    scale = math.sqrt(sum(x * x for x in xs)) * math.sqrt(sum(y * y for y in ys))
    return sum(x * y for x, y in zip(xs, ys, strict=True)) / scale if scale else math.nan


def labels(generator: torch.Generator, images: int, attributes: int, unknown: float = 0.1) -> Tensor:
    """Random ones: rare, frequent and constant attributes, and unknown entries."""
    rates = torch.rand(attributes, generator=generator) ** 2
    targets = (torch.rand(images, attributes, generator=generator) < rates).float()
    return targets.masked_fill(torch.rand(images, attributes, generator=generator) < unknown, torch.nan)


@pytest.mark.parametrize("images", [1, 2, 7, 33])
def test_correlations_are_those_of_the_definition(images: int) -> None:
    targets = labels(torch.Generator().manual_seed(images), images, 6)
    columns = targets.T.double().tolist()
    expected = torch.tensor([[pearson(first, second) for second in columns] for first in columns])
    torch.testing.assert_close(correlations(pair_sums(targets)), expected, equal_nan=True)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    targets = labels(torch.Generator().manual_seed(0), 50, 40)
    parts = sum(pair_sums(part) for part in targets.split(9))
    assert torch.equal(parts, pair_sums(targets))


def test_loss_is_the_triple_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(5, 7, generator=generator, dtype=torch.float64)
    attract, repel = (torch.rand(7, 7, generator=generator) < 0.3 for _ in range(2))
    rows = probabilities.tolist()
    expected = []
    for row in rows:
        squares = [[(a - b) ** 2 for b in row] for a in row]
        total = sum(
            bool(attract[i, j]) * squares[i][j] + bool(repel[i, j]) * (1 - squares[i][j]) ** 2
            for i in range(7)
            for j in range(7)
        )
        expected.append(total / (2 * 7**2))
    assert relation_losses(probabilities, attract, repel).tolist() == pytest.approx(expected, rel=1e-12)


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    attract, repel = (torch.rand(5, 5, generator=generator) < 0.4 for _ in range(2))
    assert torch.autograd.gradcheck(lambda p: relation_losses(p, attract, repel), probabilities)


def batches(count: int = 20, images: int = 13) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        targets = labels(generator, images, len(NAMES))
        targets[:, 1], targets[:, 3] = 1 - targets[:, 0], targets[:, 2]  # opposite, and equal, where known
        made.append((2 * torch.randn(images, len(NAMES), generator=generator), targets))
    return made


def cross_entropy(logits: list[float], targets: list[float]) -> list[float]:
    pairs = zip(logits, targets, strict=True)
    return [math.log1p(math.exp(-x)) if y == 1 else math.log1p(math.exp(x)) for x, y in pairs if y == y]


class ByLoops:
    """Equations (1) to (4) in float64, one pair after another."""

    def __init__(self, relation: str = "shifted", divide_by: str = "all") -> None:
        size = len(NAMES)
        self.sums = [[0.0] * size for _ in range(size)]
        self.counts = [[0.0] * size for _ in range(size)]
        self.relation, self.divide_by = relation, divide_by

    def loss(self, logits: Tensor, targets: Tensor) -> float:
        columns, size = targets.T.double().tolist(), len(NAMES)
        attract, repel = set(), set()
        for i in range(size):
            for j in range(size):
                found = pearson(columns[i], columns[j])
                if found == found:
                    found = (1 + found) / 2 if self.relation == "shifted" else found
                    self.sums[i][j] = WIDE["decay"] * self.sums[i][j] + found
                    self.counts[i][j] = WIDE["decay"] * self.counts[i][j] + 1
                if self.counts[i][j]:
                    mean = self.sums[i][j] / self.counts[i][j]
                    attract |= {(i, j)} if mean >= WIDE["attract"] else set()
                    repel |= {(i, j)} if mean <= WIDE["repel"] else set()
        entries, relations = [], 0.0
        for row, truth in zip(logits.double().tolist(), targets.double().tolist(), strict=True):
            entries += cross_entropy(row, truth)
            p = [1 / (1 + math.exp(-x)) for x in row]
            relations += sum((p[i] - p[j]) ** 2 for i, j in attract)
            relations += sum((1 - (p[i] - p[j]) ** 2) ** 2 for i, j in repel)
        divisor = size**2 if self.divide_by == "all" else len([1 for i, j in attract | repel if i != j])
        mean = size * sum(entries) / len(entries)
        return mean + WIDE["relation_weight"] * relations / (2 * len(logits) * divisor)


@pytest.mark.parametrize("relation", ["shifted", "correlation"])
@pytest.mark.parametrize("divide_by", ["all", "selected"])
def test_twenty_batches_are_those_of_the_equations(relation: Any, divide_by: Any) -> None:
    objective = RelatedAttributes(NAMES, relation=relation, divide_by=divide_by, **WIDE)
    loops = ByLoops(relation, divide_by)
    for logits, targets in batches():
        expected = loops.loss(logits, targets)
        loss = objective.loss({"attributes": logits}, {"attributes": targets})
        assert loss.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(objective.sums.double(), torch.tensor(loops.sums).double(), rtol=1e-5, atol=1e-5)
    pairs = objective.relations()
    assert ((pairs >= 0.6).sum() > len(NAMES)) and (pairs <= 0.4).any()  # both kinds were there


def test_bfloat16_logits_lose_no_gradient() -> None:
    """Cross-entropy's is rounded only with the relations', thousands of times smaller, added."""
    generator = torch.Generator().manual_seed(0)
    targets, exact = labels(generator, 64, 6), torch.randn(64, 6, generator=generator).bfloat16().float()
    gradients = []
    for logits, weight in ((exact.bfloat16(), 0.01), (exact, 0.01), (exact.bfloat16(), 0.0)):
        logits.requires_grad_().grad = None
        related = RelatedAttributes(NAMES, **WIDE | {"relation_weight": weight})
        related.loss({"attributes": logits}, {"attributes": targets}).backward()
        assert logits.grad is not None
        gradients.append(logits.grad)
    found, in_float32, without = gradients
    assert torch.equal(found, in_float32.bfloat16())
    assert not torch.equal(found, without)


def test_lower_precision_keeps_the_relations() -> None:
    """As autocast, and as a whole network in bfloat16, whose own moving sums would stand still."""
    found = []
    for lower in (False, True):
        generator, related = torch.Generator().manual_seed(0), RelatedAttributes(NAMES)
        if lower:
            torch.nn.ModuleList([related]).to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            for _ in range(300):
                related.loss({"attributes": torch.zeros(300, 6)}, {"attributes": labels(generator, 300, 6)})
        found.append(related.relations())
    assert torch.equal(*found)


def test_a_constant_attribute_has_no_relation() -> None:
    objective = RelatedAttributes(("a", "b", "c"), relation="correlation")
    targets = torch.tensor([[1.0, 1, torch.nan], [0, 1, torch.nan], [1, 1, 0]])
    logits = torch.randn(3, 3, requires_grad=True)
    loss = objective.loss({"attributes": logits}, {"attributes": targets})
    plain = 3 * Attributes(("a", "b", "c")).loss({"attributes": logits}, {"attributes": targets})
    assert loss.item() == plain.item()
    assert objective.relations().isnan().tolist() == [[False, True, True], [True] * 3, [True] * 3]
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()


def test_cross_entropy_is_a_sum_over_attributes() -> None:
    """α means what equation (4) makes it mean: without relations the loss is that of all attributes, added."""
    logits, targets = batches(1)[0]
    both = {"attributes": logits}, {"attributes": targets}
    without = RelatedAttributes(NAMES, relation_weight=0)
    assert without.loss(*both).item() == pytest.approx(6 * Attributes(NAMES).loss(*both).item(), rel=1e-6)
    assert without.sample_loss(*both).tolist() == pytest.approx((6 * Attributes(NAMES).sample_loss(*both)).tolist())


def test_the_share_of_the_gradient() -> None:
    objective = RelatedAttributes(NAMES, **WIDE)
    made = batches(6)
    for logits, targets in made:
        objective.loss({"attributes": logits}, {"attributes": targets})
    scores = objective.scores()
    norms = torch.zeros(2, dtype=torch.float64)
    plain = Attributes(NAMES)
    for logits, targets in made:
        with torch.inference_mode():  # as Lightning validates; its tensors are of inference, too
            objective.count(scores, {"attributes": logits + 0}, {"attributes": targets + 0})
        leaf = logits.clone().requires_grad_()
        both = {"attributes": leaf}, {"attributes": targets}
        (whole,) = torch.autograd.grad(objective.sample_loss(*both).sum(), leaf)
        (first,) = torch.autograd.grad(6 * plain.sample_loss(*both).sum(), leaf)
        norms += torch.stack([first.square().sum(), (whole - first).square().sum()])
    expected = 100 * (norms[1] / norms[0]).sqrt().item()
    assert scores.compute()["relation_share"] == pytest.approx(expected, rel=5e-3)
    assert expected > 1


def _train(rank: int, processes: int, folder: Path) -> None:
    """Twenty steps on this process's share of each batch; its weights and its relations go to a file."""
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=processes)
    objective = RelatedAttributes(NAMES, **WIDE)
    weights, losses = torch.zeros(len(NAMES), len(NAMES), requires_grad=True), []
    for inputs, targets in batches():
        inputs, targets = (part[rank::processes] for part in (inputs, targets))
        loss = objective.loss({"attributes": inputs @ weights}, {"attributes": targets})
        (gradient,) = torch.autograd.grad(loss, weights)
        pair = torch.cat([gradient.flatten(), loss.detach().reshape(1)])
        distributed.all_reduce(pair)  # as DDP does
        losses.append(pair[-1] / processes)
        with torch.no_grad():
            weights -= 0.2 * pair[:-1].reshape(weights.shape) / processes
    torch.save([weights.detach(), objective.relations(), torch.stack(losses)], folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_learn_the_relations_of_the_whole_batch(processes: int, tmp_path: Path) -> None:
    for count in (1, processes):
        folder = tmp_path / str(count)
        folder.mkdir()
        group = [FORKS.Process(target=_train, args=(rank, count, folder)) for rank in range(count)]
        for process in group:
            process.start()
        for process in group:
            process.join(60)
    one = torch.load(tmp_path / "1" / "0.pt", weights_only=True)
    for rank in range(processes):
        weights, relations, losses = torch.load(tmp_path / str(processes) / f"{rank}.pt", weights_only=True)
        assert torch.equal(relations, one[1])
        torch.testing.assert_close((weights, losses), (one[0], one[2]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"decay": 0.0}, {"attract": 0.1}, {"repel": -2.0}, {"relation_weight": -1.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong)).removeprefix("relation_")):
        RelatedAttributes(NAMES, **wrong)
