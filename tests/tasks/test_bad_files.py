"""Broken, foreign and hostile files: a sentence that names the file, and nothing in them is executed."""

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facelightning.checkpoint import FORMAT
from facelightning.errors import CheckpointError
from facelightning.models.parser import ParserRegions
from facelightning.tasks import AttributeNet, EnsembleNet, SegNet, load_model
from tests.tasks.tiny import FACTS, QUIET, SSP, VARIANTS, save

pytestmark = QUIET


@pytest.fixture(scope="module")
def segnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(SegNet(width=2).build(FACTS), tmp_path_factory.mktemp("good") / "segnet.ckpt")


@pytest.fixture(scope="module")
def attributenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = AttributeNet(width=2, **VARIANTS["bbox"]).build(FACTS)
    return save(task, tmp_path_factory.mktemp("good") / "attributenet.ckpt")


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def write_missing(path: Path, good: Path) -> None:
    path.unlink(missing_ok=True)


def write_folder(path: Path, good: Path) -> None:
    path.mkdir()


def write_empty(path: Path, good: Path) -> None:
    path.touch()


def write_text(path: Path, good: Path) -> None:
    path.write_text("<html>\nquota exceeded\n")


def write_truncated(path: Path, good: Path) -> None:
    path.write_bytes(good.read_bytes()[:-2000])


def write_half(path: Path, good: Path) -> None:
    content = good.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_malicious(path: Path, good: Path) -> None:
    torch.save(torch.load(good, weights_only=True) | {"state_dict": Malicious(path.parent / "owned")}, path)


def write_malicious_settings(path: Path, good: Path) -> None:
    content = torch.load(good, weights_only=True)
    content["facelightning"]["settings"]["width"] = Malicious(path.parent / "owned")
    torch.save(content, path)


def write_malicious_pickle(path: Path, good: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious(path.parent / "owned")))


def write_other_library(path: Path, good: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "hyper_parameters": {}, "epoch": 3}, path)


def write_list(path: Path, good: Path) -> None:
    torch.save([torch.zeros(2)], path)


def write_old_format(path: Path, good: Path) -> None:
    content = torch.load(good, weights_only=True)
    del content["facelightning"]
    torch.save(content | {"facelightning_task": "SegNet", "hyper_parameters": {"labels": "helen7", "width": 2}}, path)


def changed(*keys: str, to: Any) -> Callable[[Path, Path], None]:
    """Writes a good checkpoint with another value at some place in it."""

    def write(path: Path, good: Path) -> None:
        content = torch.load(good, weights_only=True)
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to
        torch.save(content, path)

    write.__name__ = f"{'_'.join(keys[-2:])}_{to!r:.20}"
    return write


def without(*keys: str) -> Callable[[Path, Path], None]:
    """Writes a good checkpoint that lacks something."""

    def write(path: Path, good: Path) -> None:
        content = torch.load(good, weights_only=True)
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        torch.save(content, path)

    write.__name__ = f"without_{keys[-1]}"
    return write


def write_fewer_weights(path: Path, good: Path) -> None:
    content = torch.load(good, weights_only=True)
    content["state_dict"].popitem()
    torch.save(content, path)


def write_other_shapes(path: Path, good: Path) -> None:
    content = torch.load(good, weights_only=True)
    name = next(name for name, value in content["state_dict"].items() if value.ndim == 4)
    content["state_dict"][name] = torch.zeros(1)
    torch.save(content, path)


