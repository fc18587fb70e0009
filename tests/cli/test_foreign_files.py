"""Checkpoints that may come from anywhere: refused in a sentence, and nothing in them is executed."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from facelightning.checkpoint import FORMAT
from tests.cli.conftest import AVG

Refused = Callable[..., str]


@pytest.mark.parametrize("words", [[], ["--config=avg.yaml"]], ids=["alone", "with a configuration"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"facelightning_task": "AttributeNet"}, "was written by an older version of facelightning"),
        ({"state_dict": {}}, "is not a checkpoint of a facelightning task"),
        ([1, 2], "is not a checkpoint of a facelightning task"),
    ],
    ids=["an old one", "another library's", "something else"],
)
def test_a_checkpoint_that_is_none_of_this_version(
    content: object, sentence: str, words: list[str], refused: Refused, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "foreign.ckpt")
    for stage in ("test", "validate", "predict", "fit"):
        assert f"foreign.ckpt {sentence}" in refused(stage, *words, "--ckpt_path=foreign.ckpt")
    for stage in ("visualize", "attribution"):
        assert f"foreign.ckpt {sentence}" in refused(stage, "--ckpt_path=foreign.ckpt")


@pytest.mark.parametrize("key", ["settings", "facts", "config"])
def test_a_checkpoint_that_holds_nonsense(key: str, refused: Refused, runs: Path) -> None:
    content = torch.load(AVG, weights_only=True)
    if key == "config":
        content["facelightning_config"] = "nonsense"
    else:
        content["facelightning"][key] = "nonsense"
    torch.save(content, "nonsense.ckpt")
    assert "nonsense.ckpt" in refused("test", "--ckpt_path=nonsense.ckpt")


@pytest.mark.parametrize("place", ["encoder", "encoder of the parser", "data", "augmentations"])
def test_no_class_in_a_checkpoint_is_made(place: str, refused: Refused, runs: Path, tmp_path: Path) -> None:
    """One that is none of the library's: this one would open a file."""
    trap = {"class_path": "logging.FileHandler", "init_args": {"filename": str(tmp_path / "trap")}}
    content = torch.load(AVG, weights_only=True)
    settings, config = content["facelightning"]["settings"], content["facelightning_config"]
    if place == "encoder":
        settings["encoder"] = trap
    elif place == "encoder of the parser":
        facts = {**content["facelightning"]["facts"], "label_space": "helen7"}
        parser = {"format": FORMAT, "task": "SegNet", "settings": {"width": 2, "encoder": trap}, "facts": facts}
        path = "facelightning.models.parser.ParserRegions"
        settings["regions"] = {"class_path": path, "init_args": {"checkpoint": json.dumps(parser)}}
    elif place == "data":
        config["data"] = trap
    else:
        config["data"]["init_args"]["augmentations"] = [trap]
    torch.save(content, "trap.ckpt")
    for stage in ("test", "predict", "visualize", "fit"):
        refused(stage, "--ckpt_path=trap.ckpt")
        assert not (tmp_path / "trap").exists()


def test_no_function_in_a_checkpoint_is_called(refused: Refused, runs: Path) -> None:
    """A training that goes on without a configuration takes the file's own, whose callbacks may name any."""
    content = torch.load(AVG, weights_only=True)
    path = "lightning.pytorch.callbacks.LambdaCallback"
    callback = {"class_path": path, "init_args": {"on_fit_start": "builtins.print"}}
    content["facelightning_config"]["trainer"]["callbacks"] = [callback]
    torch.save(content, "trap.ckpt")
    refused("fit", "--ckpt_path=trap.ckpt", "--trainer.max_steps=3")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"width": -1}},
        {"settings": {"width": 100_000}},
        {"settings": {"width": 1024}},
        {"settings": {"unknown": 1}},
        {
            "settings": {
                "encoder": {"class_path": "facelightning.models.TorchvisionEncoder", "init_args": {"name": "x"}}
            }
        },
        {"facts": {"attributes": ["one"]}},
        {"facts": {"label_space": "unknown"}},
        {"facts": {"image_size": "large"}},
        {"state_dict": [1, 2]},
        {"state_dict": {}},
        {"hyper_parameters": {"_class_path": "antigravity.Flying"}},
    ],
    ids=str,
)
def test_wrong_content_is_one_sentence_from_every_command(
    change: dict[str, Any], refused: Refused, runs: Path, faces: Path
) -> None:
    content = torch.load(AVG, weights_only=True)
    for key, value in change.items():
        place = content["facelightning"] if key in ("settings", "facts") else content
        place[key] = {**place[key], **value} if value and isinstance(value, dict) and key in place else value
    torch.save(content, "wrong.ckpt")
    stages = ("test", "attribution", "fit", "validate", "predict", "visualize")
    for stage in stages if "hyper_parameters" in change else stages[:2]:  # all read it alike
        before = time.perf_counter()
        data = [f"--data.root={faces / 'celeba'}"] if stage != "attribution" else []
        message = refused(stage, "--ckpt_path=wrong.ckpt", *data)
        assert time.perf_counter() - before < 5
        assert "wrong.ckpt" in message
        assert len(message.strip().splitlines()) <= 2
    assert "antigravity" not in sys.modules
