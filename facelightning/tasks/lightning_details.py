"""What Lightning offers no public API for; each function says which versions need it."""

import signal
import sys
import threading
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerFn


def forget_loaders(trainer: L.Trainer) -> None:
    """Make Lightning create the training loaders again: counting the training's steps created them too early.

    Lightning 2.5 and 2.6 restore the loaders' state from a checkpoint only when they create them.
    """
    trainer.fit_loop._combined_loader = None


def begin_next_epoch(trainer: L.Trainer) -> None:
    """Resume with the next epoch if the checkpoint was written after the last batch of one.

    Lightning 2.5 and 2.6 forget to count the next epoch, so that a second interruption repeats one; or, after a
    validation that only the end of the training called for, take one more batch; or count a training's last epoch
    twice, so that the next one is left out. Call it in ``on_train_start``.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end and loop.epoch_loop.batch_progress.is_last_batch:
        loop.epoch_progress.increment_completed()
        loop.epoch_loop.restarting = False
        loop.reset_restart_stage()
    if loop.restarted_mid_epoch and loop.epoch_loop.batch_progress.is_last_batch:
        if trainer.current_epoch < loop.epoch_progress.current.ready:  # written after a validation
            loop.epoch_progress.increment_processed()
            loop.epoch_progress.increment_completed()
            loop.epoch_loop.restarting = False
        loop.reset_restart_stage()


def keep_epoch_unfinished(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Let a training that ended amid an epoch go on within it; call it in ``on_save_checkpoint``.

    Lightning 2.5 and 2.6 count the epoch as processed before the last checkpoint is written: a resumed training with
    more steps would leave out the rest of its batches.
    """
    loop = trainer.fit_loop
    epoch: Any = loop.epoch_progress.current
    batch = loop.epoch_loop.batch_progress
    if epoch.completed < epoch.processed == epoch.started and batch.current.ready > 0 and not batch.is_last_batch:
        for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            counts["processed"] -= 1
        checkpoint["epoch"] -= 1


def requeue_nothing(trainer: L.Trainer) -> None:
    """Let SLURM alone decide whether a job starts again; call it in ``setup``.

    Lightning 2.5 and 2.6 answer SLURM's signal within its handler, by a checkpoint that several processes write amid
    other communication: they wait for one another forever. Where one was written, each later training of that folder
    would resume from it without being asked.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False


def end_at_sigterm(trainer: L.Trainer) -> None:
    """Let SIGTERM end a command that Lightning does not; call it when training, validation, test or prediction start.

    Lightning 2.5 and 2.6 end a training on one process, but no other command. Several processes they tell by a
    broadcast within the signal's handler, amid other communication: they wait for one another forever. The handler
    before theirs returns when the command ends.
    """
    ours = trainer.world_size > 1 or trainer.state.fn != TrainerFn.FITTING
    if ours and threading.current_thread() is threading.main_thread():

        def end(*_: object) -> None:
            # of the first process; torchrun and SLURM end those that they started
            for process in getattr(trainer.strategy.launcher, "procs", []):
                process.kill()
                process.wait()
            sys.exit(143)

        signal.signal(signal.SIGTERM, end)
