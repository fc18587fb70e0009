"""What a network has learned, seen in many faces: what its neurons respond to, and where it looks."""

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from tqdm import tqdm

from facelightning.commands.attribution import evidence_in
from facelightning.commands.kinds import Drawn, Kind, KindName, Subject
from facelightning.data import FaceDataModule
from facelightning.errors import ConfigurationError
from facelightning.figures import Floats, Image, attribute_regions_figure, mean_faces_figure
from facelightning.models.blocks import as_floats
from facelightning.models.heads import Head
from facelightning.models.svm import as_vectors
from facelightning.tasks import ANet, AttributeNet, EnsembleNet, FaceTask, IdentityNet, JointNet

FEWEST = 20
"""A mean of fewer faces could show a person."""

Evaluated = Literal["val", "test"]


class Neuron(NamedTuple):
    """A feature and the attribute that it responds to most."""

    number: int
    attribute: int
    correlation: float
    """Of its response with the attribute, in [-1, 1]."""


def batches_of(task: FaceTask, module: FaceDataModule, split: Evaluated, faces: int) -> Iterator[dict[str, Any]]:
    """The first faces of a split, in batches on the task's device."""
    loader = module.val_dataloader() if split == "val" else module.test_dataloader()
    left = min(faces, len(module.dataset(split)))
    with tqdm(total=left, desc="looking at faces", unit="face") as progress:
        for batch in loader:
            batch = {key: value[:left] for key, value in batch.items()}
            yield move_data_to_device(batch, task.device)
            left -= len(batch["image"])
            progress.update(len(batch["image"]))
            if left == 0:
                return


def correlations(responses: Floats, attributes: Floats) -> npt.NDArray[np.float64]:
    """The correlation of each neuron with each attribute, over the faces where that is known; 0 where undefined.

    Shape:
        - responses: ``(n, D)``.
        - attributes: ``(n, A)``: 0, 1, or NaN where unknown.
        - return: ``(D, A)``, in [-1, 1].

    Example:
        >>> correlations(np.array([[0.0], [1.0], [5.0]]), np.array([[1.0, 1.0], [0.0, 1.0], [np.nan, 1.0]])).tolist()
        [[-1.0, 0.0]]
    """
    result = np.zeros((responses.shape[1], attributes.shape[1]))
    for column, truth in enumerate(attributes.T):
        known = ~np.isnan(truth)
        if known.any():
            x, y = (each - each.mean(axis=0) for each in (responses[known].astype(np.float64), truth[known]))
            scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
            result[:, column] = np.divide(y @ x, scale, out=np.zeros(len(scale)), where=scale > 1e-12)
    return result


def telling_neurons(responses: Floats, attributes: Floats, count: int = 8) -> list[Neuron]:
    """The neurons that tell most of an attribute, each of another one: that with the largest correlation first.

    Shape:
        - responses: ``(n, D)``.
        - attributes: ``(n, A)``: 0, 1, or NaN where unknown.

    Example:
        >>> responses = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 0.1], [0.0, 1.0, 0.0]])
        >>> telling_neurons(responses, np.array([[0.0], [1.0], [0.0]]))
        [Neuron(number=0, attribute=0, correlation=1.0)]
    """
    found, table = list[Neuron](), correlations(responses, attributes)
    order = np.argsort(-np.abs(table), axis=None, kind="stable")
    for neuron, attribute in zip(*np.unravel_index(order, table.shape), strict=True):
        taken = any(neuron == one.number or attribute == one.attribute for one in found)
        if not taken and len(found) < count:
            found.append(Neuron(int(neuron), int(attribute), round(float(table[neuron, attribute]), 12)))
    return found


