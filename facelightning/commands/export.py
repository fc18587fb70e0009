"""``facelightning export CHECKPOINT``: a trained network as a file for other programs, or as a folder to share."""

import argparse
import json
import logging
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from facelightning.commands.eight_bits import cost, labelled
from facelightning.commands.sharing import write_shared
from facelightning.data.synthetic import draw_face, sample_attributes
from facelightning.errors import ConfigurationError
from facelightning.hub import HUB, is_folder, upload
from facelightning.objectives import Attributes
from facelightning.tasks import FaceTask, load_model

Format = Literal["onnx", "torch", "safetensors"]
Arrays = dict[str, npt.NDArray[Any]]

TOLERANCE = 1e-4
"""The largest difference of a probability between a network and its export."""

FACES = 16
"""Faces that are drawn to compare the two."""

DESCRIPTION = """Write a trained network for other programs, and compare the two on drawn faces. onnx: one file, which
needs onnxruntime and numpy alone; torch: one file for torch.export.load; safetensors: a folder with config.json,
model.safetensors and a model card, which facelightning.load_model reads, also from the Hugging Face Hub."""


EPILOG = """With --int8, options of the data such as --data.root=FOLDER name the labelled faces that tell what it costs;
if none is given, these are the test split of the run's data, if it is there."""


class Portable(nn.Module):
    """A trained task without the rest of facelightning: normalisation, network, probabilities and decisions in one.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, RGB, of any batch size.
        - return: of a network with attributes, probabilities ``(B, A)`` and decisions ``(B, A)``, bool; of one that
          parses, classes ``(B, H, W)``, uint8, and their probabilities ``(B, K, H, W)``.
    """

    def __init__(self, task: FaceTask) -> None:
        super().__init__()
        self.network, self.objectives = task.network, task.objectives
        self.names = [*("probabilities", "decisions") * ("attributes" in task.objectives)]
        self.names += ["classes", "class_probabilities"] if "parsing" in task.objectives else []
        if not self.names:
            raise ConfigurationError(
                f"{type(task).__name__} predicts neither attributes nor parsing: nothing to export"
            )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output, found = self.network(images), list[Tensor]()
        if "attributes" in self.objectives:
            attributes = cast(Attributes, self.objectives["attributes"])
            found += [attributes.predict(output), attributes.decide(output)]
        if "parsing" in self.objectives:
            classes = output["parsing"][-1].float().softmax(dim=1)
            found += [classes.argmax(dim=1).to(torch.uint8), classes]
        return tuple(found)

    def arrays(self, images: npt.NDArray[np.uint8]) -> Arrays:
        """The outputs by their names."""
        with torch.inference_mode():
            found = self(torch.from_numpy(images))
        return {name: each.numpy() for name, each in zip(self.names, found, strict=True)}


def metadata(task: FaceTask) -> dict[str, str]:
    """What a file says of itself: the task, the image size, the names of attributes and classes, as JSON."""
    assert task.facts is not None
    facts = task.facts
    classes = list(facts.label_space.classes) if facts.label_space else []
    said = {"task": type(task).__name__, "image_size": list(facts.image_size), "classes": classes}
    said["attributes"] = list(facts.attributes or ())
    return {f"facelightning.{key}": json.dumps(value) for key, value in said.items()}


