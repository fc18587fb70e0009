"""The trainings of Kalayeh et al., at the paper's size, on this machine's GPU: images a second, memory, hours.

    python benchmarks/gpu.py --output gpu.json

Draws faces in CelebA's and Helen's layout, trains a parser for one step, and lets ``facelightning bench`` measure each
configuration twice: in float32, as the paper's, and with ``--speed=auto``. Images come from the cache. Avg. Pooling is
also trained by hand beside it (``--compare``). Weights, and what the faces show, do not change the speed. Each
measurement is printed and written at once, so a time limit loses only the rest; no GPU has run it yet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from facelightning.configs import chain, find_config
from facelightning.data.synthetic import write_synthetic

HELEN = {"segnet", "jointnet"}
"""Configurations that read masks."""


def facelightning(*words: str) -> None:
    """Run the command; what it prints is shown if it fails."""
    done = subprocess.run([sys.executable, "-m", "facelightning", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"gpu: facelightning {' '.join(words)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def options(row: str, data: Path, parser: Path, asked: argparse.Namespace) -> list[str]:
    """The words after a command for a configuration."""
    words = [f"--config={row}.yaml", f"--model.width={asked.width}", f"--trainer.accelerator={asked.accelerator}"]
    roots = {"parsing": data / "helen", "attributes": data / "celeba"}
    parts = roots if row == "jointnet" else {"": roots["parsing" if row in HELEN else "attributes"]}
    for part, root in parts.items():
        place = f"--data.{part}." if part else "--data."
        words += [f"{place}root={root}", f"{place}image_size={list(asked.size)}", f"{place}cache=true"]
        words += [f"{place}cache_folder={data / 'cache'}", f"{place}batch_size={asked.batch_size}"]
        words += [f"{place}num_workers={asked.workers}"]
    if row.startswith(("ssp", "ssg")):
        words.append(f"--model.regions.checkpoint={parser}")
    return words


def steps_of(row: str) -> int:
    """How many steps the paper trains."""
    said = [content.get("trainer", {}).get("max_steps") for _, content in chain(find_config(f"{row}.yaml", Path.cwd()))]
    return int(next(steps for steps in reversed(said) if steps))


def summary(row: str, found: dict[str, Any]) -> dict[str, Any]:
    """The numbers that one compares."""
    rates = found["images_a_second"]
    rate = median(rates["both together"])
    beside = {name: median(both) for name, both in rates.items() if name not in ("both together", "step alone")}
    return {
        "images_a_second": rate,
        "spread": [min(rates["both together"]), max(rates["both together"])],
        "step_alone": median(rates["step alone"]),
        **beside,
        "speed": found["speed"],
        "peak_memory_gigabytes": found["peak_memory_bytes"] / 1e9,
        "share_of_peak_percent": found["share_of_peak_percent"],
        "minutes_of_the_papers_training": steps_of(row) * found["images_a_step"] / rate / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["avg", "ssp", "ssg", "segnet", "jointnet"])
    parser.add_argument("--faces", type=int, default=1000, help="drawn faces to train on, of each kind")
    parser.add_argument("--width", type=int, default=64, help="filters of the first layer")
    parser.add_argument("--size", type=int, nargs=2, default=(218, 178), help="height and width in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument("--steps", type=int, default=50, help="that each measurement times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--accelerator", default="gpu")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    asked = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data, runs = Path(folder) / "data", Path(folder) / "runs"
        write_synthetic(data, attributes=(asked.faces, 1, 1), parsing=(asked.faces, 1, 1), seed=0)
        one = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", f"--trainer.logger.save_dir={runs}"]
        checkpoint = runs / "segnet" / "version_0" / "checkpoints" / "last.ckpt"
        facelightning("fit", *options("segnet", data, checkpoint, asked), *one)
        for row in asked.rows:
            for speed in ("plain", "auto"):
                name = f"{row}, {speed}"
                place = [f"--trainer.logger.save_dir={runs}", f"--trainer.logger.name={name}", f"--speed={speed}"]
                times = [f"--steps={asked.steps}", f"--rounds={asked.rounds}", f"--compare={row == 'avg'}"]
                facelightning("bench", *options(row, data, checkpoint, asked), *place, *times)
                found = json.loads((runs / name / "version_0" / "bench.json").read_text())
                results[name] = summary(row, found)
                print(name, json.dumps(results[name], indent=2), flush=True)
                asked.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
