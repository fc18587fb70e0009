"""What trained a checkpoint: commands, commits, time, energy."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from facelightning.callbacks.energy import Energy
from facelightning.callbacks.fast import speed_of
from facelightning.checkpoint import Checkpoint, weights_digest
from facelightning.errors import CheckpointError
from facelightning.runs import RunFolder

Training = dict[str, Any]
"""A command that trained, or assembled: see :class:`TrainingRecord`."""

PAUSE = 10
"""Seconds between two looks at the counters of energy, which begin again after a minute or more."""


class TrainingRecord(Callback):
    """Writes into the run folder what has trained its checkpoints, as ``training.json``.

    - ``trainings``: first those of the checkpoints that it starts from, then those before it was resumed, then its own.
      Each has its ``command``; the ``version`` of facelightning; the ``commit`` of the folder in which it was typed,
      ``null`` if that is no git checkout; the ``machine``; when it ``began``; its ``speed``: precision, compilation and
      threads; the ``seconds`` that it took, with all validations; and its ``joules``, see
      :class:`~facelightning.callbacks.energy.Energy`.
    - ``weights``: digests of the weights of all checkpoints that it has written, which tell them from others of the
      same name.

    It is written with each checkpoint, and at the end. Checkpoints hold it too, for a training that is resumed.

    Args:
        command: The words of the command, without the program's name.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = shlex.join(["facelightning", *command])
        self.earlier: list[Training] = []
        self._weights: list[str] = []
        self._own: Training = {}
        self._folder: RunFolder | None = None

    def start_from(self, texts: Iterable[str]) -> None:
        """Remember what has trained the checkpoints among the texts of a configuration."""
        for path in texts:
            if path.endswith(".ckpt") and Path(path).is_file():
                self.earlier += [each for each in trainings_of(path) if each not in self.earlier]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Runs on every process: ``log_dir`` is a collective call."""
        self._folder = RunFolder.of(trainer)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._begin(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Likewise for a task that a test assembles."""
        if getattr(pl_module, "made_of", None) is not None:
            self._begin(trainer)

    def on_train_batch_end(self, *_: Any) -> None:
        """Look at the counters from time to time."""
        self._look()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Likewise."""
        self._look()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember its weights."""
        if trainer.is_global_zero and self._own:
            self._weights += [weights_digest(checkpoint["state_dict"])]
            self._write()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the whole time and energy."""
        if trainer.is_global_zero and self._weights:
            self._write()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {"trainings": self._trainings()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; raises :class:`CheckpointError` if it is not what was written."""
        earlier = state_dict.get("trainings")
        if not isinstance(earlier, list) or not all(isinstance(each, dict) for each in earlier):
            raise CheckpointError("the checkpoint does not say what trained it: it is damaged")
        self.earlier = earlier

    def _begin(self, trainer: L.Trainer) -> None:
        device, several_nodes = trainer.strategy.root_device, trainer.num_nodes > 1
        gpus = trainer.device_ids if device.type == "cuda" else []
        machine = f"{len(gpus)} × {torch.cuda.get_device_name(device)}" if gpus else f"{os.cpu_count()} CPU cores"
        self._own = {
            "command": self.command,
            "version": version("facelightning"),
            "commit": commit(),
            "machine": f"{trainer.num_nodes} machines of {machine}" if several_nodes else machine,
            "began": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
        self._trainer = trainer  # which decides how it computes once the training has begun
        self._began, self._weights = time.monotonic(), []
        self._energy = None if several_nodes else Energy(gpus)  # it counts this machine alone
        self._look_next = self._began + PAUSE

    def _look(self) -> None:
        if self._own and self._energy is not None and time.monotonic() >= self._look_next:
            self._energy.joules()
            self._look_next = time.monotonic() + PAUSE

    def _trainings(self) -> list[Training]:
        if not self._own:
            return self.earlier
        spent = {
            "speed": speed_of(self._trainer),
            "seconds": round(time.monotonic() - self._began, 1),
            "joules": {} if self._energy is None else self._energy.joules(),
        }
        return [*self.earlier, self._own | spent]

    def _write(self) -> None:
        if self._folder is not None:
            self._folder.path.mkdir(parents=True, exist_ok=True)
            content = {"trainings": self._trainings(), "weights": list(dict.fromkeys(self._weights))}
            part = self._folder.training.with_suffix(".part")  # whole or not there
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            part.replace(self._folder.training)


def trainings_of(path: str) -> list[Training]:
    """What has trained a checkpoint, the first first; none if its run folder does not know these very weights.

    Raises:
        CheckpointError: If the record in its run folder is damaged, or the checkpoint beside it.
    """
    run = RunFolder.of_checkpoint(path)
    if run is None or not run.training.is_file():
        return []
    digest = weights_digest(Checkpoint.read(path).weights)
    try:
        record = json.loads(run.training.read_text("utf-8"))
        found: list[Training] = record["trainings"] if digest in record["weights"] else []
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{run.training} is damaged: delete it, and what trained the network is unknown"
        ) from None
    return found


def commit() -> str | None:
    """The commit of the working folder, with ``-dirty`` behind it if files have changed; ``None`` if it has none."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        return None
    return found.stdout.strip() or None
