"""A user's mistakes: one clear sentence each, printed without a traceback at the command line."""


class FacelightningError(Exception):
    """Base of all errors that a user can mend; says what was looked for, where, and what to do."""


class DataNotFoundError(FacelightningError, FileNotFoundError):
    """A folder or file of a data set is missing."""


class DataFormatError(FacelightningError, ValueError):
    """A file of a data set does not hold what its format promises; the message names file and line."""


class CheckpointError(FacelightningError, ValueError):
    """A checkpoint is missing, broken, or holds another kind of model."""


class ConfigurationError(FacelightningError, ValueError):
    """Two settings contradict each other."""
