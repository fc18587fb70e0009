"""Attributes by ANet, from features that identities have taught."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from facelightning.checkpoint import describe
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.anet import ANetwork
from facelightning.models.heads import Head, LinearHead
from facelightning.objectives import Attributes, Batch, Objective, Output
from facelightning.tasks.learning import LearningTask


@dataclass(eq=False, repr=False)
class ANet(LearningTask):
    """Learn attributes with ANet (Liu et al., ICCV 2015, §3.2); see :class:`~facelightning.models.anet.ANetwork`.

    Train on images of the network's size. A larger image of the data that is tested or predicted holds the face
    anywhere: the interweaved operation finds the best place.

    Args:
        width: Filters of the first layer; scales every layer.
        cell: Outputs along a side of each of C3's 4×4 cells; a face is 32 ``cell`` + 33 pixels wide and high.
        views: 1 or 5 views of the face.
        head: :class:`~facelightning.models.heads.LinearHead` of all views, or
            :class:`~facelightning.models.heads.LocalizationHead`, which chooses a view for each attribute.
        weights: Checkpoint of an :class:`IdentityNet` or :class:`ANet` to start from: all layers but the head.
        objective: What it learns; see :class:`AttributeNet`.

    Raises:
        CheckpointError: When built, if the file is missing, broken, or of another task or other sizes.

    Example:
        >>> facts = DataFacts((129, 129), attributes=("Smiling", "Young"))
        >>> ANet(width=4, cell=3).build(facts).network.num_features
        32
    """

    width: int = 64
    cell: int = 4
    views: int = 1
    head: Callable[[int, int, int], Head] = LinearHead
    weights: str | None = None
    objective: Callable[[Sequence[str]], Attributes] = Attributes

    def make(self, facts: DataFacts) -> tuple[ANetwork, list[Objective]]:
        """The network for these attributes."""
        names = facts.attributes
        if names is None:
            raise ConfigurationError(
                "ANet cannot learn attributes: the data has none; use CelebADataModule or LFWADataModule"
            )
        network = ANetwork(len(names), self.width, self.cell, self.views, self.head)
        if self.weights is not None:
            description, trained = describe(self.weights, "IdentityNet or ANet", "ANet's weights", "anet_identity")
            assert trained is not None
            for key in ("width", "cell", "views"):
                theirs, ours = description["settings"][key], self.settings[key]
                if theirs != ours:
                    raise CheckpointError(f"ANet's weights: {self.weights} was trained with {key} {theirs}, not {ours}")
            for name, layer in network.named_children():
                if layer is not network.head:
                    trained.load_into(layer, f"network.{name}.")
        return network, [self.objective(names)]

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """Describe the faces of a batch."""
        return self.network(batch["image"]), batch
