"""Parsing and attributes, learned together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.encoders import Encoder, Input
from facelightning.models.heads import Head, LinearHead
from facelightning.models.joint import JointNetwork
from facelightning.models.pooling import AveragePooling, Pooling
from facelightning.objectives import Attributes, Batch, Objective, Output, Parsing
from facelightning.tasks.learning import LearningTask


@dataclass(eq=False, repr=False)
class JointNet(LearningTask):
    """Learn parsing and attributes with a shared encoder (Kalayeh et al., CVPR 2017, §4.4).

    Trains on pairs of batches from :class:`~facelightning.data.JointDataModule`, with one optimiser step on
    the weighted sum of both losses; or on batches that have both masks and attributes.

    Args:
        width: Filters of the first layer; scales every layer.
        encoder: The paper's if not given, or :class:`~facelightning.models.encoders.TorchvisionEncoder`.
        pooling: Pooling of the attributes' last map; :class:`~facelightning.models.pooling.SemanticPooling` pools
            within the regions that the network itself parses.
        head: :class:`~facelightning.models.heads.LinearHead`, or :class:`~facelightning.models.heads.LocalizationHead`.
        objective: What it learns of attributes; see :class:`AttributeNet`.
        parsing_weight: Weight of the parsing loss in the total loss.
        attribute_weight: Weight of the attribute loss in the total loss, times the objective's own.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> task = JointNet(width=4).build(DataFacts((109, 89), HELEN7, attributes=("Smiling", "Young")))
        >>> list(task.objectives)
        ['parsing', 'attributes']
    """

    width: int = 64
    encoder: Callable[[Input], Encoder] | None = None
    pooling: Callable[[int], Pooling] = AveragePooling
    head: Callable[[int, int, int], Head] = LinearHead
    objective: Callable[[Sequence[str]], Attributes] = Attributes
    parsing_weight: float = 1.0
    attribute_weight: float = 1.0

    def make(self, facts: DataFacts) -> tuple[JointNetwork, list[Objective]]:
        """The network for a label space and these attributes."""
        space, names = facts.label_space, facts.attributes
        if space is None or names is None:
            missing = "parsing: the data has no masks" if space is None else "attributes: the data has none"
            raise ConfigurationError(f"JointNet cannot learn {missing}; use a JointDataModule or SyntheticDataModule")
        network = JointNetwork(space, len(names), self.width, self.encoder, self.pooling, self.head)
        attributes = self.objective(names)
        attributes.weight *= self.attribute_weight
        return network, [Parsing(space, self.parsing_weight), attributes]

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """In joint training, each objective on its own images; else those with ground truth in the batch, or both."""
        if "parsing_batch" in batch:
            masks, attributes = batch["parsing_batch"], batch["attribute_batch"]
            output = self.network(masks["image"], attributes["image"])
            names = {"mask_name": masks["name"], "attributes_name": attributes["name"]}
            return output, {"mask": masks["mask"], "attributes": attributes["attributes"], **names}
        wanted = [key for key, objective in self.objectives.items() if objective.truth in batch]
        return self.network(batch["image"], wanted=wanted or list(self.objectives)), batch
