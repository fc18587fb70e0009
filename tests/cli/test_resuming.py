"""A training that goes on from its last checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.conftest import SEGNET, TINY
from tests.test_configs import small_overlay
from tests.test_resume import assert_same

LAST = "runs/avg/version_0/checkpoints/last.ckpt"


def read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def test_the_last_checkpoint_is_the_last(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    """Whatever the best one is; and a resumed run goes on from there."""
    small = small_overlay("avg.yaml", faces, tmp_path)
    arguments = ("--config", "avg.yaml", "--config", small, "--trainer.limit_train_batches=5")
    command("fit", *arguments, "--trainer.max_steps=8")  # inside the second epoch: no validation follows
    assert read(LAST)["global_step"] == 8
    command("fit", *arguments, "--trainer.max_steps=12", "--ckpt_path", LAST)
    assert read("runs/avg/version_1/checkpoints/last.ckpt")["global_step"] == 12


def test_a_training_that_ended_amid_an_epoch_goes_on_within_it(
    command: Callable[..., None], faces: Path, tmp_path: Path
) -> None:
    """Its epochs have five batches: no step is left out, and the bits are those of a training of eight steps."""
    small = small_overlay("avg.yaml", faces, tmp_path)
    arguments = ("--config", "avg.yaml", "--config", small, "--trainer.limit_train_batches=5")
    command("fit", *arguments, "--trainer.max_steps=8")
    whole = read(LAST)
    for steps in (2, 3, 5, 7):
        command("fit", *arguments, f"--trainer.max_steps={steps}", f"--trainer.logger.version=to_{steps}")
        ended = f"runs/avg/to_{steps}/checkpoints/last.ckpt"
        command("fit", "--trainer.max_steps=8", f"--trainer.logger.version=from_{steps}", "--ckpt_path", ended)
        resumed = read(f"runs/avg/from_{steps}/checkpoints/last.ckpt")
        for part in ("state_dict", "optimizer_states", "epoch"):
            assert_same(resumed[part], whole[part])
        loops = [content["loops"]["fit_loop"]["epoch_progress"]["current"] for content in (whole, resumed)]
        assert loops[0] == loops[1]


def test_without_a_configuration_it_is_that_of_the_run(command: Callable[..., None], runs: Path) -> None:
    """All of it, but for what the command line changes; and the result is that of a run with the configuration."""
    command("fit", f"--ckpt_path={LAST}", "--trainer.max_steps=4")
    command("fit", "--config=runs/avg/version_0/config.yaml", f"--ckpt_path={LAST}", "--trainer.max_steps=4")
    before, *after = (yaml.safe_load(Path(f"runs/avg/version_{number}/config.yaml").read_text()) for number in range(3))
    before["ckpt_path"] = LAST
    before["trainer"]["max_steps"] = 4
    assert after == [before, before]
    assert before["figures"] == {"num_images": 0}
    assert not list(Path("runs/avg").rglob("figures"))
    alone, with_config = (read(f"runs/avg/version_{number}/checkpoints/last.ckpt") for number in (1, 2))
    assert alone["global_step"] == with_config["global_step"] == 4
    for key, value in alone["state_dict"].items():
        assert torch.equal(value, with_config["state_dict"][key])
    assert any((value != read(LAST)["state_dict"][key]).any() for key, value in alone["state_dict"].items())


@pytest.mark.parametrize("config", [[], ["--config=tiny.yaml", "--config=small.yaml"]], ids=["alone", "with config"])
@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--model.width=3", ["width 2 (here 3)"]),
        ("--model.pooling=PyramidPooling", ["pooling AveragePooling (here PyramidPooling)"]),
    ],
    ids=["width", "pooling"],
)
def test_another_network_is_one_sentence(
    flag: str, words: list[str], config: list[str], refused: Callable[..., str], runs: Path, faces: Path, tmp_path: Path
) -> None:
    Path("tiny.yaml").write_text(TINY)
    Path(small_overlay("avg.yaml", faces, tmp_path)).rename("small.yaml")
    message = refused("fit", f"--ckpt_path={LAST}", *config, "--trainer.max_steps=4", flag)
    for word in words:
        assert word in message
    assert not list(Path("runs/avg").glob("version_*/checkpoints/last-*"))


def test_another_task_is_one_sentence(refused: Callable[..., str], runs: Path, faces: Path, tmp_path: Path) -> None:
    small = small_overlay("segnet.yaml", faces, tmp_path)
    message = refused("fit", f"--ckpt_path={LAST}", "--config=segnet.yaml", f"--config={small}")
    assert "AttributeNet" in message
    assert "SegNet" in message


def test_a_network_with_a_parser_inside_goes_on(
    command: Callable[..., None], runs: Path, faces: Path, tmp_path: Path
) -> None:
    small = small_overlay("ssp.yaml", faces, tmp_path)
    command("fit", "--config=ssp.yaml", f"--config={small}", f"--model.regions.checkpoint={SEGNET}")
    command("fit", "--ckpt_path=runs/ssp/version_0/checkpoints/last.ckpt", "--trainer.max_steps=4")
    assert read("runs/ssp/version_1/checkpoints/last.ckpt")["global_step"] == 4
    record = json.loads(Path("runs/ssp/version_1/training.json").read_text())
    of_the_parser, first, second = record["trainings"]  # all that made it
    assert of_the_parser["command"].startswith("facelightning fit --config=segnet.yaml ")
    assert first["command"].endswith(f" --model.regions.checkpoint={SEGNET}")
    assert second["command"].endswith("--ckpt_path=runs/ssp/version_0/checkpoints/last.ckpt --trainer.max_steps=4")
    assert second["seconds"] > 0 and second["joules"].keys() == {"processors"}


def test_the_optimiser_goes_on_as_it_began(refused: Callable[..., str], runs: Path) -> None:
    """Its state holds the rate, which would win over another."""
    message = refused("fit", f"--ckpt_path={LAST}", "--trainer.max_steps=4", "--model.learning_rate=0.01")
    assert "trained with learning_rate 0.001 (here 0.01)" in message


def test_a_configuration_of_another_size_is_refused(refused: Callable[..., str], runs: Path, faces: Path) -> None:
    Path("tiny.yaml").write_text(TINY)
    data = (f"--data.root={faces / 'celeba'}", "--data.num_workers=0", "--trainer.max_steps=3")
    message = refused("fit", "--config=tiny.yaml", f"--ckpt_path={LAST}", *data)
    assert f"{LAST} was trained on images of 40×32, but the configuration says 218×178" in message


def test_a_training_goes_on_at_its_size(runs: Path, refused: Callable[..., str]) -> None:
    message = refused("fit", f"--ckpt_path={LAST}", "--trainer.max_steps=4", "--data.image_size=[64,48]")
    assert "40×32, but the configuration says 64×48: a training goes on as it began" in message


def without(content: Any, *keys: Any) -> None:
    """Delete a value deep in a checkpoint."""
    for key in keys[:-1]:
        content = content[key]
    del content[keys[-1]]


@pytest.mark.parametrize(
    "keys",
    [
        ["optimizer_states", 0, "param_groups"],
        ["optimizer_states", 0, "state", 3, "sum"],
        ["optimizer_states", 0, "param_groups", 0, "params", 0],
        ["loops", "fit_loop", "epoch_progress", "current"],
        ["facelightning_config", "model", "class_path"],
        ["optimizer_states", 0],
        ["loops"],
        ["loops", "fit_loop", "state_dict", "combined_loader", 0, "done"],
    ],
    ids=lambda keys: "-".join(map(str, keys)),
)
def test_a_damaged_state_of_the_training_is_one_sentence(
    keys: list[Any], refused: Callable[..., str], runs: Path
) -> None:
    content = read(LAST)
    without(content, *keys)
    torch.save(content, LAST)
    message = refused("fit", f"--ckpt_path={LAST}", "--trainer.max_steps=4").strip().splitlines()[-1]
    assert message.startswith("facelightning: ")
    assert len(message) < 300
