"""Neurons, regions, groups and layers: against loops, and drawn by the command of a tiny ANet."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from facelightning.__main__ import main
from facelightning.commands.fitted_studies import cosine, group_similarity, group_vectors, layers_of, shuffled
from facelightning.commands.kinds import Subject
from facelightning.commands.studies import (
    FEWEST,
    correlations,
    mean_evidence,
    mean_faces,
    telling_neurons,
    weighs_attributes,
)
from facelightning.data import CelebADataModule
from facelightning.data.synthetic.dataset import write_image, write_lines
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, IDENTITY_ATTRIBUTES
from facelightning.models.anet import ANetwork
from facelightning.models.heads import GroupHead, Head, LinearHead, LocalizationHead
from facelightning.tasks import AttributeNet
from tests.conftest import SIZE

RNG = np.random.default_rng
SHOWN = ("Bald", "Bangs", "Big_Nose", "Eyeglasses", "Male", "Smiling", "Wearing_Hat", "Young")
"""What the network learns; fewer than 40 are fitted sooner."""


def test_correlations_of_a_loop() -> None:
    """Over the faces where an attribute is known; 0 for what does not vary."""
    responses, attributes = RNG(0).random((30, 5)), RNG(1).integers(2, size=(30, 4)).astype(float)
    attributes[RNG(2).random((30, 4)) < 0.2] = np.nan
    responses[:, 2] = 7
    attributes[:, 3] = np.nan
    found = correlations(responses.astype(np.float32), attributes)
    for d in range(5):
        for a in range(4):
            known = ~np.isnan(attributes[:, a])
            varies = d != 2 and a != 3
            expected = np.corrcoef(responses[known, d], attributes[known, a])[0, 1] if varies else 0
            assert found[d, a] == pytest.approx(expected, abs=1e-5)


def test_neurons_are_each_of_another_attribute() -> None:
    attributes = RNG(0).integers(2, size=(200, 3)).astype(float)
    noise = RNG(1).normal(size=(200, 6))
    mixed = attributes[:, [0, 0, 1, 2, 2, 2]] * [1, -1, 1, 1, 1, -1]
    responses = mixed + noise * [0.1, 0.2, 1.5, 0.9, 0.3, 0.6]
    found = telling_neurons(responses, attributes)
    assert [(one.number, one.attribute) for one in found] == [(0, 0), (4, 2), (2, 1)]
    assert found[0].correlation > 0.9 and found[1].correlation > 0.7
    (strongest,) = telling_neurons(-responses, attributes, count=1)
    assert (strongest.number, strongest.correlation) == (0, pytest.approx(-found[0].correlation))


@pytest.mark.parametrize("count", [60, 75, 430])
def test_mean_faces_of_a_loop(count: int) -> None:
    images = RNG(0).integers(256, size=(count, 3, 4, 3), dtype=np.uint8)
    responses = RNG(1).integers(9, size=count).astype(np.float32)  # many are alike
    ranked = sorted(range(count), key=lambda index: -responses[index])
    size = max(FEWEST, count // 10)
    middle = (count - size) // 2
    parts = ranked[:size], ranked[middle : middle + size], ranked[-size:]
    for found, part in zip(mean_faces(images, responses), parts, strict=True):
        np.testing.assert_allclose(found, sum(images[index].astype(float) for index in part) / size)


def test_a_mean_of_few_faces_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="20 persons, three of them 60, but there are 59"):
        mean_faces(np.zeros((59, 3, 2, 2), np.uint8), np.zeros(59))


@pytest.mark.parametrize("batch_size", [2, 5])
def test_evidence_is_the_mean_over_single_faces(faces: Path, batch_size: int) -> None:
    torch.manual_seed(0)
    others = [name for name in ATTRIBUTES if name not in ("Bald", "Young")]
    data = CelebADataModule(
        str(faces / "celeba"), image_size=SIZE, batch_size=batch_size, num_workers=0, leave_out=others
    )
    task = AttributeNet(width=2).build(data.facts).eval()
    face, evidence = mean_evidence(task, data, "test", faces=5)
    images = torch.stack([data.dataset("test")[index, 0]["image"] for index in range(5)])
    np.testing.assert_allclose(face, images.double().mean(dim=0), rtol=1e-6)
    for attribute in range(2):
        total = np.zeros(SIZE)
        for image in images.float() / 255:
            one = image[None].requires_grad_()
            task(one)["attributes"][0, attribute].backward()
            assert one.grad is not None
            magnitude = one.grad[0].abs().sum(dim=0).double().numpy()
            total += magnitude / magnitude.sum()
        np.testing.assert_allclose(evidence[attribute], total / 5, rtol=1e-3, atol=1e-7)


def test_groups_that_are_there_are_found() -> None:
    """However long the vectors are; in shuffled weights there are none."""
    truth = np.arange(40) % 6
    directions = RNG(0).normal(size=(6, 64))[truth] + 0.3 * RNG(1).normal(size=(40, 64))
    vectors = directions * RNG(2).uniform(0.1, 10, size=(40, 1))
    groups = group_vectors(vectors)
    assert len({(a, b) for a, b in zip(truth.tolist(), groups.tolist(), strict=True)}) == 6
    assert (np.diff(np.bincount(groups)) <= 0).all()
    within, between = group_similarity(vectors, groups)
    assert within > 0.8 and abs(between) < 0.2
    of_chance = shuffled(vectors)
    assert np.array_equal(np.sort(of_chance, axis=0), np.sort(vectors, axis=0))
    assert group_similarity(of_chance, group_vectors(of_chance))[0] < 0.3
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j and groups[i] == groups[j]]
    unit = vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    assert within == pytest.approx(np.mean([unit[i] @ unit[j] for i, j in pairs]))
    np.testing.assert_allclose(cosine(vectors), unit @ unit.T, atol=1e-12)


def test_layers_are_means_within_the_cells_of_their_filters() -> None:
    torch.manual_seed(0)
    network, images = ANetwork(2, width=2, cell=3).eval(), torch.rand(2, 3, 129, 129)
    with torch.no_grad():
        found = {name: layer(images) for name, layer in layers_of(network).items()}
        c4 = network.placements(images)[:, 0, 0]
        c3 = network.conv3(network.shared(network.normalize(images)))[:, 0, 0]
        assert torch.equal(found["FC"], network(images)["features"])
    for name, maps, cells in (("C4", c4, 2), ("C3", c3, 4)):
        side = maps.shape[-1] // cells
        loop = [
            maps[:, channel, side * y : side * (y + 1), side * x : side * (x + 1)].mean(dim=(1, 2))
            for channel in range(maps.shape[1])
            for y in range(cells)
            for x in range(cells)
        ]
        torch.testing.assert_close(found[name], torch.stack(loop, dim=1))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny ANet of one step on coloured noise: 62 persons to test on, and two images of the first of them."""
    root = tmp_path_factory.mktemp("studies")
    images = root / "img_align_celeba"
    images.mkdir()
    rng, names = RNG(0), [f"{number:03d}.png" for number in range(83)]
    for name in names:
        write_image(images / name, rng.integers(256, size=(20, 20, 3), dtype=np.uint8))
    for table, cells in {
        "list_attr_celeba.txt": [" ".join(map(str, rng.choice((-1, 1), 40))) for _ in names],
        "list_eval_partition.txt": [0 if number < 8 else 1 if number < 20 else 2 for number in range(83)],
        "identity_CelebA.txt": [*range(21), 20, *range(21, 82)],
    }.items():
        head = ["83", " ".join(ATTRIBUTES)] if table.startswith("list_attr") else []
        write_lines(root / table, head + [f"{name} {cell}" for name, cell in zip(names, cells, strict=True)])
    size = ["--model.width=2", "--model.cell=3", "--data.image_size=[129,129]", "--data.batch_size=8"]
    quick = ["--trainer.max_steps=1", "--trainer.accelerator=cpu", "--trainer.limit_val_batches=1"]
    quick.append(f"--data.leave_out=[{','.join(name for name in ATTRIBUTES if name not in SHOWN)}]")
    words = ["--config=anet.yaml", "--model.weights=null", f"--data.root={root}", "--data.num_workers=0", *size, *quick]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["fit", *words, "--figures.num_images=0"]) == 0
    return f"--ckpt_path={root}/runs/anet/version_0/checkpoints/last.ckpt"


