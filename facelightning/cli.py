"""The command line: stock LightningCLI, which builds any task, data module and trainer from YAML."""

import difflib
import inspect
import logging
import re
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # not marked as exported
from jsonargparse import Path as ConfigPath  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import facelightning.data  # noqa: F401  # imported so that configurations can name its classes without a path
from facelightning.callbacks import Figures, PredictionWriter, Report
from facelightning.checkpoint import read_checkpoint
from facelightning.configs import find_config, read_config
from facelightning.errors import ConfigurationError
from facelightning.tasks import FaceTask

QUIET = (
    # the frozen parser of an attribute network is in evaluation mode on purpose
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # an ensemble of trained networks has nothing to learn
    r"`training_step` returned `None`",
    # a laptop has few cores; workers are set in the configuration
    r"The '\w+' does not have many workers",
    # deprecations inside Lightning, which its users cannot mend
    r".*isinstance\(treespec, LeafSpec\).* is deprecated",
)


class ConfigFile(ActionConfigFile):
    """``--config``: finds bundled files by name, and lets a file say ``extends: base.yaml``."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        path = find_config(values, Path.cwd())
        content = read_config(path)
        if "extends" in content:
            base = find_config(content.pop("extends"), path.parent)
            extended = read_config(base)
            if "extends" in extended:
                raise ConfigurationError(f"configuration {path} extends {base}, which itself extends another; use one")
            self._apply(parser, cfg, base, extended)
        self._apply(parser, cfg, path, content)

    def _apply(self, parser: Any, cfg: Any, path: Path, content: dict[str, Any]) -> None:
        with ConfigPath(str(path), mode="fr").relative_path_context():
            super().__call__(parser, cfg, yaml.safe_dump(content))  # type: ignore[no-untyped-call]  # not typed


class FaceParser(LightningArgumentParser):
    """An argument parser that takes no abbreviations and reports an error in few lines, with a suggestion."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False  # else --trainer.max_epoch silently means max_epochs
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Exit with status 2 and the message."""
        unknown = re.findall(r"ption '([\w.+-]+)' is not accepted|accept option '([\w.+-]+)'|: --([\w.+-]+)", message)
        hint = ""
        if unknown:
            name = next(group for group in unknown[-1] if group).rsplit(".", 1)[-1]
            close = difflib.get_close_matches(name, self._known_names(message), 1)
            hint = f"\n  did you mean {close[0]}?" if close else ""
        self.exit(2, f"facelightning: error: {message}{hint}\n")

    def _known_names(self, message: str) -> list[str]:
        parsers: list[Any] = [self]
        for action in self._actions:
            parsers += getattr(action, "_name_parser_map", {}).values()
        names = {action.dest.rsplit(".", 1)[-1] for parser in parsers for action in parser._actions}
        for path in re.findall(r"class_path '([\w.]+)'", message):
            module, _, name = path.rpartition(".")
            found = getattr(import_module(module), name, None)
            names |= set(inspect.signature(found).parameters) if found else set()
        return sorted(names)


class SaveConfig(SaveConfigCallback):
    """Writes the complete configuration into the run folder and to every logger."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Runs on every process: ``log_dir`` is agreed between them, so it must not be asked for on one alone."""
        self.folder = trainer.log_dir if trainer.logger else None
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Runs on the first process only."""
        text = self.parser.dump(self.config, skip_none=False)
        for logger in trainer.loggers:
            logger.log_hyperparams({"config": yaml.safe_load(text)})
        if self.folder is not None:
            path = Path(self.folder, self.config_filename)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


class FaceCLI(LightningCLI):
    """``facelightning {fit,validate,test,predict}``.

    Args:
        args: The command line without the program's name.
    """

    def __init__(self, args: Sequence[str]) -> None:
        for message in QUIET:
            warnings.filterwarnings("ignore", message)
        # Lightning advertises other products in its log, and has no switch for it
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "Tip:" not in r.getMessage())
        super().__init__(
            FaceTask,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,  # a task configures its own
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={"use_distributed_sampler": False},  # our samplers know the processes
            parser_class=FaceParser,
            args=list(args),
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose ``--config`` finds bundled files."""
        parser = FaceParser(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help="YAML file, or the name of a bundled one; later ones win"
        )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what was given; Lightning's own version warns whenever that is not ``sys.argv``."""
        self.config = parser.parse_args(args)
        settings = self.config[self.config["subcommand"]]
        if "verbose" in settings:
            settings["verbose"] = False  # the scores are printed by Report
        if "return_predictions" in settings:
            settings["return_predictions"] = False  # they are written; kept, they would fill the memory
        checkpoint = settings.get("ckpt_path")
        if checkpoint not in (None, "best", "last", "hpc"):
            read_checkpoint(checkpoint)  # a broken file is reported before anything is built
        elif self.config["subcommand"] != "fit":
            raise ConfigurationError(
                f"{self.config['subcommand']} needs a trained model: "
                "pass its file, such as --ckpt_path=runs/NAME/version_0/checkpoints/best.ckpt"
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The callbacks that every run has, and what follows training."""
        parser.add_lightning_class_args(Report, "report")
        parser.add_lightning_class_args(Figures, "figures")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="Score the best checkpoint on the test data."
        )

    def after_fit(self) -> None:
        """Test the best checkpoint, if the configuration asks for it."""
        if self.config["fit"]["test_after_fit"]:
            best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")  # none in a very short training
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False)
