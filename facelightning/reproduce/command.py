"""``facelightning reproduce``: trains the missing rows of the published tables, and prints the tables."""

import csv
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jsonargparse import auto_cli

from facelightning.cli import FaceParser
from facelightning.configs import read_config, suggestion
from facelightning.data.tables import AttributeDataset
from facelightning.errors import ConfigurationError, DataNotFoundError, FacelightningError
from facelightning.labels import ATTRIBUTES
from facelightning.metrics import AttributeScores
from facelightning.metrics.statistics import bootstrap_differences
from facelightning.reproduce.plan import Plan, Run, Split, check_settings
from facelightning.reproduce.scheduler import alone, train_all
from facelightning.reproduce.tables import MOST_COLUMNS, Table, duration, printed, read_tables, write_tables


def reproduce(
    celeba: str | None = None,
    helen: str | None = None,
    lfwa: str | None = None,
    wild: str | None = None,
    faces_and_others: str | None = None,
    persons: str | None = None,
    ages: str | None = None,
    races: str | None = None,
    rows: list[str] | None = None,
    baseline: str | None = None,
    seeds: list[int] | None = None,
    recipe: str | None = None,
    overlay: list[str] | None = None,
    output: str = "runs/reproduce",
    resamples: int = 1000,
    attribution: bool = False,
    split: Split = "test",
    dry_run: bool = False,
) -> None:
    """Train the missing rows of the papers' tables, and print published and own scores.

    The tables are those of Kalayeh et al. (CVPR 2017), 2 to 4, of Liu et al. (ICCV 2015), 1, and of Wang, Su, Zhao, II
    and III.

    After an interruption the same command resumes; a run is finished once it is trained, tested and has predicted.
    Several processes on one machine, started with the same arguments, share the runs.

    Args:
        celeba: Folder of CelebA.
        helen: Folder of Helen.
        lfwa: Folder of LFWA.
        wild: Folder of CelebA with the original images.
        faces_and_others: Folder of images of faces and of what is none, as facenet0.yaml reads it.
        persons: Folder of a folder for each person, as identitynet.yaml reads it.
        ages: Folder of faces of known age, as agenet.yaml reads it.
        races: Folder of faces of known race, as racenet.yaml reads it.
        rows: Names of rows; if not given, all that the given data allows. The rows that a row starts from are added.
        baseline: The one of them that all others are compared with; if not given, each table has its own.
        seeds: Each row is trained once per seed; seed 0 if not given.
        recipe: Recipe for size, optimiser and length of every training, such as small; the paper's if not given.
        overlay: Configurations for the machine, such as overlays/fast.yaml, applied to every training after the recipe.
            Ensembles, which train nothing, take only accelerator, precision and data settings from them.
        output: Folder for runs and tables.
        resamples: Number of bootstrap resamples of the scored images, for intervals.
        attribution: Also measure on drawn faces whether the attribute networks look in the right place, as
            ``facelightning attribution`` does; meaningful for networks that were trained on drawn faces.
        split: ``val`` prints tables of the validation data instead, with the same intervals, to choose variants by.
            They show rows that predict attributes, and no score of the test data.
        dry_run: Only list the rows, what they need, their progress, and the time per run: measured here, or with the
            recipe. Needs no data.
    """
    given = {"celeba": celeba, "helen": helen, "lfwa": lfwa, "wild": wild}
    given |= {"faces_and_others": faces_and_others, "persons": persons, "ages": ages, "races": races}
    roots = {name: str(Path(root).expanduser().resolve()) for name, root in given.items() if root is not None}
    for name, root in roots.items():
        if not Path(root).is_dir():
            what = "is not a folder" if Path(root).exists() else "does not exist"
            raise DataNotFoundError(f"--{name}: the data root {root} {what}; give the folder of the data set")
    if any(seed < 0 for seed in seeds or ()):
        raise ConfigurationError(f"--seeds must not be negative: {seeds}")
    folder = Path(output).resolve()
    if dry_run and not roots:  # as if all were given
        roots = {name: name for name in given}
    plan = Plan(roots, recipe, overlay or [], folder)
    for name in rows or ():
        if name not in plan.rows:
            raise ConfigurationError(f"no row is named {name}; {suggestion(name, plan.rows)}")
        if not dry_run and (obstacle := plan.obstacle(name)):
            raise ConfigurationError(obstacle)
    wanted = rows or [name for name in plan.rows if dry_run or plan.obstacle(name) is None]
    if split == "val" and not any(plan.rows[name].predicts == "attributes" for name in wanted):
        raise ConfigurationError(f"--split=val compares predicted attributes, but {', '.join(wanted)} predicts none")
    if not wanted:
        raise ConfigurationError("nothing to train: give the folders of the data, at least --celeba and --helen")
    if baseline is not None and baseline not in wanted:
        raise ConfigurationError(f"--baseline={baseline} is none of the rows: {', '.join(wanted)}")
    for seed in seeds or [0]:
        for name in wanted:
            plan.add(name, seed)
    if dry_run:
        print(_overview(plan))
        return

    runs = plan.runs
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs.values():
        check_settings(run)
    failed = train_all(list(runs.values()), attribution, compared=wanted if split == "val" else ())
    with alone(folder):
        done = [run for (name, _), run in runs.items() if name in wanted and run.scored(split)]
        tables = [replace(each, baseline=baseline or each.baseline) for each in read_tables()]
        tables = [table for table in tables if split == "test" or table.part == "attributes"]
        records = [record for table in tables for record in _records(table, done, resamples, split)]
        text = write_tables(folder, tables, records, split)
    print(text)
    if failed:
        raise FacelightningError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; see above")


