"""``facelightning`` in processes of its own, forked from one that has imported it: the import takes seconds."""

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from facelightning.__main__ import main
from facelightning.reproduce import scheduler

SECONDS = 300
"""After which a command that has not ended has failed."""

STREAMS = ("out", "err")

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["facelightning.cli", "facelightning.reproduce"])


def environment(**variables: str) -> dict[str, str]:
    """What a command that a test starts finds in its environment."""
    return os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"} | variables


class Command:
    """Commands of ``facelightning`` one after another in a process group of their own, killed at the end of the block.

    Args:
        commands: The arguments of each.
        folder: Where they work.
        variables: Their environment; that of the tests if not given.
        together: Whether both streams are one, as on a terminal: ``out``.
        within: Whether ``reproduce`` trains in its own process: each start of another takes seconds.
    """

    def __init__(
        self,
        *commands: Sequence[str],
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
        together: bool = False,
        within: bool = False,
    ) -> None:
        folder, variables = folder or Path.cwd(), variables or environment()
        self.out = self.err = ""  # what it printed, once the block has ended
        self._printed = tempfile.TemporaryDirectory()
        for name in STREAMS:
            Path(self._printed.name, name).touch()
        files = [f"{self._printed.name}/{name}" for name in (("out", "out") if together else STREAMS)]
        arguments = (commands, str(folder), dict(variables), files, within)
        self._process = FORKS.Process(target=_run, args=arguments)
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        """The status, if it has ended."""
        return self._process.exitcode

    def wait(self, seconds: float = SECONDS) -> int | None:
        """Wait for the end; the status, or ``None`` if it goes on."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()  # it may have no group yet
        self.kill()
        self._process.join()
        self.out, self.err = (Path(self._printed.name, name).read_text() for name in STREAMS)
        self._printed.cleanup()


def check_sigterm_ends(command: Command, has_begun: Callable[[], bool]) -> None:
    """SIGTERM to a command's first process, once it has begun, ends all of them, and is its status."""
    while not has_begun():
        assert command.poll() is None
        time.sleep(0.01)
    os.kill(command.pid, signal.SIGTERM)
    assert command.wait(60) == 143
    with pytest.raises(ProcessLookupError):  # nobody of its group is left
        os.killpg(command.pid, 0)


def run(*commands: Sequence[str], **options: Any) -> Command:
    """Commands one after another until the last has ended, or one has failed."""
    with Command(*commands, **options) as command:
        assert command.wait() is not None, f"goes on for {SECONDS} s: {commands}"
    return command


def train_within(command: Sequence[str]) -> float | None:
    """In place of the function of ``reproduce`` that starts a process for each training; few faces are drawn."""
    few = ["--faces=1"] if command[0] == "attribution" else []
    return None if main([*command, *few]) else 1.0


def _run(
    commands: Sequence[Sequence[str]], folder: str, variables: Mapping[str, str], files: Sequence[str], within: bool
) -> None:
    """In the new process: be as one that a user started."""
    if within:
        scheduler._call = train_within
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # of readers of data: as without the tests' own server
    os.chdir(folder)
    sys.path.insert(0, folder)
    os.environ.clear()
    os.environ.update(variables)
    for name, stream in zip(files, (sys.stdout, sys.stderr), strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), stream.fileno())
    sys.modules["__main__"].__spec__ = find_spec("facelightning.__main__")  # what Lightning starts on other processes
    try:
        for words in commands:
            sys.argv[1:] = words
            if status := main():
                sys.exit(status)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
