"""The ``facelightning`` command: lists the subcommands, and imports each only when it is called."""

import difflib
import errno
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from ctypes import CDLL
from importlib import import_module
from importlib.metadata import version
from traceback import walk_tb

from facelightning.errors import FacelightningError

COMMANDS = {
    "fit": "train a model",
    "validate": "score a checkpoint on the validation data",
    "test": "score a checkpoint on the test data and write test_results.json",
    "predict": "write attributes and parsing of photographs: predict CHECKPOINT PATH... [--faces KIND]",
}
OWN = {
    "reproduce": ("reproduce", "train the rows of the papers' tables and print them beside the published numbers"),
    "bench": ("commands.bench", "measure how fast a configuration trains here, and what its speed hangs on"),
    "shard": ("commands.shard", "write a data set as a few large files, for disks that it does not fit on"),
    "calibrate": (
        "commands.calibrate",
        "fit probabilities and decision thresholds of a checkpoint, on held-out images",
    ),
    "demo": ("commands.demo", "show in the browser what a trained network says of a photograph"),
    "export": ("commands.export", "write a trained network for other programs, or as a folder to share"),
    "visualize": ("commands.visualize", "draw the papers' figures of what a checkpoint sees and has learned"),
    "compare": ("commands.compare", "print scores of finished runs side by side, and draw accuracy by training size"),
    "attribution": ("commands.attribution", "measure on drawn faces whether a model looks in the right place"),
}
"""Commands with their own options: name → module and description."""

USAGE = """usage: facelightning fit --config NAME.yaml [--recipe NAME] [--config OVERLAY.yaml ...] [--KEY VALUE ...]
       facelightning COMMAND --ckpt_path FILE [--KEY VALUE ...]

commands:
{commands}

options:
  -h, --help     this text; `facelightning COMMAND --help` lists every key
  -V, --version  the version

example: facelightning fit --config quickstart.yaml"""


PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "0"}
"""A thread that waits for another goes to sleep after a short while; by default it keeps its core busy much longer.

At once would be too soon: narrow networks have hundreds of short waits a step, and to wake a thread takes longer. Only
libgomp, which PyTorch's own packages for Linux have, knows short whiles; of the others, threads sleep at once.
"""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of ``mallopt``: from how many bytes on free memory, and each block, goes back to the system."""

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG, errno.EDQUOT), "free some space, or write elsewhere"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions, or use another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file stands where a folder is needed: use another place"),
    errno.EROFS: "write elsewhere",
}
"""What to do about an error of the operating system."""


def sentence(error: BaseException | None) -> str | None:
    """A user's mistake, or what the operating system refused, as one sentence; ``None`` if an exception is neither.

    Argument parsers, torch and worker processes wrap what they pass on, so causes count too. Lightning and jsonargparse
    refuse settings by Python's own exceptions: these count if they were raised there.
    """
    found: str | None = None
    while error is not None:
        *_, (frame, _) = [(None, 0), *walk_tb(error.__traceback__)]
        home = frame.f_globals.get("__name__", "").partition(".")[0] if frame else ""
        if isinstance(error, FacelightningError):
            # an error from a worker process begins with its traceback
            return re.sub(r"(?s)^Caught .*\n[\w.]+Error: ", "", str(error)).strip()
        if isinstance(error, OSError) and error.strerror:
            place = f"{error.filename}: " if error.filename else ""
            return f"{place}{error.strerror}" + (f"; {remedy}" if (remedy := REMEDIES.get(error.errno or 0)) else "")
        refuses = home in ("lightning", "lightning_utilities", "jsonargparse", "wandb")
        if refuses or type(error).__name__ == "MisconfigurationException":
            lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
            found = (lines[-1] if lines and home == "jsonargparse" else " ".join(lines)) or found
        error = error.__cause__ or error.__context__
    return found and (found if len(found) <= 300 else f"{found[:299]}…")


def prepare(command: str) -> None:
    """What must be done before PyTorch is imported, which takes seconds; a user is told that it does.

    Waiting threads go to sleep. Memory that a training step frees is kept for the next one: to map it anew takes time.
    """
    if not PASSIVE.keys() & os.environ.keys():
        os.environ.update(PASSIVE)
    if not any(key.startswith(("MALLOC_", "GLIBC_TUNABLES")) for key in os.environ):
        with suppress(OSError, AttributeError, TypeError):  # of the C library of Linux alone
            mallopt = CDLL(None).mallopt
            # some versions take no more; and the last alone would do the contrary
            if any(mallopt(M_MMAP_THRESHOLD, size) for size in (2**30, 2**25)):
                mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    if sys.stderr.isatty() and "LOCAL_RANK" not in os.environ:  # only the first process
        print(f"{command}: loading PyTorch …", file=sys.stderr, flush=True)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a user's mistake is one sentence on stderr, not a traceback.

    Args:
        args: The command line, ``sys.argv[1:]`` if not given.

    Example:
        >>> main(["fti"])
        2
    """
    if args is None:
        sys.path.append("")  # the working folder, for parts of the user's own; as in `python -m facelightning`
    arguments = list(sys.argv[1:] if args is None else args)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        texts = {**COMMANDS, **{name: text for name, (_, text) in OWN.items()}}
        print(USAGE.format(commands="\n".join(f"  {name:11} {text}" for name, text in texts.items())))
        return 0
    if command in ("-V", "--version"):
        print(f"facelightning {version('facelightning')}")
        return 0
    if command not in COMMANDS and command not in OWN:
        close = difflib.get_close_matches(command, [*COMMANDS, *OWN], 1)
        hint = f"did you mean {close[0]}?" if close else f"commands are {', '.join([*COMMANDS, *OWN])}"
        print(f"facelightning: unknown command {command!r}; {hint}", file=sys.stderr)
        return 2
    prepare(command)
    try:
        if command in OWN:
            import_module(f"facelightning.{OWN[command][0]}").main(arguments[1:])
        elif command == "predict" and arguments[1:] and not arguments[1].startswith("-"):
            import_module("facelightning.commands.predict").main(arguments[1:])
        else:
            from facelightning.cli import FaceCLI

            FaceCLI(arguments)
    except Exception as error:
        mistake = sentence(error)
        if mistake is None:
            raise
        print(f"facelightning: {mistake}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("facelightning: interrupted", file=sys.stderr)
        return 130
    except SystemExit as error:
        if type(error).__name__ == "SIGTERMException":  # Lightning would end a killed run with status 0
            return 143
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
