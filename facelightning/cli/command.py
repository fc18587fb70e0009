"""LightningCLI that builds task, data module and trainer from YAML or from a checkpoint."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only
from torch import cuda
from torch.backends import mps

from facelightning.callbacks import Fast, Figures, PredictionWriter, Report, TrainingRecord
from facelightning.checkpoint import Checkpoint, built_from
from facelightning.cli.arguments import beside_checkpoint, merge, nulls, options, set_sizes, sizes, texts, with_recipe
from facelightning.cli.dashboards import name_runs
from facelightning.cli.output import quiet
from facelightning.cli.parser import ConfigFile, FaceParser
from facelightning.cli.processes import end_together
from facelightning.configs import load_yaml
from facelightning.data import FaceDataModule, JointDataModule
from facelightning.errors import CheckpointError, ConfigurationError, FacelightningError, quoted
from facelightning.facts import DataFacts, shown
from facelightning.runs import RunFolder
from facelightning.tasks import TASKS, FaceTask

NEEDED = "a trained model: pass its file, such as --ckpt_path=runs/NAME/version_0/checkpoints/best.ckpt"

RESTORED = (
    "torch.optim",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.pytorch.callbacks.model_checkpoint",
)
"""Modules that restore a training's state, or use what was restored."""


class SaveConfig(SaveConfigCallback):
    """Writes the complete configuration into the run folder, to every logger, and into checkpoints."""

    folder: RunFolder | None = None  # until the processes have found one another

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Runs on every process: ``log_dir`` is a collective call."""
        self.folder = RunFolder.of(trainer)
        self.text = self.parser.dump(self.config, skip_none=False, skip_validation=True)  # parsing has validated it
        self.content = load_yaml(self.text)
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Runs on the first process only."""
        for logger in trainer.loggers:
            logger.log_hyperparams({"config": self.content})
        if self.folder is not None:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self.folder.config.write_text(self.text, encoding="utf-8")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the folder of a run that failed before it wrote anything else."""
        if self.folder is not None and trainer.is_global_zero and self.folder.path.is_dir():
            files = list(self.folder.path.iterdir())
            if {file.name for file in files} <= {"config.yaml", "hparams.yaml"}:
                for file in files:
                    file.unlink()
                self.folder.path.rmdir()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the configuration that a test or prediction needs when none is given."""
        checkpoint["facelightning_config"] = self.content


