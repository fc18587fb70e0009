"""``facelightning reproduce``: trains the rows of the paper's tables that are missing, and prints the tables."""

import csv
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from jsonargparse import auto_cli

from facelightning.data import CelebADataModule, LFWADataModule
from facelightning.errors import ConfigurationError, FacelightningError
from facelightning.labels import ATTRIBUTES
from facelightning.reproduce.plan import Plan, Run, check_settings, data_sets
from facelightning.reproduce.scheduler import alone, train_all
from facelightning.reproduce.tables import duration, read_tables, write_tables
from facelightning.statistics import bootstrap_differences


def reproduce(
    celeba: str | None = None,
    helen: str | None = None,
    lfwa: str | None = None,
    rows: list[str] | None = None,
    seeds: list[int] | None = None,
    overlay: list[str] | None = None,
    segnet_overlay: list[str] | None = None,
    jointnet_overlay: list[str] | None = None,
    balanced_overlay: list[str] | None = None,
    output: str = "runs/reproduce",
    resamples: int = 1000,
    attribution: bool = False,
    dry_run: bool = False,
) -> None:
    """Train what is missing of the rows of Kalayeh et al. (CVPR 2017), Tables 2 to 4, and print them side by side.

    Interrupted and started again, it goes on where it was; a run counts once it is trained, tested and has predicted.
    Started several times at once with the same arguments, the processes of one machine share the runs between them.

    Args:
        celeba: Folder of CelebA.
        helen: Folder of Helen.
        lfwa: Folder of LFWA.
        rows: Names of rows; all that the given data allows if not given. What a row starts from is trained too.
        seeds: One training of each row for each; 0 if not given.
        overlay: Configurations that change the training of every attribute network.
        segnet_overlay: The same for the parser.
        jointnet_overlay: The same for joint training.
        balanced_overlay: What changes, after ``overlay``, the fine-tuning with balanced loss, such as its length.
        output: Folder of runs and tables.
        resamples: Bootstrap samples of the test pictures, for intervals.
        attribution: Also measure on drawn faces whether the attribute networks look in the right place, as
            ``facelightning attribution`` does; it means something for networks that were trained on drawn faces.
        dry_run: Only list what would be done, and how long such runs took.
    """
    roots = {
        name: str(Path(root).expanduser().resolve())
        for name, root in (("celeba", celeba), ("helen", helen), ("lfwa", lfwa))
        if root is not None
    }
    overlays = {
        name: configs or []
        for name, configs in (
            ("", overlay),
            ("segnet", segnet_overlay),
            ("jointnet", jointnet_overlay),
            ("balanced", balanced_overlay),
        )
    }
    folder = Path(output).resolve()
    plan = Plan(roots, overlays, folder)
    unknown = set(rows or ()) - plan.rows.keys()
    if unknown:
        raise ConfigurationError(f"no row is named {', '.join(sorted(unknown))}; rows are {', '.join(plan.rows)}")
    wanted = [name for name in plan.rows if (name in rows if rows else plan.possible(name))]
    if not wanted:
        raise ConfigurationError("nothing to train: give the folders of the data, at least --celeba and --helen")
    for seed in seeds or [0]:
        for name in wanted:
            plan.add(name, seed)

    runs = plan.runs
    if dry_run:
        for run in runs.values():
            print(f"{run.row.name:16} seed {run.seed}   {_state(run)}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs.values():
        check_settings(run)
    failed = train_all(list(runs.values()), attribution)
    with alone(folder):
        done = {key: run for key, run in runs.items() if key[0] in wanted and run.finished() is not None}
        records = [record for table in read_tables() for record in _records(table, done, roots, resamples)]
        text = write_tables(folder, records)
    print(text)
    if failed:
        raise FacelightningError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; see above")


def main(args: Sequence[str]) -> None:
    """The command line of :func:`reproduce`, where ``--dry-run`` alone is enough."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the training that runs is ended, too
    words = ["--dry_run=true" if word == "--dry-run" else word for word in args]
    auto_cli(reproduce, args=words, as_positional=False, prog="facelightning reproduce")


def _state(run: Run) -> str:
    """What is left to do of a run, and how long those like it took."""
    if run.finished() is not None:
        return "finished"
    state = "to be continued" if run.last.is_file() else "to be trained"
    # a run that was interrupted does not know its whole time
    seeds = run.folder.parent.glob("seed_*/finished.json")
    records = [json.loads(path.read_text()) for path in seeds]
    times = [record["seconds"] for record in records if record["attempts"] == 1]
    return f"{state}; others took {duration(mean(times))}" if times else state


def _records(
    table: Mapping[str, Any], runs: Mapping[tuple[str, int], Run], roots: Mapping[str, str], resamples: int
) -> Iterator[dict[str, Any]]:
    """What is known of each row of a table: published, ours by seed, difference to the baseline."""
    baseline = {seed: run for (name, seed), run in runs.items() if name == table["baseline"]}
    truth = None
    for row in table["rows"]:
        mine = {seed: run for (name, seed), run in runs.items() if name == row.get("name")}
        record: dict[str, Any] = {
            "table": table["name"],
            "row": row["title"],
            "seeds": sorted(mine),
            "published": row.get("published", {}),
            "original": row.get("original", {}),
            "ours": {
                column: [_score(mine[seed], table, column) for seed in sorted(mine)] for column in table["columns"]
            },
            "finished": [mine[seed].finished() for seed in sorted(mine)],
            "attribution": [mine[seed].attribution() for seed in sorted(mine)],
        }
        both = sorted(mine.keys() & baseline.keys())
        if table["part"] == "attributes" and both and row["name"] != table["baseline"]:
            if truth is None:
                truth = _truth(next(iter(baseline.values())), roots)
            names, attributes, persons = truth
            pairs = [(_predictions(mine[s], names), _predictions(baseline[s], names)) for s in both]
            record["difference"] = bootstrap_differences(pairs, attributes, resamples, persons)
        yield record


def _score(run: Run, table: Mapping[str, Any], column: str) -> float | None:
    scores = run.results()[table["part"]]
    value: float | None = scores[column] if column in scores else scores["iou"].get(column)
    return value


def _truth(run: Run, roots: Mapping[str, str]) -> tuple[list[str], npt.NDArray[np.bool_], npt.NDArray[np.int64] | None]:
    """Names of the test pictures, their attributes ``(n, A)``, and whom they show, if that is known."""
    data = data_sets(run.row)[0]
    settings = yaml.safe_load((run.folder / "config.yaml").read_text())["data"]["init_args"]
    module = LFWADataModule(roots[data]) if data == "lfwa" else CelebADataModule(roots[data], settings["images"])
    reader = module.reader("test")
    return reader.names.tolist(), reader.attributes.astype(bool), reader.identities


def _predictions(run: Run, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """The probabilities ``(n, A)`` of the named pictures."""
    with (run.folder / "test" / "predictions" / "attributes.csv").open(newline="", encoding="utf-8") as file:
        rows = {row[0]: row[1:] for row in csv.reader(file)}
    assert rows["name"] == list(ATTRIBUTES)
    return np.array([rows[name] for name in names], dtype=np.float64)
