"""Center loss against its definition in float64; centres against a loop, of a whole batch on several processes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from facelightning.errors import ConfigurationError
from facelightning.losses import softmax_loss, softmax_sample_losses
from facelightning.objectives import CentredIdentities
from tests.processes import FORKS

NUMBERS, DIMENSIONS, BATCH, STEPS, RATE = (3, 7, 8, 12, 40, 2**53), 4, 10, 50, 0.3
OTHER = 5
"""An identity that was not trained."""


def make(center_weight: float = 0.2) -> CentredIdentities:
    return CentredIdentities(NUMBERS, DIMENSIONS, center_weight, RATE)


def steps() -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Fifty batches; 40 comes in some of them alone, and some images are of nobody who was trained."""
    generator, found = torch.Generator().manual_seed(0), []
    for step in range(STEPS):
        classes = torch.randint(4 if step % 7 else 5, (BATCH,), generator=generator)
        numbers = torch.tensor(NUMBERS)[classes]
        numbers[step % BATCH] = OTHER
        features = torch.randn(BATCH, DIMENSIONS, generator=generator) + classes.unsqueeze(1)
        logits = torch.randn(BATCH, len(NUMBERS), generator=generator)
        found.append(({"features": features, "identity": logits}, {"identity": numbers}))
    return found


def moved(centres: list[list[float]], features: Tensor, numbers: list[int]) -> list[list[float]]:
    """The centres after a batch, as the paper writes it, one number at a time."""
    result = [list(row) for row in centres]
    for j, number in enumerate(NUMBERS):
        images = [i for i, each in enumerate(numbers) if each == number]
        for d in range(DIMENSIONS):
            away = sum(centres[j][d] - features[i, d].double().item() for i in images)
            result[j][d] -= RATE * away / (1 + len(images))
    return result


def test_losses_and_centres_are_the_definition_over_fifty_steps() -> None:
    objective, centres = make(), [[0.0] * DIMENSIONS for _ in NUMBERS]
    for output, batch in steps():
        numbers, losses = batch["identity"].tolist(), []
        for row, number in zip(output["features"].double().tolist(), numbers, strict=True):
            centre = centres[NUMBERS.index(number)] if number in NUMBERS else row
            losses.append(sum((a - b) ** 2 for a, b in zip(row, centre, strict=True)) / 2)
        classes = objective.classes(batch["identity"])
        alone = objective.sample_loss(output, batch) - softmax_sample_losses(output["identity"], classes)
        assert alone.tolist() == pytest.approx([0.2 * loss for loss in losses], rel=1e-4, abs=1e-5)
        known = sum(number in NUMBERS for number in numbers)
        center = objective.loss(output, batch) - softmax_loss(output["identity"], classes)
        assert center.item() == pytest.approx(0.2 * sum(losses) / known, rel=1e-4)
        centres = moved(centres, output["features"], numbers)
        assert objective.centres.tolist() == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in centres]
    assert objective.centres[4].any() and not objective.centres[5].any()  # which was in no batch


def test_a_feature_that_is_not_finite_moves_no_centre() -> None:
    """So that the error about the loss names its image, not another one of the same identity."""
    objective = make()
    output = {"features": torch.ones(3, DIMENSIONS), "identity": torch.zeros(3, len(NUMBERS))}
    output["features"][1, 2] = torch.nan
    batch = {"identity": torch.tensor([7, 7, 7])}
    assert objective.loss(output, batch).isnan()
    assert objective.sample_loss(output, batch).isfinite().tolist() == [True, False, True]
    assert objective.centres[1].tolist() == pytest.approx([RATE * 2 / 3] * DIMENSIONS)


def test_the_gradient_is_towards_the_old_centre() -> None:
    objective, ((first, truth), (output, batch), *_) = make(1.0), steps()
    objective.loss(first, truth)
    old, features = objective.centres.clone(), output["features"].requires_grad_()
    (gradient,) = torch.autograd.grad(objective.loss(output, batch), features)
    classes = objective.classes(batch["identity"])
    known = (classes >= 0).unsqueeze(1)
    torch.testing.assert_close(gradient, torch.where(known, features - old[classes], 0).detach() / known.sum())
    assert not torch.equal(objective.centres, old)


def test_an_evaluation_moves_no_centre_and_a_checkpoint_keeps_them() -> None:
    objective, (output, batch) = make(), steps()[0]
    objective.loss(output, batch)
    centres = objective.centres.clone()
    objective.sample_loss(output, batch)
    assert torch.equal(objective.centres, centres) and centres.any()
    fresh = CentredIdentities((0,) * len(NUMBERS), DIMENSIONS)
    fresh.load_state_dict(objective.state_dict())
    assert torch.equal(fresh.centres, centres)
    assert objective.set_loss(0.7, {"distance": 3.0}) == 0.7


def test_a_batch_of_strangers_teaches_nothing() -> None:
    objective, (output, _) = make(), steps()[0]
    output = {key: value.requires_grad_() for key, value in output.items()}
    loss = objective.loss(output, {"identity": torch.full((BATCH,), OTHER)})
    assert loss.item() == 0 and not objective.centres.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, list(output.values())))


def test_a_network_of_lower_precision_keeps_its_centres() -> None:
    objective, (output, batch) = make(), steps()[0]
    objective.loss(output, batch)
    centres = objective.centres.clone()
    torch.nn.ModuleList([objective]).to(torch.bfloat16)
    assert centres.any() and torch.equal(objective.centres, centres)


def test_features_of_lower_precision_are_taken() -> None:
    objective, (output, batch) = make(), steps()[0]
    loss = objective.loss({key: value.bfloat16() for key, value in output.items()}, batch)
    assert loss.dtype == objective.centres.dtype == torch.float32


def _train(rank: int, processes: int, folder: Path) -> None:
    """Fifty steps on this process's share of each batch, of unequal size; its centres and losses go to a file."""
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=processes)
    objective = make()
    for output, batch in steps():
        shares = [{key: value[rank::processes] for key, value in each.items()} for each in (output, batch)]
        objective.loss(*shares)
    torch.save(objective.centres, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_several_processes_have_the_centres_of_the_whole_batch(tmp_path: Path) -> None:
    one = make()
    for output, batch in steps():
        one.loss(output, batch)
    group = []
    for count in (2, 3):
        folder = tmp_path / str(count)
        folder.mkdir()
        group += [FORKS.Process(target=_train, args=(rank, count, folder)) for rank in range(count)]
    for process in group:
        process.start()
    for process in group:
        process.join(60)
    for count in (2, 3):
        found = [torch.load(tmp_path / str(count) / f"{rank}.pt", weights_only=True) for rank in range(count)]
        assert all(torch.equal(each, found[0]) for each in found)
        torch.testing.assert_close(found[0], one.centres, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("options", "said"), [((-1.0, 0.5), "weight of a loss"), ((0.1, 1.5), r"rate 1.5 must lie")])
def test_numbers_out_of_range_are_refused(options: tuple[float, float], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        CentredIdentities(NUMBERS, DIMENSIONS, *options)
