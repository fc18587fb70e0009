"""Attribute prediction alone, with or without the help of a trained parser."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from facelightning.checkpoint import read_checkpoint, restore
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.labels import ATTRIBUTES, LABEL_SPACES
from facelightning.models.attributes import AttributeNetwork, Parser
from facelightning.tasks.base import Batch, FaceTask, Outputs, check_choice


class AttributeNet(FaceTask):
    """Learn the 40 attributes with the networks of Kalayeh et al. (CVPR 2017), §3.1; defaults are the paper's.

    A parser's weights are copied into this task's own checkpoints: one file is enough to predict.

    Args:
        pooling: ``avg``, global average pooling; ``spp``, pyramid pooling; ``ssp``, semantic pooling within a parser's
            regions; ``bbox``, semantic pooling within boxes around the landmarks that the data gives.
        gating: ``none``; ``ssg``, semantic gating; ``symbiotic``, one learnt mixture of masks for each channel.
        inputs: ``rgb``, or ``rgb_masks``, which adds the parser's masks as channels (the naive approach).
        parser: Checkpoint of a :class:`SegNet`, for ``ssp``, gating and ``rgb_masks``; frozen.
        parser_config: The parser's ``labels`` and ``width``. Filled in from its checkpoint; a checkpoint of this
            task holds it, so that the parser's own file is not needed again.
        weights: Checkpoint of an :class:`AttributeNet` of the same settings to start from (fine-tuning). Its weights,
            parser included, replace all others; a checkpoint of this task does not need the file again.
        balanced: Weigh each attribute's positives and negatives alike, by their rates in the training data
            (:func:`facelightning.losses.attribute_loss`), as the paper does for balanced accuracy.
        width: Filters of the first layer; scales every layer.
        optimizer: The paper's AdaGrad, or AdamW.
        learning_rate: Constant, or the peak of the one-cycle schedule.
        weight_decay: L2 penalty (AdaGrad) or decoupled decay (AdamW).
        schedule: Constant as in the paper, or one cycle over the whole training.

    Raises:
        ConfigurationError: If a parser is needed and not given, or given and not needed.
        CheckpointError: If a file is missing, broken, or of another task.

    Example:
        >>> AttributeNet(width=4).network.tail[-1][0].out_channels
        64
    """

    network: AttributeNetwork

    def __init__(
        self,
        pooling: Literal["avg", "spp", "ssp", "bbox"] = "avg",
        gating: Literal["none", "ssg", "symbiotic"] = "none",
        inputs: Literal["rgb", "rgb_masks"] = "rgb",
        parser: str | None = None,
        parser_config: dict[str, Any] | None = None,
        weights: str | None = None,
        balanced: bool = False,
        width: int = 64,
        optimizer: Literal["adagrad", "adamw"] = "adagrad",
        learning_rate: float = 0.001,
        weight_decay: float = 0.0005,
        schedule: Literal["constant", "one_cycle"] = "constant",
    ) -> None:
        super().__init__(None, True, optimizer, learning_rate, weight_decay, schedule)
        check_choice("pooling", pooling, ("avg", "spp", "ssp", "bbox"))
        check_choice("gating", gating, ("none", "ssg", "symbiotic"))
        check_choice("inputs", inputs, ("rgb", "rgb_masks"))
        self.save_hyperparameters()
        users = [
            f"{name} {value}"
            for name, value in (("pooling", pooling), ("gating", gating), ("inputs", inputs))
            if value in ("ssp", "ssg", "symbiotic", "rgb_masks")
        ]
        if users and parser is None and parser_config is None:
            raise ConfigurationError(
                f"AttributeNet: {users[0]} needs a trained parser; pass the checkpoint of a SegNet as `parser` "
                "(train one with: facelightning fit --config segnet.yaml)"
            )
        if parser is not None and not users:
            raise ConfigurationError(f"AttributeNet: pooling {pooling} uses no parser, but `parser` is {parser}")
        regions: Parser | None = None
        if users:
            trained = (
                None
                if parser is None or parser_config is not None
                else read_task(parser, "SegNet", "AttributeNet's parser")
            )
            if trained is not None:
                parser_config = {key: trained["hyper_parameters"][key] for key in ("labels", "width")}
                self.hparams["parser_config"] = parser_config
            assert parser_config is not None
            regions = Parser(LABEL_SPACES[parser_config["labels"]], parser_config["width"])
            if parser is not None and trained is not None:
                _load(regions, trained, parser)
        self.network = AttributeNetwork(len(ATTRIBUTES), width, pooling, gating, inputs, regions)
        if weights is not None:
            _load(self.network, read_task(weights, "AttributeNet", "AttributeNet's weights"), weights)
            self.hparams["weights"] = None
        if balanced:
            self.positive_rates = torch.full((len(ATTRIBUTES),), 0.5)  # until the training data is known

    @property
    def regions(self) -> tuple[str, ...] | None:
        """What :meth:`region_weights` weighs: the parser's classes, or the boxes."""
        return self.network.regions

    def region_weights(self, batch: Batch) -> Tensor:
        """How much each region counts for each attribute, ``(B, N, A)``, with pooling ``ssp`` or ``bbox``."""
        return self.network.region_weights(batch["image"], batch.get("landmarks"))

    def on_fit_start(self) -> None:
        """Refuse to learn with a parser that nothing was loaded into."""
        super().on_fit_start()
        if self.network.parser is not None and not self.network.parser.trained:
            raise ConfigurationError(
                "AttributeNet: the parser has no weights, for with `parser_config` the file `parser` is not read; "
                "set `parser_config` to null"
            )
        if self.positive_rates is not None:
            rates = getattr(self.trainer.datamodule, "positive_rates", None)  # type: ignore[attr-defined]  # untyped
            if rates is None:
                raise ConfigurationError(
                    "AttributeNet: balanced needs data that counts its attributes; use CelebADataModule"
                )
            self.positive_rates.copy_(torch.from_numpy(rates()))

    def predict_batch(self, batch: Batch) -> tuple[Outputs, Batch]:
        """Describe the pictures of a batch."""
        return Outputs(attributes=self.network(batch["image"], batch.get("landmarks"))), batch


def read_task(path: str, task: str, purpose: str) -> dict[str, Any]:
    """The checkpoint of a task that another is made from; or one clear sentence."""
    name = {"SegNet": "segnet", "AttributeNet": "avg"}[task]
    remedy = f"train one with: facelightning fit --config {name}.yaml"
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"{purpose}: {error}; {remedy}") from None
    found = checkpoint["facelightning_task"]
    if found != task:
        raise CheckpointError(f"{purpose}: {path} holds a {found}, not a {task}; {remedy}")
    return checkpoint


def _load(module: nn.Module, checkpoint: dict[str, Any], path: str) -> None:
    """Give a network, or what holds one as ``network``, the weights of a task's network."""
    prefix = "" if hasattr(module, "network") else "network."
    weights = checkpoint["state_dict"].items()
    restore(module, {key.removeprefix(prefix): value for key, value in weights if key.startswith("network.")}, path)
