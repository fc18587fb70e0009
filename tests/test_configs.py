"""Every bundled configuration and recipe runs through the public command: fit, validate, test, predict."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from facelightning.__main__ import main
from facelightning.configs import chain, config_folder, find_config, find_recipe
from facelightning.data.synthetic import write_objects, write_people, write_scenes
from facelightning.errors import ConfigurationError
from facelightning.tasks import TASKS
from tests.conftest import SIZE, write_lfwa

EXPERIMENTS = sorted(path.name for path in config_folder().glob("*.yaml"))
OVERLAYS = sorted(path.relative_to(config_folder()).as_posix() for path in config_folder().glob("overlays/*.yaml"))
OVERLAYS.remove("overlays/wandb_online.yaml")  # callbacks/test_wandb.py trains with it
RECIPES = sorted(path for path in config_folder().glob("recipes/*/*.yaml") if path.stem != "minutes")
FOLDERS = {"CelebADataModule": "celeba", "HelenDataModule": "helen"}
PEOPLE: dict[str, Any] = {"persons": [12, 3, 3], "faces_per_person": 2}


def merged(*contents: Any) -> Any:
    """Several configurations as one; later ones win."""
    result = contents[0]
    for other in contents[1:]:
        if not isinstance(result, dict) or not isinstance(other, dict):
            return other
        result = {
            key: merged(*(each[key] for each in (result, other) if key in each)) for key in (result.keys() | other)
        }
    return result


def complete(config: str) -> dict[str, Any]:
    """A bundled configuration with what it extends."""
    content: dict[str, Any] = merged(*(content for _, content in chain(config_folder() / config)))
    return content


def smaller_data(data: dict[str, Any], faces: Path) -> dict[str, Any]:
    """The same data module on few small images."""
    small: dict[str, Any] = {"image_size": list(SIZE), "batch_size": 4, "num_workers": 0}
    name = data["class_path"]
    if name == "ImageFolderDataModule":
        small["root"] = str(faces.parent / "objects")
        write_objects(Path(small["root"]), (20, 6, 6), size=(64, 64))
    elif name in ("FaceTableDataModule", "PersonFoldersDataModule", "SyntheticPeopleDataModule"):
        root = faces.parent / "people"
        write_people(root, tuple(PEOPLE["persons"]), PEOPLE["faces_per_person"])
        small["root"] = str(root / "train" if name == "PersonFoldersDataModule" else root)
        small |= PEOPLE if name == "SyntheticPeopleDataModule" else {}
    elif name == "SyntheticScenesDataModule" or data["init_args"].get("images") == "wild":
        scenes: dict[str, Any] = {"scenes": [10, 6, 6], "faceless": [0, 0, 0], "scene_size": [64, 64]}
        root = faces.parent / "scenes"
        write_scenes(root, **{key.replace("scene_size", "size"): tuple(value) for key, value in scenes.items()}, seed=0)
        small |= {"root": str(root)} | (scenes if name == "SyntheticScenesDataModule" else {"images": "wild"})
        if "crop" in data["init_args"]:
            small["crop"] = {"boxes": None}  # the true ones
    elif name == "JointDataModule":
        small = {part: smaller_data(settings, faces) for part, settings in data["init_args"].items()}
    elif name == "SyntheticDataModule":
        small |= {"root": str(faces), "faces": [21, 11, 13], "masks": [9, 5, 7]}
    else:
        small["root"] = str(faces / FOLDERS[name])
    return {"class_path": name, "init_args": small}


def roots(data: dict[str, Any], faces: Path, key: str = "--data") -> list[str]:
    """Where the data of a configuration lies, as the command line says it."""
    if data["class_path"] == "JointDataModule":
        return [
            word for part, settings in data["init_args"].items() for word in roots(settings, faces, f"{key}.{part}")
        ]
    return [f"{key}.root={smaller_data(data, faces)['init_args']['root']}"]


def needs(config: str) -> list[str]:
    """The configurations whose checkpoints another starts from, in the order of training."""
    found = re.findall(r"runs/(\w+)/version_0/checkpoints/best.ckpt", yaml.safe_dump(complete(config)["model"]))
    return list(dict.fromkeys(name for one in found for name in (*needs(f"{one}.yaml"), f"{one}.yaml")))


def is_assembled(config: str) -> bool:
    """Whether there is nothing to train."""
    return TASKS[complete(config)["model"]["class_path"]].made_of is not None


def small_overlay(config: str, faces: Path, folder: Path) -> str:
    """An overlay that makes a configuration run in seconds; what it is about stays as it is."""
    overlay: dict[str, Any] = {
        "data": smaller_data(complete(config)["data"], faces),
        "trainer": {
            "max_steps": 2,
            "max_epochs": -1,
            "limit_train_batches": 2,  # so that the second step ends an epoch, and is validated
            "check_val_every_n_epoch": 1,
            "val_check_interval": 1.0,
            "accelerator": "cpu",
            "enable_progress_bar": False,
        },
        "figures": {"num_images": 0},  # they would take half of the time
    }
    if not is_assembled(config):
        overlay["model"] = {"init_args": {"width": 2}}
    model = complete(config)["model"]
    encoder = model["init_args"].get("encoder") or {}
    if encoder.get("class_path") == "LNet":
        last = {"num_features": 8} if "num_features" in model["init_args"] else {"head": {"init_args": {"width": 5}}}
        overlay["model"] = {"init_args": {"encoder": {"init_args": {"width": 3}}, **last}}
    elif encoder.get("class_path") == "PANDA":
        overlay["model"] = {
            "init_args": {"encoder": {"init_args": {"width": 2}}, "image_input": {"init_args": {"size": 16}}}
        }
    elif encoder.get("class_path") == "SeparateEncoder":
        overlay["model"]["init_args"]["encoder"] = {"init_args": {"width": 1}}
    elif encoder.get("init_args", {}).get("weights"):
        overlay["model"] = {"init_args": {"encoder": {"init_args": {"weights": None}}}}  # nothing is downloaded
    if model["class_path"] in ("ANet", "IdentityNet"):
        overlay["model"]["init_args"]["cell"] = 3
        overlay["data"]["init_args"]["image_size"] = [129, 129]  # the smallest that they take
    if "images_per_identity" in complete(config)["data"]["init_args"]:
        overlay["data"]["init_args"]["images_per_identity"] = 2
    path = folder / f"small_{config}"
    path.write_text(yaml.safe_dump(overlay))
    return str(path)


@pytest.fixture(scope="session")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trains a configuration, after those that it starts from, once; its run folder."""
    folder = tmp_path_factory.mktemp("trained")

    def train(config: str) -> Path:
        run = folder / "runs" / Path(config).stem
        if not run.exists():
            for first in needs(config):
                train(first)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                words = ["--config", config, "--config", small_overlay(config, faces, folder)]
                if config == "ssg.yaml":  # whose checkpoint then needs no file of masks
                    words.append("--model.regions.store=masks.sqlite")
                assert main(["fit", *words, f"--test_after_fit={str(config in SCORED).lower()}"]) == 0
        return run

    return train


