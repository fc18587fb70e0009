"""What a training costs: images a second and memory against batch, width, image size and workers; making a cache.

    python benchmarks/curves.py --celeba /path/to/celeba --output curves.json --picture curves.png

Each point is a ``facelightning bench`` of Avg. Pooling by the recipe ``small``, in a process of its own. ``--grid``
adds the loops that others write (``--compare=true``) at each width and size. Caches are made of more and more links to
the same image files; the time for CelebA's 202,599 is extrapolated from the two largest.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from facelightning.data import CelebADataModule
from facelightning.labels import ATTRIBUTES

CELEBA = 202_599

SIZES = {64: (64, 52), 109: (109, 89), 164: (164, 134), 218: (218, 178)}
"""By their height."""

AXES = {
    "batch size": [4, 8, 16, 32, 64, 128],
    "width": [4, 8, 16, 32, 64],
    "image height": list(SIZES),
    "workers": [0, 1, 2],
}
BASE = {"batch size": 32, "width": 16, "image height": 109, "workers": 0}


def apart(*words: str) -> str:
    """What a Python of its own prints; what it says of an error is shown."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"curves: {' '.join(words)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def bench(point: dict[str, int], asked: argparse.Namespace, folder: Path, *more: str) -> dict[str, Any]:
    """What ``facelightning bench`` wrote, with the peak of a process that does nothing else."""
    words = ["bench", "--config=avg.yaml", "--recipe=small", f"--data.root={asked.celeba}"]
    words += [f"--model.width={point['width']}", f"--data.batch_size={point['batch size']}"]
    words += [f"--data.image_size={list(SIZES[point['image height']])}", f"--data.num_workers={point['workers']}"]
    words += [f"--steps={asked.steps}", f"--rounds={asked.rounds}", *more]
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        place = [f"--trainer.logger.save_dir={runs}", "--trainer.logger.name=bench"]
        apart("-m", "facelightning", *words, *place)
        found: dict[str, Any] = json.loads((Path(runs) / "bench/version_0/bench.json").read_text())
    return found


def along(axis: str, values: list[int], asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Images a second and memory at each place of one axis; of all others the base."""
    points = []
    for value in values:
        # from a cache nothing waits, so that the rate is the training's; workers matter with files
        cache = [] if axis == "workers" else ["--data.cache=true", f"--data.cache_folder={folder / 'cache'}"]
        found = bench(BASE | {axis: value}, asked, folder, *cache)
        rates = found["images_a_second"]
        points.append(
            {
                axis: value,
                "images_a_second": median(rates["both together"]),
                "spread": [min(rates["both together"]), max(rates["both together"])],
                "loader_alone": median(rates["loader alone"]),
                "peak_memory_megabytes": found["peak_memory_bytes"] / 1e6,
                "speed": found["speed"],
            }
        )
        print(json.dumps(points[-1]), flush=True)
    return points


def beside_peers(
    widths: list[int], heights: list[int], asked: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    """How many times as fast as each peer, round by round, at each width and size; batches of 16."""
    points = []
    for width in widths:
        for height in heights:
            point = BASE | {"width": width, "image height": height, "batch size": 16}
            rates = bench(point, asked, folder, "--compare=true")["images_a_second"]
            ours = rates["both together"]
            ratios = {
                name: sorted(mine / theirs for mine, theirs in zip(ours, rounds, strict=True))
                for name, rounds in rates.items()
                if "loop" in name or "stock" in name
            }
            points.append({"width": width, "image height": height, "images_a_second": median(ours)})
            points[-1] |= {name: [found[0], median(found), found[-1]] for name, found in ratios.items()}
            print(json.dumps(points[-1]), flush=True)
    return points


def linked(root: Path, images: list[Path], count: int) -> None:
    """A folder in CelebA's layout with so many training images, one of validation and one of test."""
    for name in ("Anno", "Eval", "Img/img_align_celeba"):
        (root / name).mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, count + 3)]
    for number, name in enumerate(names):
        os.link(images[number % len(images)], root / "Img/img_align_celeba" / name)
    values = " ".join(["1", "-1"] * 20)
    rows = [f"{name} {values}\n" for name in names]
    (root / "Anno/list_attr_celeba.txt").write_text(f"{len(names)}\n{' '.join(ATTRIBUTES)}\n{''.join(rows)}")
    parts = [f"{name} {max(0, number - count + 1)}\n" for number, name in enumerate(names)]
    (root / "Eval/list_eval_partition.txt").write_text("".join(parts))


