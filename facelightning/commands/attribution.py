"""``facelightning attribution``: does a model look where an attribute is? On drawn faces, where that is known."""

import json
from collections.abc import Sequence
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
from facelightning.data.transforms import FaceTransform, Sample
from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTE_REGIONS, ATTRIBUTES, HELEN7
from facelightning.tasks import FaceTask, load_model

PAIRS = 16
"""For how many people, at most, each attribute is drawn with and without; also the faces that go through at once."""

_FIRST_PERSON = 10**15  # SyntheticDataModule counts people from 2·10⁷ times its seed, so it would need a seed of 5·10⁷
_PEOPLE_PER_SEED = 10**7
_PEOPLE_PER_ATTRIBUTE = 10**5
_VISIBLE = 8  # of 255, over the three channels: more than rounding, and hardly to be seen
_REACH = 2  # pixels: two 3×3 convolutions, the first resolution of every network, see an edge from so far
_BEARDS = ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")


def attribution_scores(
    task: FaceTask, faces: int = 200, image_size: tuple[int, int] = (218, 178), seed: int = 1
) -> dict[str, Any]:
    """How far a model looks in the right place, on synthetic faces that no synthetic data set holds.

    A model's evidence for an attribute is the magnitude of the gradient of its logit with respect to the picture,
    summed over colours: this needs nothing of a model but that it predicts. (Gradient times input would see no
    evidence in black hair.) It is measured on pairs of pictures of one face, with the attribute and without, that are
    equal in all else: where the two differ, there, and only there, is the attribute. Two pixels around count too,
    for a network's first resolution sees an edge from so far.

    The scores are means over attributes, and those in percent except for ``response``:

    - ``region_preference``: of the local attributes (those with :data:`~facelightning.labels.ATTRIBUTE_REGIONS`), how
      many have one of their regions as the one that is weighed most on average over ``faces``; ``None`` for a model
      that does not weigh the seven classes.
    - ``evidence_inside``: of the evidence for local attributes, how much is inside the attribute's regions in one of
      the two pictures. ``chance``: the area of those, which is what evidence spread evenly would score.
    - ``evidence_on_change`` and ``chance_on_change``: the same of the pixels that the attribute changes, for all 40.
    - ``response``: by how much the logit is higher with the attribute than without.
    - ``switch_accuracy``: in how many of the pairs it is higher at all.
    - ``per_attribute``: name → the same scores, and the ``region`` weighed most; ``None`` where there is none.

    Args:
        task: A task that predicts attributes; put into evaluation mode, on the device where it is.
        faces: How many faces regions are weighed on; the pairs are of as many people for each attribute, up to 16.
        image_size: Height and width of what the network sees, in pixels.
        seed: Another seed draws other people.

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
    transform, first = FaceTransform(image_size), _FIRST_PERSON + seed * _PEOPLE_PER_SEED
    regions = _weighed_most(task, range(first, first + faces), transform)
    per_attribute: dict[str, dict[str, Any]] = {}
    for name in tqdm(ATTRIBUTES, desc="switching attributes", unit="attribute"):
        first += _PEOPLE_PER_ATTRIBUTE
        people = range(first, first + min(faces, PAIRS))
        per_attribute[name] = {"region": regions.get(name), **_pair_scores(task, name, people, transform)}

    right = [regions[name] in ATTRIBUTE_REGIONS[name] for name in regions if ATTRIBUTE_REGIONS[name]]
    scores: dict[str, Any] = {"region_preference": 100 * mean(right) if right else None}
    for key in list(per_attribute[ATTRIBUTES[0]])[1:]:
        scores[key] = mean(values[key] for values in per_attribute.values() if values[key] is not None)
    return {**scores, "per_attribute": per_attribute}


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
        faces: How many faces regions are weighed on; evidence is measured on up to 16 identities an attribute.
        image_size: Height and width of what the network sees; those it was trained with if not given.
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
    auto_cli(
        attribution, args=list(args), as_positional=False, parser_class=FaceParser, prog="facelightning attribution"
    )


def _face(attributes: NDArray[np.bool_], person: int, transform: FaceTransform) -> Sample:
    """A drawn face as a data set in evaluation gives it, with the seven classes for a mask."""
    face = draw_face(attributes, identity=person, seed=person)
    record = Record(
        image=face.image,
        mask=merge_masks(list(face.masks), GROUPS[HELEN7.name]),
        attributes=attributes.astype(np.float32),
        landmarks=face.landmarks,
    )
    return transform(record, seed=0)


def _batch(samples: list[Sample], task: FaceTask) -> dict[str, Tensor]:
    """A batch on the task's device; its pictures as floats in [0, 1], which have gradients."""
    batch = {key: value.to(task.device) for key, value in default_collate(samples).items()}
    return {**batch, "image": batch["image"].float() / 255}


