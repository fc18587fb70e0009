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
