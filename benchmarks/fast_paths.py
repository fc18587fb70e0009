"""Do the fast paths learn the same? Losses and scores of short trainings beside those in float32, not compiled.

    python benchmarks/fast_paths.py --celeba /path/to/celeba --parser SEGNET --output fast_paths.json

Avg. Pooling, SSP and SSG, of the recipe ``small``, begin with the same weights and see the same batches on each path;
with another seed Avg. Pooling shows what chance does. Each training also goes on from its middle, and must end with
the same weights to the bit. Scores are those of the validation split.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

COMPILED = "--trainer.callbacks+=facelightning.callbacks.Compile"
PATHS: dict[str, dict[str, list[str]]] = {
    "avg": {
        "float32": [],
        "another seed": ["--seed_everything=1"],
        "cache": ["--data.cache=true"],
        "cache of JPEG": ["--data.cache=jpeg"],
        "two threads": [],
        "bfloat16": ["--trainer.precision=bf16-mixed"],
        "compiled": [COMPILED],
        "speed: auto": ["--speed=auto"],
        "overlays/fast.yaml": ["--config=overlays/fast.yaml"],
    },
    "ssp": {
        "float32": [],
        "masks stored": ["--model.regions.store=STORE"],
        "masks stored, overlays/fast.yaml": ["--model.regions.store=STORE", "--config=overlays/fast.yaml"],
    },
    "ssg": {
        "float32": [],
        "masks stored": ["--model.regions.store=STORE"],
        "masks stored, overlays/fast.yaml": ["--model.regions.store=STORE", "--config=overlays/fast.yaml"],
    },
}
"""Of each configuration, the options of each path; what is compared with, first."""

SCORES = {"error": "val/error", "mean_ap": "val/mean_ap"}


def facelightning(words: list[str], threads: int) -> None:
    """Run the command; what it prints is shown if it fails."""
    code = f"import torch; torch.set_num_threads({threads}); from facelightning.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"fast_paths: facelightning {' '.join(words)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def overlay(steps: int) -> dict[str, Any]:
    """A training of so many steps that logs each, is validated at its end, and is saved in its middle too."""
    every = {
        "every_n_train_steps": steps // 2,
        "save_top_k": -1,
        "filename": "{step}",
        "auto_insert_metric_name": False,
    }
    keep = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": every}
    validated = {"check_val_every_n_epoch": None, "val_check_interval": steps}
    return {
        "trainer": {"max_steps": steps, "max_epochs": -1, "log_every_n_steps": 1, "callbacks+": [keep], **validated}
    }


def column(run: Path, name: str) -> list[float]:
    """The numbers of one name in a run's table, in the order of its steps."""
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    """A run's weights after a step."""
    found: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / f"{step}.ckpt", weights_only=True)["state_dict"]
    return found


def measured(run: Path, plain: Path, resumed: Path, steps: int) -> dict[str, Any]:
    """What one path learned, beside the plain one, and whether it is resumed exactly."""
    loss, expected = (np.array(column(each, "train/loss")) for each in (run, plain))
    assert len(loss) == len(expected) == steps
    apart = abs(loss - expected)
    ends, ended = weights(run, steps), weights(resumed, steps)
    return {
        "loss": {"first 10": loss[:10].mean(), "last 50": loss[-50:].mean()},
        "difference of the loss": {"first 10": apart[:10].mean(), "all": apart.mean(), "last 50": apart[-50:].mean()},
        **{name: column(run, key)[-1] for name, key in SCORES.items()},
        "resumed to the bit": ends.keys() == ended.keys() and all(torch.equal(ends[key], ended[key]) for key in ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, required=True, help="root folder of CelebA")
    parser.add_argument("--parser", type=Path, help="a parser's checkpoint, for SSP and SSG")
    parser.add_argument("--configs", nargs="+", default=list(PATHS))
    parser.add_argument("--width", type=int, default=16, help="filters of the first layer")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    asked = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "steps.json").write_text(json.dumps(overlay(asked.steps)))
        for config in asked.configs:
            for path, options in PATHS[config].items():
                run = folder / config / re.sub(r"\W+", "_", path) / "version_0"
                words = [
                    f"--config={config}.yaml",
                    "--recipe=small",
                    f"--config={folder / 'steps.json'}",
                    "--speed=plain",
                ]
                words += [
                    f"--model.width={asked.width}",
                    f"--data.image_size={list(asked.size)}",
                    "--seed_everything=0",
                ]
                words += [f"--data.root={asked.celeba}", f"--data.cache_folder={folder / 'cache'}"]
                words += [f"--model.regions.checkpoint={asked.parser}"] if config != "avg" else []
                words += [word.replace("STORE", str(folder / "maps.sqlite")) for word in options]
                words += [f"--trainer.logger.save_dir={folder / config}", f"--trainer.logger.name={run.parent.name}"]
                threads = 2 if path == "two threads" else 1
                facelightning(["fit", *words], threads)
                middle = run / "checkpoints" / f"{asked.steps // 2}.ckpt"
                facelightning(["fit", *words, f"--ckpt_path={middle}"], threads)
                plain = folder / config / "float32" / "version_0"
                found = measured(run, plain, run.with_name("version_1"), asked.steps)
                results[f"{config}, {path}"] = found
                print(config, path, json.dumps(found), flush=True)
                asked.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
