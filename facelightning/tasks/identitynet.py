"""Identities; and the pre-training of ANet by them."""

from dataclasses import dataclass

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.anet import ANetwork
from facelightning.objectives import Batch, Identities, Objective, Output
from facelightning.tasks.learning import LearningTask


class IdentityTask(LearningTask):
    """Base of the tasks that learn to tell the identities of their training data apart."""

    def identities(self, facts: DataFacts) -> tuple[int, ...]:
        """Their numbers; raises :class:`ConfigurationError` if the data has none."""
        if facts.identities is None:
            raise ConfigurationError(
                f"{type(self).__name__} cannot learn identities: the data has none; use CelebADataModule with the file "
                "identity_CelebA.txt, LFWADataModule, PersonFoldersDataModule, or FaceTableDataModule with identities"
            )
        return facts.identities

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """Describe the faces of a batch."""
        return self.network(batch["image"]), batch

    def check(self, facts: DataFacts, whose: str) -> None:
        """Also refuse other identities: each would begin with the weights of another one."""
        super().check(facts, whose)
        assert self.facts is not None
        ours, theirs = self.facts.identities, facts.identities
        if ours is not None and theirs is not None and ours != theirs:
            raise ConfigurationError(
                f"{type(self).__name__} is built for {len(ours)} identities, but {whose} has other ones "
                f"({len(theirs)}); give both one training split"
            )


@dataclass(eq=False, repr=False)
class IdentityNet(IdentityTask):
    """Learn to tell identities apart: the pre-training of :class:`ANet`'s layers (Liu et al., ICCV 2015, §4).

    The data module's ``images_per_identity`` should be more than 1: a batch in any order holds hardly two images of an
    identity, and the similarity loss needs them. Validation and test compare features, so that their identities may be
    other ones; see :class:`~facelightning.objectives.Identities`. The checkpoint keeps the identities of the training.

    Args:
        width: Filters of the first layer; scales every layer.
        cell: Outputs along a side of each of C3's 4×4 cells; a face is 32 ``cell`` + 33 pixels wide and high.
        views: 1 or 5 views of the face.
        similarity_weight: Weight of the similarity loss beside the softmax loss. It adds the squared differences of all
            features: where they are fewer, a larger weight does the same.

    Example:
        >>> facts = DataFacts((129, 129), identities=(3, 12, 40))
        >>> IdentityNet(width=4, cell=3).build(facts).network.head.classifier
        Linear(in_features=32, out_features=3, bias=True)
    """

    width: int = 64
    cell: int = 4
    views: int = 1
    similarity_weight: float = 0.001

    def make(self, facts: DataFacts) -> tuple[ANetwork, list[Objective]]:
        """The network for these identities."""
        numbers = self.identities(facts)
        network = ANetwork(len(numbers), self.width, self.cell, self.views, key="identity")
        return network, [Identities(numbers, network.num_features, self.similarity_weight)]
