"""``facelightning attribution``: does a model look where an attribute is? On drawn faces, this place is known."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d
from torch.utils.data import default_collate
from tqdm import tqdm

from facelightning.cli import FaceParser
from facelightning.data.files import Record
from facelightning.data.helen import GROUPS, merge_masks
from facelightning.data.synthetic import draw_face, sample_attributes
from facelightning.data.transforms import FaceTransform
from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTE_REGIONS, ATTRIBUTES, HELEN7
from facelightning.tasks import FaceTask, load_model

PAIRS = 16
"""The maximum number of identities drawn with and without each attribute; also the batch size."""


def attribution_scores(
    task: FaceTask, faces: int = 200, image_size: tuple[int, int] = (218, 178), seed: int = 1
) -> dict[str, Any]:
    """Measure whether a model looks in the right place, on synthetic faces that are in no synthetic data set.

    A model's evidence for an attribute is the magnitude of the gradient of its logit with respect to the image,
    summed over colours: every model has one, and it does not vanish on black hair. It is measured on pairs of
    images of one face, with and without the attribute, that are otherwise equal. The attribute lies where the two
    differ, and up to two pixels around, as far as a network's first resolution sees.

    The scores are means over attributes, in percent except for ``response``:

    - ``region_preference``: the share of the local attributes (those with regions in
      :data:`~facelightning.labels.ATTRIBUTE_REGIONS`) whose region of largest mean weight is one of their own;
      ``None`` for a model that does not weigh the seven classes.
    - ``evidence_inside``: the share of the evidence for a local attribute in its regions, in either image.
      ``chance``: the share of those regions in the image area, which evenly spread evidence would score.
    - ``evidence_on_change`` and ``chance_on_change``: the same for the pixels that the attribute changes, for all 40.
    - ``response``: by how much the logit is higher with the attribute than without.
    - ``switch_accuracy``: the share of pairs in which it is higher at all.
    - ``per_attribute``: name → the same scores, and the ``region`` weighed most; ``None`` where there is none.

    Args:
        task: A task that predicts attributes; it is put into evaluation mode and stays on its device.
        faces: Number of faces for region weights; evidence is measured on up to 16 identities per attribute.
        image_size: Height and width of the network's input, in pixels.
        seed: Another seed draws other identities.

    Raises:
        ConfigurationError: If the task predicts no attributes, a number is negative, or there is no face.
    """
    if "attributes" not in task.objectives or task.objectives["attributes"].columns != ATTRIBUTES:
        raise ConfigurationError(f"{type(task).__name__} does not predict the 40 attributes that can be drawn")
    if faces < 1 or seed < 0 or min(image_size) < 1:
        raise ConfigurationError(
            f"faces {faces} and image_size {image_size} must be positive, seed {seed} not negative"
        )
    task.eval()
    transform = FaceTransform(image_size)
    first = 10**15 + seed * 10**7  # beyond SyntheticDataModule's identities, which start at 2·10⁷ times its seed
    regions = _weighed_most(task, range(first, first + faces), transform)
    per_attribute: dict[str, dict[str, Any]] = {}
    for name in tqdm(ATTRIBUTES, desc="switching attributes", unit="attribute"):
        first += 10**5  # other identities for each attribute
        scores = _pair_scores(task, name, range(first, first + min(faces, PAIRS)), transform)
        per_attribute[name] = {"region": regions.get(name), **scores}

    right = [regions[name] in ATTRIBUTE_REGIONS[name] for name in regions if ATTRIBUTE_REGIONS[name]]
    means = {key: mean(values[key] for values in per_attribute.values() if values[key] is not None) for key in scores}
    return {"region_preference": 100 * mean(right) if right else None, **means, "per_attribute": per_attribute}


def attribution(
    ckpt_path: str,
    faces: int = 200,
    image_size: tuple[int, int] | None = None,
    seed: int = 1,
    output: str | None = None,
) -> None:
    """Measure on synthetic faces whether a model looks in the right place; see ``attribution_scores``.

    Args:
        ckpt_path: Checkpoint of a model that predicts attributes.
        faces: Number of faces for region weights; evidence is measured on up to 16 identities per attribute.
        image_size: Height and width of the network's input; as in training if not given.
        seed: Another seed draws other identities.
        output: JSON file to write the scores to.
    """
    task = load_model(ckpt_path).to("cuda" if torch.cuda.is_available() else "cpu")
    assert task.facts is not None
    size = image_size or task.facts.image_size
    scores = attribution_scores(task, faces, size, seed)
    print(_table(scores))
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        made_with = {"checkpoint": ckpt_path, "faces": faces, "image_size": size, "seed": seed}
        Path(output).write_text(json.dumps({**made_with, **scores}, indent=2) + "\n", encoding="utf-8")


def main(args: Sequence[str]) -> None:
    """The command line of :func:`attribution`."""
    prog = "facelightning attribution"
    auto_cli(attribution, args=list(args), as_positional=False, parser_class=FaceParser, prog=prog)


def _draw(
    faces: Iterable[tuple[NDArray[np.bool_], int]], task: FaceTask, transform: FaceTransform
) -> tuple[dict[str, Tensor], Tensor]:
    """Draw a batch of faces, its images as floats in [0, 1], which can have gradients; and their seven-class masks.

    The masks are not in the batch: they would make a task parse.
    """
    samples = []
    for attributes, identity in faces:
        face = draw_face(attributes, identity=identity, seed=identity)
        mask, truth = merge_masks(list(face.masks), GROUPS[HELEN7.name]), attributes.astype(np.float32)
        record = Record(image=face.image, mask=mask, attributes=truth, landmarks=face.landmarks)
        samples.append(transform(record, seed=0))
    batch = {key: value.to(task.device) for key, value in default_collate(samples).items()}
    batch["image"] = batch["image"].float() / 255
    mask = batch.pop("mask")
    return batch, mask


def _random(identity: int) -> np.random.Generator:
    return np.random.default_rng([identity, 2])  # for an identity's attributes; the drawing itself takes 0 and 1


@torch.no_grad()
def _weighed_most(task: FaceTask, identities: range, transform: FaceTransform) -> dict[str, str]:
    """For each attribute, the region of largest mean weight; empty if the task does not weigh the seven classes."""
    weights = []
    for start in tqdm(range(0, len(identities), PAIRS), desc="weighing regions", unit="batch"):
        faces = ((sample_attributes(_random(identity)), identity) for identity in identities[start : start + PAIRS])
        output, _ = task.predict_batch(_draw(faces, task, transform)[0])
        if "region_weights" not in output or task.places != HELEN7.classes:
            return {}
        weights.append(output["region_weights"])  # (B, 7, 40)
    largest = torch.cat(weights).mean(dim=0).argmax(dim=0).tolist()
    return {name: HELEN7.classes[index] for name, index in zip(ATTRIBUTES, largest, strict=True)}


def _with_and_without(name: str, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The attributes of a face that has attribute ``name``, and of the same face without it; both are possible."""
    while True:
        has = dict(zip(ATTRIBUTES, sample_attributes(rng).tolist(), strict=True))
        lacks = {**has, name: False}
        if name in ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns"):
            lacks["No_Beard"] = True  # else a beard of no particular kind would be drawn
        for_men = lacks["Bald"] or lacks["Wearing_Necktie"] or not lacks["No_Beard"]
        if has[name] and (lacks["Male"] or not for_men):
            return np.array(list(has.values())), np.array(list(lacks.values()))


