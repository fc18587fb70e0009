"""LMLE: loss and centres against loops in float64, on any number of processes; it learns a rare class of two kinds."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.functional import normalize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import HELEN7
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.heads import ClusterHead, LocalizationHead, means
from facelightning.models.pooling import Pooled, PyramidPooling
from facelightning.objectives import Attributes, QuintupletAttributes
from facelightning.objectives.quintuplets import quintuplet_loss
from facelightning.tasks import ANet, AttributeNet, JointNet
from tests.processes import FORKS
from tests.tasks.tiny import QUIET, make_trainer

pytestmark = QUIET

BATCH, NAMES, DIMENSIONS, CLUSTERS, MEMORY, STEPS = 24, ("Bald", "Male", "Young"), 4, 3, 100, 40
MARGINS = (0.3, 0.2, 0.5)


def case(step: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings of length 1, and targets, of which some are unknown and few are positive."""
    generator = torch.Generator().manual_seed(step)
    embeddings = normalize(torch.randn(BATCH, len(NAMES), DIMENSIONS, generator=generator), dim=2)
    targets = (torch.rand(BATCH, len(NAMES), generator=generator) < torch.tensor([0.1, 0.4, 0.8])).float()
    targets[torch.rand(BATCH, len(NAMES), generator=generator) < 0.1] = torch.nan
    return embeddings, targets


def squared(first: Tensor, second: Tensor) -> float:
    return math.dist(first.double().tolist(), second.double().tolist()) ** 2