def test_the_command_draws_each_kind(
    checkpoint: str, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = Path("made")
    run = Path(checkpoint.partition("=")[2]).parents[1]
    options = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]
    command("visualize", checkpoint, "--output=made")
    assert [path.name for path in figures.iterdir()] == ["neurons.png"]
    assert capsys.readouterr().out.count("r = ") == 8
    command("visualize", checkpoint, "--output=made", "--kinds=[groups,attribute_regions,layers]", "--faces=20")
    names = {"neurons.png", "groups.png", "attribute_regions.png", "layers.png", "layers.csv"}
    assert {path.name for path in figures.iterdir()} == names
    printed = capsys.readouterr().out
    listed = [name for line in printed.splitlines() if line.startswith("group ") for name in line[9:].split(", ")]
    assert sorted(listed) == sorted(SHOWN)
    assert "shuffled weights: within" in printed
    with (figures / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["attribute"] for row in rows] == list(SHOWN)
    for title, related in (("identity-related", "1"), ("other", "0")):
        chosen = [row for row in rows if row["identity_related"] == related]
        assert {row["attribute"] for row in chosen} == {
            name for name in SHOWN if (name in IDENTITY_ATTRIBUTES) == (related == "1")
        }
        line = next(line for line in printed.splitlines() if f"{title} attributes" in line)
        for layer in ("FC", "C4", "C3"):
            mean = np.mean([float(row[layer]) for row in chosen])
            assert float(line.split(f"{layer} ")[1].split(" %")[0]) == pytest.approx(mean, abs=0.011)

    # the same as of SVMs on the whole network, and as counted in the labels
    words = [f"--data.{key}={options[key]}" for key in ("root", "num_workers")]
    words.append(f"--data.leave_out=[{','.join(options['leave_out'])}]")
    command("test", "--config=svm.yaml", f"--model.network={run}/checkpoints/last.ckpt", *words)
    results = json.loads(Path("runs/svm/version_0/test_results.json").read_text())["attributes"]["per_attribute"]
    module = CelebADataModule(options["root"], leave_out=options["leave_out"])
    often = module.records("val").attributes.mean(axis=0) > 0.5
    right = (module.records("test").attributes == often).mean(axis=0)
    for number, row in enumerate(rows):
        assert float(row["FC"]) == pytest.approx(100 - results[row["attribute"]]["error"], abs=0.006)
        assert float(row["majority"]) == pytest.approx(100 * right[number], abs=0.006)


