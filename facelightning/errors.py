"""A user's mistakes: one clear sentence each, printed without a traceback at the command line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FacelightningError(Exception):
    """Base of all errors that a user can fix; the message says what is wrong, where, and what to do."""


class DataNotFoundError(FacelightningError, FileNotFoundError):
    """A folder or file of a data set is missing."""


class DataFormatError(FacelightningError, ValueError):
    """A file of a data set has an unexpected format; the message names file and line."""


class CheckpointError(FacelightningError, ValueError):
    """A checkpoint is missing, broken, or holds another kind of model."""


class DivergenceError(FacelightningError, ArithmeticError):
    """Training has diverged: a loss is not finite."""


class ConfigurationError(FacelightningError, ValueError):
    """Two settings contradict each other."""


class ProcessError(FacelightningError, ChildProcessError):
    """Another process of the command was killed."""


def quoted(text: str, limit: int = 80) -> str:
    """Foreign text as a message quotes it: at most ``limit`` characters, unprintable ones replaced.

    Example:
        >>> quoted("a\\0b" + "c" * 100, 6)
        'a�bcc…'
    """
    clean = "".join(letter if letter.isprintable() else "�" for letter in text[: limit + 1])
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


def ending(path: Path) -> str:
    """A path, as a message names it: of a long one the end."""
    text = str(path)
    return quoted(text, 150) if len(text) <= 150 else f"…{quoted(text[-149:], 149)}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error of the operating system into one sentence that names the file, or else ``path``.

    Raises:
        DataNotFoundError: In place of any other ``OSError``.
    """
    try:
        yield
    except FacelightningError:
        raise
    except OSError as error:
        path = Path(os.fsdecode(error.filename or path))
        dangling = isinstance(error, FileNotFoundError) and path.is_symlink()
        reason = "it is a link to nothing" if dangling else error.strerror or quoted(str(error))
        raise DataNotFoundError(f"cannot read {ending(path)}: {reason}; check the file and its permissions") from None
