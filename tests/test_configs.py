"""Every bundled configuration runs through the public command: fit, validate, test, predict."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from facelightning.configs import config_folder
from tests.conftest import SIZE, write_lfwa

EXPERIMENTS = sorted(path.name for path in config_folder().glob("*.yaml"))
OVERLAYS = sorted(path.relative_to(config_folder()).as_posix() for path in config_folder().glob("overlays/*.yaml"))


def smaller_data(data: dict[str, Any], faces: Path) -> dict[str, Any]:
    """The same data module on few small pictures."""
    small = {"image_size": list(SIZE), "batch_size": 4, "num_workers": 0}
    name = data["class_path"]
    if name == "JointDataModule":
        parts = {part: smaller_data(settings, faces) for part, settings in data["init_args"].items()}
        return {"class_path": name, "init_args": parts}
    if name == "SyntheticDataModule":
        return {
            "class_path": name,
            "init_args": {**small, "root": str(faces), "faces": [21, 11, 13], "masks": [9, 5, 7]},
        }
    folder = {"CelebADataModule": "celeba", "HelenDataModule": "helen"}[name]
    return {"class_path": name, "init_args": {**small, "root": str(faces / folder)}}


def complete(config: str) -> dict[str, Any]:
    """A configuration with what it extends."""
    content: dict[str, Any] = yaml.safe_load((config_folder() / config).read_text())
    if "extends" in content:
        base = complete(content["extends"])
        content["data"] = base["data"]
        settings = content.get("model", {"init_args": {}})["init_args"]
        content["model"] = {**base["model"], "init_args": base["model"]["init_args"] | settings}
    return content


def needs(config: str) -> list[str]:
    """The configurations whose checkpoints another starts from, in the order of training."""
    found = re.findall(r"runs/(\w+)/version_0/checkpoints/best.ckpt", yaml.safe_dump(complete(config)["model"]))
    return list(dict.fromkeys(name for one in found for name in (*needs(f"{one}.yaml"), f"{one}.yaml")))


def small_overlay(config: str, faces: Path, folder: Path) -> str:
    """An overlay that makes a configuration run in seconds; what it is about stays as it is."""
    content = complete(config)
    overlay: dict[str, Any] = {
        "data": smaller_data(content["data"], faces),
        "trainer": {
            "max_steps": 2,
            "max_epochs": -1,
            "limit_train_batches": 2,  # so that the second step ends an epoch, and is validated
            "check_val_every_n_epoch": 1,
            "val_check_interval": 1.0,
            "accelerator": "cpu",
            "enable_progress_bar": False,
        },
    }
    if "width" in content["model"]["init_args"]:
        overlay["model"] = {"init_args": {"width": 2}}
    else:
        overlay["trainer"]["max_epochs"] = 1
    path = folder / f"small_{config}"
    path.write_text(yaml.safe_dump(overlay))
    return str(path)


def run_all(command: Callable[..., None], name: str, configs: list[str], *flags: str) -> None:
    """Train, then score and predict with the checkpoint that training left in ``runs/NAME``."""
    arguments = [word for config in configs for word in ("--config", config)] + list(flags)
    command("fit", *arguments)
    run = Path("runs") / name
    assert {"model", "data", "trainer"} <= yaml.safe_load((run / "version_0/config.yaml").read_text()).keys()
    last = run / "version_0/checkpoints/last.ckpt"
    for stage in ("validate", "test", "predict"):
        command(stage, *arguments, "--ckpt_path", str(last))
    results = json.loads(next(run.glob("version_*/test_results.json")).read_text())
    assert results.keys() <= {"attributes", "parsing"}
    assert results
    assert any(run.glob("version_*/predictions/*"))


@pytest.mark.parametrize("config", EXPERIMENTS)
def test_experiment(config: str, command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    for first in needs(config):
        command("fit", "--config", first, "--config", small_overlay(first, faces, tmp_path))
    run_all(command, Path(config).stem, [config, small_overlay(config, faces, tmp_path)])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay(overlay: str, command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    base = next((row for row in ("segnet", "jointnet", "balanced") if overlay.endswith(f"_{row}.yaml")), "avg")
    for first in needs(f"{base}.yaml"):
        command("fit", "--config", first, "--config", small_overlay(first, faces, tmp_path))
    small = small_overlay(f"{base}.yaml", faces, tmp_path)
    configs, flags = [f"{base}.yaml", overlay, small], list[str]()
    if overlay == "overlays/multi_gpu.yaml":  # all of it that a machine without GPUs has
        flags = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.sync_batchnorm=false"]
    if overlay == "overlays/lfwa.yaml":
        write_lfwa(tmp_path / "lfwa")
        configs = ["avg.yaml", small, overlay]  # the last one names the data
        flags = [f"--data.init_args.root={tmp_path / 'lfwa'}"]
    run_all(command, base, configs, *flags)
