"""Order and augmentation seeds of samples, as pure functions, so that runs can be repeated and resumed."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
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
        self.images = 1  # of an identity beside one another
        self.images_per_shard = self.window = 0  # of samples in shards, and how many of these are read in turns
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
        order = self._order(generator)[: len(self)]
        seeds = torch.randint(2**62, (self.size,), generator=generator)
        skip, self.skip = self.skip, 0
        for index in order[skip:].tolist():
            yield index, int(seeds[index])

    def _order(self, generator: torch.Generator) -> Tensor:
        """This process's samples in their order, perhaps a few more than it yields."""
        return torch.randperm(self.size, generator=generator)[self.rank :: self.world_size]


class IdentitySampler(TrainSampler):
    """Batches of several images of each of several identities, for losses that compare them [1]_.

    Every ``persons * images`` samples are a batch. An epoch goes in rounds: in each, every identity with ``images`` or
    more unseen images gives so many of them, and the round is cut into batches of ``persons`` identities. No sample
    comes twice. What does not fill a batch is left out, and differs between epochs; identities with fewer images never
    come. The batches of all rounds are shuffled; a process takes every ``world_size``-th.

    Args:
        identities: The identity of each sample of the set, as a number.
        persons: Identities of a batch.
        images: Images of each identity in a batch.
        seed: The run's seed.
        rank: This process, in [0, world_size).
        world_size: Number of processes.

    Raises:
        ConfigurationError: If there is no batch for every process.

    Example:
        >>> sampler = IdentitySampler([7, 8, 7, 9, 9, 8], persons=2, images=2, seed=0)
        >>> [index for index, _ in sampler]
        [4, 3, 1, 5]

    .. [1] Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017: "PK batches".
    """

    def __init__(
        self, identities: ArrayLike, persons: int, images: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        _, inverse, counts = np.unique(identities, return_inverse=True, return_counts=True)
        super().__init__(len(inverse), seed, rank, world_size)
        self.identities, self.counts = torch.from_numpy(inverse), torch.from_numpy(counts)
        self.persons, self.images = persons, images
        rounds = self.counts // images
        in_round = [int((rounds > number).sum()) for number in range(int(rounds.max()))]
        self.batches = sum(count // persons for count in in_round)
        if self.batches < world_size:
            raise ConfigurationError(
                f"{int((rounds > 0).sum())} identities have {images} or more images: too few for batches of {persons} "
                f"identities on {world_size} processes; choose a smaller batch size or fewer images of an identity"
            )

    def __len__(self) -> int:
        return self.batches // self.world_size * self.persons * self.images

    def _order(self, generator: torch.Generator) -> Tensor:
        order = torch.randperm(self.size, generator=generator)
        order = order[self.identities[order].argsort(stable=True)]  # each identity's images, in a random order
        place = torch.arange(self.size) - (self.counts.cumsum(0) - self.counts)[self.identities[order]]
        used = place < (self.counts // self.images * self.images)[self.identities[order]]
        groups, rounds = order[used].view(-1, self.images), place[used][:: self.images] // self.images
        shuffled = torch.randperm(len(groups), generator=generator)
        batches = [
            group[: len(group) // self.persons * self.persons].view(-1, self.persons * self.images)
            for group in (groups[shuffled[rounds[shuffled] == number]] for number in range(int(rounds.max()) + 1))
        ]
        together = torch.cat(batches)
        return together[torch.randperm(len(together), generator=generator)][self.rank :: self.world_size].flatten()


class ShardSampler(TrainSampler):
    """The order of samples that lie in shards: at any time only a few shards are needed.

    Shards begin one after another, in a random order. The images of each are spread at random over the time in which
    ``window`` shards begin, so that so many are read in turns. Each sample comes once. Images of one shard are further
    apart the larger the window is; those of shards that begin far apart never meet in a batch in this epoch. The first
    and the last images of an epoch are of fewer shards. Everything is a function of (seed, epoch, cycle), and processes
    share the samples as with :class:`TrainSampler`.

    Args:
        sizes: Number of samples of each shard, in the order of the set; only the last one may be smaller.
        window: Shards that are read in turns; 1 reads one after another, each in a random order.
        seed: The run's seed.
        rank: This process, in [0, world_size).
        world_size: Number of processes.

    Example:
        >>> [index for index, _ in ShardSampler([3, 3, 3], window=1, seed=0)]
        [5, 3, 4, 1, 0, 2, 8, 6, 7]
    """

    def __init__(self, sizes: Sequence[int], window: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(sum(sizes), seed, rank, world_size)
        self.sizes = torch.tensor(sizes)
        self.images_per_shard, self.window = max(sizes), window

    def _order(self, generator: torch.Generator) -> Tensor:
        begins = torch.randperm(len(self.sizes), generator=generator).repeat_interleave(self.sizes)
        delays = self.window * torch.rand(self.size, generator=generator, dtype=torch.float64)
        return (begins + delays).argsort(stable=True)[self.rank :: self.world_size]


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
        order |= {"batch_size": self.batch_size, "images_per_identity": sampler.images}
        return order | {"images_per_shard": sampler.images_per_shard, "window": sampler.window}

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