def main(args: Sequence[str]) -> None:
    """The command line of :func:`reproduce`, where ``--dry-run`` needs no value."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # this also ends the running training
    words = ["--dry_run=true" if word == "--dry-run" else word for word in args]
    auto_cli(reproduce, args=words, as_positional=False, prog="facelightning reproduce", parser_class=FaceParser)


def _overview(plan: Plan) -> str:
    """Each row of a plan: published scores, what it needs, time per run, and progress of its runs."""
    lines, times = list[str](), list[float | None]()
    for name in dict.fromkeys(name for name, _ in plan.runs):
        runs = [run for (row, _), run in plan.runs.items() if row == name]
        row, obstacle, estimate = runs[0].row, plan.obstacle(name), runs[0].estimate()
        original = f" (original images: {_numbers(row.original)})" if row.original else ""
        parents = f"; starts from: {', '.join(row.parents)}" if row.parents else ""
        time = f"{duration(estimate[0])} a run ({estimate[1]})" if estimate else "not measured"
        states = [f"seed {run.seed} {run.state}" for run in runs]
        lines += [
            f"{name}: {row.title}; published: {_numbers(row.published) or 'nothing'}{original}",
            f"  data: {', '.join(row.data_sets)}{parents}; time: {time}",
            f"  {', '.join(states)}" + (f"; {obstacle}" if obstacle else ""),
        ]
        times += [estimate and estimate[0] for run in runs if run.finished() is None and obstacle is None]
    known = [time for time in times if time is not None]
    together = f", {duration(sum(known))} one after another" if known else ""
    unknown = f"; {len(times) - len(known)} of them not measured" if len(known) < len(times) else ""
    lines.append(f"to do: {len(times)} runs{together}{unknown}")
    return "\n".join(lines)


def _numbers(scores: Mapping[str, float]) -> str:
    words = [f"{name} {printed(value)}" for name, value in scores.items()]
    return ", ".join(words) if len(words) <= MOST_COLUMNS else f"{words[0]} and {len(words) - 1} more"


def _records(table: Table, runs: Sequence[Run], resamples: int, split: Split) -> Iterator[dict[str, Any]]:
    """The record of each row of a table: published scores, ours by seed, difference to the baseline."""
    baseline = {run.seed: run for run in runs if run.row.name == table.baseline}
    for row in table.rows:
        mine = sorted((run for run in runs if run.row.name == row.name), key=lambda run: run.seed)
        record: dict[str, Any] = {
            "table": table.name,
            "row": row.title,
            "seeds": [run.seed for run in mine],
            "published": row.published if split == "test" else {},
            "original": row.original if split == "test" else {},
            "ours": {column: [_score(run, table.part, column, split) for run in mine] for column in table.columns},
            "finished": [run.finished() for run in mine],
            "attribution": [run.attribution() for run in mine],
        }
        others = {} if row.name == table.baseline else baseline
        both = [run for run in mine if run.seed in others and row.data_sets == others[run.seed].row.data_sets]
        if row.predicts == "attributes" and both:
            images = _images(next(iter(baseline.values())).files.config, split)
            pairs = [
                (_predictions(run, images, split), _predictions(baseline[run.seed], images, split)) for run in both
            ]
            truth = images.attributes.astype(bool)
            record["difference"] = bootstrap_differences(pairs, truth, resamples, images.identities)
        yield record


def _score(run: Run, part: str, column: str, split: Split) -> float | None:
    """A score of all, the IoU of a class, or the accuracy of an attribute, in percent; ``None`` if there is none."""
    scores = run.results()[part] if split == "test" else _val_scores(run)
    if "per_attribute" in scores and column not in scores:
        errors = {name: each["error"] for name, each in scores["per_attribute"].items()}
        error: float | None = (errors | {"mean_accuracy": scores["error"]}).get(column)
        return None if error is None else 100 - error
    value: float | None = scores[column] if column in scores else scores["iou"].get(column)
    return value


@lru_cache
def _val_scores(run: Run) -> dict[str, Any]:
    """The scores of the predictions of the validation images."""
    images = _images(run.files.config, "val")
    scores = AttributeScores(ATTRIBUTES)
    scores.update(torch.from_numpy(_predictions(run, images, "val")).logit(), torch.from_numpy(images.attributes))
    return scores.compute()


@lru_cache(1)
def _images(config: Path, split: Split) -> AttributeDataset:
    """The images that a run is scored on."""
    settings = read_config(config)["data"]
    module, _, name = settings["class_path"].rpartition(".")
    data = getattr(import_module(module), name)(**{**settings["init_args"], "augmentations": None})
    records = data.records(split)
    assert isinstance(records, AttributeDataset)
    return records


def _predictions(run: Run, images: AttributeDataset, split: Split) -> npt.NDArray[np.float64]:
    """The probabilities ``(n, A)`` of the images."""
    with run.predictions(split).open(newline="", encoding="utf-8") as file:
        rows = {row[0]: row[1:] for row in csv.reader(file)}
    assert rows["name"] == list(ATTRIBUTES)
    return np.array([rows[name] for name in images.names], dtype=np.float64)
