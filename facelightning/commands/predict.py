"""``facelightning predict CHECKPOINT PATH…``: what a trained network says of photographs, as files."""

import argparse
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast, get_args

import torch
from tqdm import tqdm

from facelightning.commands.photographs import Looks, in_processes, look, named_photographs, unfinished, without_output
from facelightning.commands.prediction_folder import Line, Overlays, PredictionFolder
from facelightning.data.prediction import Failure
from facelightning.errors import ConfigurationError, ProcessError, quoted, reading
from facelightning.hub import CONFIG, HUB, download, is_folder
from facelightning.models import FrontalCascade, TableFinder, YuNet
from facelightning.models.cascade import CascadeNetwork
from facelightning.models.finding import Finder
from facelightning.prediction import Predictor, Seen
from facelightning.tasks import CascadeNet, FaceTask, load_model

KINDS = "crop, cascade, yunet:FILE, boxes:CSV or lnet:CHECKPOINT"

DESCRIPTION = """Write what a trained network says of photographs: predictions.csv and predictions.jsonl (each face with
its box, and the probability and decision of each attribute), parsing masks in the photographs' own pixels (parsing/),
pictures (overlays/), and failures.csv, if a file cannot be read. The same command goes on after an interruption.
`facelightning predict --help` lists the options of the other spelling, which takes a data module."""


def predict(
    checkpoint: str,
    paths: Sequence[str],
    lists: Sequence[str] = (),
    faces: str | None = None,
    margin: float | None = None,
    output: str = "predictions",
    overlays: Overlays = "jpg",
    workers: int = 2,
    regions: bool = False,
    processes: int = 1,
) -> None:
    """Predict photographs into a folder; see :class:`~facelightning.commands.prediction_folder.PredictionFolder`.

    Args:
        checkpoint: The trained network.
        paths: Files, folders, patterns, ``@list.txt``, or ``-`` for names on standard input.
        lists: Files with a name on each line.
        faces: How faces are found: ``crop`` (a photograph is the cut around one face), ``cascade`` (scikit-image's
            frontal one), ``yunet:FILE``, ``boxes:CSV`` or ``lnet:CHECKPOINT``. If not given, a cascade's checkpoint
            finds them itself; of any other network it is ``crop``.
        margin: A found face is seen in a cut of this many times its box's longer side; as in training if not given.
        output: The folder.
        overlays: Format of the pictures, or ``none``.
        workers: Processes that read photographs and find faces; 0 does so in this one.
        regions: Also write how much each region counts for each attribute of each face.
        processes: Processes that each read, predict and draw; with several, ``workers`` does not count.

    Raises:
        FacelightningError: If an argument is wrong; at the end, if photographs lack predictions.
    """
    if not 0 <= workers <= 1024:
        raise ConfigurationError(f"--workers must lie in 0...1024, not {workers}")
    if not 1 <= processes <= 1024:
        raise ConfigurationError(f"--processes must lie in 1...1024, not {processes}")
    task, finder = load(checkpoint, faces)
    if margin is not None and finder is None and not isinstance(task, CascadeNet):
        raise ConfigurationError("--margin is of found faces: say with --faces how to find them, or leave it out")
    names, predictor = without_output(named_photographs(paths, lists), output), task.predictor(finder, margin)
    if predictor.view.finder is not None:
        predictor.view.finder.check(names)
    if regions and not predictor.weighs_regions:
        raise ConfigurationError(
            f"--regions: the {type(task).__name__} in {checkpoint} weighs no regions: leave it out, or take a network "
            "with a LocalizationHead, such as that of ssp.yaml"
        )
    about = {"checkpoint": _digest(checkpoint), "way_to_find_faces": _way(faces), "margin": margin}
    about["choice_of_--regions"] = regions or None  # a folder that says nothing of it has none
    folder = PredictionFolder(Path(output), about, overlays, predictor.places if regions else ())
    if replaced := folder.forget_replaced(names):
        print(f"replaced since they were predicted, and predicted again: {replaced} photographs")
    if predictor.facts.label_space is not None:
        folder.write_legend(predictor.facts.label_space)
    chunks = unfinished(names, folder.done)
    looks = Looks(names, predictor.view, 640 if overlays != "none" else 0)
    answer = partial(_answer, predictor, folder)

    def begin(process: int = 0) -> None:
        task.to(f"cuda:{process % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu")
        if predictor.view.finder is not None:
            predictor.view.finder.cpu()  # it is used by the processes that read

    answers: Iterable[Iterable[Line | Failure] | OSError]
    if processes > 1 and chunks:
        answers = in_processes(looks, chunks, answer, begin, min(processes, len(chunks)))
    else:
        begin()
        answers = map(answer, look(looks, chunks, min(workers, len(chunks))))
    with tqdm(total=len(names), initial=len(folder.done.intersection(names)), unit="image", disable=None) as progress:
        for each in _each(answers):
            if isinstance(each, Failure):
                folder.fail(each)
            else:
                folder.add(each)
            progress.update()
    finds = predictor.view.finder
    folder.finish(predictor.facts.attributes or (), finds is not None and finds.knows_points)
    print(f"written: {output}")
    if finds is None and faces is None:
        print("each photograph was taken for the cut around one face; --faces=cascade, or another, finds faces in it")


