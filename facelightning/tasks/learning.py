"""Tasks that learn: their options, optimiser and schedule, and the exact resuming of an interrupted training."""

import math
import os
import warnings
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Adagrad, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from facelightning.checkpoint import part_class
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.heads import ClusterHead
from facelightning.objectives import Batch, QuintupletAttributes
from facelightning.tasks.base import FaceTask
from facelightning.tasks.lightning_details import (
    begin_next_epoch,
    end_at_sigterm,
    forget_loaders,
    keep_epoch_unfinished,
)

NO_PART = "{} must be a class, or a partial of one, which a checkpoint can name; not {!r}"

CHOICES = {
    "optimizer": ("adagrad", "adamw"), "schedule": ("constant", "one_cycle"), "decayed": ("all", "kernels"),
    "rate_scaling": ("none", "square_root", "linear"),
}  # fmt: skip


@dataclass(kw_only=True, eq=False, repr=False)  # tasks compare by identity, not by options
class Training:
    """How a network is trained: the options of every task that learns; defaults are Kalayeh et al.'s (CVPR 2017, §5).

    Tasks are dataclasses, so that each option is written once, typed, for Python and the command line.

    Args:
        optimizer: The paper's AdaGrad, or AdamW.
        learning_rate: Constant, or the peak of the one-cycle schedule.
        weight_decay: L2 penalty (AdaGrad) or decoupled decay (AdamW).
        schedule: Constant as in the paper, or one cycle over the whole training.
        decayed: Whether ``"all"`` parameters decay, as in the paper for all it says, or only ``"kernels"``, of two or
            more dimensions: neither biases, nor those of BatchNorm and PReLU. AdaGrad divides a gradient by what it has
            been so far, so where the penalty is most of it, a parameter shrinks as fast as others learn.
        rate_scaling: What multiplies the rate where a step learns from N batches, of several processes or accumulated:
            nothing; √N, which Malladi et al. (2022) [1]_ derive for Adam; or N, which Goyal et al. (2017) [2]_ found to
            suit SGD. Neither speaks of AdaGrad. A resumed training keeps the rate that it began with.

    .. [1] "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022.
    .. [2] "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017; they begin with a smaller one.
    """

    optimizer: Literal["adagrad", "adamw"] = "adagrad"
    learning_rate: float = 0.001
    weight_decay: float = 0.0005
    schedule: Literal["constant", "one_cycle"] = "constant"
    decayed: Literal["all", "kernels"] = "all"
    rate_scaling: Literal["none", "square_root", "linear"] = "none"

    def __post_init__(self) -> None:
        # the command line checks choices itself, a notebook does not
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name} must be {' or '.join(choices)}, not {getattr(self, name)!r}")
        for name, low, high in (("learning_rate", 1e-12, 1e6), ("weight_decay", 0, 1e6), ("width", 1, 1024)):
            if not low <= getattr(self, name, low) <= high:
                raise ConfigurationError(f"{name} must lie in {low:g}...{high:g}, not {getattr(self, name)}")


class OneCycle(OneCycleLR):
    """A one-cycle schedule that stretches to a longer training: the rate depends on the step and the planned steps."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume at a checkpoint's step, with the steps planned for this training."""
        planned, step = state_dict["total_steps"], state_dict["last_epoch"]
        super().load_state_dict({key: state_dict[key] for key in ("last_epoch", "_step_count", "_last_lr")})
        if planned == self.total_steps or step >= self.total_steps:
            return
        what = "had ended: it restarts warm" if step >= planned - 1 else "goes on"
        rank_zero_info(
            f"the one-cycle schedule of {planned} steps {what} at step {step} of a plan of {self.total_steps} steps"
        )
        with warnings.catch_warnings(action="ignore"):  # it prefers the last rate, which is that of the other plan
            rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