@pytest.fixture
def prepared(trained: Callable[[str], Path], command: Callable[..., None], tmp_path: Path) -> Callable[..., None]:
    """The command line in an empty folder, but for the checkpoints that a configuration starts from."""

    def run(config: str) -> None:
        for first in needs(config):
            source = trained(first)
            shutil.copytree(source, tmp_path / "runs" / source.name)

    return run


def classes(content: Any) -> set[str]:
    """The classes that a configuration names."""
    return set(re.findall(r"(?:: |- |\.)([A-Z]\w+)$", yaml.safe_dump(content), re.MULTILINE))


def bringing_something_new() -> set[str]:
    """Configurations that are assembled, or name a class of model or data that none before them names."""
    found, known = set[str](), set[str]()
    for config in EXPERIMENTS:
        content = complete(config)
        named = classes(content["model"]) | classes(content["data"])
        if is_assembled(config) or named - known:
            found.add(config)
        known |= named
    return found


SCORED = bringing_something_new()
"""Configurations whose checkpoints are also used; what those of the others hold is in these, too."""


FIRST = {
    complete(config)["model"]["class_path"]: config for config in reversed(EXPERIMENTS) if config in SCORED
}.values()
"""One of them for each task: its checkpoint alone is also tested."""


def check_and_predict(command: Callable[..., None], name: str, checkpoint: str, *data: str) -> None:
    """There are scores in ``runs/NAME``, and its checkpoint predicts: it is all that is said of model and data."""
    run = Path("runs") / name
    assert {"model", "data", "trainer"} <= yaml.safe_load((run / "version_0/config.yaml").read_text()).keys()
    results = json.loads((run / "version_0/test_results.json").read_text())
    assert results.keys() & {"age", "attributes", "category", "faces", "identity", "parsing"}
    file = f"--ckpt_path={run}/version_0/checkpoints/{checkpoint}.ckpt"
    command("predict", file, *data, "--trainer.logger.version=predicted")
    assert any(run.glob("predicted/predictions/*"))
    if f"{name}.yaml" in FIRST:
        command("test", file, *data, "--trainer.logger.version=tested")
        assert (run / "tested/test_results.json").is_file()


