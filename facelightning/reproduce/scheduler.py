"""Train the missing runs, sharing them with other processes that do the same."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from facelightning.checkpoint import Checkpoint
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.reproduce.plan import Run, write_settings


@contextmanager
def alone(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Lock a folder against other processes; yields whether that succeeded, which it always does with ``wait``.

    Raises:
        ConfigurationError: On Windows, which has no lock that a process passes on to the training that it starts.
    """
    if sys.platform == "win32":
        raise ConfigurationError("reproduce trains on Linux and macOS only: on Windows, start it in WSL")
    import fcntl  # not on Windows

    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.set_inheritable(lock.fileno(), True)  # a training that outlives this process keeps the lock
        yield True


def train_all(runs: Sequence[Run], attribution: bool, compared: Sequence[str] = ()) -> list[str]:
    """Train the unfinished runs, sharing them with other processes; returns the names of the runs that failed.

    Args:
        runs: Each after those that it starts from.
        attribution: Also measure where attribute networks look.
        compared: Names of the rows that also predict the validation images.
    """
    failed: list[Run] = []
    left, waiting = list(runs), False
    while left:
        ended = [run for run in left if _advance(run, runs, failed, attribution, compared)]
        left = [run for run in left if run not in ended]
        if left and not ended:
            if not waiting:
                names = "; ".join(run.title for run in left)
                print(f"waiting for other processes to finish: {names}", file=sys.stderr, flush=True)
            waiting = True
            time.sleep(1)
    return [run.title for run in failed]


def _advance(run: Run, runs: Sequence[Run], failed: list[Run], attribution: bool, compared: Sequence[str] = ()) -> bool:
    """Train a run if that is possible now; returns whether it has ended. Failed or skipped runs join ``failed``."""
    title = f"[{runs.index(run) + 1}/{len(runs)}] {run.title}"
    if broken := [parent.title for parent in run.parents if parent in failed]:
        print(f"{title}: skipped, because {' and '.join(broken)} failed", file=sys.stderr)
        failed.append(run)
        return True
    if any(parent.finished() is None for parent in run.parents):
        return False  # another process trains it
    run.folder.mkdir(parents=True, exist_ok=True)
    with alone(run.folder, wait=False) as mine:
        if not mine:
            return False
        write_settings(run)
        if run.finished() is None:
            print(title, file=sys.stderr, flush=True)
        done = run.finished() is not None or _train(run)
        if attribution and run.row.predicts == "attributes":
            done = done and _attribute(run)
        if run.row.name in compared and run.row.predicts == "attributes":
            done = done and _predict_val(run)
        if not done:
            failed.append(run)
        return True


def _train(run: Run) -> bool:
    """Train, test and predict; returns whether all succeeded."""
    attempts = run.folder / "attempts"
    with attempts.open("a") as file:  # counted before the run begins: it may be killed
        file.write(time.strftime("%Y-%m-%d %H:%M:%S\n"))
    started = time.monotonic()
    go_on = not run.row.assembled and _is_whole(run.files.last)
    peak = _call([*run.command, *([f"--ckpt_path={run.files.last}"] if go_on else [])])
    if peak is not None and not run.files.best.is_file():
        print(f"{run.title}: ended before its first validation, so there is no best checkpoint", file=sys.stderr)
        return False
    if peak is not None and run.row.predicts is not None:
        shutil.rmtree(run.folder / "test", ignore_errors=True)
        predicted = _call(run.prediction)
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
    """Whether there is a checkpoint to resume from; a killed run may have left an incomplete one."""
    try:
        Checkpoint.read(checkpoint)
    except CheckpointError:
        return False
    return True


def _attribute(run: Run) -> bool:
    """Measure where a trained network looks, unless measured already; returns whether that succeeded."""
    path = run.files.attribution
    if path.is_file():
        return True
    written = path.with_suffix(".part")
    measured = _call(["attribution", f"--ckpt_path={run.files.best}", f"--output={written}"]) is not None
    if measured:
        written.rename(path)
    return measured


def _predict_val(run: Run) -> bool:
    """Predict the validation images, unless that was done; returns whether it succeeded."""
    predicted, done = run.predictions("val"), run.folder / "val" / "finished"
    if not done.is_file():
        shutil.rmtree(predicted.parent, ignore_errors=True)  # of an interrupted prediction
        if _call(run.choice) is None:
            return False
        done.touch()
    return True


def _call(command: Sequence[str]) -> float | None:
    """Run a facelightning command; returns its peak memory in MiB, or ``None`` if it failed."""
    # the child process inherits open files: the lock
    process = subprocess.Popen([sys.executable, "-m", "facelightning", *command], close_fds=False)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # Ctrl-C or SIGTERM
        process.terminate()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return usage.ru_maxrss / unit if process.returncode == 0 else None
