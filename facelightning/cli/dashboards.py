"""How a dashboard names a run."""

from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace


def name_runs(settings: Namespace) -> None:
    """Give Weights & Biases the name of the run, and the classes of its parts as tags, unless they are given."""
    loggers = settings.trainer.logger if isinstance(settings.trainer.logger, list) else []
    places = [each.init_args for each in loggers if each.class_path.endswith("RunLogger")]
    for logger in loggers:
        if logger.class_path.endswith("WandbLogger"):
            if logger.init_args.name is None and places:
                logger.init_args.name = "/".join(str(part) for part in (places[0].name, places[0].version) if part)
            if logger.init_args.tags is None:
                logger.init_args.tags = list(dict.fromkeys([*_classes(settings.model), *_classes(settings.data)]))


def _classes(part: Any) -> Iterator[str]:
    """The name of a part's class, and of the classes of its parts."""
    if isinstance(part, Namespace):
        if "class_path" in part:
            yield part.class_path.rpartition(".")[2]
        for value in vars(part.get("init_args") or part).values():
            yield from _classes(value)
