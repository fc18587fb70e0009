"""A trained network as a folder to share, with a model card that knows what made it, and how well it does."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning.pytorch.utilities import rank_zero_info

from facelightning.callbacks.training_record import trainings_of
from facelightning.card import model_card
from facelightning.checkpoint import Checkpoint, weights_digest
from facelightning.hub import CARD, write_folder
from facelightning.runs import RunFolder
from facelightning.tasks import load_model


def write_shared(source: str, path: Path) -> None:
    """Write a folder that :func:`facelightning.load_model` reads, with a card of what is known of its weights."""
    checkpoint = Checkpoint.read(source)
    scores, trainings = scores_of(checkpoint), trainings_of(source)
    card = model_card(checkpoint.description, _data((checkpoint.config or {}).get("data")), *scores, trainings)
    content = {"facelightning": checkpoint.description, "state_dict": checkpoint.weights}
    write_folder(path, content | {"facelightning_config": checkpoint.config}, card)
    load_model(path)
    rank_zero_info(f"written: {path}")
    if scores.results is None:
        rank_zero_info(
            f"{path / CARD} has no scores: score these weights with `facelightning test --ckpt_path={source}`"
        )
    if trainings:
        rank_zero_info(f"{path / CARD} has the commands of the training, with their paths: read it before you share it")


class Scores(NamedTuple):
    """What a test found, and on which data."""

    results: dict[str, Any] | None = None
    data: str | None = None


def scores_of(checkpoint: Checkpoint) -> Scores:
    """The latest scores of a checkpoint's very weights on a whole test split, by its run or by a test beside it."""
    run = RunFolder.of_checkpoint(checkpoint.path)
    files = [] if run is None else list(run.path.parent.glob(f"*/{run.results.name}"))
    digest = weights_digest(checkpoint.weights)
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            results = json.loads(file.read_text("utf-8"))
            if results.get("weights") != digest:
                continue
            config = RunFolder(file.parent).config
            said = yaml.safe_load(config.read_text("utf-8")) if config.is_file() else {}
            limit = said.get("trainer", {}).get("limit_test_batches")
            if limit is None or (limit == 1 and isinstance(limit, float)):  # 1 is one batch, 1.0 are all
                return Scores(results, _data(said.get("data")))
        except (ValueError, AttributeError, yaml.YAMLError):  # a damaged file is of no test that is known
            continue
    return Scores()


def _data(data: Any) -> str | None:
    """The names of the data modules in a configuration; of a joint one, its parts."""
    return " and ".join(_data_modules(data)) or None


def _data_modules(data: Any) -> list[str]:
    if not isinstance(data, dict):
        return []
    inner = [name for value in data.values() for name in _data_modules(value)]
    name = str(data.get("class_path", "")).rpartition(".")[2]
    return inner or [name] * name.endswith("DataModule")