def make_cache(root: Path, folder: Path, kind: Any) -> dict[str, float]:
    """Seconds to read the annotations, to make a cache, to open it again; its size, and the peak of memory."""
    data = CelebADataModule(str(root), image_size=SIZES[109], cache=kind, cache_folder=str(folder), seed=0)
    began = time.perf_counter()
    data.dataset("train")
    read = time.perf_counter()
    data.loaded("train")
    made = time.perf_counter()
    again = CelebADataModule(str(root), image_size=SIZES[109], cache=kind, cache_folder=str(folder), seed=0)
    again.dataset("train")
    opening = time.perf_counter()
    again.loaded("train")
    opened = time.perf_counter()
    bytes_ = sum(path.stat().st_size for path in folder.iterdir())
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = {"read_s": read - began, "make_s": made - read, "open_s": opened - opening}
    return seconds | {"megabytes": bytes_ / 1e6, "peak_memory_megabytes": peak / 1e3}


def making(counts: list[int], celeba: Path, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Caches of more and more images, each in a process of its own."""
    images = []
    for number, path in enumerate(sorted((celeba / "Img/img_align_celeba").iterdir())[:100]):
        images.append(folder / f"image_{number}.jpg")
        images[-1].write_bytes(path.read_bytes())  # links do not leave a disk
    found: dict[str, list[dict[str, float]]] = {"true": [], "jpeg": []}
    for count in counts:
        root = folder / f"celeba_{count}"
        linked(root, images, count)
        for kind, rows in found.items():
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                rows.append({"images": count, **json.loads(apart(__file__, "--make", str(root), cache, kind))})
            print(kind, json.dumps(rows[-1]), flush=True)
    for rows in found.values():
        (less, some), (more, all_) = ((row["images"], row["make_s"]) for row in rows[-2:])
        rows.append({"images": CELEBA, "make_s_extrapolated": all_ + (all_ - some) / (more - less) * (CELEBA - more)})
    return found


def draw(found: dict[str, Any]) -> Figure:
    """Rates above, memory below, for each axis; and the caches."""
    figure = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(2, len(found["curves"]) + 1)
    rows: tuple[tuple[str, str, Callable[[dict[str, Any]], float]], ...] = (
        ("images_a_second", "images a second", lambda point: point["images_a_second"]),
        ("peak_memory_megabytes", "peak memory, MB", lambda point: point["peak_memory_megabytes"]),
    )
    for column, (axis, points) in enumerate(found["curves"].items()):
        for line, (_, label, value) in enumerate(rows):
            axes = panels[line, column]
            places = [point[axis] for point in points]
            axes.plot(places, [value(point) for point in points], "o-", color="#0072B2", markersize=4)
            if axis != "workers":
                axes.set_xscale("log")
            axes.set_xticks(places, [str(place) for place in places], fontsize=7)
            axes.set_xticks([], minor=True)
            axes.set_ylim(0, 1.1 * max(value(point) for point in points))
            axes.set_xlabel(f"{axis}{', from files' if axis == 'workers' else ''}", fontsize=8)
            if column == 0:
                axes.set_ylabel(label, fontsize=8)
    for line, (key, label) in enumerate((("make_s", "seconds to make a cache"), ("megabytes", "its size, MB"))):
        axes = panels[line, -1]
        for kind, colour in (("true", "#0072B2"), ("jpeg", "#D55E00")):
            points = [row for row in found["making"][kind] if key in row]
            name = "JPEG" if kind == "jpeg" else "pixels"
            axes.plot(
                [row["images"] for row in points],
                [row[key] for row in points],
                "o-",
                color=colour,
                markersize=4,
                label=name,
            )
        axes.set(xscale="log", yscale="log")
        axes.minorticks_off()
        axes.set_xlabel("images", fontsize=8)
        axes.set_ylabel(label, fontsize=8)
        axes.legend(fontsize=7, frameon=False)
    for axes in panels.flat:
        axes.tick_params(labelsize=7)
        axes.grid(color="#e2e2e2", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, help="root folder of CelebA")
    parser.add_argument("--axes", nargs="*", default=list(AXES), choices=list(AXES))
    parser.add_argument("--values", type=int, nargs="+", help="places on each axis, in place of its own")
    parser.add_argument("--making", type=int, nargs="*", default=[100, 1000, 10_000, 100_000], help="images of caches")
    parser.add_argument("--grid", action="store_true", help="also beside the loops of others, at each width and size")
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32, 64], help="of the grid")
    parser.add_argument("--heights", type=int, nargs="+", default=[64, 109, 218], help="of the grid", choices=SIZES)
    parser.add_argument("--steps", type=int, default=8, help="that each measurement times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)  # a cache, in a process of its own
    asked = parser.parse_args()
    if asked.make:
        root, cache, kind = asked.make
        print(json.dumps(make_cache(Path(root), Path(cache), True if kind == "true" else kind)))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.making:
            found["making"] = making(asked.making, asked.celeba, folder)
        found["curves"] = {axis: along(axis, asked.values or AXES[axis], asked, folder) for axis in asked.axes}
        if asked.grid:
            found["grid"] = beside_peers(asked.widths, asked.heights, asked, folder)
    if asked.output:
        asked.output.write_text(json.dumps(found, indent=2) + "\n")
    if asked.picture:
        draw(found).savefig(asked.picture)


if __name__ == "__main__":
    main()
