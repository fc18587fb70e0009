"""What the tests of several networks share: regions that are known, a parser, statistics as after training."""

import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from facelightning.checkpoint import FORMAT
from facelightning.facts import DataFacts
from facelightning.labels import HELEN7, LabelSpace
from facelightning.models.parser import ParserRegions

SIZE = (50, 37)
"""Height and width of small images."""


class KnownRegions:
    """Masks that are known at one stride, and averaged at coarser ones."""

    def __init__(self, masks: Tensor, stride: int = 1) -> None:
        self.masks, self.stride = masks, stride
        self.asked: list[int] = []

    def at(self, stride: int) -> Tensor:
        self.asked.append(stride)
        return self.masks if stride == self.stride else avg_pool2d(self.masks, stride // self.stride, ceil_mode=True)


def settle(network: nn.Module, *inputs: Any) -> None:
    """Running statistics of real activations, as after training; with the initial ones signals fade layer by layer."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(*inputs)
    for norm in norms:
        norm.momentum = 0.1


def make_parser(label_space: LabelSpace = HELEN7) -> ParserRegions:
    """A small frozen parser whose regions differ."""
    facts = DataFacts(SIZE, label_space).plain()
    settings = {"width": 2, "encoder": None}
    parser = ParserRegions(json.dumps({"format": FORMAT, "task": "SegNet", "settings": settings, "facts": facts}))
    settle(parser.network, torch.rand(3, 3, *SIZE))
    return parser.eval()


def landmarks(count: int) -> Tensor:
    """Five points in a small image."""
    return torch.tensor([[10.0, 20], [27, 20], [18, 28], [12, 38], [25, 38]]).repeat(count, 1, 1)