def clusters(*empty: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Centres, as means of vectors of length 1 are; and sizes, 0 for the empty ones."""
    generator, sizes = torch.Generator().manual_seed(9), torch.ones(len(NAMES), 2, CLUSTERS)
    for place in empty:
        sizes[place] = 0
    return 0.9 * normalize(torch.randn(len(NAMES), 2, CLUSTERS, DIMENSIONS, generator=generator), dim=3), sizes


def image_loss(image: Tensor, truth: int, centres: Tensor, sizes: Tensor) -> float | None:
    """Of one image and attribute, as the paper writes it; ``None`` if no term has its clusters."""
    own, other = (
        sorted(squared(image, centres[kind, k]) for k in range(CLUSTERS) if sizes[kind, k] > 0)
        for kind in (truth, 1 - truth)
    )
    terms = []
    if len(own) > 1:
        terms.append(MARGINS[0] + own[0] - own[1])
        terms.append(MARGINS[1] + own[1] - own[-1])
    if own and other:
        terms.append(MARGINS[2] + own[-1] - other[0])
    return sum(max(0.0, term) for term in terms) if terms else None


def expected_loss(embeddings: Tensor, targets: Tensor, centres: Tensor, sizes: Tensor) -> float:
    means = []
    for a in range(targets.shape[1]):
        for kind in (0, 1):
            images = [i for i in range(BATCH) if targets[i, a] == kind]
            found = [image_loss(embeddings[i, a], kind, centres[a], sizes[a]) for i in images]
            losses = [loss for loss in found if loss is not None]
            means += [sum(losses) / len(losses)] if losses else []
    return sum(means) / len(means)


EMPTY = [(), ((0, 0, 1), (0, 1, 0), (0, 1, 2)), ((1, 0, 0), (1, 0, 1), (1, 0, 2), (2, 1, 1), (2, 0, 0), (2, 0, 2))]
"""No cluster; one left of a class; none of a class, and one of a class."""


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("empty", EMPTY, ids=["all", "one", "none"])
def test_loss_is_the_definition(step: int, empty: tuple[tuple[int, int, int], ...]) -> None:
    (embeddings, targets), given = case(step), clusters(*empty)
    loss = quintuplet_loss(embeddings, targets, *given, MARGINS)
    assert loss.item() == pytest.approx(expected_loss(embeddings, targets, *given), rel=1e-5)


def test_what_is_unknown_or_has_no_other_teaches_nothing() -> None:
    (embeddings, targets), (centres, sizes) = case(), clusters()
    targets[:, 0] = torch.nan  # nobody knows; then nothing to compare with
    sizes[2, :, 1:], sizes[2, 0] = 0, 0
    targets[5, 1] = torch.nan
    embeddings.requires_grad_()
    (gradient,) = torch.autograd.grad(quintuplet_loss(embeddings, targets, centres, sizes, MARGINS), embeddings)
    assert gradient.isfinite().all() and gradient[:, 1].any()
    assert not gradient[:, [0, 2]].any() and not gradient[5].any()
    for nothing in ((torch.full_like(targets, torch.nan), sizes), (targets, 0 * sizes)):
        loss = quintuplet_loss(embeddings, nothing[0], centres, nothing[1], MARGINS)
        assert loss.item() == 0 and not torch.autograd.grad(loss, embeddings)[0].any()


def test_gradient_is_that_of_differences() -> None:
    (embeddings, targets), (centres, sizes) = case(), clusters(*EMPTY[1])
    exact = embeddings.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: quintuplet_loss(x, targets, centres.double(), sizes, MARGINS), exact, eps=1e-7
    )


def head() -> ClusterHead:
    return ClusterHead(5, 1, len(NAMES), DIMENSIONS, CLUSTERS)


def seen(cluster_head: ClusterHead, embeddings: Tensor) -> dict[str, Tensor]:
    """What the loss takes of what the head says of these embeddings."""
    return {"embeddings": embeddings, "sums": cluster_head.sums, "sizes": cluster_head.sizes}


def centres_of(cluster_head: ClusterHead) -> Tensor:
    """Sums by sizes; 0 where there is no image."""
    return cluster_head.sums / cluster_head.sizes.clamp(min=1e-9).unsqueeze(3)


Clusters = list[tuple[list[float], float]]
"""Centre and size of each cluster of a class."""


def followed(clusters: Clusters, images: list[list[float]]) -> Clusters:
    """A class's clusters after a batch of which these are of the class, one image at a time."""
    kept = [(centre, size * (1 - BATCH / MEMORY)) for centre, size in clusters]
    kept = [(centre, size if size >= 0.5 else 0.0) for centre, size in kept]
    empty = [k for k, (_, size) in enumerate(kept) if size == 0]
    for k, image in zip(empty, images, strict=False):
        kept[k] = (image, 0.0)
    usable = [k for k in range(len(kept)) if k not in empty[len(images) :]]
    sums = [([size * x for x in centre], size) for centre, size in kept]
    for image in images:
        k = min(usable, key=lambda k: math.dist(image, kept[k][0]))
        total, size = sums[k]
        sums[k] = ([x + y for x, y in zip(total, image, strict=True)], size + 1)
    return [([x / size for x in total] if size else [0.0] * DIMENSIONS, size) for total, size in sums]


def test_centres_follow_the_images_of_their_class() -> None:
    """Rare classes fill their clusters late, and lose them again."""
    objective, its = QuintupletAttributes(NAMES, margins=MARGINS, memory=MEMORY), head()
    expected: list[list[Clusters]] = [[[([0.0] * DIMENSIONS, 0.0)] * CLUSTERS for _ in range(2)] for _ in NAMES]
    lost = False
    for step in range(STEPS):
        embeddings, targets = case(step)
        if step in range(20, 35):
            targets[:, 0] = 0  # nobody is bald any more
        objective.loss(seen(its, embeddings), {"attributes": targets})
        for a in range(len(NAMES)):
            for kind in range(2):
                images = [embeddings[i, a].double().tolist() for i in range(BATCH) if targets[i, a] == kind]
                expected[a][kind] = followed(expected[a][kind], images)
        for a, kinds in enumerate(expected):
            for kind, clusters in enumerate(kinds):
                assert its.sizes[a, kind].tolist() == pytest.approx([size for _, size in clusters], rel=1e-4)
                for k, (centre, _) in enumerate(clusters):
                    assert centres_of(its)[a, kind, k].tolist() == pytest.approx(centre, rel=1e-3, abs=1e-5)
        lost |= step > 20 and not its.sizes[0, 1].any()
    assert lost and its.sizes[0, 1].any()


def test_mixed_precision_changes_neither_loss_nor_centres() -> None:
    plain, mixed = head(), head()
    for step in range(5):
        embeddings, targets = case(step)
        batch = {"attributes": targets}
        loss = QuintupletAttributes(NAMES).loss(seen(plain, embeddings), batch)
        said = seen(mixed, embeddings)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(QuintupletAttributes(NAMES).loss(said, batch), loss)
        assert torch.equal(mixed.sums, plain.sums)


def test_an_embedding_that_is_not_finite_moves_no_centre() -> None:
    objective, its = QuintupletAttributes(NAMES), head()
    embeddings, targets = case()
    targets[:] = 1
    embeddings[0] = torch.nan
    objective.loss(seen(its, embeddings), {"attributes": targets})
    assert its.sums.isfinite().all() and its.sizes[0, 1].sum() == BATCH - 1


def _train(rank: int, processes: int, folder: Path) -> None:
    """Steps on this process's share of each batch; its centres go to a file."""
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=processes)
    torch.save(_steps(rank, processes).sums, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def _steps(rank: int, processes: int) -> ClusterHead:
    objective, its = QuintupletAttributes(NAMES, memory=MEMORY), head()
    for step in range(10):
        embeddings, targets = (each[rank::processes] for each in case(step))
        objective.loss(seen(its, embeddings), {"attributes": targets})
    return its


def test_several_processes_have_the_centres_of_the_whole_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = _steps(0, 1).sums
    group = [FORKS.Process(target=_train, args=(rank, 5, tmp_path)) for rank in range(5)]  # 24 images: unequal shares
    for process in group:
        process.start()
    for process in group:
        process.join(60)
    for rank in range(5):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_learns_a_rare_class_of_two_kinds(compiled: bool) -> None:
    """Red and blue images have the attribute, one in eight; green and grey ones have not."""
    torch.manual_seed(0)
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.1, 0.8, 0.1], [0.5, 0.5, 0.5]])

    def batch(count: int) -> dict[str, Tensor]:
        kinds = torch.multinomial(torch.tensor([1.0, 1.0, 7.0, 7.0]), count, replacement=True)
        images = colours[kinds][:, :, None, None] + 0.1 * torch.randn(count, 3, 16, 16)
        return {"image": images.clamp(0, 1), "attributes": (kinds < 2).float().unsqueeze(1)}

    network, objective = AttributeNetwork(1, width=2, head=ClusterHead), QuintupletAttributes(("Bald",))
    if compiled:
        network.compile(dynamic=False)
    optimizer = torch.optim.AdamW(network.parameters(), 0.003)
    losses = []
    for _ in range(80):
        given = batch(64)
        loss = objective.loss(network(given["image"]), given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    network.eval()
    given = batch(400)
    output = network(given["image"])
    right = objective.decide(output) == (given["attributes"] == 1)
    assert sum(losses[-5:]) < sum(losses[:5]) / 4
    assert all(right[given["attributes"] == kind].float().mean() > 0.95 for kind in (0, 1))
    assert objective.sample_loss(output, given).mean() < math.log(2)


@pytest.mark.parametrize("kind", [AttributeNet, ANet, JointNet])
def test_head_and_objective_need_each_other(kind: type[AttributeNet]) -> None:
    facts = DataFacts((129, 129), HELEN7, NAMES)
    if kind is not ANet:  # whose attributes are learned by cross-entropy alone
        both = kind(width=2, head=ClusterHead, objective=QuintupletAttributes).build(facts)
        assert not both.network.head.sizes.any()
        with pytest.raises(ConfigurationError, match="need each other; set both"):
            kind(width=2, objective=QuintupletAttributes).build(facts)
    with pytest.raises(ConfigurationError, match="need each other; set both"):
        kind(width=2, head=ClusterHead).build(facts)


def test_a_moving_average_weighs_the_images_that_there_were() -> None:
    """A cluster that was empty for long is where its images are, not halfway to 0; one that still is, stays empty."""
    its = head()
    averaged = AveragedModel(its, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for step in range(30):
        if step == 20:
            its.sums[0, 0, 0], its.sizes[0, 0, 0] = torch.tensor([6.0, 0, 8.0, 0]), 10
        averaged.update_parameters(its)
    late = averaged.module
    assert 1 < late.sizes[0, 0, 0] < 9 and late.sizes.count_nonzero() == 1
    torch.testing.assert_close(means(late.sums, late.sizes)[0, 0, 0], torch.tensor([0.6, 0, 0.8, 0]))
    its.sums[0, 0, 0], its.sizes[0, 0, 0] = 0, 0
    for _ in range(40):
        averaged.update_parameters(its)
    late.eval()
    output = late(Pooled(torch.randn(2, 1, 5), torch.ones(2, 1, 1, dtype=torch.bool)))
    assert 0 < late.sizes[0, 0, 0] < 0.5 and not output["logits"].any()


def test_a_batch_must_not_be_larger_than_the_memory() -> None:
    embeddings, targets = case()
    with pytest.raises(ConfigurationError, match="a memory of 23 images is smaller than a batch of 24"):
        QuintupletAttributes(NAMES, memory=23).loss(seen(head(), embeddings), {"attributes": targets})
    QuintupletAttributes(NAMES, memory=24).loss(seen(head(), embeddings), {"attributes": targets})


@pytest.mark.parametrize("options", [{"margins": (0, 0, -1.0)}, {"margins": (0, 0)}, {"memory": 0}])
def test_numbers_out_of_range_are_refused(options: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigurationError, match="must be three in 0 to 4, and memory"):
        QuintupletAttributes(NAMES, **options)  # type: ignore[arg-type]  # what a command line may give


def test_begins_with_features_that_another_head_has_learned(tmp_path: Path) -> None:
    facts, path = DataFacts((40, 32), attributes=NAMES), tmp_path / "trained.ckpt"

    def write(task: AttributeNet) -> dict[str, Tensor]:
        trainer = make_trainer()
        trainer.strategy.connect(task)
        trainer.save_checkpoint(path)
        return task.network.state_dict()

    weights = write(AttributeNet(width=2).build(facts))
    lmle = partial(AttributeNet, width=2, objective=QuintupletAttributes, weights=str(path))
    begun = lmle(head=ClusterHead).build(facts).network.state_dict()
    kept = [key for key in weights if not key.startswith("head.")]
    assert kept and all(torch.equal(begun[key], weights[key]) for key in kept)
    with pytest.raises(CheckpointError, match="was trained with pooling"):
        lmle(head=ClusterHead, pooling=PyramidPooling).build(facts)
    with pytest.raises(CheckpointError, match="was trained with head"):  # other heads do not begin anew
        AttributeNet(width=2, head=LocalizationHead, weights=str(path)).build(facts)

    trained = write(AttributeNet(width=2, head=ClusterHead, objective=QuintupletAttributes).build(facts))
    again = lmle(head=ClusterHead).build(facts).network.state_dict()
    assert all(torch.equal(again[key], value) for key, value in trained.items())
    with pytest.raises(CheckpointError, match=r"was trained with head .*dimensions"):
        lmle(head=partial(ClusterHead, dimensions=8)).build(facts)


def test_is_evaluated_as_any_other() -> None:
    output, batch = {"attributes": torch.tensor([[2.0, -1.0, 0.5]])}, {"attributes": torch.tensor([[1.0, 0.0, 0.0]])}
    plain, ours = Attributes(NAMES), QuintupletAttributes(NAMES)
    assert torch.equal(ours.sample_loss(output, batch), plain.sample_loss(output, batch))
    assert torch.equal(ours.predict(output), plain.predict(output))
