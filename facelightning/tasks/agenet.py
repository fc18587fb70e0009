"""The age of a face."""

from collections.abc import Callable
from dataclasses import dataclass

from facelightning.facts import DataFacts
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.encoders import Encoder, Input
from facelightning.models.heads import Head, LinearHead
from facelightning.models.pooling import AveragePooling, Pooling
from facelightning.objectives import Ages, Objective
from facelightning.tasks.learning import LearningTask


@dataclass(eq=False, repr=False)
class AgeNet(LearningTask):
    """Learn the age in years, with the parts of :class:`AttributeNet`: AgeNet of Wang, Su, Zhao, §II-A.

    Args:
        width: Filters of the first layer; scales every layer of Kalayeh et al.'s encoder.
        encoder: Kalayeh et al.'s (CVPR 2017) if not given, or any other; see :class:`AttributeNet`.
        pooling: Pooling of the last map.
        head: Its one output is the age; see :class:`~facelightning.objectives.Ages`.

    Example:
        >>> AgeNet(width=4).build(DataFacts((218, 178))).network.head.classifier
        Linear(in_features=64, out_features=1, bias=True)
    """

    width: int = 64
    encoder: Callable[[Input], Encoder] | None = None
    pooling: Callable[[int], Pooling] = AveragePooling
    head: Callable[[int, int, int], Head] = LinearHead

    def make(self, facts: DataFacts) -> tuple[AttributeNetwork, list[Objective]]:
        """The network of one output."""
        network = AttributeNetwork(1, self.width, self.encoder, pooling=self.pooling, head=self.head, key="age")
        return network, [Ages()]