class LearningTask(Training, FaceTask):
    """Base of the tasks that learn: their arguments are dataclass fields."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in fields(self):
            value = getattr(self, field.name)
            if (callable(value) and part_class(value) is None) or (value is None and field.default is not None):
                raise ConfigurationError(NO_PART.format(field.name, value))
        # super() would call the dataclass constructor, which resets the options
        FaceTask.__init__(self, {field.name: getattr(self, field.name) for field in fields(self)})
        self._gradients: dict[str, Tensor] = {}
        self._resumed_at: int | None = None
        self._unmeasured: set[str] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a module instance as a part: a task creates its parts itself, once it knows the data."""
        if isinstance(value, nn.Module) and "_modules" not in vars(self):
            raise ConfigurationError(NO_PART.format(name, value))
        super().__setattr__(name, value)

    def build(self, facts: DataFacts) -> Self:
        """Build it; clusters are learned by quintuplets, and by nothing else."""
        super().build(facts)
        head = getattr(self.network, "head", None)
        learned = any(isinstance(objective, QuintupletAttributes) for objective in self.objectives.values())
        if learned != isinstance(head, ClusterHead):
            raise ConfigurationError(
                f"{type(self).__name__}: the head ClusterHead and the objective QuintupletAttributes need each other; "
                "set both, as lmle.yaml does"
            )
        return self

    @property
    def _rate(self) -> float:
        """The learning rate for as many images as a step learns from."""
        if self.rate_scaling == "none":
            return self.learning_rate
        batches = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return self.learning_rate * (batches if self.rate_scaling == "linear" else math.sqrt(batches))

    @property
    def _accumulating(self) -> bool:
        """Whether gradients of some batches wait for those of others."""
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return progress.current.ready % self.trainer.accumulate_grad_batches > 0 and not progress.is_last_batch

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed random layers such as dropout by (seed, epoch, batch), so that resuming is exact.

        Raises:
            ConfigurationError: If the batch is still to be augmented on its device.
        """
        if any("seed" in part for part in (batch, *batch.values()) if isinstance(part, dict)):
            raise ConfigurationError(
                "the images of a training batch are not augmented yet, as DeviceAugmentation leaves that to the data "
                "module: give it to the trainer, not its loader"
            )
        keys = (int(os.environ.get("PL_GLOBAL_SEED", 0)), self.current_epoch, batch_idx, self.global_rank)
        seed = int(np.random.SeedSequence(keys).generate_state(1)[0])
        if self.device.type == "cpu":  # at once: torch.manual_seed also prepares to seed devices that are not there
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Validate after the last step, so that a training of any length ends with scores and a best checkpoint.

        Within an accumulation, give every process the BatchNorm statistics of the first: DDP does so only before it,
        and a checkpoint holds only these.
        """
        if self.trainer.world_size > 1 and self._accumulating:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)
        trainer, progress = self.trainer, self.trainer.fit_loop.epoch_loop.batch_progress
        last_step = 0 <= trainer.max_steps <= trainer.global_step
        last_epoch = trainer.max_epochs is not None and 0 < trainer.max_epochs <= self.current_epoch + 1
        if last_step or (last_epoch and progress.is_last_batch):
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = trainer.check_val_every_n_epoch and 1  # of this epoch too

    def on_validation_epoch_end(self) -> None:
        """Log the scores; say once if one that decides which checkpoint is the best is not a number."""
        values = self._log_results("val", self.validation)
        if self.trainer.state.fn != TrainerFn.FITTING or self.trainer.sanity_checking:
            return
        monitored = {str(getattr(callback, "monitor", None)) for callback in self.trainer.checkpoint_callbacks}
        unmeasured = {key for key in monitored & values.keys() if math.isnan(values[key])}
        for key in sorted(unmeasured - self._unmeasured):
            rank_zero_info(
                f"{key} is not a number, so it cannot tell which checkpoint is the best: the val data has nothing to "
                "measure it by; take other data, or monitor another score"
            )
        self._unmeasured |= unmeasured

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also store that an epoch is unfinished, and what an unfinished accumulation has added up on each process."""
        super().on_save_checkpoint(checkpoint)
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        keep_epoch_unfinished(self.trainer, checkpoint)
        if self._accumulating:
            gradients = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
            rows = {name: cast(Tensor, self.all_gather(gradient)) for name, gradient in gradients.items()}
            shape = (self.trainer.world_size, -1)
            checkpoint["facelightning_gradients"] = {name: row.reshape(shape).clone() for name, row in rows.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or of other data; keep its accumulated gradients."""
        super().on_load_checkpoint(checkpoint)
        fitting = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if fitting and not (checkpoint.get("optimizer_states", [1]) and checkpoint.get("loops", {}).get("fit_loop")):
            raise CheckpointError("the checkpoint has no state of an optimiser or of a training: it is damaged")
        gradients = checkpoint.get("facelightning_gradients", {})
        sizes = {name: parameter.numel() for name, parameter in self.named_parameters()}
        if not isinstance(gradients, dict) or not all(
            isinstance(rows, Tensor) and rows.ndim == 2 and rows.shape[1] == sizes.get(name)
            for name, rows in gradients.items()
        ):
            raise CheckpointError("the gradients in the checkpoint do not fit the network: it is damaged")
        self._gradients = gradients
        self._resumed_at = checkpoint.get("global_step")

    def on_train_start(self) -> None:
        """Resume an interrupted accumulation of gradients, or the epoch after a finished one."""
        begin_next_epoch(self.trainer)
        end_at_sigterm(self.trainer)
        gradients, self._gradients = self._gradients, {}
        for name, parameter in self.named_parameters():
            if name in gradients:
                if len(gradients[name]) != self.trainer.world_size:
                    raise CheckpointError(
                        f"the checkpoint was written amid an accumulation of gradients on {len(gradients[name])} "
                        f"processes, but there are {self.trainer.world_size}: resume on as many"
                    )
                parameter.grad = gradients[name][self.global_rank].reshape(parameter.shape).to(parameter)

    def on_fit_end(self) -> None:
        """Say if nothing was left to train."""
        if self.trainer.global_step == self._resumed_at:
            rank_zero_info(
                f"nothing was trained: the checkpoint is at the end, step {self._resumed_at}; to go on, raise "
                "trainer.max_steps or trainer.max_epochs"
            )

    def configure_optimizers(self) -> Optimizer | OptimizerLRSchedulerConfig:
        """The optimiser of all parameters that are not frozen, and its schedule."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": parameters}]
        if self.decayed == "kernels":
            groups = [{"params": [p for p in parameters if p.ndim > 1]}]
            groups += [{"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
        # AdamW for all tensors at once: the same to the bit in less time; AdaGrad would take longer
        make = Adagrad if self.optimizer == "adagrad" else partial(AdamW, foreach=True)
        optimizer: Optimizer = make(groups, lr=self._rate, weight_decay=self.weight_decay)
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ConfigurationError("the one_cycle schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        if steps < 1:
            raise ConfigurationError("there is nothing to train: the limits of the trainer leave no batch and no step")
        forget_loaders(self.trainer)
        momentum = self.optimizer == "adamw"  # AdaGrad has none to cycle
        scheduler = OneCycle(optimizer, self._rate, int(steps), cycle_momentum=momentum)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
