"""Order, seeds and resuming: what a run sees depends on (seed, epoch, cycle) alone, whatever happens in between."""

from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import Dataset

from facelightning.data.sampling import EvaluationSampler, IdentitySampler, Key, ResumableLoader, TrainSampler, mix
from facelightning.errors import ConfigurationError

Batch = list[tuple[int, int]]


class Echo(Dataset[Tensor]):
    """Hands out the very (sample, seed) that it is asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: Key) -> Tensor:
        return torch.tensor(key)


def draw(
    size: int = 10, seed: int = 1, epoch: int = 0, cycle: int = 0, rank: int = 0, world_size: int = 1
) -> list[tuple[int, int]]:
    sampler = TrainSampler(size, seed, rank, world_size)
    sampler.set_epoch(epoch)
    sampler.cycle = cycle
    return list(sampler)


def test_mix_is_the_same_on_every_machine() -> None:
    assert mix(7, 0, 3) == 5093101976529578930


def test_an_epoch_is_a_function_of_seed_epoch_and_cycle() -> None:
    first = draw()
    torch.manual_seed(5)  # the state of the global generator must not matter
    assert draw() == first
    used = TrainSampler(10, seed=1)
    list(used)
    used.set_epoch(3)
    list(used)
    used.set_epoch(0)
    assert list(used) == first
    assert sorted(index for index, _ in first) == list(range(10))
    assert len({seed for _, seed in first}) == 10
    for other in (draw(seed=2), draw(epoch=1), draw(cycle=1)):
        assert [index for index, _ in other] != [index for index, _ in first]
        assert not {seed for _, seed in other} & {seed for _, seed in first}


def test_drawing_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [4, 11, 12])
def test_processes_share_the_training_samples_equally(size: int, world_size: int) -> None:
    shares = [draw(size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [len(share) for share in shares] == [size // world_size] * world_size
    assert [len(TrainSampler(size, 1, rank, world_size)) for rank in range(world_size)] == [
        size // world_size
    ] * world_size
    together = [index for share in shares for index, _ in share]
    assert len(set(together)) == len(together) > size - world_size
    alone = dict(draw(size))
    assert all(alone[index] == seed for share in shares for index, seed in share)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [2, 11, 12])
def test_processes_evaluate_every_sample_once(size: int, world_size: int) -> None:
    samplers = [EvaluationSampler(size, rank, world_size) for rank in range(world_size)]
    shares = [[index for index, _ in sampler] for sampler in samplers]
    assert sorted(index for share in shares for index in share) == list(range(size))
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]


def loader(size: int, batch_size: int, seed: int = 1, num_workers: int = 0) -> ResumableLoader:
    sampler = TrainSampler(size, seed)
    return ResumableLoader(Echo(size), sampler=sampler, batch_size=batch_size, num_workers=num_workers)


def pairs(batch: Tensor) -> Batch:
    return [(index, seed) for index, seed in batch.tolist()]


def epoch_of(resumable: ResumableLoader, epoch: int) -> list[Batch]:
    resumable.sampler.set_epoch(epoch)
    return [pairs(batch) for batch in resumable]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_continues_behind_every_batch(num_workers: int) -> None:
    straight = loader(10, 3, num_workers=num_workers)
    states, expected = [], []
    straight.sampler.set_epoch(4)
    for batch in straight:
        expected.append(pairs(batch))
        states.append(straight.state_dict())  # workers are ahead of this place by then
    assert [len(batch) for batch in expected] == [3, 3, 3, 1]
    assert [pair for batch in expected for pair in batch] == draw(10, seed=1, epoch=4)
    following = epoch_of(straight, 5)

    for done, state in enumerate(states, start=1):
        resumed = loader(10, 3, num_workers=num_workers)
        resumed.load_state_dict(state)
        assert epoch_of(resumed, 4) == expected[done:]  # after the last batch: nothing is left
        assert epoch_of(resumed, 5) == following

    next_epoch = loader(10, 3, num_workers=num_workers)
    next_epoch.load_state_dict(states[-1])
    assert epoch_of(next_epoch, 5) == following  # an epoch that was complete is not taken up again


def test_a_restart_within_an_epoch_draws_anew_and_is_resumed_too() -> None:
    straight = loader(5, 2)
    first = epoch_of(straight, 0)
    second, states = [], []
    for batch in straight:
        second.append(pairs(batch))
        states.append(straight.state_dict())
    assert (
        [pair for batch in second for pair in batch] == draw(5, cycle=1) != [pair for batch in first for pair in batch]
    )
    for done, state in enumerate(states, start=1):
        resumed = loader(5, 2)
        resumed.load_state_dict(state)
        assert epoch_of(resumed, 0) == second[done:]
        third = [pair for batch in resumed for pair in pairs(batch)]
        assert third == draw(5, cycle=2)


class Recorder(L.LightningModule):
    """Writes down what it is trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[dict[str, Batch]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append({name: pairs(part) for name, part in batch.items()})
        return self.weight * 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, short: int, long: int, checkpoint: str | None = None) -> list[dict[str, Batch]]:
    every_step = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        use_distributed_sampler=False,
        callbacks=[] if checkpoint else [every_step],
        enable_checkpointing=checkpoint is None,
        **options,
    )
    recorder = Recorder()
    trainer.fit(recorder, {"short": loader(short, 2, seed=1), "long": loader(long, 2, seed=2)}, ckpt_path=checkpoint)
    return recorder.seen


@pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers", "ignore:.*callbacks used to create"
)
@pytest.mark.parametrize(("short", "long"), [(5, 9), (4, 4), (3, 12)])
def test_two_cycling_loaders_continue_behind_every_step(short: int, long: int, tmp_path: Path) -> None:
    straight = fit(tmp_path, short, long)
    steps = -(-long // 2)
    assert len(straight) == 2 * steps
    for epoch in (0, 1):
        seen = straight[epoch * steps :][:steps]
        assert [pair for step in seen for pair in step["long"]] == draw(long, seed=2, epoch=epoch)
        cycles = [pair for cycle in range(steps) for pair in draw(short, seed=1, epoch=epoch, cycle=cycle)]
        shown = [pair for step in seen for pair in step["short"]]
        assert shown == cycles[: len(shown)]
    for step in range(1, len(straight) + 1):
        assert fit(tmp_path, short, long, str(tmp_path / f"step={step}.ckpt")) == straight[step:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 7}, r"batch_size 4 \(here 7\)"),
        ({"seed": 9}, r"seed 0 \(here 9\)"),
        ({"size": 22}, r"samples 21 \(here 22\)"),
        ({"world_size": 2}, r"processes 1 \(here 2\)"),
    ],
)
def test_an_epoch_goes_on_as_it_began(change: dict[str, int], message: str) -> None:
    """Else some samples would come twice and others never."""

    def loader(size: int = 21, seed: int = 0, batch_size: int = 4, world_size: int = 1) -> ResumableLoader:
        return ResumableLoader(Echo(size), sampler=TrainSampler(size, seed, 0, world_size), batch_size=batch_size)

    first = loader()
    batches = iter(first)
    next(batches), next(batches)
    resumed = loader(**change)
    resumed.load_state_dict(first.state_dict())
    with pytest.raises(ConfigurationError, match=f"amid an epoch with {message}: resume as it began"):
        next(iter(resumed))
    at_the_end = loader(**change)
    list(batches)
    at_the_end.load_state_dict(first.state_dict())
    at_the_end.sampler.set_epoch(1)
    assert list(at_the_end)  # between epochs there is nothing to mix up


IDENTITIES = np.random.default_rng(0).permutation(np.repeat([3, 10, 11, 40, 57, 60, 99], [1, 2, 3, 4, 6, 9, 2]))


def batches_of(
    persons: int, images: int, seed: int = 1, epoch: int = 0, cycle: int = 0, rank: int = 0, world_size: int = 1
) -> list[Batch]:
    sampler = IdentitySampler(IDENTITIES, persons, images, seed, rank, world_size)
    sampler.set_epoch(epoch)
    sampler.cycle = cycle
    keys, size = list(sampler), persons * images
    assert len(keys) == len(sampler) and len(keys) % size == 0
    return [keys[start : start + size] for start in range(0, len(keys), size)]


