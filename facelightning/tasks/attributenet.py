"""Attribute prediction alone, with or without the help of a trained parser."""

from typing import Any, Literal

from torch import Tensor

from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.labels import ATTRIBUTES, LABEL_SPACES
from facelightning.models.attributes import AttributeNetwork, Parser
from facelightning.tasks.base import Batch, FaceTask, Outputs, check_choice
from facelightning.tasks.checkpoint import read_checkpoint, restore


class AttributeNet(FaceTask):
    """Learn the 40 attributes with the networks of Kalayeh et al. (CVPR 2017), §3.1; defaults are the paper's.

    A parser's weights are copied into this task's own checkpoints: one file is enough to predict.

    Args:
        pooling: ``avg``, global average pooling; ``ssp``, semantic pooling within a parser's regions.
        parser: Checkpoint of a :class:`SegNet`, for ``ssp``; frozen.
        parser_config: The parser's ``labels`` and ``width``. Filled in from its checkpoint; a checkpoint of this
            task holds it, so that the parser's own file is not needed again.
        width: Filters of the first layer; scales every layer.
        optimizer: The paper's AdaGrad, or AdamW.
        learning_rate: Constant, or the peak of the one-cycle schedule.
        weight_decay: L2 penalty (AdaGrad) or decoupled decay (AdamW).
        schedule: Constant as in the paper, or one cycle over the whole training.

    Raises:
        ConfigurationError: If ``ssp`` has no parser, or ``avg`` has one.
        CheckpointError: If the parser's file is missing, broken, or not a SegNet's.

    Example:
        >>> AttributeNet(width=4).network.tail[-1][0].out_channels
        64
    """

    network: AttributeNetwork

    def __init__(
        self,
        pooling: Literal["avg", "ssp"] = "avg",
        parser: str | None = None,
        parser_config: dict[str, Any] | None = None,
        width: int = 64,
        optimizer: Literal["adagrad", "adamw"] = "adagrad",
        learning_rate: float = 0.001,
        weight_decay: float = 0.0005,
        schedule: Literal["constant", "one_cycle"] = "constant",
    ) -> None:
        super().__init__(None, True, optimizer, learning_rate, weight_decay, schedule)
        check_choice("pooling", pooling, ("avg", "ssp"))
        self.save_hyperparameters()
        regions: Parser | None = None
        if pooling == "ssp":
            if parser is None and parser_config is None:
                raise ConfigurationError(
                    "AttributeNet: pooling ssp needs a trained parser; pass the checkpoint of a SegNet as `parser` "
                    "(train one with: facelightning fit --config segnet.yaml)"
                )
            trained = None if parser is None or parser_config is not None else read_parser(parser)
            if trained is not None:
                parser_config = {key: trained["hyper_parameters"][key] for key in ("labels", "width")}
                self.hparams["parser_config"] = parser_config
            assert parser_config is not None
            regions = Parser(LABEL_SPACES[parser_config["labels"]], parser_config["width"])
            if parser is not None and trained is not None:
                weights = {k: v for k, v in trained["state_dict"].items() if k.startswith("network.")}
                restore(regions, weights, parser)
        elif parser is not None:
            raise ConfigurationError(f"AttributeNet: pooling {pooling} uses no parser, but `parser` is {parser}")
        self.network = AttributeNetwork(len(ATTRIBUTES), width, regions)

    @property
    def regions(self) -> tuple[str, ...] | None:
        """The parser's classes, with semantic pooling."""
        return None if self.network.parser is None else self.network.parser.labels.classes

    def region_weights(self, images: Tensor) -> Tensor:
        """How much each region counts for each attribute, ``(B, N, A)``, with semantic pooling."""
        return self.network.region_weights(images)

    def on_fit_start(self) -> None:
        """Refuse to learn with a parser that nothing was loaded into."""
        super().on_fit_start()
        if self.network.parser is not None and not self.network.parser.trained:
            raise ConfigurationError(
                "AttributeNet: the parser has no weights, for with `parser_config` the file `parser` is not read; "
                "set `parser_config` to null"
            )

    def predict_batch(self, batch: Batch) -> tuple[Outputs, Batch]:
        """Describe the pictures of a batch."""
        return Outputs(attributes=self.network(batch["image"])), batch


def read_parser(path: str) -> dict[str, Any]:
    """A SegNet's checkpoint, or one clear sentence."""
    remedy = "train a parser with: facelightning fit --config segnet.yaml"
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"AttributeNet's parser: {error}; {remedy}") from None
    if checkpoint["facelightning_task"] != "SegNet":
        found = checkpoint["facelightning_task"]
        raise CheckpointError(f"AttributeNet's parser: {path} holds a {found}, not a SegNet; {remedy}")
    return checkpoint
