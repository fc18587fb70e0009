"""Configurations: found from anywhere, extended, changed by recipes and by the command line, and kept with a run."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from facelightning.__main__ import main
from facelightning.configs import config_folder, find_config
from facelightning.errors import ConfigurationError
from tests.cli.conftest import AVG
from tests.test_configs import small_overlay

Printed = Callable[..., dict[str, Any]]


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """The whole configuration that a command line amounts to."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*args, "--print_config"])
        assert stop.value.code == 0
        found: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
        return found

    return run


def test_a_list_replaces_the_list_before_it(printed: Printed, tmp_path: Path) -> None:
    """An item keeps no argument of the former list's item of its class; in a file of its own, or one that extends."""
    name = "lightning.pytorch.callbacks.ModelCheckpoint"
    items = [{"class_path": name, "init_args": {"filename": own}} for own in ("first", "second")]  # as many as before
    content = {"trainer": {"callbacks": items}}
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"extends": "avg.yaml", **content}))
    for words in (["--config=own.yaml"], ["--config=avg.yaml", "--config=overlay.yaml"]):
        first, second = (each["init_args"] for each in printed("fit", *words)["trainer"]["callbacks"])
        assert (first["filename"], second["filename"]) == ("first", "second")
        assert first["monitor"] is second["monitor"] is None
        assert first["mode"] == second["mode"] == "min"
    assert len(printed("fit", "--config=avg.yaml", "--config=overlays/fast.yaml")["trainer"]["callbacks"]) == 3


@pytest.mark.parametrize("form", ["=null", " null"])
def test_null_is_nothing_also_for_an_argument_of_a_part(form: str, printed: Printed) -> None:
    words = (
        f"--model.objective.target_rate=0.5 --model.objective.target_rate{form} --model.init_args.encoder.store{form}"
    )
    found = printed(
        "fit", "--config=moon.yaml", "--config=mtcnn.yaml", "--model.objective=AdaptedAttributes", *words.split()
    )
    assert found["model"]["init_args"]["objective"]["init_args"]["target_rate"] is None
    assert found["model"]["init_args"]["encoder"]["init_args"]["store"] is None