def _seen(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is shown to the task: without the mask, which would have it parse."""
    return {key: batch[key] for key in ("image", "landmarks", "attributes")}


def _random(person: int) -> np.random.Generator:
    """What a person's attributes are drawn from; the drawing itself takes 0 and 1."""
    return np.random.default_rng([person, 2])


@torch.no_grad()
def _weighed_most(task: FaceTask, people: range, transform: FaceTransform) -> dict[str, str]:
    """For each attribute the region of the largest mean weight; empty if the task does not weigh the seven classes."""
    weights = []
    for start in tqdm(people[::PAIRS], desc="weighing regions", unit="batch"):
        some = range(start, min(start + PAIRS, people.stop))
        faces = [_face(sample_attributes(_random(person)), person, transform) for person in some]
        output, _ = task.predict_batch(_seen(_batch(faces, task)))
        if "region_weights" not in output or task.places != HELEN7.classes:
            return {}
        weights.append(output["region_weights"])  # (B, 7, 40)
    largest = torch.cat(weights).mean(dim=0).argmax(dim=0).tolist()
    return {name: HELEN7.classes[index] for name, index in zip(ATTRIBUTES, largest, strict=True)}


def _with_and_without(name: str, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The attributes of a face that has one of them, and of the same face without it; both faces are possible."""
    while True:
        has = dict(zip(ATTRIBUTES, sample_attributes(rng).tolist(), strict=True))
        lacks = {**has, name: False}
        if name in _BEARDS:
            lacks["No_Beard"] = True  # else a beard of no name would be drawn instead
        for_men = lacks["Bald"] or lacks["Wearing_Necktie"] or not lacks["No_Beard"]
        if has[name] and (lacks["Male"] or not for_men):
            return np.array(list(has.values())), np.array(list(lacks.values()))


def _evidence(task: FaceTask, batch: dict[str, Tensor], attribute: int) -> tuple[Tensor, Tensor]:
    """The logits ``(B,)`` of one attribute, and where in the pictures they come from, ``(B, H, W)``, summing to 1."""
    images = batch["image"].requires_grad_()
    logits = task.predict_batch(_seen({**batch, "image": images}))[0]["attributes"][:, attribute]
    (gradient,) = torch.autograd.grad(logits.sum(), images)  # in evaluation mode no picture acts on another's logit
    magnitude = gradient.abs().sum(dim=1)
    total = magnitude.sum(dim=(1, 2), keepdim=True)
    return logits.detach(), magnitude / total.clamp(min=torch.finfo(total.dtype).tiny)  # without a gradient: nowhere


def _changed(first: Tensor, second: Tensor) -> Tensor:
    """Where two pictures ``(B, 3, H, W)`` differ visibly, and what is near enough to see it: ``(B, H, W)``, bool."""
    changed = (255 * (first - second)).round().abs().sum(dim=1) > _VISIBLE
    return max_pool2d(changed.float(), 2 * _REACH + 1, stride=1, padding=_REACH) > 0


def _pair_scores(task: FaceTask, name: str, people: range, transform: FaceTransform) -> dict[str, float | None]:
    """What the model makes of one attribute on pairs of pictures, with it and without it."""
    attributes = [_with_and_without(name, _random(person)) for person in people]
    batches = [
        _batch([_face(pair[side], person, transform) for pair, person in zip(attributes, people, strict=True)], task)
        for side in (0, 1)
    ]
    index = ATTRIBUTES.index(name)
    (higher, evidence_with), (lower, evidence_without) = (_evidence(task, batch, index) for batch in batches)
    evidence = (evidence_with + evidence_without) / 2

    def share(where: Tensor) -> tuple[float, float]:
        """Of the evidence, and of the area."""
        return 100 * float((evidence * where).sum(dim=(1, 2)).mean()), 100 * float(where.float().mean())

    inside: tuple[float | None, float | None] = (None, None)
    if ATTRIBUTE_REGIONS[name]:
        classes = torch.tensor([HELEN7.index(region) for region in ATTRIBUTE_REGIONS[name]], device=task.device)
        # of either picture: a bald head has no hair, and its attribute lives where hair would be
        inside = share(torch.isin(batches[0]["mask"], classes) | torch.isin(batches[1]["mask"], classes))
    on_change = share(_changed(batches[0]["image"].detach(), batches[1]["image"].detach()))
    return {
        "evidence_inside": inside[0],
        "chance": inside[1],
        "evidence_on_change": on_change[0],
        "chance_on_change": on_change[1],
        "response": float((higher - lower).mean()),
        "switch_accuracy": 100 * float((higher > lower).float().mean()),
    }


def _table(scores: dict[str, Any]) -> str:
    """The scores as lines of text, an attribute each, and the summary."""
    lines = [
        f"{'in %':20}   {'weighed most':14} {'inside (chance)':>16} {'on change (chance)':>20} {'logit rises':>13}"
    ]
    for name, values in {**scores["per_attribute"], "mean": scores}.items():
        region = values.get("region") or "–"
        wrong = ATTRIBUTE_REGIONS.get(name) and values.get("region") not in (None, *ATTRIBUTE_REGIONS[name])
        inside = "–" if values["chance"] is None else f"{values['evidence_inside']:.1f} ({values['chance']:5.1f})"
        on_change = f"{values['evidence_on_change']:.1f} ({values['chance_on_change']:5.1f})"
        rises = values["switch_accuracy"]
        lines.append(f"{name:20}   {region + ' ✗' * bool(wrong):14} {inside:>16} {on_change:>20} {rises:>13.1f}")
    preference = scores["region_preference"]
    if preference is not None:
        lines.append(f"the region weighed most is right for {preference:.1f} % of the local attributes (✗: wrong)")
    return "\n".join(lines)