def _answer(
    predictor: Predictor, folder: PredictionFolder, chunk: Sequence[Seen | Failure]
) -> Iterator[Line | Failure]:
    """What is to be written of the photographs of a chunk that are not done; their pictures are drawn."""
    predictions = predictor.predict([each for each in chunk if not isinstance(each, Failure)])
    for each in chunk:
        answer = each if isinstance(each, Failure) else next(predictions)
        if each.name not in folder.done:
            yield answer if isinstance(answer, Failure) else folder.draw(answer)


def _each(answers: Iterable[Iterable[Line | Failure] | OSError]) -> Iterator[Line | Failure]:
    try:
        for chunk in answers:
            if isinstance(chunk, OSError):
                raise chunk
            yield from chunk
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):  # PyTorch has no class of its own for this
            raise
        raise ProcessError(
            "a process was ended from outside, perhaps because the memory is too small: the same command goes on; "
            "fewer --processes or --workers need less"
        ) from None


def load(checkpoint: str, faces: str | None) -> tuple[FaceTask, Finder | None]:
    """A trained network, and what finds the faces for it; ``None`` if nothing does, or a cascade does so itself.

    Raises:
        FacelightningError: If a file is missing or broken, or ``faces`` is wrong: see :func:`predict`.
    """
    finder, task = find_by(faces or "crop"), load_model(checkpoint)
    if faces == "crop" and isinstance(task, CascadeNet):
        raise ConfigurationError("a cascade finds the faces itself: leave out --faces=crop")
    return task, finder


def find_by(faces: str) -> Finder | None:
    """What finds the faces; ``None`` for ``crop``.

    Raises:
        ConfigurationError: If the text is none of those that :func:`predict` lists.
        FacelightningError: If a file is missing or broken.

    Example:
        >>> find_by("mtcnn")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.ConfigurationError: --faces must be crop, cascade, yunet:FILE, boxes:CSV or ...
    """
    kind, colon, file = faces.partition(":")
    if kind == "crop" and not colon:
        return None
    if kind == "cascade" and not colon:
        return FrontalCascade()
    if kind == "yunet" and file:
        return YuNet(file)
    if kind == "boxes" and file:
        return TableFinder(file)
    if kind == "lnet" and file:
        found = load_model(file)
        if not isinstance(found, CascadeNet):
            raise ConfigurationError(
                f"{file} holds {type(found).__name__}, which finds no faces: name the checkpoint that "
                "`facelightning test --config faces.yaml` writes"
            )
        return cast(CascadeNetwork, found.network).finder
    raise ConfigurationError(f"--faces must be {KINDS}, not {quoted(faces)}")


def _way(faces: str | None) -> str | None:
    """The text that says how faces are found, and what is in its file."""
    kind, colon, file = (faces or "").partition(":")
    return f"{kind}:{_digest(file)}" if colon else faces


def _digest(path: str) -> str:
    if path.startswith(HUB):
        path = str(download(path.removeprefix(HUB)))
    if is_folder(path):
        path = str(Path(path, CONFIG))  # which has the digest of the weights
    with reading(Path(path)), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(args: Sequence[str]) -> None:
    """The command line of :func:`predict`."""
    parser = argparse.ArgumentParser(prog="facelightning predict", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the trained network: .../checkpoints/best.ckpt")
    where = "files, folders, patterns such as 'photos/**/*.jpg', @list.txt, or - for names on standard input"
    parser.add_argument("paths", metavar="PATH", nargs="*", help=where)
    parser.add_argument("--list", metavar="FILE", dest="lists", action="append", default=[], help="a name on each line")
    how = f"how faces are found: {KINDS}; crop, the default, takes an image for the cut around one face, and a cascade"
    parser.add_argument("--faces", metavar="KIND", help=f"{how} finds them itself")
    wide = "a found face is seen in a cut of this many times its box's longer side; as in training if not given"
    parser.add_argument("--margin", type=float, help=wide)
    parser.add_argument("--output", metavar="FOLDER", default="predictions", help="default: predictions")
    parser.add_argument("--overlays", choices=get_args(Overlays), default="jpg", help="pictures; default: jpg")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read; default: 2")
    whole = "processes that each read, predict and draw, on GPUs in turn; default: 1, and the others only read"
    parser.add_argument("--processes", type=int, default=1, metavar="N", help=whole)
    weights = "also region_weights.csv: how much each region counts for each attribute of each face"
    parser.add_argument("--regions", action="store_true", help=weights)
    predict(**vars(parser.parse_intermixed_args(args)))
