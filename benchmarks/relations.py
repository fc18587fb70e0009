"""What the relation loss adds to a training step, and what nine heads cost as one computation.

    python benchmarks/relations.py --threads 2 --output relations.json

A step of Avg. Pooling with the Online Batch Relation Loss takes turns with one without, and the grouped heads with nine
separate ones of the same weights, whose equality is checked; so whatever else the machine does befalls both. A step is
forward, loss and backward on random images, without optimiser and data.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTE_GROUPS, ATTRIBUTES
from facelightning.models.heads import GroupHead
from facelightning.models.pooling import Pooled
from facelightning.objectives import RelatedAttributes
from facelightning.tasks import AttributeNet


class NineHeads(nn.Module):
    """The heads of a :class:`GroupHead`, each by itself."""

    def __init__(self, grouped: GroupHead) -> None:
        super().__init__()
        groups = len(ATTRIBUTE_GROUPS)
        weights, biases = grouped.convolution.weight.chunk(groups), grouped.convolution.bias.chunk(groups)
        self.heads = nn.ModuleList()
        for number, (names, weight, bias) in enumerate(zip(ATTRIBUTE_GROUPS.values(), weights, biases, strict=True)):
            layers = [nn.Linear(*weight.T.shape), nn.ReLU(), nn.Flatten()]
            layers += [nn.Linear(*grouped.hidden.weight.shape[1:]), nn.ReLU()]
            layers += [nn.Linear(grouped.classifier.weight.shape[1], len(names))]
            head = nn.Sequential(*layers)
            dense = [(layer.weight[number].T, layer.bias[number, 0]) for layer in (grouped.hidden, grouped.classifier)]
            for layer, (w, b) in zip((head[0], head[3], head[5]), [(weight, bias), *dense], strict=True):
                layer.load_state_dict({"weight": w[: layer.out_features], "bias": b[: layer.out_features]})
            self.heads.append(head)
        order = [name for names in ATTRIBUTE_GROUPS.values() for name in names]
        self.columns = [order.index(name) for name in ATTRIBUTES]

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        return {"logits": torch.cat([head(pooled.vectors) for head in self.heads], dim=1)[:, self.columns]}


def alternate(rounds: int, **ways: Callable[[], object]) -> dict[str, Any]:
    """Milliseconds of each way, in turns, and the ratio of the second to the first: median and quartiles."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            ways[name]()
            taken[name].append(1000 * (time.perf_counter() - began))
    first, second = taken.values()
    ratios = sorted(b / a for a, b in zip(first, second, strict=True))
    quartiles = [round(ratios[len(ratios) * part // 4], 3) for part in (1, 2, 3)]
    return {f"{name}_ms": round(median(times), 2) for name, times in taken.items()} | {"ratio_quartiles": quartiles}


def time_steps(width: int, size: tuple[int, int], batch_size: int, rounds: int) -> dict[str, Any]:
    """A training step without and with relations."""
    images = torch.randint(256, (batch_size, 3, *size), dtype=torch.uint8)
    batch = {"image": images, "attributes": torch.randint(2, (batch_size, len(ATTRIBUTES))).float()}
    task = AttributeNet(width=width).build(DataFacts(size, attributes=ATTRIBUTES)).train()
    plain, related = task.objectives["attributes"], RelatedAttributes(ATTRIBUTES)

    def step(objective: nn.Module) -> None:
        task.zero_grad()
        objective.loss(task.network(images), batch).backward()

    logits = torch.randn(batch_size, len(ATTRIBUTES), requires_grad=True)

    def loss_alone(objective: nn.Module) -> None:
        objective.loss({"attributes": logits}, batch).backward()

    losses = alternate(10 * rounds, plain=lambda: loss_alone(plain), related=lambda: loss_alone(related))
    steps = alternate(rounds, plain=lambda: step(plain), related=lambda: step(related))
    share = (losses["related_ms"] - losses["plain_ms"]) / steps["plain_ms"]
    return {"step": steps, "loss_alone": losses, "added_percent_of_a_step": round(100 * share, 3)}


def time_heads(channels: int, places: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """Nine heads by themselves and as one computation; forward and backward."""
    grouped = GroupHead(channels, places, len(ATTRIBUTES))
    separate = NineHeads(grouped)
    known = torch.ones(batch_size, places, 1, dtype=torch.bool)
    pooled = Pooled(torch.rand(batch_size, places, channels, requires_grad=True), known)
    difference = (grouped(pooled)["logits"] - separate(pooled)["logits"]).abs().max().item()
    assert difference < 1e-5, difference

    def step(head: nn.Module) -> None:
        head.zero_grad()
        head(pooled)["logits"].square().mean().backward()

    return alternate(10 * rounds, separate=lambda: step(separate), grouped=lambda: step(grouped))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="filters of the first layer")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    results = {
        "relations": time_steps(asked.width, tuple(asked.size), asked.batch_size, asked.rounds),
        "group_heads": time_heads(asked.width * 16, 36, asked.batch_size, asked.rounds),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if asked.output is not None:
        asked.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
