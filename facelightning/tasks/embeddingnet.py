"""Features that tell faces apart, from any encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from facelightning.facts import DataFacts
from facelightning.models.encoders import Encoder, Input
from facelightning.models.facenets import EmbeddingNetwork
from facelightning.models.pooling import AveragePooling, Pooling
from facelightning.objectives import CentredIdentities, Identities, Objective
from facelightning.tasks.identitynet import IdentityTask


@dataclass(eq=False, repr=False)
class EmbeddingNet(IdentityTask):
    """Learn an embedding of faces by identities: IdentityNet of Wang, Su, Zhao, §II-A.

    :class:`IdentityNet` is that of Liu et al.; this one takes any encoder. Validation and test compare features, so
    that their identities may be other ones; see :class:`~facelightning.objectives.Identities`. The checkpoint keeps the
    identities of the training, and their centres.

    Args:
        width: Filters of the first layer; scales every layer of Kalayeh et al.'s encoder.
        encoder: Kalayeh et al.'s (CVPR 2017) if not given, or any other; see :class:`AttributeNet`.
        pooling: Pooling of the last map.
        num_features: Numbers of the embedding; 512 as in Wen et al. (ECCV 2016).
        objective: How it learns: :class:`~facelightning.objectives.CentredIdentities`, or
            :class:`~facelightning.objectives.Identities`.

    Example:
        >>> facts = DataFacts((64, 64), identities=(3, 12, 40))
        >>> EmbeddingNet(width=4, num_features=32).build(facts).network.head
        Linear(in_features=32, out_features=3, bias=True)
    """

    width: int = 64
    encoder: Callable[[Input], Encoder] | None = None
    pooling: Callable[[int], Pooling] = AveragePooling
    num_features: int = 512
    objective: Callable[[Sequence[int], int], Identities] = CentredIdentities

    def make(self, facts: DataFacts) -> tuple[EmbeddingNetwork, list[Objective]]:
        """The network for these identities."""
        numbers = self.identities(facts)
        network = EmbeddingNetwork(len(numbers), self.num_features, self.width, self.encoder, self.pooling)
        return network, [self.objective(numbers, self.num_features)]
