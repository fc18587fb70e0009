"""Images a second: ``facelightning predict`` against a plain loop of one image after another, over the same network.

    python benchmarks/predicting.py --checkpoint runs/quickstart/version_0/checkpoints/best.ckpt --images 500

Both load the checkpoint, read JPEG files, and write the attributes, and the mask of each photograph at its size. The
photographs are drawn faces, enlarged by ``--scale``. The two take turns, so that whatever else the machine does befalls
both; the memory is the largest that each has needed in a process of its own.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

from facelightning.commands.predict import predict
from facelightning.data.synthetic import draw_face, sample_attributes
from facelightning.tasks import FaceTask, load_model


def write_photographs(folder: Path, count: int, scale: float) -> None:
    """Sixteen drawn faces, again and again, as files of their own."""
    rng = np.random.default_rng(0)
    faces = [draw_face(sample_attributes(rng), identity, seed=identity).image for identity in range(min(count, 16))]
    large = [cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for face in faces]
    encoded = [cv2.imencode(".jpg", face[..., ::-1])[1].tobytes() for face in large]
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(encoded[number % len(encoded)])


def plain(task: FaceTask, path: Path, output: Path) -> None:
    """What one writes without the library's command: the image is distorted to the network's size."""
    assert task.facts is not None
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    height, width = task.facts.image_size
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    with torch.inference_mode():
        output_of = task(torch.from_numpy(small).permute(2, 0, 1)[None])
        if "attributes" in output_of:
            shares = dict(zip(task.facts.attributes or (), output_of["attributes"][0].sigmoid().tolist(), strict=True))
            (output / f"{path.name}.json").write_text(json.dumps(shares))
        if "parsing" in output_of:
            likely = output_of["parsing"][-1].softmax(dim=1)
            mask = interpolate(likely, image.shape[:2], mode="bilinear").argmax(dim=1)[0]
            cv2.imwrite(str(output / f"{path.name}.png"), mask.byte().numpy())


def run_plain(checkpoint: str, photographs: Path, output: Path, workers: int) -> None:
    task = load_model(checkpoint)
    for path in sorted(photographs.iterdir()):
        plain(task, path, output)


def run_library(checkpoint: str, photographs: Path, output: Path, workers: int) -> None:
    predict(checkpoint, [str(photographs)], output=str(output / "predictions"), overlays="none", workers=workers)


def measured(run: str, args: argparse.Namespace, photographs: Path) -> tuple[float, float]:
    """Images a second, and the largest memory in MB, of a new process and those that it starts."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    usual = multiprocessing.get_start_method()
    process = context.Process(target=_measure, args=(run, vars(args), photographs, usual, results))
    process.start()
    result: tuple[float, float] = results.get()
    process.join()
    return result


def _measure(
    run: str, options: dict[str, object], photographs: Path, usual: str, results: "multiprocessing.Queue[object]"
) -> None:
    multiprocessing.set_start_method(usual, force=True)  # a process that was spawned would spawn its own
    torch.set_num_threads(int(str(options["threads"])))
    with tempfile.TemporaryDirectory() as output:
        began = time.perf_counter()
        globals()[run](options["checkpoint"], photographs, Path(output), options["workers"])
        seconds = time.perf_counter() - began
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    results.put((int(str(options["images"])) / seconds, memory / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="of a network for attributes, parsing or both")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--scale", type=float, default=1.0, help="1: 178×218 pixels; 6: about one megapixel")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the network, in both")
    parser.add_argument("--workers", type=int, default=2, help="processes that read, of the library")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), args.images, args.scale)
        rates: dict[str, list[float]] = {"run_plain": [], "run_library": []}
        print(f"{'round':>6} {'plain images/s':>16} {'MB':>6} {'facelightning images/s':>24} {'MB':>6}")
        for number in range(1, args.rounds + 1):
            found = {run: measured(run, args, Path(folder)) for run in rates}
            for run, (rate, _) in found.items():
                rates[run].append(rate)
            (slow, few), (fast, many) = found["run_plain"], found["run_library"]
            print(f"{number:>6} {slow:>16.1f} {few:>6.0f} {fast:>24.1f} {many:>6.0f}", flush=True)
    medians = {run: median(values) for run, values in rates.items()}
    print(f"{'median':>6} {medians['run_plain']:>16.1f} {'':>6} {medians['run_library']:>24.1f}")
    print(f"facelightning / plain: {medians['run_library'] / medians['run_plain']:.2f}")


if __name__ == "__main__":
    main()
