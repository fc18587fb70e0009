"""Files from anywhere: a sentence that names the file for any that is no good, and nothing in them is executed."""

import json
import pickle
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facelightning.checkpoint import FORMAT, Checkpoint, describe, plain, restore_part
from facelightning.errors import CheckpointError
from facelightning.facts import DataFacts
from facelightning.models.encoders import TorchvisionEncoder
from facelightning.models.gating import SemanticGating
from facelightning.models.heads import LinearHead
from facelightning.models.parser import ParserRegions
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import LandmarkBoxes
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


class TestRead:
    def test_says_what_is_in_the_file(self, attributenet: Path) -> None:
        content = torch.load(attributenet, weights_only=True)
        checkpoint = Checkpoint.read(attributenet)
        assert (checkpoint.path, checkpoint.task, checkpoint.config) == (str(attributenet), "AttributeNet", None)
        assert checkpoint.description == content["facelightning"]
        assert checkpoint.weights.keys() == content["state_dict"].keys()
        assert DataFacts.of(checkpoint.facts) == FACTS

    def test_the_configuration_of_its_run(self, segnet: Path, tmp_path: Path) -> None:
        path = tmp_path / "run.ckpt"
        torch.save(torch.load(segnet, weights_only=True) | {"facelightning_config": {"data": {"root": "x"}}}, path)
        assert Checkpoint.read(path).config == {"data": {"root": "x"}}

    def test_loads_a_part(self, segnet: Path) -> None:
        trained, fresh = load_model(segnet), SegNet(width=2).build(FACTS)
        Checkpoint.read(segnet).load_into(fresh.network.encoder, "network.encoder.")
        ours, theirs = (dict(task.network.encoder.state_dict()) for task in (fresh, trained))
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
        with pytest.raises(CheckpointError, match=rf"weights in {segnet} do not fit"):
            Checkpoint.read(segnet).load_into(fresh.network.encoder, "network.decoder.")

    def test_describes_once(self, segnet: Path) -> None:
        description, checkpoint = describe(str(segnet), "SegNet", "somebody")
        assert checkpoint is not None
        assert checkpoint.description == description
        assert describe(json.dumps(description), "SegNet", "somebody") == (description, None)
        with pytest.raises(
            CheckpointError, match=r"somebody: .*segnet\.ckpt holds a SegNet, not a AttributeNet; train one"
        ):
            describe(str(segnet), "AttributeNet", "somebody")


CLASS = "facelightning.models.{}"


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        (SemanticPooling, {"class_path": CLASS.format("pooling.SemanticPooling"), "init_args": {}}),
        (partial(SemanticGating), {"class_path": CLASS.format("gating.SemanticGating"), "init_args": {}}),
        (
            partial(LandmarkBoxes, side=31.5),
            {"class_path": CLASS.format("regions.LandmarkBoxes"), "init_args": {"side": 31.5}},
        ),
        (  # an argument as it would be anyway is none
            partial(LandmarkBoxes, side=40),
            {"class_path": CLASS.format("regions.LandmarkBoxes"), "init_args": {}},
        ),
        (  # a checkpoint has weights of its own
            partial(TorchvisionEncoder, name="resnet18", weights="IMAGENET1K_V1"),
            {
                "class_path": CLASS.format("encoders.TorchvisionEncoder"),
                "init_args": {"name": "resnet18"},
            },
        ),
        (  # parts of parts
            partial(nn.TransformerEncoder, encoder_layer=LinearHead, num_layers=(1, 2)),
            {
                "class_path": "torch.nn.modules.transformer.TransformerEncoder",
                "init_args": {
                    "encoder_layer": {"class_path": CLASS.format("heads.LinearHead"), "init_args": {}},
                    "num_layers": [1, 2],
                },
            },
        ),
    ],
)
def test_a_part_is_kept_and_restored(part: Any, kept: dict[str, Any]) -> None:
    assert plain(part) == kept
    again = restore_part(kept)
    assert isinstance(again, partial)
    assert again.func is (part.func if isinstance(part, partial) else part)
    assert again.args == ()
    assert plain(again) == kept


def test_a_restored_part_is_made_alike() -> None:
    made = restore_part(plain(partial(LandmarkBoxes, side=31.5)))()
    assert isinstance(made, LandmarkBoxes)
    assert made.side == 31.5


@pytest.mark.parametrize("value", [None, True, 3, 0.25, "adagrad", [1, 2], {"a": 1}, {"class_path": "os.system"}])
def test_other_settings_are_kept_as_they_are(value: Any) -> None:
    assert plain(value) == value
    assert restore_part(value) == value


@pytest.mark.parametrize(
    "path",
    [
        "os.system",  # of an imported module, but no class
        "subprocess.Popen",  # a class, but no part of a network
        "builtins.exec",
        "torch.load",
        "torch.utils.data.DataLoader",
        "pathlib.Path",
        "facelightning.errors.CheckpointError",
        "facelightning.tasks.load_model",
        "facelightning.models.pooling",
        "facelightning.models.pooling.Pooling.places",
        "facelightning.models.pooling.MaxPooling",
        "facelightning.nothing.MaxPooling",
        "facelightning..pooling.Pooling",
        "facelightning.",
        "facelightnings.Part",
        ".Part",
        "Part",
        ".",
        "",
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_no_other_class_is_a_part(path: str, deep: bool) -> None:
    part: dict[str, Any] = {"class_path": path, "init_args": {"command": "touch owned"}}
    if deep:
        part = {"class_path": CLASS.format("regions.LandmarkBoxes"), "init_args": {"side": part}}
    with pytest.raises(CheckpointError, match="which is not known: import it first") as caught:
        restore_part(part)
    assert f"a part {path}," in str(caught.value)


@pytest.mark.parametrize("name", ["somebodys_parts", "facelightning_parts"])
def test_a_part_of_a_module_that_nobody_imported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not imported for a file's sake, but may be used once the user has."""
    owned = tmp_path / "owned"
    lines = (
        "from pathlib import Path",
        "from torch import nn",
        f"Path({str(owned)!r}).touch()",
        "class Part(nn.Module): pass",
    )
    (tmp_path / f"{name}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    part = {"class_path": f"{name}.Part", "init_args": {}}
    with pytest.raises(CheckpointError, match=rf"{name}\.Part, which is not known: import it first"):
        restore_part(part)
    assert name not in sys.modules
    assert not owned.exists()
    monkeypatch.setitem(sys.modules, name, None)  # so that it is forgotten after the test
    del sys.modules[name]
    module = import_module(name)
    assert owned.exists()
    assert restore_part(part).func is module.Part


def test_no_part_is_made_before_its_settings_are_read(attributenet: Path, tmp_path: Path) -> None:
    """A known class with unknown arguments is a sentence too."""
    content = torch.load(attributenet, weights_only=True)
    content["facelightning"]["settings"]["regions"]["init_args"] = {"size": 3}
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt"):
        load_model(tmp_path / "bad.ckpt")