def test_what_cannot_be_drawn_is_said(
    checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    for words, message in {
        "--kinds=[channels]": "channels cannot be drawn for ANet .*; possible: neurons, groups, attribute_r",
        "--kinds=[neurons] --faces=60": "three of them 60, but there are 59",
        "--kinds=[attribute_regions] --faces=19": "a mean face needs 20 images, but there are 19",
        "--kinds=[layers] --data.image_size=[137,129]": "layers are of images of 129×129, not of 137×129",
        "--kinds=[fig8]": "fig8",
    }.items():
        try:
            status = main(["visualize", checkpoint, *words.split()])
        except SystemExit as stop:  # of the parser
            status = int(stop.code or 0)
        assert status != 0
        assert re.search(message, capsys.readouterr().err.replace("\n", " ")), words
    monkeypatch.setitem(sys.modules, "facelightning.commands.fitted_studies", None)
    assert main(["visualize", checkpoint, "--kinds=[groups]"]) == 1
    assert "groups is fitted by scikit-learn, which is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(("head", "possible"), [(LinearHead, True), (LocalizationHead, True), (GroupHead, False)])
def test_only_weights_of_the_same_features_are_grouped(head: type[Head], possible: bool) -> None:
    task = AttributeNet(width=2, head=head).build(DataFacts(SIZE, attributes=ATTRIBUTES))
    assert weighs_attributes(Subject("a", {"a": task}, [])) == possible