def mean_faces(images: Image, responses: Floats) -> Floats:
    """The mean of the faces with a neuron's highest, medium and lowest responses: a tenth of them each, or ``FEWEST``.

    Faces of one response keep their order.

    Shape:
        - images: ``(n, 3, H, W)``, uint8, each of another person.
        - responses: ``(n,)``.
        - return: ``(3, 3, H, W)``, in 0...255.

    Raises:
        ConfigurationError: If there are fewer than three times ``FEWEST``.

    Example:
        >>> images = np.arange(60, dtype=np.uint8).repeat(3).reshape(60, 3, 1, 1)
        >>> mean_faces(images, -np.arange(60.0))[:, 0, 0, 0].tolist()
        [9.5, 29.5, 49.5]
    """
    count = len(images)
    if count < 3 * FEWEST:
        raise ConfigurationError(
            f"a mean face needs {FEWEST} persons, three of them {3 * FEWEST}, but there are {count}: raise --faces, or "
            "take a larger split"
        )
    size = max(FEWEST, count // 10)
    order = np.argsort(-responses, kind="stable")
    starts = (0, (count - size) // 2, count - size)
    return np.stack([images[order[start : start + size]].mean(axis=0, dtype=np.float64) for start in starts])


@torch.no_grad()
def draw_neurons(task: FaceTask, module: FaceDataModule, split: Evaluated, faces: int = 256) -> Image:
    """Draw mean faces of neurons (Liu et al., ICCV 2015, Fig. 8a); a neuron is a feature before the classifier.

    The eight that are correlated most with an attribute, each with another one. One image of each person counts.

    Args:
        task: Gives ``"features"``.
        module: Its images have attributes, and should have identities.
        split: The split to look at.
        faces: The number of images to look at, the first.
    """
    parts: dict[str, list[Tensor]] = {"image": [], "features": [], "attributes": [], "identity": []}
    for batch in batches_of(task, module, split, faces):
        batch["features"] = as_vectors(task.predict_batch(batch)[0]["features"])
        for key in parts.keys() & batch.keys():
            parts[key].append(batch[key].cpu())
    whole = {key: torch.cat(part).numpy() for key, part in parts.items() if part}
    identities = whole.get("identity", np.arange(len(whole["image"])))
    first = np.sort(np.unique(identities, return_index=True)[1])
    images, responses, attributes = (whole[key][first] for key in ("image", "features", "attributes"))
    neurons = telling_neurons(responses, attributes)
    means = np.stack([mean_faces(images, responses[:, neuron.number]) for neuron in neurons])
    names = [name.replace("_", " ") for name in module.facts.attributes or ()]
    titles = [f"neuron {each.number}: {names[each.attribute]}, r = {each.correlation:+.2f}" for each in neurons]
    print("\n".join(titles))
    return mean_faces_figure(means, titles)


def mean_evidence(task: FaceTask, module: FaceDataModule, split: Evaluated, faces: int = 256) -> tuple[Floats, Floats]:
    """The mean face, ``(3, H, W)`` in 0...255, and for each attribute where its evidence lies, ``(A, H, W)``.

    A network's evidence is the magnitude of the gradient of its logit, as in
    :func:`~facelightning.commands.attribution.attribution_scores`; it sums to 1 on each face, and is averaged over
    them, with the attribute or without.

    Args:
        task: Predicts attributes.
        module: Its images.
        split: The split to look at.
        faces: The number of images to look at, the first.
    """
    evidence, face, count = torch.zeros(()), torch.zeros(()), 0
    for batch in batches_of(task, module, split, faces):
        batch["image"] = as_floats(batch["image"], torch.float32).requires_grad_()
        logits = task.predict_batch(batch)[0]["attributes"]
        found = torch.stack([evidence_in(batch["image"], column).sum(dim=0) for column in logits.unbind(dim=1)])
        face = face + 255 * batch["image"].detach().double().sum(dim=0).cpu()
        evidence, count = evidence + found.double().cpu(), count + len(logits)
    return (face / count).clamp(0, 255).numpy(), (evidence / count).numpy()


def draw_attribute_regions(task: FaceTask, module: FaceDataModule, split: Evaluated, faces: int = 256) -> Image:
    """Draw :func:`mean_evidence`, which takes the same arguments, over the mean face (Liu et al., ICCV 2015, Fig. 11).

    Sensible where faces lie in one place, as in CelebA's pre-cropped images.

    Raises:
        ConfigurationError: If there are too few for a mean face.
    """
    count = min(faces, len(module.dataset(split)))
    if count < FEWEST:
        raise ConfigurationError(f"a mean face needs {FEWEST} images, but there are {count}: raise --faces")
    return attribute_regions_figure(*mean_evidence(task, module, split, faces), module.facts.attributes or ())


def describes(subject: Subject) -> bool:
    """Whether a network has features that attributes could be read from."""
    return isinstance(subject.task, AttributeNet | JointNet | ANet | IdentityNet) and bool(subject.described)


def weighs_attributes(subject: Subject) -> bool:
    """Whether each attribute has a vector of weights, of the same features."""
    head = getattr(subject.task.network, "head", None)
    kinds = AttributeNet | JointNet | ANet
    return (
        isinstance(subject.task, kinds)
        and isinstance(head, Head)
        and type(head).attribute_vectors is not Head.attribute_vectors
    )


def says_attributes(subject: Subject) -> bool:
    """Whether attributes are predicted, from which evidence leads back to the image."""
    return isinstance(subject.task, AttributeNet | JointNet | ANet | EnsembleNet) and bool(subject.described)


def has_layers(subject: Subject) -> bool:
    """Whether it is an ANet."""
    return isinstance(subject.task, ANet | IdentityNet) and bool(subject.described)


def fitted(kind: str) -> ModuleType:
    """The studies that need scikit-learn."""
    try:
        return import_module("facelightning.commands.fitted_studies")
    except ImportError:
        raise ConfigurationError(
            f"{kind} is fitted by scikit-learn, which is not installed: pip install 'facelightning[svm]'"
        ) from None


def _neurons(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    yield "neurons.png", draw_neurons(subject.task, subject.described[0], subject.split, subject.faces)


def _attribute_regions(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    image = draw_attribute_regions(subject.task, subject.described[0], subject.split, subject.faces)
    yield "attribute_regions.png", image


def _groups(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    yield "groups.png", fitted("groups").draw_groups(subject.task)


def _layers(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    image, table = fitted("layers").draw_layers(subject.task, subject.described[0])
    yield "layers.png", image
    yield "layers.csv", table


KINDS: dict[KindName, Kind] = {
    "neurons": Kind(describes, _neurons, at_once=False),
    "groups": Kind(weighs_attributes, _groups, at_once=False),
    "attribute_regions": Kind(says_attributes, _attribute_regions, at_once=False),
    "layers": Kind(has_layers, _layers, at_once=False),
}
