"""Prediction goes on where an image cannot be read, and says so at the end."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset, default_collate

from facelightning.errors import DataFormatError, DataNotFoundError, quoted


class Failure(NamedTuple):
    """An image that is not predicted, and why."""

    name: str
    reason: str


class Readable(Dataset[Any]):
    """A data set that gives a :class:`Failure` in place of a sample that cannot be read.

    Args:
        faces: The data set, indexed by the keys of a sampler.
        names: The name of each image.
    """

    def __init__(self, faces: Dataset[Any], names: Sequence[str] | npt.NDArray[np.str_]) -> None:
        self.faces, self.names = faces, names

    def __getitem__(self, key: tuple[int, int]) -> Any:
        try:
            return self.faces[key]
        except (DataNotFoundError, DataFormatError) as error:
            return Failure(str(self.names[key[0]]), str(error))


def apart(samples: list[Any]) -> tuple[Any, list[Failure]]:
    """A batch of the samples, ``None`` if there are none; and the failures among them."""
    read = [sample for sample in samples if not isinstance(sample, Failure)]
    failures = [sample for sample in samples if isinstance(sample, Failure)]
    return default_collate(read) if read else None, failures


class PredictionLoader(DataLoader[Any]):
    """Batches of what could be read, with :func:`apart` as ``collate_fn``; what could not is in ``failures``."""

    failures: Sequence[Failure] = ()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator
        found: list[Failure] = []
        self.failures = found
        for number, (batch, failures) in enumerate(super().__iter__(), start=1):
            found += failures
            if found and number == len(self):  # nobody asks for another batch behind the last one
                names = quoted(", ".join(failure.name for failure in found[:3]), 40)
                warnings.warn(f"{len(found)} images are left out ({names}); the first: {found[0].reason}", stacklevel=2)
            if batch is not None:  # a whole batch may be broken
                yield batch
