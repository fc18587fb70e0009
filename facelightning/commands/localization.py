"""Studies of localisation (Liu et al., ICCV 2015): recall against overlap, and the responses that lead to a face."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from facelightning.boxes import Floats, overlap, paired_overlaps, read_boxes_table
from facelightning.commands.kinds import Drawn, Kind, KindName, Subject
from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.figures.localization import OVERLAPS, SeenCut, SeenPhotograph, recall_figure, responses_figure
from facelightning.models.finding import LNetFinder, Localizer, Look, crop
from facelightning.runs import RunFolder
from facelightning.tasks import CascadeNet
from facelightning.tasks.cascadenet import frames_of


@dataclass(frozen=True)
class Localization:
    """Found and true faces.

    Args:
        found: Boxes found in each image, ``(N, 4)``.
        true: True boxes of each image, ``(M, 4)``.
        every: Whether these are the boxes of every face, not only of each image's largest.
    """

    found: Sequence[Floats]
    true: Sequence[Floats]
    every: bool

    @cached_property
    def overlaps(self) -> Floats:
        """Of each true face with the found box that is its own; with the best one, where others may be true, too."""
        pairs = zip(self.found, self.true, strict=True)
        own = [paired_overlaps(*pair) if self.every else overlap(*pair).max(axis=0, initial=0) for pair in pairs]
        return np.concatenate([np.empty(0), *own])

    def recall(self) -> Floats:
        """Percent of the true faces that overlap with theirs by at least each of ``OVERLAPS``; at 0: at all."""
        least = np.maximum(OVERLAPS, np.finfo(float).tiny)[:, None]
        share: Floats = 100 * (self.overlaps >= least).mean(axis=1)
        return share

    def numbers(self) -> dict[str, float]:
        """What one system finds.

        - ``recall_50``, ``recall_70``: percent of the true faces found at these overlaps; ``mean_overlap``, times 100.
        - ``no_face``: percent of the images in which none is found.
        - if every face is known: ``false_faces``, how many found boxes of an image, on average, overlap with no true
          face of their own by 0.5; ``right_number``, percent of the images with as many found as true faces.
        """
        counts = np.array([[len(found), len(true)] for found, true in zip(self.found, self.true, strict=True)])
        recall = self.recall()
        numbers = {"recall_50": recall[50], "recall_70": recall[70], "mean_overlap": 100 * self.overlaps.mean()}
        numbers["no_face"] = 100 * (counts[:, 0] == 0).mean()
        if self.every:
            numbers["false_faces"] = (counts[:, 0].sum() - (self.overlaps >= 0.5).sum()) / len(counts)
            numbers["right_number"] = 100 * (counts[:, 0] == counts[:, 1]).mean()
        return {key: float(value) for key, value in numbers.items()}


@torch.inference_mode()
def localize(
    task: CascadeNet, batches: Iterable[Mapping[str, Any]], table: Mapping[str, Floats] | None = None
) -> Localization:
    """Find the faces of images whose faces are known.

    Args:
        task: A cascade.
        batches: ``image``, ``name`` and, without a table, ``box`` of the largest face; see
            :class:`~facelightning.data.samples.Sample`. Images whose box is unknown do not count.
        table: The boxes of every face of each image in pixels of the files, by its name, as
            :func:`~facelightning.boxes.read_boxes_table` reads them. An image that it lacks has no face.

    Raises:
        DataFormatError: If no true box is known.

    Example: a stock detector on one photograph
        >>> from skimage.data import astronaut
        >>> from facelightning.models import FrontalCascade
        >>> image = torch.from_numpy(astronaut()[:240:2, 100:340:2].copy()).permute(2, 0, 1)[None]
        >>> batch = {"image": image, "box": torch.tensor([[40.0, 34, 86, 80]])}
        >>> localize(CascadeNet(detector=FrontalCascade), [batch]).numbers()["recall_50"]
        100.0
    """
    found, true = list[Floats](), list[Floats]()
    for batch in batches:
        if table is None and "box" not in batch:
            raise DataFormatError("recall needs true boxes, which the data has not: give a table of them as boxes")
        images = batch["image"].to(task.device)
        faces = task.predict_batch({**batch, "image": images})[0]["faces"]
        if table is None:
            known = batch["box"].double().cpu().numpy()
            boxes: Iterable[Floats] = (np.empty((0, 4)) if np.isnan(box).any() else box[None] for box in known)
        else:
            boxes = _in_images(batch, table)
        for places, box in zip(faces.by_image(), boxes, strict=True):
            if table is not None or len(box):
                found.append(faces.boxes[places])
                true.append(box)
    if not sum(map(len, true)):
        where = "the data" if table is None else "the table of boxes"
        raise DataFormatError(f"recall needs true boxes: {where} has none of these images")
    return Localization(found, true, every=table is not None)


def _in_images(batch: Mapping[str, Any], table: Mapping[str, Floats]) -> Iterator[Floats]:
    """The boxes of a table, in pixels of a batch's images."""
    frames = frames_of(batch)
    sizes = batch["size"].numpy() if "size" in batch else (frames[:, 2:] - frames[:, :2])[:, ::-1]
    for name, frame, size in zip(batch["name"], frames, sizes, strict=True):
        boxes = table.get(name, np.empty((0, 5)))[:, :4]
        scale = np.tile((frame[2:] - frame[:2]) / size[::-1], 2)
        yield boxes[~np.isnan(boxes).any(axis=1)] * scale + np.tile(frame[:2], 2)