class FaceCLI(LightningCLI):
    """``facelightning {fit,validate,test,predict}``, and the parser of the other commands that take a checkpoint.

    A checkpoint knows its task, its data module and its image size: with ``--ckpt_path``, ``--config`` is not needed.

    Args:
        args: The command line without the program's name.
        typed: What the user typed instead, if another command has made these words.
    """

    own_command: str | None = None
    """Name of the command, for a subclass whose command is not one of the four."""

    def __init__(self, args: Sequence[str], typed: Sequence[str] | None = None) -> None:
        quiet()
        self.command = self.own_command or args[0]
        self.checkpoint: Checkpoint | None = None
        self.any_size = False
        self.record = TrainingRecord(typed or args)
        self.config_dump: dict[str, Any] = {}  # what Lightning would keep as hyperparameters: SaveConfig keeps all
        try:
            super().__init__(
                FaceTask,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,  # a task configures its own
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                seed_everything_default=0,
                # our samplers split the data between processes; Report says what Lightning's table would
                trainer_defaults={
                    "use_distributed_sampler": False,
                    "enable_model_summary": False,
                    "callbacks": [self.record],
                },
                parser_class=FaceParser,
                args=list(args),
                run=self.own_command is None,
            )
        except Exception as error:
            if hasattr(self, "trainer"):
                end_together(self.trainer, error)
            if self.command == "fit":
                self._check_resumed(error)
            raise

    def _check_resumed(self, error: Exception) -> None:
        """Name the checkpoint if what it held of optimiser, schedule or callbacks has caused an error."""
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        if any(frame.f_code.co_name == "training_step" for frame in frames):  # an optimiser calls it
            return
        homes = {frame.f_globals.get("__name__", "") for frame in frames}
        kinds = (TypeError, KeyError, AttributeError, ValueError, IndexError)
        restored = isinstance(error, kinds) and any(home.startswith(RESTORED) for home in homes)
        stepped = type(error) is RuntimeError and any(home.startswith("torch.optim") for home in homes)
        if self.checkpoint is not None and (restored or stepped) and not isinstance(error, FacelightningError):
            reason = quoted(f"{type(error).__name__}: {error}", 100)
            raise CheckpointError(
                f"{self.checkpoint.path} cannot be resumed ({reason}): the state of its training is damaged"
            ) from error

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in Lightning
        """The one that is called; Lightning would build the parsers of all four."""
        every = LightningCLI.subcommands()
        return every if self.own_command else {self.command: every[self.command]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose ``--config`` finds bundled files."""
        epilog = "Keys of a task or of data: --model.help=JointNet, --data.help=CelebADataModule"
        parser = FaceParser(**kwargs, epilog=epilog)
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help="YAML file, or the name of a bundled one; later ones win"
        )
        parser.add_argument("--recipe", help="name of a bundled recipe: size, optimiser and length of the training")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The callbacks that every run has, and the option to test after training."""
        parser.add_lightning_class_args(Report, "report")
        parser.add_lightning_class_args(Figures, "figures")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="Score the best checkpoint on the test data."
        )
        parser.add_argument(
            "--speed",
            type=Literal["auto", "plain"],
            default="plain",
            help="auto trains as fast as this machine can; plain as the trainer says, in float32 if it says nothing.",
        )

    @property
    def settings(self) -> Namespace:
        """The configuration of the command."""
        settings: Namespace = self.config[self.config["subcommand"]] if "subcommand" in self.config else self.config
        return settings

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, completed from the checkpoint."""
        words, command = with_recipe(args), self.command
        configs, training = merge(words), command in ("fit", "bench", "shard")
        path = [configs.get("ckpt_path"), *(path for *_, path in options(words, "--ckpt_path"))][-1]
        helps = ("--model", "--data.help", "-h", "--help", "--print_config")
        if path in ("best", "last", "hpc"):  # Lightning would look for one, and train from the start without
            example = NEEDED.replace("best.ckpt", "last.ckpt") if training else NEEDED
            raise ConfigurationError(f"--ckpt_path={path} names no file: {command} needs {example}")
        if path is not None:
            self.checkpoint = Checkpoint.read(str(path))
            words = beside_checkpoint(words, self.checkpoint, configs, training)
            if not configs:  # they may name parts of the user's own, which only parsing imports
                TASKS[self.checkpoint.task].check_shapes(self.checkpoint)
        elif not configs and not any(word.startswith(helps) for word in words):
            what = "a configuration: --config quickstart.yaml" if training else NEEDED
            raise ConfigurationError(f"{command} needs {what}")
        self.config = parser.parse_args(nulls(words))
        settings = self.settings
        if settings.recipe is not None:  # from a file: --recipe on the command line is already replaced
            raise ConfigurationError(f"recipe {settings.recipe} in a configuration does nothing: pass --recipe")
        if self.checkpoint is not None:
            settings.ckpt_path = (
                None  # until all is parsed: Lightning would read it for hyperparameters, which none has
            )
        for key in ("verbose", "return_predictions"):  # Report prints scores; kept predictions fill memory
            if key in settings:
                settings[key] = False
        _check_trainer(settings.trainer)
        limit = {"validate": "limit_val_batches", "test": "limit_test_batches", "predict": "limit_predict_batches"}
        if command in limit and settings.trainer.get(limit[command]) == 0:
            raise ConfigurationError(f"trainer.{limit[command]} 0 leaves nothing to {command}")
        name, source = settings.model.class_path.rpartition(".")[2], self.checkpoint
        made_of = TASKS.get(name, FaceTask).made_of
        if source is not None and source.task != name:
            raise CheckpointError(f"{source.path} holds {source.task}, not {name}")
        if made_of is not None and training:
            raise ConfigurationError(f"{name} has nothing to learn: `facelightning test` writes its checkpoint")
        if made_of is not None and source is None:
            if command != "test" and TASKS[name].fitted_by_test(settings.model.init_args):
                raise ConfigurationError(
                    f"{name} is fitted by `facelightning test`, which writes a checkpoint: {command} needs that one"
                )
            parts = settings.model.init_args[made_of]
            parts = [parts] if isinstance(parts, str) else parts
            source = Checkpoint.read(parts[0]) if parts else None
        elif source is None and not training:
            raise ConfigurationError(f"{command} needs {NEEDED}")
        if source is not None and not TASKS.get(name, FaceTask).any_size:
            self._follow_size(source, configs, words, training)

    def _follow_size(
        self, source: Checkpoint, configs: Mapping[str, Any], words: Sequence[str], training: bool
    ) -> None:
        """Take the images' size from a checkpoint, unless the command line says another."""
        with built_from(source.path):
            size = DataFacts.of(source.facts).plain()["image_size"]
        asked, data = any(re.match(r"--data\b.*\bimage_size\b", word) for word in words), self.settings.data
        for other in sizes(data.as_dict() if training else {} if asked else configs.get("data")):
            if list(other) != size:
                what = "a training goes on as it began" if training else "leave it out, or pass --data.image_size"
                raise ConfigurationError(
                    f"{source.path} was trained on images of {shown(size)}, but the configuration says "
                    f"{shown(list(other))}: {what}"
                )
        self.any_size = asked and not training
        if not asked:
            set_sizes(data, tuple(size))

    def before_instantiate_classes(self) -> None:
        """Name the checkpoint to load, and the run on a dashboard."""
        if self.checkpoint is not None:
            self.settings.ckpt_path = self.checkpoint.path
        name_runs(self.settings)

    def after_instantiate_classes(self) -> None:
        """Build the task for what its checkpoint was trained on; the weights are loaded later."""
        if self.checkpoint is not None and self.model.facts is None:
            type(self.model).check_shapes(self.checkpoint)
            with built_from(self.checkpoint.path):
                self.model.build(DataFacts.of(self.checkpoint.facts))
        self.model.any_size |= self.any_size
        if self.checkpoint is None:
            self.record.start_from(texts(self.settings.model.as_dict()))

    def before_fit(self) -> None:
        """Open the data and build the model before anything is written: a mistake leaves no run folder behind."""
        if self.settings["speed"] == "auto":
            self.trainer.callbacks.insert(0, Fast())  # type: ignore[attr-defined]  # Lightning declares it nowhere
        self._open("fit")

    def before_validate(self) -> None:
        """Likewise."""
        self._open("validate")

    def before_test(self) -> None:
        """Likewise."""
        self._open("test")

    def before_predict(self) -> None:
        """Likewise."""
        self._open("predict")

    def _open(self, stage: str) -> None:
        data = self.datamodule
        first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it
        if not first or not isinstance(data, FaceDataModule | JointDataModule):
            return
        data.prepare_data()
        data.setup(stage)
        if self.model.facts is None:
            self.model.build(data.facts)
        else:
            self.model.check(data.facts, "the data")

    def after_fit(self) -> None:
        """Test the best checkpoint, if the configuration asks for it."""
        if self.settings["test_after_fit"]:
            # none where nothing is validated; that of a resumed run may have been deleted
            best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
            path = best if Path(best).is_file() else None
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=path, verbose=False)

    def after_predict(self) -> None:
        """A prediction that left images out has failed, now that all others are written."""
        for writer in self.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning declares it nowhere
            if isinstance(writer, PredictionWriter):
                writer.check_complete()

    def after_test(self) -> None:
        """Save an assembled task as one checkpoint."""
        folder = RunFolder.of(self.trainer)
        if self.model.made_of is not None and self.checkpoint is None and folder is not None:
            self.trainer.save_checkpoint(folder.best, weights_only=False)  # with its configuration


def _check_trainer(settings: Namespace) -> None:
    """Refuse numbers for which Lightning has no sentence."""
    for key, low in (("accumulate_grad_batches", 1), ("check_val_every_n_epoch", 1), ("gradient_clip_val", 0)):
        value = settings.get(key)
        if value is not None and value < low:
            raise ConfigurationError(f"trainer.{key} must be {low} or more, not {value}")
    count, cores = str(settings.get("devices")), os.cpu_count() or 1
    if settings.get("accelerator") in ("auto", "cpu") and count.isdigit() and int(count) > 8 * cores:
        raise ConfigurationError(f"trainer.devices {count} is too many processes for the {cores} cores of this machine")
    if settings.get("accelerator") == "gpu" and not (cuda.is_available() or mps.is_available()):
        raise ConfigurationError("trainer.accelerator gpu: torch finds no GPU here; add --config overlays/cpu.yaml")
