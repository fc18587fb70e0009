"""Parsing and attributes, learned together."""

from typing import Literal

from torch import Tensor

from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTES, LABEL_SPACES
from facelightning.models.joint import JointNetwork
from facelightning.tasks.base import Batch, FaceTask, Outputs, check_choice


class JointNet(FaceTask):
    """Learn parsing and attributes with a shared encoder (Kalayeh et al., CVPR 2017, §4.4).

    Trains on pairs of batches, ``{"parsing": …, "attributes": …}``, as :class:`~facelightning.data.JointDataModule`
    gives them, with one optimiser step on the weighted sum of both losses.

    Args:
        labels: The label space of the masks.
        pooling: ``avg``, global average pooling; ``ssp``, semantic pooling within the regions it parses itself.
        parsing_weight: Of the parsing loss in the sum.
        attribute_weight: Of the attribute loss in the sum.
        width: Filters of the first layer; scales every layer.
        optimizer: The paper's AdaGrad, or AdamW.
        learning_rate: Constant, or the peak of the one-cycle schedule.
        weight_decay: L2 penalty (AdaGrad) or decoupled decay (AdamW).
        schedule: Constant as in the paper, or one cycle over the whole training.

    Example:
        >>> JointNet(width=4, pooling="ssp").network.semantic_pooling
        True
    """

    network: JointNetwork

    def __init__(
        self,
        labels: Literal["helen7", "helen11"] = "helen7",
        pooling: Literal["avg", "ssp"] = "avg",
        parsing_weight: float = 1.0,
        attribute_weight: float = 1.0,
        width: int = 64,
        optimizer: Literal["adagrad", "adamw"] = "adagrad",
        learning_rate: float = 0.001,
        weight_decay: float = 0.0005,
        schedule: Literal["constant", "one_cycle"] = "constant",
    ) -> None:
        super().__init__(LABEL_SPACES[labels], True, optimizer, learning_rate, weight_decay, schedule)
        check_choice("pooling", pooling, ("avg", "ssp"))
        self.save_hyperparameters()
        self.loss_weights = {"parsing": parsing_weight, "attributes": attribute_weight}
        self.network = JointNetwork(LABEL_SPACES[labels], len(ATTRIBUTES), width, semantic_pooling=pooling == "ssp")

    @property
    def regions(self) -> tuple[str, ...] | None:
        """The classes it parses, with semantic pooling."""
        return self.network.labels.classes if self.network.semantic_pooling else None

    def region_weights(self, batch: Batch) -> Tensor:
        """How much each region counts for each attribute, ``(B, N, A)``, with semantic pooling."""
        return self.network.region_weights(batch["image"])

    def predict_batch(self, batch: Batch) -> tuple[Outputs, Batch]:
        """In training each task on its own pictures; else what the batch has the truth for, or both."""
        if "parsing" in batch and "attributes" in batch:
            with_masks, with_attributes = batch["parsing"], batch["attributes"]
            parsing, attributes = self.network.forward_pair(with_masks["image"], with_attributes["image"])
            truth = {"mask": with_masks["mask"], "attributes": with_attributes["attributes"]}
            return Outputs(parsing=parsing, attributes=attributes), truth
        if self._trainer is not None and self._trainer.training:
            raise ConfigurationError("JointNet trains on two data sets; use a JointDataModule or SyntheticDataModule")
        images = batch["image"]
        if "mask" in batch and "attributes" not in batch:
            return Outputs(parsing=self.network.parse(images)), batch
        if "attributes" in batch and "mask" not in batch:
            return Outputs(attributes=self.network.describe(images)), batch
        parsing, attributes = self.network(images)
        return Outputs(parsing=parsing, attributes=attributes), batch
