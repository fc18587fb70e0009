"""A command on several processes ends with all of them, and with one message."""

import atexit
import signal
import sys
import time

import lightning as L

from facelightning.errors import FacelightningError, ProcessError


def end_together(trainer: L.Trainer, error: Exception) -> None:
    """End the processes that this one started, now that it failed; call it while the error is handled.

    They would wait for it, on GPUs for ten minutes. If another one failed first, this error only follows from that:
    the other one has printed its own.

    Raises:
        ProcessError: If another one was killed, and so could not say why.
    """
    others = getattr(trainer.strategy.launcher, "procs", [])  # of the first process, if Lightning started the others
    for other in others:
        atexit.register(other.kill)  # once this process has printed its error
    if isinstance(error, FacelightningError) or trainer.world_size == 1:
        return
    until = time.monotonic() + (3 if others else 6)  # the first process ends the others before they say what follows
    while time.monotonic() < until:
        for rank, other in enumerate(others, 1):
            if (status := other.poll()) and status < 0:
                name = signal.Signals(-status).name
                raise ProcessError(f"process {rank} was ended by {name}; the memory of the machine may be too small")
            if status:
                sys.exit(status)
        time.sleep(0.1)
