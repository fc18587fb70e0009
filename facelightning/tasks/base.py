"""What every task shares: one step for training and one for evaluation, scores, optimiser, checkpoints."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor, nn

from facelightning.checkpoint import FORMAT, Checkpoint, built_from, describe, plain, restore_part
from facelightning.errors import CheckpointError, ConfigurationError, DivergenceError
from facelightning.facts import DataFacts, shown_apart
from facelightning.models.encoders import Encoder
from facelightning.models.regions import RegionSource
from facelightning.objectives import Batch, Objective, Output
from facelightning.tasks.lightning_details import end_at_sigterm, requeue_nothing
from facelightning.tasks.predicting import PredictingTask
from facelightning.tasks.saving import AtomicCheckpoints
from facelightning.tasks.scoring import Scoring, check_finite
from facelightning.tasks.sharding import Sharded, shard

TRAINING = (
    "optimizer", "learning_rate", "weight_decay", "schedule", "decayed", "rate_scaling", "parsing_weight",
    "attribute_weight", "similarity_weight", "weights",
)  # fmt: skip
"""Settings that decide how a network is trained, not what it is."""


class FaceTask(PredictingTask):
    """Base of the tasks: a network and its objectives, made for the data.

    Label space, attributes and image size come from the data. Lightning's Trainer builds the task for its data module,
    :func:`facelightning.load_model` for the checkpoint's training data, and :meth:`build` for given facts.
    """

    made_of: str | None = None
    """Name of the argument that lists trained checkpoints, if the task only combines them and learns nothing."""
    any_size = False
    """Whether images may differ in size from the training images."""
    shown: tuple[str, ...] = ("image", "name", "landmarks")
    """What of a batch a prediction may see."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        # a checkpoint has its own weights and needs no initial ones
        self.settings: dict[str, Any] = plain({key: None if key == "weights" else settings[key] for key in settings})
        """The arguments as a checkpoint stores them."""
        self.facts = None
        self.results: dict[str, dict[str, Any]] = {}
        """The scores of the last evaluation of each kind, ``"val"`` and ``"test"``."""

    @classmethod
    def fitted_by_test(cls, settings: Mapping[str, Any]) -> bool:
        """Whether a test fits what these settings leave open; all other commands need the checkpoint that it writes."""
        return False

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the places that the network's ``"region_weights"`` weigh."""
        return cast(tuple[str, ...], self.network.places)

    def make(self, facts: DataFacts) -> tuple[nn.Module, list[Objective]]:
        """The network and the objectives for data with these facts."""
        raise NotImplementedError

    def build(self, facts: DataFacts) -> Self:
        """Build the network and the objectives for data with these facts.

        Raises:
            ConfigurationError: If the data lacks what the task learns.
        """
        self.facts = facts
        self.network, made = self.make(facts)
        for name, part in self.network.named_children():
            if isinstance(part, Encoder | RegionSource) and part.settings:
                self.settings[name]["init_args"] |= part.settings
        objectives = {objective.key: objective for objective in made}
        self.objectives = cast(Mapping[str, Objective], nn.ModuleDict(objectives))
        self.validation, self.testing = Scoring(objectives), Scoring(objectives)
        return self

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """The trained task of a checkpoint, in evaluation mode; raises :class:`CheckpointError` for another task."""
        if checkpoint.task != cls.__name__:
            raise CheckpointError(f"{checkpoint.path} holds {checkpoint.task}, not {cls.__name__}")
        cls.check_shapes(checkpoint)
        with built_from(checkpoint.path):
            task = cls._from_settings(checkpoint)
        checkpoint.load_into(task)
        task.crop_margin = checkpoint.crop_margin
        return task.eval()

    @classmethod
    def check_shapes(cls, checkpoint: Checkpoint) -> None:
        """Refuse weights that do not fit the settings, before a network of any size fills the memory."""
        with built_from(checkpoint.path), torch.device("meta"):
            checkpoint.check_shapes(cls._from_settings(checkpoint))

    @classmethod
    def _from_settings(cls, checkpoint: Checkpoint) -> Self:
        task = cls(**{key: restore_part(value) for key, value in checkpoint.settings.items()})
        return task if task.facts is not None else task.build(DataFacts.of(checkpoint.facts))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **_: Any) -> Self:  # type: ignore[override]  # files only
        """Like :func:`facelightning.load_model`, for a file of this task; nothing in it is executed."""
        return cls.of(Checkpoint.read(checkpoint_path))

    def forward(self, images: Tensor, *others: Tensor) -> Output:
        """The network's output for images ``(B, 3, H, W)``, uint8, or float in [0, 1]; see the network for its keys."""
        return cast(Output, self.network(images, *others))

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """The network's output for a batch, and the ground truth to compare it with."""
        return self.network(batch["image"], batch.get("landmarks")), batch

    def setup(self, stage: str) -> None:
        """Build the network for the data; if it is already built, refuse data that does not match it."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a plugin of the user's stays
            self.trainer.strategy.checkpoint_io = AtomicCheckpoints()
        requeue_nothing(self.trainer)
        self._build_or_check()

    def _build_or_check(self) -> None:
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

    def configure_model(self) -> None:
        """Build the network, which some callbacks copy before ``setup``; shard it, if that is the strategy."""
        if self.facts is None:
            self._build_or_check()
        if isinstance(self.trainer.strategy, Sharded):
            shard(self.network)

    def on_fit_start(self) -> None:
        """Leave the evaluation mode of :func:`facelightning.load_model`; prepare objectives for the training data."""
        self.train()
        facts = self._facts_of_data() or self.facts
        assert facts is not None
        for objective in self.objectives.values():
            objective.prepare(facts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted sum of the losses of all objectives."""
        try:
            output, truth = self.predict_batch(batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigurationError(
                "BatchNorm cannot learn from one image that small: take a larger batch_size or image_size"
            ) from error
        known = {key: each for key, each in self.objectives.items() if each.is_known(output, truth)}
        if known.keys() != self.objectives.keys():
            missing = ", ".join(sorted(self.objectives.keys() - known.keys()))
            raise ConfigurationError(
                f"{type(self).__name__} cannot learn {missing}: the data gives only {', '.join(truth)}"
            )
        losses = {key: objective.loss(output, truth) for key, objective in known.items()}
        for key, objective in known.items():
            if not losses[key].isfinite():
                check_finite(objective, objective.sample_loss(output, truth), truth, self._moment)
                raise DivergenceError(f"the {key} loss is not finite {self._moment}: lower the learning rate")
        total = torch.stack([known[key].weight * loss for key, loss in losses.items()]).sum()
        if self._is_logged:
            self.log("train/loss", total, prog_bar=True)
            self.log_dict({f"train/loss_{key}": loss for key, loss in losses.items()})
        return total

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Output:
        """Score one batch of a validation set; the network's output goes to the callbacks."""
        output, truth = self.predict_batch(batch)
        self.validation.update(output, truth, self._moment)
        return output

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Output:
        """Likewise of a test set."""
        output, truth = self.predict_batch(batch)
        self.testing.update(output, truth, self._moment)
        return output

    def on_validation_start(self) -> None:
        """Discard what an interrupted validation left."""
        end_at_sigterm(self.trainer)
        self.validation.reset()

    def on_test_start(self) -> None:
        """Discard what an interrupted test left."""
        end_at_sigterm(self.trainer)
        self.testing.reset()

    def on_predict_start(self) -> None:
        """Let SIGTERM end the prediction."""
        end_at_sigterm(self.trainer)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole validation set."""
        self._log_results("val", self.validation)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole test set."""
        self._log_results("test", self.testing)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """The prediction of each objective by its key, and the images' ``name``."""
        output, _ = self.predict_batch({key: value for key, value in batch.items() if key in self.shown})
        return {"name": batch["name"], **{key: each.predict(output) for key, each in self.objectives.items()}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what is needed to rebuild the task."""
        assert self.facts is not None
        about = {"format": FORMAT, "task": type(self).__name__, "settings": self.settings, "facts": self.facts.plain()}
        checkpoint["facelightning"] = about

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, or of other data."""
        found = Checkpoint.of(checkpoint)
        if found.task != type(self).__name__:
            raise CheckpointError(f"the checkpoint holds {found.task}, not {type(self).__name__}")
        older = {"decayed": "all", "rate_scaling": "none"}  # files that do not say
        theirs, ours = older | found.settings, self.settings
        free = set(TRAINING)
        if self._trainer is not None and self.trainer.training:  # the optimiser's state fits only the same settings
            free -= {"optimizer", "learning_rate", "weight_decay", "schedule", "decayed", "rate_scaling"}
        keys = [key for key in ours if key not in free and _given(theirs.get(key)) != _given(ours[key])]
        if keys:
            pairs = {key: shown_apart(theirs.get(key), ours[key]) for key in keys}
            values = " and ".join(f"{key} {their} (here {our})" for key, (their, our) in pairs.items())
            raise CheckpointError(f"the checkpoint was trained with {values}: use its settings")
        self.check(DataFacts.of(found.facts), "the checkpoint")

    @property
    def _is_logged(self) -> bool:
        """Whether loggers write this training step, or it is the first: to log the others would only take time."""
        step, every = self.global_step, self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it
        return step == 0 or self.trainer.is_last_batch or (every > 0 and (step + 1) % every == 0)

    @property
    def _moment(self) -> str:
        return f"in epoch {self.current_epoch}, step {self.global_step}"

    def _facts_of_data(self) -> DataFacts | None:
        """``None`` without a data module, or with one that has no facts."""
        facts: DataFacts | None = getattr(getattr(self.trainer, "datamodule", None), "facts", None)
        return facts

    def check(self, facts: DataFacts, whose: str) -> None:
        """Refuse facts that contradict those that the network was built for."""
        assert self.facts is not None
        ours, theirs = self.facts.plain(), facts.plain()
        for key in ("image_size", "label_space", "attributes", "categories"):
            if None in (ours[key], theirs[key]) or ours[key] == theirs[key] or (key == "image_size" and self.any_size):
                continue
            our, their = shown_apart(ours[key], theirs[key])
            raise ConfigurationError(
                f"{type(self).__name__} is built for {key.replace('_', ' ')} {our}, but {whose} has {their}; give both "
                "one"
            )

    def _log_results(self, name: str, scoring: Scoring) -> dict[str, float]:
        losses, scores = scoring.compute()
        if not scores:
            raise ConfigurationError(f"{type(self).__name__}: the {name} data has nothing that this task predicts")
        self.results[name] = scores
        values = {f"loss_{key}": loss for key, loss in losses.items()}
        # as in training, but every sample counts the same; in training, every known entry or pixel of a batch does
        values["loss"] = sum(self.objectives[key].weight * loss for key, loss in losses.items())
        for key, computed in scores.items():
            values |= self.objectives[key].scalars(computed)
        # every process has the same values; sync_dist only tells Lightning so
        logged = {f"{name}/{key}": value for key, value in values.items()}
        self.log_dict(logged, sync_dist=True)
        return logged


def trained(source: str, kinds: Sequence[type[FaceTask]], purpose: str, config: str) -> tuple[str, FaceTask]:
    """A trained task that becomes part of another, and its description as JSON.

    Args:
        source: A checkpoint file; or a description from a checkpoint that holds the weights, which are loaded later.
        kinds: The tasks that it may be.
        purpose: What it is for, for error messages.
        config: Name of a configuration that trains one, for error messages.

    Raises:
        CheckpointError: If the file is missing, broken, or of another task.
    """
    tasks = {kind.__name__: kind for kind in kinds}
    description, checkpoint = describe(source, " or ".join(tasks), purpose, config)
    with built_from(source):
        settings = {key: restore_part(value) for key, value in description["settings"].items()}
        task = tasks[description["task"]](**settings)
        if task.facts is None:
            task.build(DataFacts.of(description["facts"]))
    if checkpoint is not None:
        checkpoint.load_into(task)
    return json.dumps(description), task


def _given(setting: Any) -> Any:
    """A setting without what a part leaves open: a checkpoint may be older than that."""
    if not isinstance(setting, dict) or "init_args" not in setting:
        return setting
    return setting | {"init_args": {key: value for key, value in setting["init_args"].items() if value is not None}}
