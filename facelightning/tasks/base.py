"""What every task shares: one step for training and one for evaluation, scores, optimiser, checkpoints."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Adagrad, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from facelightning.checkpoint import FORMAT, Checkpoint, part_class, plain
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts, shown_apart
from facelightning.objectives import Batch, Objective, Output
from facelightning.tasks.lightning_details import forget_loaders
from facelightning.tasks.scoring import Scoring

TRAINING = ("optimizer", "learning_rate", "weight_decay", "schedule", "parsing_weight", "attribute_weight", "weights")
"""Settings that decide how a network is trained, not what it is."""

NO_PART = "{} must be a class, or a partial of one, which a checkpoint can name; not {!r}"


@dataclass(kw_only=True, eq=False, repr=False)  # two tasks of the same options are two
class Training:
    """How a network is trained: the options of every task that learns; defaults are Kalayeh et al.'s (CVPR 2017, §5).

    Tasks are dataclasses, so that each option is written once, typed, for Python and the command line.

    Args:
        optimizer: The paper's AdaGrad, or AdamW.
        learning_rate: Constant, or the peak of the one-cycle schedule.
        weight_decay: L2 penalty (AdaGrad) or decoupled decay (AdamW).
        schedule: Constant as in the paper, or one cycle over the whole training.
    """

    optimizer: Literal["adagrad", "adamw"] = "adagrad"
    learning_rate: float = 0.001
    weight_decay: float = 0.0005
    schedule: Literal["constant", "one_cycle"] = "constant"

    def __post_init__(self) -> None:
        # the command line has checked its own already, a notebook has not
        for name, choices in {"optimizer": ("adagrad", "adamw"), "schedule": ("constant", "one_cycle")}.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name} must be {' or '.join(choices)}, not {getattr(self, name)!r}")


class FaceTask(L.LightningModule):
    """Base of the tasks: a network and its objectives, made for the data.

    Label space, attributes and image size come from the data: Lightning's Trainer builds the task for its data module,
    :func:`facelightning.load_model` for what the checkpoint was trained on, and :meth:`build` for what one says.
    """

    network: nn.Module
    objectives: Mapping[str, Objective]
    made_of: str | None = None
    """The argument that lists trained checkpoints, if the task is made of them and has nothing to learn."""
    any_size = False
    """Whether images of another size than those of the training may be scored."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings: dict[str, Any] = plain(settings)
        """The arguments as a checkpoint keeps them."""
        self.facts: DataFacts | None = None
        self.results: dict[str, dict[str, Any]] = {}
        """The scores of the last evaluation of each kind, ``"val"`` and ``"test"``."""

    @property
    def places(self) -> tuple[str, ...]:
        """Names of what the ``"region_weights"`` of the network's output weigh."""
        return cast(tuple[str, ...], self.network.places)

    def make(self, facts: DataFacts) -> tuple[nn.Module, list[Objective]]:
        """The network and the objectives for such data."""
        raise NotImplementedError

    def build(self, facts: DataFacts) -> Self:
        """Make the network for such data.

        Raises:
            ConfigurationError: If the data has not what the task learns.
        """
        self.facts = facts
        self.network, made = self.make(facts)
        objectives = {objective.key: objective for objective in made}
        self.objectives = cast(Mapping[str, Objective], nn.ModuleDict(objectives))
        self.validation, self.testing = Scoring(objectives), Scoring(objectives)
        return self

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """What the network says of a batch, and the truth to hold it against."""
        return self.network(batch["image"], batch.get("landmarks")), batch

    def setup(self, stage: str) -> None:
        """Build the network for the data; or, if it is built, refuse other data than it is for."""
        facts = self._facts_of_data()
        if self.facts is None and facts is None:
            raise ConfigurationError(
                f"{type(self).__name__} does not know its data: use a data module of facelightning, or call "
                "build(DataFacts(...)) first"
            )
        if self.facts is None:
            self.build(cast(DataFacts, facts))
        elif facts is not None:
            self.check(facts, "the data")

    def on_fit_start(self) -> None:
        """Leave the evaluation mode of :func:`facelightning.load_model`; let objectives see the training data."""
        self.train()
        facts = self._facts_of_data() or self.facts
        assert facts is not None
        for objective in self.objectives.values():
            objective.prepare(facts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted sum of the losses of all objectives."""
        output, truth = self.predict_batch(batch)
        known = {key: each for key, each in self.objectives.items() if each.is_known(output, truth)}
        if known.keys() != self.objectives.keys():
            missing = ", ".join(sorted(self.objectives.keys() - known.keys()))
            raise ConfigurationError(
                f"{type(self).__name__} cannot learn {missing}: the data gives only {', '.join(truth)}"
            )
        losses = {key: objective.loss(output, truth) for key, objective in known.items()}
        total = torch.stack([known[key].weight * loss for key, loss in losses.items()]).sum()
        self.log("train/loss", total, prog_bar=True)
        self.log_dict({f"train/loss_{key}": loss for key, loss in losses.items()})
        return total

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Output:
        """Count one batch of one of the validation sets; what the network says goes to the callbacks."""
        output, truth = self.predict_batch(batch)
        self.validation.update(output, truth)
        return output

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
        """What each objective predicts, by its key, with ``name``."""
        shown = ("image", "name", "landmarks")
        output, _ = self.predict_batch({key: value for key, value in batch.items() if key in shown})
        return {"name": batch["name"], **{key: each.predict(output) for key, each in self.objectives.items()}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down what is needed to build the task anew."""
        assert self.facts is not None
        about = {"format": FORMAT, "task": type(self).__name__, "settings": self.settings, "facts": self.facts.plain()}
        checkpoint["facelightning"] = about

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, or of other data."""
        found = Checkpoint.of(checkpoint)
        if found.task != type(self).__name__:
            raise CheckpointError(f"the checkpoint holds a {found.task}, not a {type(self).__name__}")
        theirs, ours = found.settings, self.settings
        free = set(TRAINING)
        if self._trainer is not None and self.trainer.training:  # what they have seen is of no use to others
            free -= {"optimizer", "learning_rate", "weight_decay", "schedule"}
        keys = [key for key in ours if key not in free and theirs.get(key) != ours[key]]
        if keys:
            pairs = {key: shown_apart(theirs.get(key), ours[key]) for key in keys}
            values = " and ".join(f"{key} {their} (here {our})" for key, (their, our) in pairs.items())
            raise CheckpointError(f"the checkpoint was trained with {values}: take its settings")
        self.check(DataFacts.of(found.facts), "the checkpoint")

    def _facts_of_data(self) -> DataFacts | None:
        """``None`` without a data module, or with somebody else's."""
        facts: DataFacts | None = getattr(getattr(self.trainer, "datamodule", None), "facts", None)
        return facts

    def check(self, facts: DataFacts, whose: str) -> None:
        """Refuse facts that contradict those that the network is built for."""
        assert self.facts is not None
        ours, theirs = self.facts.plain(), facts.plain()
        for key, name in (("image_size", "image size"), ("label_space", "label space"), ("attributes", "attributes")):
            if None in (ours[key], theirs[key]) or ours[key] == theirs[key] or (key == "image_size" and self.any_size):
                continue
            our, their = shown_apart(ours[key], theirs[key])
            raise ConfigurationError(
                f"{type(self).__name__} is built for {name} {our}, but {whose} has {their}; give both one"
            )

    def _log_results(self, name: str, scoring: Scoring) -> None:
        losses, scores = scoring.compute()
        if not scores:
            raise ConfigurationError(f"{type(self).__name__}: the {name} data has nothing that this task predicts")
        self.results[name] = scores
        values = {f"loss_{key}": loss for key, loss in losses.items()}
        # as in training, but each sample counts the same, whatever its batch: known entries or pixels do there
        values["loss"] = sum(self.objectives[key].weight * loss for key, loss in losses.items())
        for key, computed in scores.items():
            values |= self.objectives[key].scalars(computed)
        # every process has the same values; sync_dist only tells Lightning so
        self.log_dict({f"{name}/{key}": value for key, value in values.items()}, sync_dist=True)


class LearningTask(Training, FaceTask):
    """Base of the tasks that learn: their arguments are dataclass fields."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in fields(self):
            value = getattr(self, field.name)
            if callable(value) and part_class(value) is None:
                raise ConfigurationError(NO_PART.format(field.name, value))
        # super() would reach the options' constructor, and reset them
        FaceTask.__init__(self, {field.name: getattr(self, field.name) for field in fields(self)})

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse an instance as a part: a task makes its own, once it knows the data."""
        if isinstance(value, nn.Module) and "_modules" not in vars(self):
            raise ConfigurationError(NO_PART.format(name, value))
        super().__setattr__(name, value)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make what is random in a network, such as dropout, a function of (seed, epoch, batch): resuming is exact."""
        keys = (int(os.environ.get("PL_GLOBAL_SEED", 0)), self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(keys).generate_state(1)[0]))

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
        forget_loaders(self.trainer)
        momentum = self.optimizer == "adamw"  # AdaGrad has none to cycle
        scheduler = OneCycleLR(optimizer, self.learning_rate, int(steps), cycle_momentum=momentum)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
