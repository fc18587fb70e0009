"""Pre-training of LNet: categories of objects."""

from collections.abc import Callable
from dataclasses import dataclass

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.encoders import Encoder, Input
from facelightning.models.heads import Head, LinearHead
from facelightning.models.pooling import AveragePooling, Pooling
from facelightning.objectives import Categories, Objective
from facelightning.tasks.learning import LearningTask


@dataclass(eq=False, repr=False)
class CategoryNet(LearningTask):
    """Learn to tell categories apart, with the parts of :class:`AttributeNet`.

    With :class:`~facelightning.models.lnet.LNet` as encoder and two dense layers it is LNet+, which learns the
    categories of objects before LNet_o and LNet_s begin with its filters (Liu et al., ICCV 2015, §4).

    Args:
        width: Filters of the first layer; scales every layer of Kalayeh et al.'s encoder.
        encoder: Kalayeh et al.'s (CVPR 2017) if not given, or any other; see :class:`AttributeNet`.
        pooling: Pooling of the last map.
        head: Classifier of the categories.

    Example:
        >>> CategoryNet(width=4).build(DataFacts((218, 178), categories=("car", "cat", "dog"))).network.head.classifier
        Linear(in_features=64, out_features=3, bias=True)
    """

    width: int = 64
    encoder: Callable[[Input], Encoder] | None = None
    pooling: Callable[[int], Pooling] = AveragePooling
    head: Callable[[int, int, int], Head] = LinearHead

    def make(self, facts: DataFacts) -> tuple[AttributeNetwork, list[Objective]]:
        """The network for these categories."""
        names = facts.categories
        if names is None:
            raise ConfigurationError(
                "CategoryNet cannot learn categories: the data has none; use ImageFolderDataModule, "
                "SyntheticObjectsDataModule, or FaceTableDataModule with a column of races"
            )
        network = AttributeNetwork(
            len(names), self.width, self.encoder, pooling=self.pooling, head=self.head, key="category"
        )
        return network, [Categories(names)]