def drawn_faces(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Drawn faces ``(N, 3, H, W)``, the same for the same size."""
    rng = np.random.default_rng(0)
    faces = [draw_face(sample_attributes(rng), seed, seed).image for seed in range(FACES)]
    small = [cv2.resize(face, size[::-1], interpolation=cv2.INTER_AREA) for face in faces]
    return np.stack(small).transpose(0, 3, 1, 2).astype(np.uint8)


def difference(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    """The largest difference of a probability, and the shares of decisions and of pixels that differ, in percent."""
    found = {}
    for name, value in ours.items():
        other = theirs[name]
        if "probabilities" in name:
            found[name] = float(np.abs(value - other).max())
        else:
            found[f"{name} that differ, %"] = 100 * float((value != other).mean())
    return found


def write_onnx(task: FaceTask, path: Path, int8: bool) -> Path | None:
    """Write an ONNX file of any batch size, and compare it with the network; returns the small one beside it."""
    try:
        import onnxruntime
        from onnxruntime.quantization import quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        raise ConfigurationError(
            "ONNX needs onnx, onnxscript and onnxruntime, which are not installed: pip install 'facelightning[onnx]'"
        ) from None
    portable, images = Portable(task).eval(), drawn_faces(_size(task))
    with warnings.catch_warnings(action="ignore"):  # of the exporter's own insides
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        program = torch.onnx.export(
            portable,
            (torch.from_numpy(images[:2]),),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=portable.names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    program.model.metadata_props.update(metadata(task))
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path)
    small = path.with_suffix(".int8.onnx") if int8 else None
    if small is not None:
        prepared = path.with_suffix(".part")
        with warnings.catch_warnings(action="ignore"):
            logging.disable(logging.WARNING)
            quant_pre_process(path, prepared)
            quantize_dynamic(prepared, small)
            logging.disable(logging.NOTSET)
        prepared.unlink()
    ours = portable.arrays(images)
    for file in filter(None, (path, small)):
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        found = dict(zip(portable.names, session.run(portable.names, {"images": images}), strict=True))
        _report(file, difference(ours, found), TOLERANCE if file == path else None)
    return small


def write_torch(task: FaceTask, path: Path) -> None:
    """Write a file for ``torch.export.load``, of any batch size, and compare it with the network."""
    portable, images = Portable(task).eval(), drawn_faces(_size(task))
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(portable, (torch.from_numpy(images[:2]),), dynamic_shapes=batch)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path, extra_files=metadata(task))
    with torch.inference_mode():
        found = torch.export.load(path).module()(torch.from_numpy(images))
    theirs = {name: each.numpy() for name, each in zip(portable.names, found, strict=True)}
    _report(path, difference(portable.arrays(images), theirs), TOLERANCE)


def _size(task: FaceTask) -> tuple[int, int]:
    assert task.facts is not None
    return task.facts.image_size


def _report(path: Path, found: dict[str, float], tolerance: float | None) -> None:
    words = ", ".join(f"{name} {value:.2g}" for name, value in found.items())
    rank_zero_info(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB); largest differences on drawn faces: {words}")
    worst = max((value for name, value in found.items() if "probabilities" in name), default=0.0)
    if tolerance is not None and not worst <= tolerance:
        raise ConfigurationError(f"{path} differs from its network by {worst:.2g}, above {tolerance:g}: do not use it")


def export(
    checkpoint: str,
    format: Format = "onnx",
    output: str | None = None,
    int8: bool = False,
    push: str | None = None,
    data: Sequence[str] = (),
) -> None:
    """Write a trained network for other programs.

    Args:
        checkpoint: The trained network.
        format: ``onnx``, ``torch`` or ``safetensors``.
        output: The file, or the folder of ``safetensors``; beside the checkpoint if not given.
        int8: Also write an ONNX file with weights of eight bits: a quarter of the size, not faster on a CPU; and say
            what that costs on labelled faces.
        push: Put the folder on the Hugging Face Hub as OWNER/NAME.
        data: Options of these faces, such as ``--data.root=FOLDER``; the test split of the run's data if none is given.

    Raises:
        FacelightningError: If an argument is wrong, a library is missing, or an export differs from its network.
    """
    if int8 and format != "onnx":
        raise ConfigurationError(f"--int8 is of --format=onnx, not of {format}")
    if push and format != "safetensors":
        raise ConfigurationError(f"--push is of --format=safetensors, not of {format}")
    if data and not int8:
        raise ConfigurationError(f"{data[0]} is of --int8: the labelled faces that tell what it costs")
    suffix = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ""}[format]
    if output is None and (is_folder(checkpoint) or checkpoint.startswith(HUB)):
        raise ConfigurationError(f"{checkpoint} is no file beside which its export could lie: name one with --output")
    path = Path(output) if output else Path(checkpoint).with_suffix(suffix)
    if path.resolve() == Path(checkpoint).resolve():
        raise ConfigurationError(f"--output={path} is what is exported: name another place")
    if format == "safetensors":
        write_shared(checkpoint, path)
        if push:
            rank_zero_info(f"written: {upload(path, push)}")
        return
    task = load_model(checkpoint)
    if task.any_size or any(getattr(part, "needs_landmarks", False) for part in task.network.modules()):
        raise ConfigurationError(
            f"{type(task).__name__} takes more than an image of one size: export the networks in it"
        )
    if format == "torch":
        write_torch(task, path)
    else:
        parts = labelled(checkpoint, data, task) if int8 else []
        small = write_onnx(task, path, int8)
        if small is not None:
            for part in parts:
                rank_zero_info(cost(path, small, part))


def main(args: Sequence[str]) -> None:
    """The command line of :func:`export`."""
    parser = argparse.ArgumentParser(
        prog="facelightning export", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the trained network: .../checkpoints/best.ckpt")
    parser.add_argument("--format", choices=get_args(Format), default="onnx", help="default: onnx")
    parser.add_argument(
        "--output", metavar="PATH", help="file, or folder of safetensors; default: beside the checkpoint"
    )
    parser.add_argument("--int8", action="store_true", help="also an ONNX file of a quarter of the size")
    parser.add_argument("--push", metavar="OWNER/NAME", help="also put the folder on the Hugging Face Hub")
    own, data = _apart(args)
    export(**vars(parser.parse_args(own)), data=data)


def _apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of the data apart from all others.

    Example:
        >>> _apart(["a.ckpt", "--data.root", "faces", "--int8", "--data=CelebADataModule"])
        (['a.ckpt', '--int8'], ['--data.root', 'faces', '--data=CelebADataModule'])
    """
    own, data = list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        if word.startswith("--data"):
            data += [word] if "=" in word else [word, *islice(rest, 1)]
        else:
            own.append(word)
    return own, data