NO_CHECKPOINT = (
    write_missing,
    write_folder,
    write_empty,
    write_text,
    write_truncated,
    write_half,
    write_malicious,
    write_malicious_settings,
    write_malicious_pickle,
    write_other_library,
    write_list,
    write_old_format,
    changed("facelightning", to="SegNet"),
    changed("facelightning", "format", to=FORMAT + 1),
    changed("facelightning", "format", to=torch.zeros(2)),
    changed("facelightning", "settings", "weights", to="https://example.org/evil.ckpt"),
    changed("facelightning", "settings", "encoder", to={"init_args": {"weights": "DEFAULT"}}),
    changed("hyper_parameters", to={"_class_path": "antigravity.Flying", "_instantiator": "os.system"}),
    *(without("facelightning", key) for key in ("format", "task", "settings", "facts")),
    without("facelightning"),
    without("state_dict"),
)
"""Refused by whoever reads."""
ABOUT = "facelightning"
OTHER_MODEL = (
    changed(ABOUT, "task", to="LandmarkNet"),
    changed(ABOUT, "task", to=["SegNet"]),
    changed(ABOUT, "settings", to=["width", 2]),
    changed(ABOUT, "settings", "width", to=3),
    changed(ABOUT, "settings", "width", to="two"),
    changed(ABOUT, "settings", "width", to=-2),
    changed(ABOUT, "settings", "encoder", to="TorchvisionEncoder"),
    changed(ABOUT, "settings", "encoder", to={"class_path": "os.system", "init_args": {"command": "touch owned"}}),
    changed(ABOUT, "settings", "encoder", to={"class_path": "torch.nn.Flatten", "init_args": {"start_dim": 1}}),
    changed(ABOUT, "settings", "encoder", to={"class_path": None, "init_args": {}}),
    changed(
        ABOUT, "settings", "encoder", to={"class_path": "facelightning.models.encoders.PaperEncoder", "init_args": []}
    ),
    changed(ABOUT, "facts", to=[36, 28]),
    changed(ABOUT, "facts", to={}),
    changed(ABOUT, "facts", "image_size", to=36),
    changed(ABOUT, "facts", "label_space", to="helen12"),
    changed(ABOUT, "facts", "label_space", to=None),
    changed("state_dict", to=[torch.zeros(2)]),
    changed("state_dict", to={"network.encoder.conv1.0.0.weight": "weights"}),
    write_fewer_weights,
    write_other_shapes,
)
"""Refused by whoever builds the network."""


def check_refused(write: Any, good: Path, folder: Path, load: Callable[[Path], object]) -> None:
    """One sentence that names the file and gives no dangerous advice; nothing in the file was executed."""
    path = folder / "bad.ckpt"
    write(path, good)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch recommends to switch it off
    assert not (folder / "owned").exists()


@pytest.mark.parametrize("write", [*NO_CHECKPOINT, *OTHER_MODEL, changed(ABOUT, "settings", "dropout", to=0.5)])
def test_load_model_refuses(write: Any, segnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(write, segnet, tmp_path, load_model)


@pytest.mark.parametrize("write", [*NO_CHECKPOINT, *OTHER_MODEL])
def test_parser_refuses(write: Any, segnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = SSP | {"regions": partial(ParserRegions, checkpoint=str(tmp_path / "bad.ckpt"))}
    check_refused(write, segnet, tmp_path, lambda path: AttributeNet(width=2, **parts).build(FACTS))


@pytest.mark.parametrize("write", NO_CHECKPOINT)
def test_ensemble_refuses(write: Any, attributenet: Path, tmp_path: Path) -> None:
    check_refused(write, attributenet, tmp_path, lambda path: EnsembleNet([str(attributenet), str(path)]))


@pytest.mark.parametrize(
    "description",
    [
        "{",
        "{}",
        "{'format': 2}",
        json.dumps({"format": FORMAT, "task": "SegNet", "settings": {}, "facts": {}}),
        json.dumps({"format": FORMAT, "task": "AttributeNet", "settings": {"width": 2}, "facts": FACTS.plain()}),
        json.dumps({"format": FORMAT + 1, "task": "SegNet", "settings": {}, "facts": FACTS.plain()}),
        ["{}"],
    ],
)
def test_a_description_within_that_is_none(description: Any, segnet: Path, tmp_path: Path) -> None:
    """What a checkpoint says of its parser comes from anywhere, too."""
    regions = partial(ParserRegions, checkpoint=str(segnet))
    good = save(AttributeNet(width=2, **SSP, regions=regions).build(FACTS), tmp_path / "good.ckpt")
    write = changed(ABOUT, "settings", "regions", "init_args", to={"checkpoint": description})
    check_refused(write, good, tmp_path, load_model)


@pytest.mark.parametrize("write", [*NO_CHECKPOINT, write_fewer_weights, write_other_shapes])
def test_fine_tuning_refuses(write: Any, attributenet: Path, tmp_path: Path) -> None:
    def load(path: Path) -> object:
        return AttributeNet(width=2, **VARIANTS["bbox"], weights=str(path)).build(FACTS)

    check_refused(write, attributenet, tmp_path, load)


def test_no_part_is_made_before_its_settings_are_read(attributenet: Path, tmp_path: Path) -> None:
    """A known class with unknown arguments is a sentence too."""
    content = torch.load(attributenet, weights_only=True)
    content["facelightning"]["settings"]["regions"]["init_args"] = {"size": 3}
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt"):
        load_model(tmp_path / "bad.ckpt")