def _evidence(task: FaceTask, batch: dict[str, Tensor], attribute: int) -> tuple[Tensor, Tensor]:
    """The logits ``(B,)`` of one attribute, and where in the images they come from, ``(B, H, W)``, summing to 1."""
    images = batch["image"].requires_grad_()
    logits = task.predict_batch(batch)[0]["attributes"][:, attribute]
    return logits.detach(), evidence_in(images, logits)


def evidence_in(images: Tensor, logits: Tensor) -> Tensor:
    """Where in each image its logit comes from, ``(B, H, W)``, summing to 1: the magnitude of the gradient.

    Args:
        images: ``(B, 3, H, W)``, which need a gradient.
        logits: ``(B,)``, each of one image alone, as of a network in evaluation mode.

    Example:
        >>> images = torch.zeros(1, 3, 1, 2, requires_grad=True)
        >>> evidence_in(images, images[:, 0, 0, 0] + 3 * images[:, 1, 0, 1])
        tensor([[[0.2500, 0.7500]]])
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, retain_graph=True)  # others of the graph may follow
    magnitude = gradient.abs().sum(dim=1)
    total = magnitude.sum(dim=(1, 2), keepdim=True)
    return magnitude / total.clamp(min=torch.finfo(total.dtype).tiny)  # all 0 without a gradient


def _pair_scores(task: FaceTask, name: str, identities: range, transform: FaceTransform) -> dict[str, float | None]:
    """The scores of one attribute, on pairs of images with and without it."""
    sides = zip(*(_with_and_without(name, _random(identity)) for identity in identities), strict=True)
    drawn = (_draw(zip(side, identities, strict=True), task, transform) for side in sides)
    (first, first_mask), (second, second_mask) = drawn
    index = ATTRIBUTES.index(name)
    (higher, evidence_with), (lower, evidence_without) = (_evidence(task, batch, index) for batch in (first, second))
    evidence = (evidence_with + evidence_without) / 2

    def share(where: Tensor) -> tuple[float, float]:
        """The share of the evidence, and of the area."""
        return 100 * float((evidence * where).sum(dim=(1, 2)).mean()), 100 * float(where.float().mean())

    inside: tuple[float | None, float | None] = (None, None)
    if ATTRIBUTE_REGIONS[name]:
        classes = torch.tensor([HELEN7.index(region) for region in ATTRIBUTE_REGIONS[name]], device=task.device)
        # regions of either image: a bald head has no hair, and its attribute is where hair would be
        inside = share(torch.isin(first_mask, classes) | torch.isin(second_mask, classes))
    difference = (255 * (first["image"] - second["image"]).detach()).round().abs().sum(dim=1)
    visible = (difference > 8).float()  # of 255, summed over the channels: above rounding, barely visible
    # the two 3×3 convolutions of every network's first resolution see an edge from two pixels away
    on_change = share(max_pool2d(visible, 5, stride=1, padding=2) > 0)
    return {
        "evidence_inside": inside[0],
        "chance": inside[1],
        "evidence_on_change": on_change[0],
        "chance_on_change": on_change[1],
        "response": float((higher - lower).mean()),
        "switch_accuracy": 100 * float((higher > lower).float().mean()),
    }


def _table(scores: dict[str, Any]) -> str:
    """The scores as lines of text: one per attribute, and the summary."""
    row = "{:20}   {:14} {:>16} {:>20} {:>13}"
    lines = [row.format("in %", "weighed most", "inside (chance)", "on change (chance)", "logit rises")]
    for name, values in {**scores["per_attribute"], "mean": scores}.items():
        region, right = values.get("region") or "–", ATTRIBUTE_REGIONS.get(name)
        wrong = right and region not in ("–", *right)
        inside = "–" if values["chance"] is None else f"{values['evidence_inside']:.1f} ({values['chance']:5.1f})"
        on_change = f"{values['evidence_on_change']:.1f} ({values['chance_on_change']:5.1f})"
        rises = f"{values['switch_accuracy']:.1f}"
        lines.append(row.format(name, region + " ✗" * bool(wrong), inside, on_change, rises))
    if (preference := scores["region_preference"]) is not None:
        lines.append(f"the region weighed most is right for {preference:.1f} % of the local attributes (✗: wrong)")
    return "\n".join(lines)