def test_a_network_in_bfloat16_trains(
    faces: Path, command: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overlay = small_overlay("obrl_avg.yaml", faces, tmp_path)
    words = ("--trainer.precision=bf16-true", "--figures.num_images=2")
    command("fit", "--config=obrl_avg.yaml", f"--config={overlay}", *words)
    assert list(Path("runs").rglob("relations.png"))


def test_an_own_file_wins_over_a_bundled_one(tmp_path: Path) -> None:
    assert find_config("avg.yaml", tmp_path) == config_folder() / "avg.yaml"
    assert find_config("avg", tmp_path) == config_folder() / "avg.yaml"
    assert find_config("overlays/cpu.yaml", tmp_path) == config_folder() / "overlays" / "cpu.yaml"
    (tmp_path / "avg.yaml").write_text("{}")
    assert find_config("avg.yaml", tmp_path) == tmp_path / "avg.yaml"
    with pytest.raises(ConfigurationError, match="nor bundled"):
        find_config("other.yaml", tmp_path)


def test_a_file_that_extends_another_shows_only_what_differs(printed: Printed) -> None:
    Path("mine.yaml").write_text("extends: avg.yaml\nmodel: {init_args: {width: 3}}\n")
    Path("over.yaml").write_text("trainer: {max_epochs: 7}\n")
    found = printed("fit", "--config", "mine.yaml", "--config", "over.yaml", "--data.batch_size=5")
    base = yaml.safe_load((config_folder() / "avg.yaml").read_text())
    pooling = found["model"]["init_args"].pop("pooling")
    assert pooling["class_path"].rpartition(".")[2] == base["model"]["init_args"].pop("pooling")
    assert found["model"]["init_args"] | {"width": 64} == found["model"]["init_args"] | base["model"]["init_args"]
    assert found["model"]["init_args"]["width"] == 3
    assert found["data"]["init_args"]["batch_size"] == 5
    assert (found["trainer"]["max_epochs"], found["trainer"]["max_steps"]) == (7, 40000)


def test_a_file_may_extend_one_that_extends(printed: Printed) -> None:
    Path("mine.yaml").write_text("extends: ssp.yaml\nmodel: {init_args: {width: 3}}\n")
    Path("smaller.yaml").write_text("extends: mine.yaml\nmodel: {init_args: {width: 2, head: LinearHead}}\n")
    found = printed("fit", "--config", "smaller.yaml", "--model.regions.checkpoint=x.ckpt")
    settings = found["model"]["init_args"]
    assert settings["width"] == 2
    classes = {key: settings[key]["class_path"].rpartition(".")[2] for key in ("pooling", "head", "regions")}
    assert classes == {"pooling": "SemanticPooling", "head": "LinearHead", "regions": "ParserRegions"}
    assert settings["regions"]["init_args"] == {"checkpoint": "x.ckpt", "temperature": 1.0, "store": None}
    assert found["trainer"]["logger"]["init_args"]["name"] == "ssp"


@pytest.mark.parametrize("place", [1, 3, 5], ids=["first", "between", "last"])
@pytest.mark.parametrize("words", [["--recipe=small"], ["--recipe", "small"]], ids=["one word", "two words"])
def test_a_recipe_changes_the_first_configuration_and_is_changed_by_the_others(
    place: int, words: list[str], printed: Printed
) -> None:
    """Wherever it stands."""
    Path("over.yaml").write_text("model: {init_args: {width: 5}}\ntrainer: {max_epochs: 7}\n")
    line = ["fit", "--config", "ssp.yaml", "--config=over.yaml", "--data.batch_size=3", "--trainer.max_steps=9"]
    found = printed(*line[:place], *words, *line[place:])
    recipe = yaml.safe_load((config_folder() / "recipes/small/avg.yaml").read_text())  # ssp.yaml extends avg.yaml
    model, data, trainer = found["model"]["init_args"], found["data"]["init_args"], found["trainer"]
    assert model["pooling"]["class_path"].endswith("SemanticPooling")
    for key in ("optimizer", "learning_rate", "weight_decay", "schedule"):
        assert model[key] == recipe["model"]["init_args"][key]
    assert data["image_size"] == recipe["data"]["init_args"]["image_size"]
    assert (model["width"], trainer["max_epochs"]) == (5, 7)  # of the overlay
    assert (data["batch_size"], trainer["max_steps"]) == (3, 9)  # of the command line


def test_a_recipe_for_an_own_configuration_is_that_of_what_it_extends(printed: Printed) -> None:
    Path("mine.yaml").write_text("extends: segnet.yaml\nmodel: {init_args: {width: 3}}\n")
    found = printed("fit", "--config=mine.yaml", "--recipe=small")
    recipe = yaml.safe_load((config_folder() / "recipes/small/segnet.yaml").read_text())
    assert found["trainer"]["max_steps"] == recipe["trainer"]["max_steps"]
    assert found["model"]["init_args"]["width"] == recipe["model"]["init_args"]["width"]


@pytest.mark.parametrize("config", ["quickstart.yaml", "ssp_ssg.yaml"])
def test_a_recipe_without_anything_for_a_configuration(config: str, refused: Callable[..., str]) -> None:
    assert f"recipe small has nothing for {config}" in refused("fit", "--config", config, "--recipe=small")


def test_a_recipe_needs_a_configuration(refused: Callable[..., str]) -> None:
    assert "--recipe=small changes a configuration: name one with --config" in refused("fit", "--recipe=small")


def test_the_saved_configuration_repeats_the_run(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    command("fit", "--config", "avg.yaml", "--config", small, "--trainer.limit_train_batches=2")
    command("fit", "--config", "runs/avg/version_0/config.yaml")
    folders = [Path(f"runs/avg/version_{n}") for n in (0, 1)]
    for file in ("config.yaml", "metrics.csv"):
        first, second = ((folder / file).read_text() for folder in folders)
        assert first == second
    written = yaml.safe_load((folders[0] / "config.yaml").read_text())
    for file in ("best.ckpt", "last.ckpt"):
        inside = torch.load(folders[0] / "checkpoints" / file, weights_only=True)["facelightning_config"]
        assert inside == written


def test_the_saved_configuration_repeats_a_test(command: Callable[..., None], runs: Path) -> None:
    command("test", f"--ckpt_path={AVG}")
    command("test", "--config", "runs/avg/version_1/config.yaml")
    first, second = (Path(f"runs/avg/version_{n}/test_results.json").read_text() for n in (1, 2))
    assert first == second


def test_an_installed_wheel_has_the_configurations(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    root = config_folder().parent
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    bundled = {f"facelightning/configs/{path.relative_to(config_folder())}" for path in config_folder().rglob("*.yaml")}
    assert "facelightning/configs/recipes/small/avg.yaml" in bundled
    assert bundled <= names
    assert not any(name.startswith(("tests/", "runs/", "data/")) for name in names)
