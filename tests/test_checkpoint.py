"""What a checkpoint says of itself, and its parts as plain text; no other class than a known part is ever made."""

import json
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facelightning.checkpoint import Checkpoint, describe, plain, restore_part
from facelightning.errors import CheckpointError
from facelightning.facts import DataFacts
from facelightning.models.encoders import TorchvisionEncoder
from facelightning.models.gating import SemanticGating
from facelightning.models.heads import LinearHead
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import LandmarkBoxes
from facelightning.tasks import AttributeNet, SegNet, load_model
from tests.tasks.tiny import FACTS, QUIET, VARIANTS, save

pytestmark = QUIET


@pytest.fixture(scope="module")
def segnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(SegNet(width=2).build(FACTS), tmp_path_factory.mktemp("good") / "segnet.ckpt")


@pytest.fixture(scope="module")
def attributenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = AttributeNet(width=2, **VARIANTS["bbox"]).build(FACTS)
    return save(task, tmp_path_factory.mktemp("good") / "attributenet.ckpt")


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
        description, checkpoint = describe(str(segnet), "SegNet", "somebody", "segnet")
        assert checkpoint is not None
        assert checkpoint.description == description
        assert describe(json.dumps(description), "SegNet", "somebody", "segnet") == (description, None)
        with pytest.raises(
            CheckpointError, match=r"somebody: .*segnet\.ckpt holds SegNet, not AttributeNet; train one"
        ):
            describe(str(segnet), "AttributeNet", "somebody", "avg")


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
