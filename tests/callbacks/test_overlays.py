"""Dashboards and training tricks of the overlays: what they promise beyond that they run."""

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from facelightning.configs import config_folder
from tests.test_configs import small_overlay
from tests.test_resume import assert_same


def test_tensorboard_has_scores_rates_and_figures(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    small = small_overlay("quickstart.yaml", faces, tmp_path)
    words = ["--trainer.log_every_n_steps=1", "--test_after_fit=false", "--figures.num_images=2"]
    command("fit", "--config=quickstart.yaml", f"--config={small}", "--config=overlays/tensorboard.yaml", *words)
    (file,) = Path("runs/tensorboard").rglob("events.out.*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert {f"figures/{name}" for name in ("attributes", "faces", "parsing", "region_weights")} == set(
        events.Tags()["images"]
    )
    scalars = events.Tags()["scalars"]
    assert {"val/mean_iou", "val/mean_ap", "train/loss"} <= set(scalars)
    assert any(name.startswith("lr-") for name in scalars)


def test_a_moving_average_is_kept_and_resumed(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    """What is kept is the average of all steps; a training resumed amid it ends with the same bits."""
    small = small_overlay("avg.yaml", faces, tmp_path)
    every = {"filename": "{step}", "every_n_train_steps": 1, "save_top_k": -1, "enable_version_counter": False}
    keep = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": every}
    ema = yaml.safe_load((config_folder() / "overlays/ema.yaml").read_text())["trainer"]["callbacks+"]
    ema[0]["init_args"]["decay"] = 0.5
    Path("ema.yaml").write_text(yaml.safe_dump({"trainer": {"max_steps": 4, "callbacks+": [*ema, keep]}}))
    words = ["fit", *(f"--config={config}" for config in ("avg.yaml", small, "ema.yaml"))]
    command(*words)
    whole = Path("runs/avg/version_0/checkpoints")
    command(*words, f"--ckpt_path={whole}/step=2.ckpt")
    ends = [torch.load(f"runs/avg/version_{n}/checkpoints/last.ckpt", weights_only=True) for n in (0, 1)]
    for part in ("state_dict", "current_model_state", "optimizer_states"):
        assert_same(ends[1][part], ends[0][part])
    steps = [torch.load(whole / f"step={step}.ckpt", weights_only=True) for step in (2, 3)]
    average, before, now = (
        each["network.tail.0.0.weight"]
        for each in (steps[1]["state_dict"], steps[0]["state_dict"], steps[1]["current_model_state"])
    )
    torch.testing.assert_close(average, (before + now) / 2)


def test_a_training_that_gains_nothing_ends(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    words = ["--trainer.max_steps=20", "--model.learning_rate=1e-12", "--model.optimizer=adamw"]
    command("fit", "--config=avg.yaml", f"--config={small}", "--config=overlays/early_stopping.yaml", *words)
    last = torch.load("runs/avg/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] < 20
