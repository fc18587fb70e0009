"""What Lightning offers no public API for; each function says which versions need it."""

import lightning as L


def forget_loaders(trainer: L.Trainer) -> None:
    """Make Lightning create the training loaders again: counting the training's steps created them too early.

    Lightning 2.5 and 2.6 restore the loaders' state from a checkpoint only when they create them.
    """
    trainer.fit_loop._combined_loader = None
