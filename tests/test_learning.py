"""Learning, not only shapes: a short training beats what guessing could reach by far, in both tasks."""

import json
from collections.abc import Callable
from pathlib import Path


def test_a_short_training_learns_both_tasks(command: Callable[..., None]) -> None:
    # small images, and few; guessing gives a mean AP of the base rates, 28 %, and a mean IoU under 15 %
    command(
        "fit",
        "--config=quickstart.yaml",
        "--data.faces=[200,10,80]",
        "--data.masks=[60,8,30]",
        "--data.image_size=[64,52]",
        "--trainer.max_epochs=3",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--figures.num_images=0",
    )
    results = json.loads(Path("runs/quickstart/version_0/test_results.json").read_text())
    assert results["parsing"]["mean_iou"] > 30
    assert results["attributes"]["mean_ap"] > 36
