"""Attribute prediction alone, with or without the help of a trained parser."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from facelightning.checkpoint import describe
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts, shown_apart
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.encoders import Encoder, Input
from facelightning.models.gating import Gate
from facelightning.models.heads import ClusterHead, Head, LinearHead
from facelightning.models.pooling import AveragePooling, Pooling
from facelightning.models.regions import RegionSource
from facelightning.objectives import Attributes, Batch, Objective, Output
from facelightning.tasks.learning import LearningTask


@dataclass(eq=False, repr=False)
class AttributeNet(LearningTask):
    """Learn attributes with the networks of Kalayeh et al. (CVPR 2017), §3.1; defaults are the paper's basic network.

    A parser's weights are copied into this task's own checkpoints: one file is enough to predict.

    Args:
        width: Filters of the first layer; scales every layer of the paper's encoder.
        encoder: The paper's if not given, or :class:`~facelightning.models.encoders.TorchvisionEncoder`,
            :class:`~facelightning.models.panda.PANDA`, or :class:`~facelightning.models.fusion.Fusion` of trained ones.
        image_input: The normalised image if not given; or :class:`~facelightning.models.encoders.MaskedInput`, which
            adds the regions' masks as channels (the naive approach); or
            :class:`~facelightning.models.parts.PartCrops`, which cuts the regions out (PANDA's).
        gate: Gate in the encoder: none, :class:`~facelightning.models.gating.SemanticGating` (SSG), or
            :class:`~facelightning.models.gating.SymbioticAugmentation`.
        pooling: Pooling of the last map: :class:`~facelightning.models.pooling.AveragePooling`,
            :class:`~facelightning.models.pooling.PyramidPooling`, or
            :class:`~facelightning.models.pooling.SemanticPooling`.
        head: :class:`~facelightning.models.heads.LinearHead`, or :class:`~facelightning.models.heads.LocalizationHead`;
            the latter with semantic pooling is SSP.
        regions: For the parts that need them: :class:`~facelightning.models.parser.ParserRegions` with the checkpoint
            of a trained :class:`SegNet`, or :class:`~facelightning.models.parser.ParserBoxes`, around its classes;
            :class:`~facelightning.models.regions.LandmarkBoxes` or :class:`~facelightning.models.regions.FaceParts`;
            or the data's own, :class:`~facelightning.models.known_masks.KnownMasks`.
        weights: Checkpoint of an :class:`AttributeNet` with the same parts, to fine-tune. Its weights, including its
            parser's, replace all others. A :class:`~facelightning.models.heads.ClusterHead` begins anew behind another
            head's features.
        objective: What it learns: :class:`~facelightning.objectives.Attributes`, or
            :class:`~facelightning.objectives.SummedAttributes`, or
            :class:`~facelightning.objectives.BalancedAttributes`, as the paper does for balanced accuracy.

    Raises:
        ConfigurationError: When built, if a part needs regions and there are none, or no part needs the given ones.
        CheckpointError: When built, if a file is missing, broken, or of another task.

    Example:
        >>> facts = DataFacts((218, 178), attributes=("Smiling", "Young"))
        >>> AttributeNet(width=4).build(facts).network.tail.channels
        64
    """

    shown = (*LearningTask.shown, "mask")
    width: int = 64
    encoder: Callable[[Input], Encoder] | None = None
    image_input: Callable[[int], Input] | None = None
    gate: Callable[[int, int, int, bool], Gate] | None = None
    pooling: Callable[[int], Pooling] = AveragePooling
    head: Callable[[int, int, int], Head] = LinearHead
    regions: Callable[[], RegionSource] | None = None
    weights: str | None = None
    objective: Callable[[Sequence[str]], Attributes] = Attributes

    def make(self, facts: DataFacts) -> tuple[AttributeNetwork, list[Objective]]:
        """The network for these attributes."""
        names = facts.attributes
        if names is None:
            raise ConfigurationError(
                "AttributeNet cannot learn attributes: the data has none; use CelebADataModule or LFWADataModule"
            )
        parts = (self.encoder, self.image_input, self.gate, self.pooling, self.head, self.regions)
        network = AttributeNetwork(len(names), self.width, *parts)
        return network, [self.objective(names)]

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """The network's output for a batch with what its regions need, and the ground truth to compare it with."""
        return self.network(batch["image"], batch.get("landmarks"), batch.get("mask")), batch

    def build(self, facts: DataFacts) -> Self:
        """Build it; begin with the weights of the network to fine-tune."""
        super().build(facts)
        if self.weights is not None:
            description, trained = describe(self.weights, "AttributeNet", "AttributeNet's weights", "avg")
            assert trained is not None
            if description["facts"]["attributes"] != facts.plain()["attributes"]:
                raise CheckpointError(f"AttributeNet's weights: {self.weights} was trained for other attributes")
            known = description["settings"]
            heads = {settings["head"]["class_path"] for settings in (known, self.settings)}
            # clusters begin anew behind features that another head has learned
            anew = isinstance(self.network.head, ClusterHead) and len(heads) == 2
            for key in ("width", "encoder", "image_input", "gate", "pooling", *([] if anew else ["head"])):
                theirs, ours = known[key], self.settings[key]
                if theirs != ours:
                    their, our = shown_apart(theirs, ours)
                    what = f"{key} {their}, not {our}"
                    raise CheckpointError(f"AttributeNet's weights: {self.weights} was trained with {what}")
            for name, part in self.network.named_children():
                if not (anew and name == "head"):
                    trained.load_into(part, f"network.{name}.")
        return self
