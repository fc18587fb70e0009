"""What a task fits in a test, without training, is fitted to the validation split."""

from collections.abc import Iterator, Sequence

from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from facelightning.errors import ConfigurationError
from facelightning.objectives import Batch
from facelightning.tasks.base import FaceTask


def validation_batches(task: FaceTask) -> Iterator[Batch]:
    """This process's share of the validation split, on the task's device and computed with as in a test step.

    Raises:
        ConfigurationError: If the task is tested without a data module.
    """
    data, precision = getattr(task.trainer, "datamodule", None), task.trainer.precision_plugin
    if data is None:
        raise ConfigurationError(
            f"{type(task).__name__} is fitted on the validation split: test it with a data module, not with a loader "
            "of test images"
        )
    data.setup("validate")
    with precision.test_step_context():
        for loader in CombinedLoader(data.val_dataloader(), "sequential").flattened:
            for batch in loader:
                yield task.trainer.strategy.batch_to_device(precision.convert_input(batch))


def of_all_processes(task: FaceTask, rows: Tensor) -> Tensor:
    """The rows of all processes, on the CPU, in the order of the samples."""
    if task.trainer.world_size == 1:
        return rows.cpu()
    return interleaved([part.cpu() for part in gather_all_tensors(rows.to(task.device))])


def interleaved(parts: Sequence[Tensor]) -> Tensor:
    """The rows of P processes in order, if each had every P-th, as evaluation gives them samples.

    Example:
        >>> import torch
        >>> interleaved([torch.tensor([0, 2, 4]), torch.tensor([1, 3])])
        tensor([0, 1, 2, 3, 4])
    """
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