# with 2 images each identity gives 1, 1, 2, 3, 4, 1 groups and one none: rounds of 6, 3, 2 and 1
@pytest.mark.parametrize(
    ("persons", "images", "count"), [(2, 2, 3 + 1 + 1), (3, 2, 2 + 1), (6, 2, 1), (2, 3, 2 + 1), (1, 4, 4), (4, 1, 3)]
)
def test_a_batch_has_so_many_images_of_so_many_identities(persons: int, images: int, count: int) -> None:
    for epoch in range(6):
        batches = batches_of(persons, images, epoch=epoch)
        assert len(batches) == count
        for batch in batches:
            counts = Counter(IDENTITIES[index] for index, _ in batch)
            assert len(counts) == persons and set(counts.values()) == {images}
        samples = [index for batch in batches for index, _ in batch]
        assert len(set(samples)) == len(samples)  # none twice in an epoch, so none twice in a batch
        assert len({seed for batch in batches for _, seed in batch}) == len(samples)


def test_over_the_epochs_every_image_that_can_comes_with_every_other() -> None:
    met = {
        frozenset(index for index, _ in batch[start : start + 2])
        for epoch in range(300)
        for batch in batches_of(2, 2, epoch=epoch)
        for start in (0, 2)
    }
    assert met == {frozenset((a, b)) for a in range(27) for b in range(a) if IDENTITIES[a] == IDENTITIES[b]}
    last = [{IDENTITIES[index] for index, _ in batches_of(2, 2, epoch=epoch)[-1]} for epoch in range(10)]
    assert any(persons != {57, 60} for persons in last)  # of the last round; rounds are shuffled


def test_batches_of_identities_are_a_function_of_seed_epoch_and_cycle() -> None:
    first = batches_of(2, 2)
    torch.manual_seed(5)  # the state of the global generator must not matter
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert batches_of(2, 2) == first
    assert torch.equal(torch.rand(3), expected)
    for other in (batches_of(2, 2, seed=2), batches_of(2, 2, epoch=1), batches_of(2, 2, cycle=1)):
        assert [[index for index, _ in batch] for batch in other] != [[index for index, _ in batch] for batch in first]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_the_batches_of_identities(world_size: int) -> None:
    alone = batches_of(2, 2, epoch=3)
    shares = [batches_of(2, 2, epoch=3, rank=rank, world_size=world_size) for rank in range(world_size)]
    steps = 5 // world_size
    assert shares == [alone[rank::world_size][:steps] for rank in range(world_size)]
    assert [len(share) for share in shares] == [steps] * world_size


def by_identity(images: int = 2, **options: Any) -> ResumableLoader:
    sampler = IdentitySampler(IDENTITIES, 4 // images, images, 1, **options)
    return ResumableLoader(Echo(27), sampler=sampler, batch_size=4)


def test_batches_of_identities_continue_behind_every_batch() -> None:
    for options in ({}, {"rank": 1, "world_size": 2}):
        straight = by_identity(**options)
        straight.sampler.set_epoch(4)
        expected, states = [], []
        for batch in straight:
            expected.append(pairs(batch))
            states.append(straight.state_dict())
        assert expected == batches_of(2, 2, epoch=4, **options)
        again = epoch_of(straight, 4)  # a second cycle
        assert again == batches_of(2, 2, epoch=4, cycle=1, **options)
        for done, state in enumerate(states, start=1):
            resumed = by_identity(**options)
            resumed.load_state_dict(state)
            assert epoch_of(resumed, 4) == expected[done:]
            assert epoch_of(resumed, 4) == again


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_an_epoch_goes_on_with_as_many_images_of_an_identity(before: int, after: int) -> None:
    first = by_identity(before)
    next(iter(first))
    resumed = by_identity(after)
    resumed.load_state_dict(first.state_dict())
    with pytest.raises(ConfigurationError, match=rf"images_per_identity {before} \(here {after}\): resume as it began"):
        next(iter(resumed))


@pytest.mark.parametrize(
    ("persons", "images", "world_size", "having"), [(7, 2, 1, 6), (1, 10, 1, 0), (2, 2, 6, 6), (5, 3, 1, 4)]
)
def test_too_few_identities_for_a_batch_are_refused(persons: int, images: int, world_size: int, having: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{having} identities have {images} or more images: too few"):
        IdentitySampler(IDENTITIES, persons, images, 1, 0, world_size)