@torch.inference_mode()
def see(task: CascadeNet, sample: Mapping[str, Any], table: Mapping[str, Floats] | None = None) -> SeenPhotograph:
    """How a cascade of LNets finds the faces of one sample of a data set.

    Args:
        task: A cascade with stages.
        sample: ``image`` ``(3, H, W)`` and whatever else the data has.
        table: As for :func:`localize`.

    Example:
        >>> from skimage.data import astronaut
        >>> from facelightning import load_model
        >>> photograph = torch.from_numpy(astronaut()[:256].copy()).permute(2, 0, 1)
        >>> see(load_model("runs/faces/version_0/best.ckpt"), {"image": photograph}).found  # doctest: +SKIP
    """
    batch: dict[str, Any] = {
        key: value[None] if isinstance(value, Tensor) else [value] for key, value in sample.items()
    }
    images, frames = batch["image"].to(task.device), frames_of(batch)
    finder = cast(LNetFinder, task.network.finder)
    look, heads = finder.search(images, frames)
    first, *rest = finder.stages
    cuts = [_seen(first, images, look, heads.boxes)]
    for stage in rest:
        windows, closer = finder.refine(stage, images, heads.image[:1], heads.boxes[:1], frames)
        cuts += [_seen(stage, images, closer, windows)] if len(windows) else []
    left, top, right, bottom = np.rint(frames[0]).astype(int)
    corner = np.array([left, top, left, top])
    known = [box[None].double().numpy() for box in (sample["box"],)] if "box" in sample else [np.empty((0, 4))]
    (true,) = known if table is None else _in_images(batch, table)
    return SeenPhotograph(
        str(sample.get("name", "")),
        images[0, :, top:bottom, left:right].permute(1, 2, 0).cpu().numpy(),
        finder(images, frames).boxes - corner,
        true[~np.isnan(true).any(axis=1)] - corner,
        cuts,
    )


def _seen(stage: Localizer, images: Tensor, look: Look, windows: Floats) -> SeenCut:
    """The first cut of a look, with all in its pixels."""
    box, (height, width) = look.cuts[0], stage.size
    cut = (255 * crop(images, np.array([0]), look.cuts[:1], stage.size)[0]).round().byte()
    shift = np.array([[1, 0, -stage.encoder.offset], [0, 1, -stage.encoder.offset]])
    response = cv2.resize(look.responses[0], (width, height))
    response = cv2.warpAffine(response, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
    inside = (windows - np.tile(box[:2], 2)) / np.tile(stage.scale(box), 2)
    return SeenCut(cut.permute(1, 2, 0).cpu().numpy(), response.clip(0), inside)


def draw_recall(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    """The curves of all cascades, and their numbers."""
    module = subject.data[0]
    table = None if subject.boxes is None else read_boxes_table(Path(subject.boxes))
    if table is not None and table.keys().isdisjoint(module.dataset(subject.split).names):
        raise ConfigurationError(f"{subject.boxes} names none of the images: give the table of these")
    if table is None and "box" not in module.dataset(subject.split)[0, 0]:
        print("no recall.png: it needs true boxes, as CelebA's original images have them, or --boxes")
        return
    systems = {_name(subject.ckpt_path): [subject.ckpt_path]}
    for name, paths in (subject.beside or {}).items():
        systems[name] = list(dict.fromkeys([*systems.get(name, []), *paths]))  # a file twice is one seed
    loader = subject.loader(module)
    curves, numbers = dict[str, Floats](), dict[str, Any]()
    for name, paths in systems.items():
        tasks = [cast(CascadeNet, subject.tasks[path]) for path in paths]
        found = [localize(task, tqdm(loader, desc=name), table) for task in tasks]
        curves[name] = np.stack([each.recall() for each in found])
        seeds = [each.numbers() for each in found]
        numbers[name] = {"checkpoints": paths, "seeds": seeds, "recall": curves[name].round(3).tolist()}
        means = {key: mean(seed[key] for seed in seeds) for key in seeds[0]}
        print(f"{name}: " + "   ".join(f"{key} {value:.2f}" for key, value in means.items()))
    count = len(found[0].overlaps)
    yield "recall.png", recall_figure(curves, f"{count} faces" if table else f"the largest face of {count} images")
    yield "recall.json", {"overlaps": OVERLAPS.tolist(), "faces": count, "systems": numbers}


def draw_responses(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    """Photographs spread over the split."""
    table = None if subject.boxes is None else read_boxes_table(Path(subject.boxes))
    task, module = cast(CascadeNet, subject.task), subject.data[0]
    finder = cast(LNetFinder, task.network.finder)
    photographs = [see(task, sample, table) for sample in subject.spread(module)]
    yield "responses.png", responses_figure(photographs, len(finder.stages), finder.least)


def _name(path: str) -> str:
    """The name of the run that wrote a checkpoint, or of the file."""
    run = RunFolder.of_checkpoint(path)
    return Path(path).stem if run is None else run.path.parent.name


def has_cascade(subject: Subject) -> bool:
    """Whether faces are found, and may be compared with true ones."""
    known = subject.boxes is not None or subject.data[0].facts.attributes is not None
    return isinstance(subject.task, CascadeNet) and known


def has_stages(subject: Subject) -> bool:
    """Whether faces are found by LNets."""
    return isinstance(subject.task, CascadeNet) and isinstance(subject.task.network.finder, LNetFinder)


KINDS: dict[KindName, Kind] = {"recall": Kind(has_cascade, draw_recall), "responses": Kind(has_stages, draw_responses)}
