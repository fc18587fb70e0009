"""Kills a command at random moments, continues it, and compares what it leaves with that of an unbroken run."""

import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests import processes
from tests.chaos.commands import Command, broken

PART = r"\.[^/]+\.\d+\.part"
"""What a kill while writing leaves: ``.NAME.PID.part``."""


@dataclass
class Record:
    """What happened to one command.

    Args:
        seconds: How long it takes unbroken.
        kills: How often it was killed, by signal.
        working: How many of these kills came after it had begun to write.
        saving: How many came while a file was written.
        anew: How many left nothing to continue from.
        endings: How many broken runs were continued to their end.
        faults: What was wrong; empty if nothing.
    """

    seconds: float
    kills: dict[str, int] = field(default_factory=dict)
    working: int = 0
    saving: int = 0
    anew: int = 0
    endings: int = 0
    faults: list[str] = field(default_factory=list)


def run_whole(command: Command, folder: Path) -> float:
    """Run a command that nobody kills; its seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    done = processes.run(command.words, folder=folder)
    (folder / "printed.txt").write_text(done.out)
    assert done.poll() == 0, done.err
    return time.monotonic() - began


def run_broken(
    command: Command, folder: Path, record: Record, kills: int, draw: random.Random, killed: Callable[[], Any]
) -> int:
    """Start a command, kill it and continue it until it ends, or until it was killed so often; returns the kills."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, count = folder.parent / "whole", 0
    while True:
        began, before = time.time(), parts(folder)
        with processes.Command(command.next(folder), folder=folder) as running:
            status = running.wait(draw.uniform(0, record.seconds) if count < kills else processes.SECONDS)
            if status is None and count == kills:
                raise AssertionError(f"{folder}: does not end in {processes.SECONDS} s")
            if is_killed := status is None:
                name = draw.choices(["SIGKILL", "SIGTERM"], [4, 1])[0]
                running.kill(signal.Signals[name])
                status = running.wait(120)
                if status is None:
                    record.faults.append(f"{folder.name}: goes on for 120 s after SIGTERM")
        (folder / "printed.txt").write_text(running.out)
        if is_killed:
            count += 1
            record.kills[name] = record.kills.get(name, 0) + 1
            record.working += any(path.stat().st_mtime > began for path in written(folder))
            record.saving += bool(parts(folder) - before)
            record.anew += command.resumes and command.next(folder) == command.words
            record.faults += [
                f"{folder.name}, {name}: {each}" for each in broken(folder) + strange(command, folder, whole)
            ]
            killed()
            if status != 0:
                continue
        if status != 0:
            record.faults.append(f"{folder.name}: status {status}: {running.err[-1000:]}")
            return count
        record.endings += 1
        record.faults += [f"{folder.name}: {each}" for each in broken(folder) + strange(command, folder, whole)]
        ours, theirs = command.outcome(folder), command.outcome(whole)
        record.faults += [f"{folder.name}: {place} differs" for place in differences(ours, theirs)]
        return count


def written(folder: Path) -> list[Path]:
    """The files of the runs."""
    return [path for part in ("runs", "out") for path in (folder / part).rglob("*") if path.is_file()]


def parts(folder: Path) -> set[Path]:
    """What kills while writing left."""
    return {path for path in written(folder) if re.fullmatch(PART, path.name)}


def strange(command: Command, folder: Path, whole: Path) -> list[str]:
    """Files that neither an unbroken run leaves nor, as documented, a killed one."""

    def names(root: Path) -> set[str]:
        return {re.sub(r"version_\d+", "version_N", str(path.relative_to(root))) for path in written(root)}

    found = names(folder) - names(whole)
    return [
        name
        for name in sorted(found)
        if not re.fullmatch(PART, Path(name).name) and Path(name).name not in command.under_way
    ]


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """The places where two contents differ in a bit, however deep."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        if ours.keys() != theirs.keys():
            return [f"{place}: the keys {sorted(map(str, ours.keys() ^ theirs.keys()))}"]
        return [each for key in theirs for each in differences(ours[key], theirs[key], f"{place}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [each for number, pair in pairs for each in differences(*pair, f"{place}/{number}")]
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return [] if torch.equal(ours, theirs) and ours.dtype == theirs.dtype else [place]
    return [] if ours == theirs else [place]
