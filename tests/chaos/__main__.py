"""Kill real commands at random moments, continue them, and compare the results with those of unbroken runs.

``python -m tests.chaos --kills 60 --seed 0 --runs FOLDER``; the status is 1 if anything differs. FOLDER may lie on
another file system; it must not exist, and is removed if nothing was wrong.
"""

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

from tqdm import tqdm

from tests.chaos.commands import NEEDS, commands
from tests.chaos.killing import Record, run_broken, run_whole
from tests.processes import run

LINE = "{:10} {:>7} {:>6} {:>6} {:>8} {:>7} {:>6} {:>6}  {}"


def chaos(folder: Path, kills: int, seed: int, names: list[str] | None = None, epochs: int = 8) -> dict[str, Record]:
    """Share kills among commands, all if no names are given; what happened to each."""
    folder = folder.resolve()
    folder.mkdir(parents=True)
    every = commands(folder, epochs)
    run(["--version"])  # imports what all commands need, outside the time of the first
    names, draw, records = names or list(every), random.Random(seed), dict[str, Record]()
    with tqdm(total=kills, unit="kill") as bar:
        for number, name in enumerate(names):
            for needed in (NEEDS.get(name), name):
                if needed and needed not in records:
                    bar.set_description(f"{needed}, unbroken")
                    records[needed] = Record(run_whole(every[needed], folder / needed / "whole"))
            bar.set_description(name)
            record, left = records[name], kills // len(names) + (number < kills % len(names))
            while left:
                story = folder / name / f"broken_{record.endings}"
                left -= run_broken(every[name], story, record, left, draw, bar.update)
    return records


def table(records: dict[str, Record]) -> str:
    """A line for each command."""
    lines = [LINE.format("command", "seconds", "kill", "term", "working", "saving", "anew", "ended", "equal")]
    for name, record in records.items():
        signals = [record.kills.get(key, 0) for key in ("SIGKILL", "SIGTERM")]
        seconds, equal = f"{record.seconds:.1f}", "NO" if record.faults else "yes"
        lines.append(
            LINE.format(name, seconds, *signals, record.working, record.saving, record.anew, record.endings, equal)
        )
    return "\n".join([*lines, *(f"{name}: {fault}" for name, record in records.items() for fault in record.faults)])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="shared among the commands")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    parser.add_argument("--runs", type=Path, default=Path("runs/chaos"), help="folder for all runs; must not exist")
    parser.add_argument("--commands", nargs="*", help="some of the commands; all if not given")
    given, began = parser.parse_args(), time.monotonic()
    records = chaos(given.runs, given.kills, given.seed, given.commands)
    print(table(records))
    kills = sum(sum(record.kills.values()) for record in records.values())
    print(f"{kills} kills, seed {given.seed}, {time.monotonic() - began:.0f} s")
    if any(record.faults for record in records.values()):
        return 1
    shutil.rmtree(given.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