@pytest.mark.parametrize("config", EXPERIMENTS)
def test_experiment(
    config: str,
    trained: Callable[[str], Path],
    prepared: Callable[[str], None],
    command: Callable[..., None],
    faces: Path,
    tmp_path: Path,
) -> None:
    name, data = Path(config).stem, roots(complete(config)["data"], faces)
    if is_assembled(config):
        prepared(config)
        command("test", "--config", config, "--config", small_overlay(config, faces, tmp_path))
        check_and_predict(command, name, "best", *data)
        return
    run = trained(config)
    assert (run / "version_0/checkpoints/last.ckpt").is_file()
    assert (run.parent.parent / "masks.sqlite").is_file() or config != "ssg.yaml"
    if config in SCORED:
        shutil.copytree(run, tmp_path / "runs" / name)
        check_and_predict(command, name, "last", *data)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay(overlay: str, command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    configs, flags, root = ["avg.yaml", overlay, small], list[str](), faces / "celeba"
    if overlay == "overlays/multi_gpu.yaml":  # all of it that a machine without GPUs has
        flags = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.sync_batchnorm=false"]
    if overlay == "overlays/fast.yaml":
        flags = ["--model.encoder=tests.callbacks.test_compilation.Shallow"]  # each layer takes seconds to compile
    if overlay == "overlays/lfwa.yaml":
        root = tmp_path / "lfwa"
        write_lfwa(root)
        configs = ["avg.yaml", small, overlay]  # the last one names the data
        flags = [f"--data.root={root}", "--test_after_fit=true"]
    if overlay == "overlays/wild.yaml":
        root = tmp_path / "wild"
        shutil.copytree(faces / "celeba", root)
        (aligned,) = root.rglob("img_align_celeba")
        aligned.rename(aligned.with_name("img_celeba"))
        flags = [f"--data.root={root}"]
    command("fit", *(word for config in configs for word in ("--config", config)), *flags)
    assert Path("runs/avg/version_0/checkpoints/last.ckpt").is_file()
    if "wandb" in overlay:
        wandb.finish()  # else the next logger goes on with this run
        wandb.teardown()  # and remembers that it is offline
    if overlay == "overlays/lfwa.yaml":  # other data than avg.yaml's
        check_and_predict(command, "avg", "last", f"--data.root={root}")


def check_holds(found: Any, said: Any) -> None:
    """A configuration has all that another says; a class may be named without its module."""
    if isinstance(said, list):
        assert len(found) == len(said)
        found, said = dict(enumerate(found)), dict(enumerate(said))
    if not isinstance(said, dict):
        assert found == said
        return
    for key, value in said.items():
        if key == "class_path":
            assert found[key].rpartition(".")[2] == value.rpartition(".")[2]
        else:
            check_holds(found[key], value)


def naming_other_parts() -> list[Path]:
    """Recipes that bring a task other parts than those before them; all others change its settings to other numbers."""
    found, known = [], set[tuple[str, frozenset[str]]]()
    for recipe in RECIPES:
        named = frozenset(classes(merged(*(content for _, content in chain(recipe)))))
        key = (complete(recipe.name)["model"]["class_path"], named)
        if named and key not in known and not is_assembled(recipe.name):
            found.append(recipe)
        known.add(key)
    return found


TRAINED = naming_other_parts()


@pytest.mark.parametrize("recipe", TRAINED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe(
    recipe: Path, prepared: Callable[[str], None], command: Callable[..., None], faces: Path, tmp_path: Path
) -> None:
    """It trains the configuration of its name, with its own settings where the overlay of the test has none."""
    config = recipe.name
    prepared(config)
    small = Path(small_overlay(config, faces, tmp_path))
    own = merged(*(content for _, content in chain(recipe)))["model"]["init_args"]
    overlay = yaml.safe_load(small.read_text())
    for key in overlay["model"]["init_args"].keys() & {"head"}:
        del overlay["model"]["init_args"][key]  # the recipe's is another, which has no width
        overlay["model"]["init_args"]["encoder"]["init_args"]["weights"] = None  # of another shape without the recipe
    small.write_text(yaml.safe_dump(overlay))
    command(
        "fit", "--config", config, f"--recipe={recipe.parent.name}", "--config", str(small), "--test_after_fit=true"
    )
    run = tmp_path / "runs" / recipe.stem / "version_0"
    assert (run / "test_results.json").is_file()
    found = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    check_holds(found, merged(own, overlay["model"]["init_args"]))


@pytest.mark.parametrize(
    "recipe", [path for path in RECIPES if path not in TRAINED], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_recipe_is_read(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says of model, data and trainer is what the command takes."""
    command = "test" if is_assembled(recipe.name) else "fit"
    with pytest.raises(SystemExit):
        main([command, f"--config={recipe.name}", f"--recipe={recipe.parent.name}", "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)
    for part, settings in merged(*(content for _, content in chain(recipe))).items():
        check_holds(found[part], settings)


ADAMW = {"optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.05, "schedule": "one_cycle"}
ADAGRAD = {"optimizer": "adagrad", "learning_rate": 0.001, "weight_decay": 0.0005, "schedule": "constant"}
SMALL = {"width": 16, **ADAMW}
QUICK = {"width": 8, **ADAMW, "learning_rate": 0.005}
SLOWLY = {"learning_rate": 0.0005}
HALF, FULL = [109, 89], [218, 178]
EPOCHS = {"check_val_every_n_epoch": 1, "val_check_interval": 1.0, "max_steps": -1}
STEPS = {"check_val_every_n_epoch": None, "max_epochs": -1}
RESOLVED: list[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # recipe, configuration, settings of the model, of the data, of the trainer, as configs/README.md was measured
    ("small", "ssp", SMALL, {"image_size": HALF, "batch_size": 32}, {**EPOCHS, "max_epochs": 3}),
    ("small", "balanced", SMALL | SLOWLY, {"image_size": HALF, "batch_size": 32}, {**EPOCHS, "max_epochs": 1}),
    ("small", "panda", SMALL, {"image_size": HALF, "batch_size": 32}, {**EPOCHS, "max_epochs": 3}),
    ("small", "facetracer", {"network": None}, {"image_size": HALF}, {}),
    ("small", "segnet", SMALL, {"image_size": HALF, "batch_size": 8}, {**STEPS, "max_steps": 888}),
    ("small", "jointnet", SMALL, {}, {**EPOCHS, "max_epochs": 2}),
    ("robust", "ssp", SMALL, {"image_size": HALF}, {**EPOCHS, "max_epochs": 3}),
    ("robust", "segnet", SMALL, {"image_size": HALF, "batch_size": 8}, {**STEPS, "max_steps": 1776}),
    ("longer", "ssp", SMALL, {"image_size": HALF}, {**EPOCHS, "max_epochs": 8}),
    ("longer", "segnet", SMALL, {"image_size": HALF}, {**STEPS, "max_steps": 1776, "val_check_interval": 222}),
    ("longer", "balanced", SMALL | SLOWLY, {"image_size": HALF}, {**EPOCHS, "max_epochs": 1}),
    ("adagrad", "ssp", {"width": 16, **ADAGRAD}, {"image_size": HALF}, {**EPOCHS, "max_epochs": 8}),
    ("adagrad", "balanced", {"width": 16, **ADAGRAD, **SLOWLY}, {}, {**EPOCHS, "max_epochs": 1}),
    ("adagrad", "segnet", SMALL, {"image_size": HALF, "batch_size": 8}, {**STEPS, "max_steps": 1776}),
    ("quickstart", "ssg", QUICK, {"image_size": HALF, "batch_size": 16}, {**EPOCHS, "max_epochs": 8}),
    ("quickstart", "balanced", QUICK | SLOWLY, {"image_size": HALF}, {**EPOCHS, "max_epochs": 1}),
    ("quickstart", "segnet", QUICK, {"image_size": HALF, "batch_size": 8}, {**STEPS, "max_steps": 600}),
    ("quickstart_full", "ssg", QUICK, {"image_size": FULL, "batch_size": 16}, {**EPOCHS, "max_epochs": 8}),
    ("quickstart_full", "balanced", QUICK | SLOWLY, {"image_size": FULL}, {**EPOCHS, "max_epochs": 1}),
    ("quickstart_full", "segnet", QUICK, {"image_size": FULL, "batch_size": 8}, {**STEPS, "max_steps": 600}),
]


@pytest.mark.parametrize(("recipe", "config", "model", "data", "trainer"), RESOLVED)
def test_recipe_has_the_settings_that_were_measured(
    recipe: str,
    config: str,
    model: dict[str, Any],
    data: dict[str, Any],
    trainer: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", f"--config={config}", f"--recipe={recipe}", "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)
    for settings, expected in ((found["model"]["init_args"], model), (found["data"]["init_args"], data)):
        assert {key: settings[key] for key in expected} == expected
    assert {key: found["trainer"][key] for key in trainer} == trainer


class TestFiles:
    def write(self, folder: Path, **extends: str) -> None:
        for name, base in extends.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump({"extends": base, "seed_everything": name}))

    def test_extends_at_any_depth(self, tmp_path: Path) -> None:
        (tmp_path / "inner").mkdir()
        self.write(tmp_path, top="inner/middle.yaml")
        self.write(tmp_path / "inner", middle="low.yaml", low="avg.yaml")
        found = chain(tmp_path / "top.yaml")
        assert [path.stem for path, _ in found] == ["avg", "low", "middle", "top"]
        assert [content["seed_everything"] for _, content in found] == [0, "low", "middle", "top"]
        assert not any("extends" in content for _, content in found)

    def test_a_circle_is_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path, one="two.yaml", two="three.yaml", three="two.yaml")
        with pytest.raises(ConfigurationError, match=r"one.yaml extends .*two.yaml extends .*three.yaml extends .*two"):
            chain(tmp_path / "one.yaml")

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("avgg", "did you mean avg?"), ("overlays/cpuu.yaml", "did you mean overlays/cpu?")],
    )
    def test_an_unknown_name_gets_a_hint(self, name: str, hint: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(f"{name} is neither in {tmp_path} nor bundled; {hint}")):
            find_config(name, tmp_path)
        with pytest.raises(ConfigurationError, match=r"there are agenet, .*overlays/fast, "):
            find_config("unlike", tmp_path)

    def test_recipes_are_for_the_nearest_name(self, tmp_path: Path) -> None:
        folder = config_folder()
        self.write(tmp_path, mine="ssp.yaml")
        places = {"balanced": "balanced", "ssp_convnext": "avg", "segnet_resnet18": "segnet", "jointnet": "jointnet"}
        for config, name in places.items():
            assert find_recipe("small", folder / f"{config}.yaml") == folder / "recipes" / "small" / f"{name}.yaml"
        assert find_recipe("small", tmp_path / "mine.yaml") == folder / "recipes" / "small" / "avg.yaml"
        assert find_recipe("quickstart", folder / "jointnet.yaml") is None
        assert find_recipe("small", folder / "ssp_ssg.yaml") is None  # it trains nothing
        with pytest.raises(ConfigurationError, match=r"no recipe is named smal; did you mean small\?"):
            find_recipe("smal", folder / "avg.yaml")
