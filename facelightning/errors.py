"""A user's mistakes: one clear sentence each, printed without a traceback at the command line."""


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
