"""The commands that are killed: how each starts, how it continues, and what it leaves behind."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from facelightning.checkpoint import Checkpoint
from facelightning.data.synthetic import write_synthetic
from facelightning.runs import RunFolder
from tests.conftest import SIZE

FACES, MASKS = (28, 8, 120), (14, 6, 60)
"""Faces of the three splits with attributes and with masks. The last of seven training batches is a step of its own."""

RESUMED = ("state_dict", "optimizer_states", "lr_schedulers")
"""The parts of a checkpoint that an interruption must not change."""

Content = Mapping[str, Any]
"""What a command left behind, by name."""


@dataclass(frozen=True)
class Command:
    """A command that can be killed.

    Args:
        words: The arguments of ``facelightning``.
        outcome: What it left in its working folder.
        resumes: Whether it continues from its last checkpoint; else the same command is given again.
        under_way: Names of files that only a killed one leaves.
    """

    words: list[str]
    outcome: Callable[[Path], Content]
    resumes: bool = False
    under_way: list[str] = field(default_factory=list)

    def next(self, folder: Path) -> list[str]:
        """The arguments to start it, or to continue it."""
        last = newest(folder, "checkpoints/last.ckpt") if self.resumes else None
        return self.words if last is None else ["fit", f"--ckpt_path={last.relative_to(folder)}"]


def newest(folder: Path, name: str) -> Path | None:
    """A file of the last run that has it."""
    found = sorted(
        folder.glob(f"runs/*/version_*/{name}"), key=lambda path: int(re.findall(r"version_(\d+)", str(path))[-1])
    )
    return found[-1] if found else None


def checkpoint(path: Path) -> Content:
    """What training goes on from."""
    content = torch.load(path, weights_only=True)
    return {key: content[key] for key in (*RESUMED, "global_step")}


def trained(folder: Path) -> Content:
    """The last checkpoint."""
    path = newest(folder, "checkpoints/last.ckpt")
    assert path is not None
    return checkpoint(path)


def files(folder: Path) -> Content:
    """The scores or predictions of the last run."""
    run = max((folder / "runs/jointnet").iterdir(), key=lambda path: int(path.name.removeprefix("version_")))
    paths = [path for path in run.rglob("*") if path.name == "test_results.json" or "predictions" in path.parts]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if path.is_file()}


def printed(folder: Path) -> Content:
    """The scores that it printed last."""
    return {"scores": (folder / "printed.txt").read_text()}


def reproduced(folder: Path) -> Content:
    """Checkpoints, scores and predictions of every run, and the tables without times."""
    found: dict[str, Any] = {}
    for run in map(RunFolder, sorted((folder / "out").glob("*/seed_*"))):
        name = str(run.path.relative_to(folder))
        found |= {f"{name}/best": checkpoint(run.best), f"{name}/last": checkpoint(run.last)}
        for path in (run.results, RunFolder(run.path / "test").predictions / "attributes.csv"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    records = json.loads((folder / "out/tables.json").read_text())
    return found | {"tables": [{**record, "finished": None} for record in records]}


KEEP = [
    {"monitor": "val/loss", "mode": "min", "filename": "best"},
    {"filename": "last", "every_n_train_steps": 1},
    {"filename": "last", "save_on_train_epoch_end": False},
]
"""The best checkpoint, and the last one: written after every step and every validation."""


def overlay(path: Path, epochs: int, data: Content, **trainer: Any) -> str:
    """An overlay for tiny networks on few small images."""
    content = {
        "model": {"init_args": {"width": 2}},
        "figures": {"num_images": 0},
        "data": {"init_args": {"image_size": list(SIZE), "num_workers": 0, **data}},
        "trainer": {
            "max_steps": -1,
            "max_epochs": epochs,
            "check_val_every_n_epoch": 1,
            "num_sanity_val_steps": 0,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "accumulate_grad_batches": 2,
            **trainer,
        },
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def commands(folder: Path, epochs: int) -> dict[str, Command]:
    """All of them by name; draws the faces. What starts from a checkpoint must follow the training that writes it."""
    faces = folder / "faces"
    write_synthetic(faces, FACES, MASKS, seed=0)
    celeba, helen = f"--data.root={faces / 'celeba'}", f"--data.root={faces / 'helen'}"
    joint_data = {"root": str(faces), "faces": list(FACES), "masks": list(MASKS), "batch_size": 4, "mask_batch_size": 4}

    def fit(name: str, config: str, data: Content, *words: str) -> Command:
        keep = "lightning.pytorch.callbacks.ModelCheckpoint"
        callbacks = [{"class_path": keep, "init_args": {**each, "enable_version_counter": False}} for each in KEEP]
        logger = {"init_args": {"name": name}}
        tiny = overlay(folder / f"{name}.yaml", epochs, data, val_check_interval=3, callbacks=callbacks, logger=logger)
        return Command(["fit", f"--config={config}.yaml", f"--config={tiny}", *words], trained, resumes=True)

    def whole(name: str, kind: str) -> str:
        return str(folder / name / f"whole/runs/{name}/version_0/checkpoints/{kind}.ckpt")

    model = [f"--ckpt_path={whole('jointnet', 'last')}", "--trainer.logger.save_dir=runs", "--data.batch_size=1"]
    rows = overlay(folder / "rows.yaml", 3, {"batch_size": 4}, val_check_interval=1.0)
    reproduce = ["reproduce", f"--celeba={faces / 'celeba'}", "--rows=[avg,spp]", f"--overlay=[{rows}]"]
    return {
        "segnet": fit("segnet", "segnet", {"batch_size": 2}, helen),
        "ssp": fit("ssp", "ssp", {"batch_size": 4}, celeba, f"--model.regions.checkpoint={whole('segnet', 'best')}"),
        "jointnet": fit("jointnet", "quickstart", joint_data, "--test_after_fit=false"),
        "validate": Command(["validate", *model, "--trainer.enable_progress_bar=false"], printed),
        "test": Command(["test", *model], files),
        "predict": Command(["predict", *model], files, under_way=["attributes_0.csv"]),
        "reproduce": Command(
            [*reproduce, "--resamples=20", "--output=out"],
            reproduced,
            under_way=["attributes_0.csv", "finished.json.part", "settings.part"],
        ),
    }


NEEDS = {"ssp": "segnet", "validate": "jointnet", "test": "jointnet", "predict": "jointnet"}
"""The training that must have ended first."""


def broken(folder: Path) -> list[str]:
    """The checkpoints that are not whole."""
    found = []
    for path in folder.rglob("*.ckpt"):
        try:
            Checkpoint.read(path)
        except Exception as error:
            found.append(f"{path.relative_to(folder)}: {error}")
    return found
