"""``facelightning reproduce``: trains the rows of the paper's tables that are missing, and prints the tables."""

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from jsonargparse import auto_cli

from facelightning.data import CelebADataModule, LFWADataModule
from facelightning.errors import CheckpointError, ConfigurationError, FacelightningError
from facelightning.labels import ATTRIBUTES
from facelightning.plan import Plan, Run, check_settings, data_sets, settings_of_members, write_settings
from facelightning.tables import bootstrap_differences, duration, read_tables, write_tables
from facelightning.tasks.checkpoint import read_checkpoint


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
    localization: bool = False,
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
        localization: Also measure on drawn faces whether the attribute networks look in the right place, as
            ``facelightning localize`` does; it means something for networks that were trained on drawn faces.
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
    failed = _train_all(list(runs.values()), localization)
    with _alone(folder):
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


@contextmanager
def _alone(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Keep other processes out of a folder; whether that succeeded, which without waiting it may not."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.set_inheritable(lock.fileno(), True)  # a training that outlives this process keeps the lock
        yield True


def _train_all(runs: Sequence[Run], localization: bool) -> list[str]:
    """Train what is not finished, beside other processes that do the same; the names of the runs that failed."""
    failed: list[Run] = []
    left, waiting = list(runs), False
    while left:
        ended = [run for run in left if _advance(run, runs, failed, localization)]
        left = [run for run in left if run not in ended]
        if left and not ended:
            if not waiting:
                names = "; ".join(run.title for run in left)
                print(f"waiting for other processes to finish: {names}", file=sys.stderr, flush=True)
            waiting = True
            time.sleep(1)
    return [run.title for run in failed]


def _advance(run: Run, runs: Sequence[Run], failed: list[Run], localization: bool) -> bool:
    """Train a run if it can be trained now; whether it has ended. One that fails, or that cannot be, is noted."""
    title = f"[{runs.index(run) + 1}/{len(runs)}] {run.title}"
    parents = [other for other in runs if other.row.name in run.row.parents and other.seed == run.seed]
    if broken := [parent.title for parent in parents if parent in failed]:
        print(f"{title}: left out, for {' and '.join(broken)} failed", file=sys.stderr)
        failed.append(run)
        return True
    if any(parent.finished() is None for parent in parents):
        return False  # another process trains it
    run.folder.mkdir(parents=True, exist_ok=True)
    with _alone(run.folder, wait=False) as mine:
        if not mine:
            return False
        write_settings(run)
        if run.finished() is None:
            print(title, file=sys.stderr, flush=True)
        done = run.finished() is not None or _train(run)
        if localization:
            done = done and _localize(run)
        if not done:
            failed.append(run)
        return True


def _train(run: Run) -> bool:
    """Train, test and predict; whether all went well."""
    attempts = run.folder / "attempts"
    with attempts.open("a") as file:  # counted before it begins: it may be killed
        file.write(time.strftime("%Y-%m-%d %H:%M:%S\n"))
    started = time.monotonic()
    command = [*run.command, *settings_of_members(run)]
    resume = [f"--ckpt_path={run.last}"] if _is_whole(run.last) else []
    peak = _call("fit", [*command, "--test_after_fit=true", *resume])
    if peak is not None and not run.best.is_file():
        print(f"{run.title}: ended before its first validation, so that no checkpoint is the best", file=sys.stderr)
        return False
    if peak is not None and run.row.name not in ("segnet", "jointnet"):
        shutil.rmtree(run.folder / "test", ignore_errors=True)
        version = f"--trainer.logger.init_args.version=seed_{run.seed}/test"
        predicted = _call("predict", [*command, version, f"--ckpt_path={run.best}"])
        peak = None if predicted is None else max(peak, predicted)
    if peak is None:
        return False
    record = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mib": round(peak),
        "attempts": len(attempts.read_text().splitlines()),
    }
    written = run.folder / "finished.json.part"
    written.write_text(json.dumps(record) + "\n")
    written.rename(run.folder / "finished.json")
    return True


def _is_whole(checkpoint: Path) -> bool:
    """Whether there is a checkpoint to go on from; a kill may have left a part of one."""
    try:
        read_checkpoint(checkpoint)
    except CheckpointError:
        return False
    return True


def _localize(run: Run) -> bool:
    """Measure a trained attribute network, if that was not done; whether all went well."""
    path = run.folder / "localization.json"
    if run.row.name in ("segnet", "jointnet") or path.is_file():
        return True
    written = path.with_suffix(".part")
    measured = _call("localize", [str(run.best), f"--output={written}"]) is not None
    if measured:
        written.rename(path)
    return measured


def _call(command: str, arguments: list[str]) -> float | None:
    """Run a command of ours; the peak of its memory in MiB, or ``None`` if it failed."""
    # the files that are open go along: the lock
    process = subprocess.Popen([sys.executable, "-m", "facelightning", command, *arguments], close_fds=False)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # Ctrl-C or SIGTERM
        process.terminate()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return usage.ru_maxrss / unit if process.returncode == 0 else None


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
            "localization": [mine[seed].localization() for seed in sorted(mine)],
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
