"""What every task shares: one step for training and one for evaluation, scores, optimiser, checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, cast

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Adagrad, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics import MeanMetric, Metric

from facelightning.errors import ConfigurationError
from facelightning.labels import LabelSpace
from facelightning.losses import attribute_loss, parsing_loss
from facelightning.metrics import AttributeScores, ParsingScores

Batch = Mapping[str, Any]


class Outputs(TypedDict, total=False):
    """What a network says of a batch: only the parts that it predicts."""

    parsing: list[Tensor]
    """Logits ``(B, K, h, w)``, coarse to fine."""
    attributes: Tensor
    """Logits ``(B, A)``."""


class Scoring(nn.Module):
    """The losses and scores of one evaluation: exact on any number of processes, whatever the batches.

    Args:
        labels: The parsing classes, if parsing is scored.
        attributes: Whether attributes are scored.
    """

    def __init__(self, labels: LabelSpace | None, attributes: bool) -> None:
        super().__init__()
        scores: dict[str, Metric] = {}
        if labels is not None:
            scores["parsing"] = ParsingScores(labels)
        if attributes:
            scores["attributes"] = AttributeScores()
        # modules, so that they move to the device with the task; used as the metrics that they are
        self.scores = cast(dict[str, Metric], nn.ModuleDict(scores))
        self.losses = cast(dict[str, Metric], nn.ModuleDict({part: MeanMetric() for part in scores}))

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Count one batch: the parts that are both predicted and known."""
        for part, losses in sample_losses(outputs, batch).items():
            self.losses[part].update(losses)
        if "parsing" in outputs and "mask" in batch:
            self.scores["parsing"].update(outputs["parsing"][-1], batch["mask"])
        if "attributes" in outputs and "attributes" in batch:
            self.scores["attributes"].update(outputs["attributes"], batch["attributes"])

    def compute(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Mean losses and scores of each part that was counted; then start afresh."""
        counted = [part for part, score in self.scores.items() if score.update_called]
        losses = {part: float(self.losses[part].compute()) for part in counted}
        scores = {part: self.scores[part].compute() for part in counted}
        self.reset()
        return losses, scores

    def reset(self) -> None:
        """Start afresh."""
        for metric in (*self.losses.values(), *self.scores.values()):
            metric.reset()


def sample_losses(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Each sample's own loss ``(B,)``: a mean of these does not depend on how samples were put into batches."""
    losses: dict[str, Tensor] = {}
    if "parsing" in outputs and "mask" in batch:
        scales, mask = outputs["parsing"], batch["mask"]
        each = [parsing_loss([logits[i : i + 1] for logits in scales], mask[i : i + 1]) for i in range(len(mask))]
        losses["parsing"] = torch.stack(each)
    if "attributes" in outputs and "attributes" in batch:
        pairs = zip(outputs["attributes"], batch["attributes"], strict=True)
        losses["attributes"] = torch.stack([attribute_loss(logits, targets) for logits, targets in pairs])
    return losses


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a misspelt setting; the command line has checked its own already, a notebook has not."""
    if value not in choices:
        raise ConfigurationError(f"{name} must be {' or '.join(choices)}, not {value!r}")


class FaceTask(L.LightningModule):
    """Base of the tasks: a subclass makes ``network`` and says what it predicts.

    Args:
        labels: The label space of the parsing, if the task predicts one.
        attributes: Whether the task predicts attributes.
        optimizer: ``adagrad`` is the paper's (Kalayeh et al., CVPR 2017, §5).
        learning_rate: Constant, or the peak of the one-cycle schedule.
        weight_decay: L2 penalty (AdaGrad) or decoupled decay (AdamW).
        schedule: ``constant`` as in the paper, or ``one_cycle`` over the whole training.
    """

    network: nn.Module
    loss_weights: Mapping[str, float] = {"parsing": 1.0, "attributes": 1.0}
    positive_rates: Tensor | None
    """The attributes' rates ``(A,)`` by which training balances its loss; ``None`` where it does not."""

    def __init__(
        self,
        labels: LabelSpace | None,
        attributes: bool,
        optimizer: Literal["adagrad", "adamw"],
        learning_rate: float,
        weight_decay: float,
        schedule: Literal["constant", "one_cycle"],
    ) -> None:
        super().__init__()
        check_choice("optimizer", optimizer, ("adagrad", "adamw"))
        check_choice("schedule", schedule, ("constant", "one_cycle"))
        self.labels = labels
        self.optimizer, self.schedule = optimizer, schedule
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.validation = Scoring(labels, attributes)
        self.testing = Scoring(labels, attributes)
        self.register_buffer("positive_rates", None)
        self.results: dict[str, dict[str, Any]] = {}
        """The scores of the last evaluation of each kind, ``"val"`` and ``"test"``."""

    def predict_batch(self, batch: Batch) -> tuple[Outputs, Batch]:
        """What the network says of a batch, and the truth to hold it against."""
        raise NotImplementedError

    @property
    def regions(self) -> tuple[str, ...] | None:
        """The regions that :meth:`region_weights` weighs; ``None`` for a network that weighs none."""
        return None

    def region_weights(self, batch: Batch) -> Tensor:
        """How much each region counts for each attribute of a batch, ``(B, N, A)``, summing to 1 over regions."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Refuse masks of another label space than the network's, whose indices mean something else."""
        datamodule = getattr(self.trainer, "datamodule", None)
        found = getattr(datamodule, "labels", None)
        if self.labels is not None and found is not None and found != self.labels.name:
            raise ConfigurationError(
                f"the model parses {self.labels.name}, but {type(datamodule).__name__} gives masks of {found}; "
                "set both to one label space"
            )

    def on_fit_start(self) -> None:
        """Leave the evaluation mode of :func:`facelightning.load_model`, which Lightning would keep."""
        self.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted sum of the losses of all parts."""
        outputs, truth = self.predict_batch(batch)
        losses: dict[str, Tensor] = {}
        if "parsing" in outputs and "mask" in truth:
            losses["parsing"] = parsing_loss(outputs["parsing"], truth["mask"])
        if "attributes" in outputs and "attributes" in truth:
            losses["attributes"] = attribute_loss(outputs["attributes"], truth["attributes"], self.positive_rates)
        if losses.keys() != outputs.keys():
            missing = ", ".join(sorted(outputs.keys() - losses.keys()))
            raise ConfigurationError(
                f"{type(self).__name__} cannot learn {missing}: the data gives only {', '.join(truth)}"
            )
        total = torch.stack([self.loss_weights[part] * loss for part, loss in losses.items()]).sum()
        self.log("train/loss", total, prog_bar=True)
        self.log_dict({f"train/loss_{part}": loss for part, loss in losses.items()})
        return total

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count one batch of one of the validation sets."""
        self.validation.update(*self.predict_batch(batch))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count one batch of one of the test sets."""
        self.testing.update(*self.predict_batch(batch))

    def on_validation_start(self) -> None:
        """Forget what an interrupted validation left."""
        self.validation.reset()

    def on_test_start(self) -> None:
        """Forget what an interrupted test left."""
        self.testing.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole validation set."""
        self._log_results("val", self.validation)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole test set."""
        self._log_results("test", self.testing)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Probabilities ``attributes`` ``(B, A)`` and class indices ``parsing`` ``(B, H, W)``, with ``name``."""
        shown = ("image", "name", "landmarks")
        outputs, _ = self.predict_batch({key: value for key, value in batch.items() if key in shown})
        prediction: dict[str, Any] = {"name": batch["name"]}
        if "parsing" in outputs:
            prediction["parsing"] = outputs["parsing"][-1].max(dim=1).indices
        if "attributes" in outputs:
            prediction["attributes"] = outputs["attributes"].float().sigmoid()
        return prediction

    def configure_optimizers(self) -> Optimizer | OptimizerLRSchedulerConfig:
        """The optimiser over everything that is not frozen, and its schedule."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        make = {"adagrad": Adagrad, "adamw": AdamW}[self.optimizer]
        optimizer: Optimizer = make(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ConfigurationError("the one_cycle schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        # counting made the loaders before a checkpoint's place in them is restored; made again, they will resume there
        self.trainer.fit_loop._combined_loader = None
        momentum = self.optimizer == "adamw"  # AdaGrad has none to cycle
        scheduler = OneCycleLR(optimizer, self.learning_rate, int(steps), cycle_momentum=momentum)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the task, so that :func:`facelightning.load_model` finds it."""
        checkpoint["facelightning_task"] = type(self).__name__

    def _log_results(self, name: str, scoring: Scoring) -> None:
        losses, scores = scoring.compute()
        if not scores:
            raise ConfigurationError(f"{type(self).__name__}: the {name} data has nothing that this task predicts")
        self.results[name] = scores
        values = {f"loss_{part}": loss for part, loss in losses.items()}
        values["loss"] = sum(self.loss_weights[part] * loss for part, loss in losses.items())
        if "parsing" in scores:
            parsing = scores["parsing"]
            values |= {key: parsing[key] for key in ("mean_iou", "mean_f1", "overall_f1")}
            values |= {f"iou_{label}": iou for label, iou in parsing["iou"].items() if iou == iou}  # NaN: absent
        if "attributes" in scores:
            values |= {key: scores["attributes"][key] for key in ("error", "mean_ap", "balanced_accuracy")}
        # every process has the same values; sync_dist only tells Lightning so
        self.log_dict({f"{name}/{key}": value for key, value in values.items()}, sync_dist=True)
