"""Order and augmentation seeds of samples, as pure functions, so that runs can be repeated and resumed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from facelightning.errors import CheckpointError, ConfigurationError

Key = tuple[int, int]
"""What a sampler yields and a data set is indexed with: (sample, augmentation seed)."""


def mix(*keys: int) -> int:
    """Hash non-negative integers to one seed in [0, 2**63).

    Example:
        >>> mix(7, 0, 3) == mix(7, 0, 3), mix(7, 0, 3) == mix(7, 3, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> np.uint64(1))


class TrainSampler(Sampler[Key]):
    """Yields (sample, augmentation seed), both functions of (seed, epoch, cycle) alone.

    Every process draws the same permutation and takes every ``world_size``-th entry of it. The remainder is left out,
    so that all processes make equally many steps; it differs between permutations.

    Args:
        size: Number of samples of the set.
        seed: The run's seed.
        rank: This process, in [0, world_size).
        world_size: Number of processes.

    Example:
        >>> [[i for i, _ in TrainSampler(5, seed=1, rank=r, world_size=2)] for r in (0, 1)]
        [[4, 3], [1, 2]]
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.seed, self.rank, self.world_size = size, seed, rank, world_size
        self.epoch = 0
        self.cycle = 0  # how often the set restarted within the epoch of a longer set
        self.skip = 0  # samples already seen before an interruption

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.world_size

    def __iter__(self) -> Iterator[Key]:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, self.cycle))
        order = torch.randperm(self.size, generator=generator)[self.rank :: self.world_size][: len(self)]
        seeds = torch.randint(2**62, (self.size,), generator=generator)
        skip, self.skip = self.skip, 0
        for index in order[skip:].tolist():
            yield index, int(seeds[index])


class EvaluationSampler(Sampler[Key]):
    """Yields every sample exactly once over all processes, in order and without padding.

    Lightning's own sampler repeats samples until all processes have equally many, which changes every score.

    Example:
        >>> [[i for i, _ in EvaluationSampler(5, rank, 2)] for rank in (0, 1)]
        [[0, 2, 4], [1, 3]]
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Key]:
        return ((index, 0) for index in self.indices)


class ResumableLoader(DataLoader[Any]):
    """A training loader that resumes mid-epoch from a checkpoint.

    Lightning saves and restores ``state_dict``; the :class:`TrainSampler` skips what was done, so that no sample is
    read twice. The position is (epoch, cycle, batches done).
    """

    sampler: TrainSampler
    batch_size: int
    _place: tuple[int, int, int] = (-1, 0, 0)
    _restored: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator: runs at the first next(), after set_epoch
        sampler = self.sampler
        restored, self._restored = self._restored, None
        last_epoch, last_cycle, _ = self._place
        epoch, cycle, done = sampler.epoch, (last_cycle + 1 if last_epoch == sampler.epoch else 0), 0
        if restored is not None and restored["epoch"] == epoch:
            cycle, done = restored["cycle"], restored["done"]
            order = self._order()
            began = order | restored
            changed = [f"{key} {began[key]} (here {here})" for key, here in order.items() if began[key] != here]
            if changed:
                what = ", ".join(changed)
                raise ConfigurationError(f"the checkpoint was written amid an epoch with {what}: resume as it began")
        sampler.cycle, sampler.skip = cycle, done * self.batch_size
        self._place = (epoch, cycle, done)
        for batch in super().__iter__():
            done += 1
            self._place = (epoch, cycle, done)
            yield batch

    def _order(self) -> dict[str, int]:
        """What the order of the samples depends on beside the position."""
        sampler = self.sampler
        order = {"samples": sampler.size, "seed": sampler.seed, "processes": sampler.world_size}
        return order | {"batch_size": self.batch_size}

    def state_dict(self) -> dict[str, int]:
        """The position after the last batch returned, and what its meaning depends on."""
        return dict(zip(("epoch", "cycle", "done"), self._place, strict=True)) | self._order()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from that position; an epoch of other samples, seed, batch size or processes is refused later."""
        if not isinstance(state, dict) or not all(
            isinstance(state.get(key), int) for key in ("epoch", "cycle", "done")
        ):
            raise CheckpointError(
                "the checkpoint does not say how far its training had come in the data: it is damaged"
            )
        self._restored = state
