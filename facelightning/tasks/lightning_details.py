"""What Lightning has no public way for; each function says which versions need it."""

import lightning as L


def forget_loaders(trainer: L.Trainer) -> None:
    """Have the training loaders made again, which counting the steps of a training made too early.

    Lightning 2.5 and 2.6 restore a checkpoint's place in the loaders only when they make them.
    """
    trainer.fit_loop._combined_loader = None
