"""Studies that scikit-learn fits: attributes grouped by k-means, and SVMs on the features of each layer of ANet."""

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from facelightning.commands.studies import Evaluated, batches_of
from facelightning.data import FaceDataModule
from facelightning.errors import ConfigurationError
from facelightning.facts import shown
from facelightning.figures import Floats, Image, groups_figure, layers_figure
from facelightning.labels import IDENTITY_ATTRIBUTES
from facelightning.models.anet import ANetwork
from facelightning.models.heads import Head
from facelightning.models.svm_fitting import fit_svms
from facelightning.tasks import FaceTask

GROUPS = 6
"""As many as the paper numbers in its Figure 10."""

Scores = dict[str, dict[str, float]]


def group_vectors(vectors: Floats, groups: int = GROUPS) -> npt.NDArray[np.int64]:
    """The group of each of A vectors, by k-means on their directions: the larger, the earlier.

    The same vectors have the same groups.

    Shape:
        - vectors: ``(A, D)``.
        - return: ``(A,)``, in 0...groups - 1.

    Example:
        >>> group_vectors(np.array([[1.0, 0.0], [0.0, 2.0], [0.1, 9.0]]), groups=2).tolist()
        [1, 0, 0]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.maximum(lengths, np.finfo(float).tiny)
    found = KMeans(groups, n_init=20, random_state=0).fit_predict(directions)
    _, first, inverse, sizes = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
    places = np.lexsort((first, -sizes)).argsort()
    return places[inverse].astype(np.int64)


def group_similarity(vectors: Floats, groups: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The mean cosine of two vectors of one group, and of two of different groups; NaN where there are none.

    Example:
        >>> group_similarity(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), np.array([0, 0, 1]))
        (1.0, 0.0)
    """
    cosines, same = cosine(vectors), groups[:, None] == groups
    pairs = ~np.eye(len(vectors), dtype=bool)
    within, between = (float(cosines[where].mean()) if where.any() else np.nan for where in (same & pairs, ~same))
    return within, between


def cosine(vectors: Floats) -> Floats:
    """The cosine of each pair of vectors ``(A, D)``, ``(A, A)``; 0 for one without a direction."""
    directions = normalize(torch.from_numpy(vectors).double(), dim=1)
    return (directions @ directions.T).clamp(-1, 1).numpy()


def shuffled(vectors: Floats) -> Floats:
    """The same weights of each feature, given to other attributes: what is grouped in them is chance."""
    return np.random.default_rng(0).permuted(vectors, axis=0)


def draw_groups(task: FaceTask) -> Image:
    """Draw the groups that k-means finds in the weight vectors of the attributes (Liu et al., ICCV 2015, Fig. 10).

    K-means finds groups in anything. So the similarity within its groups and between them is also printed for the same
    weights in a random order: the weights say something about the attributes by what theirs is more.

    Args:
        task: Its network has a head with ``attribute_vectors``.
    """
    assert task.facts is not None
    names = task.facts.attributes or ()
    vectors: Floats = cast(Head, task.network.head).attribute_vectors.detach().double().cpu().numpy()
    groups = group_vectors(vectors, min(GROUPS, len(names)))
    similarity, chance = group_similarity(vectors, groups), shuffled(vectors)
    of_chance = group_similarity(chance, group_vectors(chance, min(GROUPS, len(names))))
    ours, others = ("within {:.2f}, between {:z.2f}".format(*each) for each in (similarity, of_chance))
    note = f"mean cosine of two attributes in groups: {ours}; shuffled weights: {others}"
    for number in range(groups.max() + 1):
        print(f"group {number + 1}: {', '.join(np.array(names)[groups == number].tolist())}")
    print(note)
    return groups_figure(cosine(vectors), names, groups, note)


def layers_of(network: ANetwork) -> dict[str, Callable[[Tensor], Tensor]]:
    """How each layer of ANet describes images ``(B, 3, H, W)`` of its size: ``(B, D)``.

    C3 and C4 have other filters in each cell of their grids: each channel's mean within each cell is a feature.
    """

    def grid(cells: int, maps: Tensor) -> Tensor:
        return adaptive_avg_pool2d(maps[:, 0, 0], cells).flatten(1)  # of the one placement

    return {
        "FC": lambda images: network(images)["features"],
        "C4": lambda images: grid(network.conv4.grid, network.placements(images)),
        "C3": lambda images: grid(network.conv3.grid, network.conv3(network.shared(network.normalize(images)))),
    }


@torch.no_grad()
def layer_accuracies(task: FaceTask, module: FaceDataModule) -> tuple[Scores, dict[str, float]]:
    """The accuracy of SVMs on the features of FC, C4 and C3, fitted on val and scored on test (Liu et al., Fig. 9).

    Returns:
        - Layer → attribute → accuracy in percent.
        - Attribute → what the more frequent answer of val reaches on test.

    Raises:
        ConfigurationError: If images are larger than those that ANet was trained on: they have no one place.
    """
    network, names = task.network, module.facts.attributes or ()
    assert isinstance(network, ANetwork)
    if module.image_size != network.image_size:
        right, given = (shown(list(size)) for size in (network.image_size, module.image_size))
        raise ConfigurationError(f"layers are of images of {right}, not of {given}: leave out --data.image_size")
    layers = layers_of(network)
    found: dict[Evaluated, list[Tensor]] = {}
    for split in ("val", "test"):
        rows = [
            [*(layer(batch["image"]).cpu() for layer in layers.values()), batch["attributes"].cpu()]
            for batch in batches_of(task, module, split, len(module.dataset(split)))
        ]
        found[split] = [torch.cat(column) for column in zip(*rows, strict=True)]
    *_, truth = found["test"]
    scores = {}
    for number, layer in enumerate(layers):
        decisions = fit_svms(found["val"][number], found["val"][-1])(found["test"][number])
        scores[layer] = _accuracies(decisions > 0, truth, names)
    frequent = found["val"][-1].nanmean(dim=0) > 0.5
    return scores, _accuracies(frequent.expand_as(truth), truth, names)


def draw_layers(task: FaceTask, module: FaceDataModule) -> tuple[Image, str]:
    """Draw :func:`layer_accuracies`, print the means of both groups of attributes; also all as a table in CSV."""
    scores, majority = layer_accuracies(task, module)
    for title, related in (("identity-related", True), ("other", False)):
        names = [name for name in majority if (name in IDENTITY_ATTRIBUTES) == related]
        means = {layer: np.mean([each[name] for name in names]) for layer, each in scores.items()}
        text = "   ".join(f"{layer} {mean:.2f} %" for layer, mean in means.items())
        guessed = np.mean([majority[name] for name in names])
        print(f"accuracy, {len(names)} {title} attributes: {text}   the more frequent answer {guessed:.2f} %")
    rows = [["attribute", "identity_related", "majority", *scores]]
    for name, frequent in majority.items():
        numbers = (frequent, *(each[name] for each in scores.values()))
        rows.append([name, str(int(name in IDENTITY_ATTRIBUTES)), *(f"{value:.2f}" for value in numbers)])
    return layers_figure(scores, majority), "".join(",".join(row) + "\n" for row in rows)


def _accuracies(positive: Tensor, truth: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    right, known = ((positive == (truth == 1)) & ~truth.isnan()).sum(dim=0), (~truth.isnan()).sum(dim=0)
    return dict(zip(names, (100 * right.double() / known).tolist(), strict=True))
