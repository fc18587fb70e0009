"""From pooled features to logits: of attributes, of categories, of identities."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTE_GROUPS, ATTRIBUTES
from facelightning.models.blocks import Exact
from facelightning.models.pooling import Pooled


class Head(nn.Module):
    """A classifier; a network gives its logits the name of what they predict.

    Args:
        channels: C.
        num_places: N, the places of the pooling before it.
        num_outputs: A attributes, or as many categories or identities.

    Shape:
        - pooled: vectors ``(B, N, C)``.
        - return: ``"logits"``: ``(B, A)``; and ``"region_weights"``: ``(B, N, A)``, if it weighs places.
    """

    needs_networks = False
    """Whether each attribute's features must be those of a network of its own."""

    def __init__(self, channels: int, num_places: int, num_outputs: int) -> None:
        super().__init__()

    @property
    def attribute_vectors(self) -> Tensor:
        """The weights of each attribute, ``(A, D)``: the normal of the plane that parts faces with it from others."""
        raise NotImplementedError

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        raise NotImplementedError


HeadFactory = Callable[[int, int, int], Head]


class LinearHead(Head):
    """One linear classifier of all places, concatenated (Kalayeh et al., CVPR 2017, §3.1.1).

    Example:
        >>> pooled = Pooled(torch.rand(2, 5, 8), torch.ones(2, 5, 1, dtype=torch.bool))
        >>> LinearHead(8, 5, 40)(pooled)["logits"].shape
        torch.Size([2, 40])
    """

    def __init__(self, channels: int, num_places: int, num_outputs: int) -> None:
        super().__init__(channels, num_places, num_outputs)
        self.classifier = nn.Linear(num_places * channels, num_outputs)

    @property
    def attribute_vectors(self) -> Tensor:
        return self.classifier.weight

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        return {"logits": self.classifier(pooled.vectors.flatten(1))}


class DenseHead(Head):
    """Two hidden layers on all places, concatenated, as AlexNet and LNet+ have (Liu et al., ICCV 2015, §4).

    Args:
        channels: C.
        num_places: N; :class:`~facelightning.models.pooling.GridPooling` gives the cells of a map.
        num_outputs: A.
        width: Units of each hidden layer.
        dropout: Probability of a unit to be left out in training (AlexNet's).

    Example:
        >>> pooled = Pooled(torch.rand(2, 36, 8), torch.ones(2, 36, 1, dtype=torch.bool))
        >>> DenseHead(8, 36, 40, width=16)(pooled)["logits"].shape
        torch.Size([2, 40])
    """

    def __init__(
        self, channels: int, num_places: int, num_outputs: int, width: int = 4096, dropout: float = 0.5
    ) -> None:
        super().__init__(channels, num_places, num_outputs)
        self.layers = nn.Sequential(
            nn.Linear(num_places * channels, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, num_outputs),
        )  # fmt: skip

    @property
    def attribute_vectors(self) -> Tensor:
        return cast(Tensor, self.layers[-1].weight)

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        return {"logits": self.layers(pooled.vectors.flatten(1))}


class GroupHead(Head):
    """One convolution and two dense layers for each of nine groups of attributes (Wang, Su, Zhao, §II-B, Table I).

    All groups are one computation. The paper gives no sizes: the convolution is 1×1, so that the places may be cells of
    a map (:class:`~facelightning.models.pooling.GridPooling`), semantic regions, or one place; widths are ours.

    Args:
        channels: C.
        num_places: N.
        num_outputs: 40, in the order of :data:`~facelightning.labels.ATTRIBUTES`.
        filters: Of each group's convolution.
        width: Units of each group's hidden layer.

    Raises:
        ConfigurationError: For another number of attributes.

    Example:
        >>> pooled = Pooled(torch.rand(2, 36, 8), torch.ones(2, 36, 1, dtype=torch.bool))
        >>> GroupHead(8, 36, 40, filters=4, width=16)(pooled)["logits"].shape
        torch.Size([2, 40])
    """

    columns: Tensor

    def __init__(self, channels: int, num_places: int, num_outputs: int, filters: int = 32, width: int = 128) -> None:
        super().__init__(channels, num_places, num_outputs)
        if num_outputs != len(ATTRIBUTES):
            raise ConfigurationError(f"GroupHead: its groups are of the 40 attributes, not of {num_outputs}")
        groups = list(ATTRIBUTE_GROUPS.values())
        self.convolution = nn.Linear(channels, len(groups) * filters)
        largest = max(map(len, groups))
        self.hidden = _Dense(len(groups), num_places * filters, width)
        self.classifier = _Dense(len(groups), width, largest)
        places = {name: (number, row) for number, group in enumerate(groups) for row, name in enumerate(group)}
        order = [places[name][0] * largest + places[name][1] for name in ATTRIBUTES]
        self.register_buffer("columns", torch.tensor(order), persistent=False)

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        maps = self.convolution(pooled.vectors).relu()  # (B, N, G·F)
        grouped = maps.unflatten(2, (len(self.hidden.weight), -1)).permute(2, 0, 1, 3).flatten(2)  # (G, B, N·F)
        logits = self.classifier(self.hidden(grouped).relu())  # (G, B, the largest group's attributes)
        return {"logits": logits.transpose(0, 1).flatten(1)[:, self.columns]}


class _Dense(nn.Module):
    """A dense layer for each of G groups: ``(G, B, inputs)`` to ``(G, B, outputs)``; initialised as ``nn.Linear``."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, outputs) for _ in range(groups)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class LocalizationHead(Head):
    """Each attribute chooses its place (SSP; Kalayeh et al., CVPR 2017, §3.1.2).

    All places share two linear maps: recognition scores an attribute in each place; localization, after a softmax over
    places, weighs these scores. An absent place has weight 0.

    Example:
        >>> pooled = Pooled(torch.rand(2, 7, 8), torch.ones(2, 7, 1, dtype=torch.bool))
        >>> LocalizationHead(8, 7, 40)(pooled)["region_weights"].shape
        torch.Size([2, 7, 40])
    """

    def __init__(self, channels: int, num_places: int, num_outputs: int) -> None:
        super().__init__(channels, num_places, num_outputs)
        self.recognition = nn.Linear(channels, num_outputs)
        # no bias: a constant for all places would cancel in the softmax
        self.localization = nn.Linear(channels, num_outputs, bias=False)

    @property
    def attribute_vectors(self) -> Tensor:
        return self.recognition.weight

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        evidence = self.localization(pooled.vectors)  # (B, N, A)
        evidence = evidence.to(torch.promote_types(evidence.dtype, torch.float32))
        evidence = evidence.masked_fill(~pooled.present, torch.finfo(evidence.dtype).min)
        # the product matters if no place is present: the softmax alone would be uniform
        weights = evidence.softmax(dim=1) * pooled.present
        return {"logits": (self.recognition(pooled.vectors) * weights).sum(dim=1), "region_weights": weights}


LEAST = 0.5
"""Images below which a cluster is empty."""


def means(sums: Tensor, sizes: Tensor) -> Tensor:
    """The centres of clusters, ``(A, 2, K, D)``; any where one is empty."""
    return sums / sizes.clamp(min=LEAST).unsqueeze(3)


def squared_distances(vectors: Tensor, centres: Tensor) -> Tensor:
    """Those of vectors of length 1, ``(B, A, D)``, to centres ``(A, 2, K, D)``: ``(B, A, 2, K)``."""
    with torch.autocast(vectors.device.type, enabled=False):  # a difference of squares needs all digits
        products = torch.einsum("bad,askd->bask", vectors, centres)
    return 1 - 2 * products + centres.square().sum(dim=3)


class ClusterHead(Exact, Head):
    """An embedding for each attribute, where faces with it and faces without it form clusters: the nearest decide.

    LMLE [1]_ classifies a face by its nearest clusters. With d their squared distances to the face, each class has a
    margin, min d(others) - max d(own), and the class with the larger one is chosen. Of two classes, the difference is
    the logit here: min d₋ + max d₋ - min d₊ - max d₊.

    The paper takes the nearest clusters of all, which may be of one class alone, and then has no margin; here equally
    many of each class decide. Embeddings have length 1 (ours); numbers and sizes are ours.

    Nothing learns centres but :class:`~facelightning.objectives.QuintupletAttributes`; without them, every logit is 0.

    Args:
        channels: C.
        num_places: N.
        num_outputs: A.
        dimensions: D of each attribute's embedding.
        clusters: K of each class.
        neighbours: How many of them decide, at most K.

    Shape:
        - pooled: vectors ``(B, N, C)``.
        - return: ``"logits"``: ``(B, A)``; ``"embeddings"``: ``(B, A, D)``; and the buffers: ``"sums"``, of each
          cluster's embeddings, ``(A, 2, K, D)``, those without the attribute first; ``"sizes"``, how many they are,
          ``(A, 2, K)``.

    Raises:
        ConfigurationError: If a number is out of its range.

    Example:
        >>> pooled = Pooled(torch.rand(2, 1, 8), torch.ones(2, 1, 1, dtype=torch.bool))
        >>> said = ClusterHead(8, 1, 40, dimensions=16, clusters=3)(pooled)
        >>> said["logits"].shape, said["embeddings"].shape
        (torch.Size([2, 40]), torch.Size([2, 40, 16]))

    .. [1] Huang, Li, Loy, Tang, "Learning Deep Representation for Imbalanced Classification", CVPR 2016.
    """

    sums: Tensor
    sizes: Tensor

    def __init__(
        self,
        channels: int,
        num_places: int,
        num_outputs: int,
        dimensions: int = 64,
        clusters: int = 4,
        neighbours: int = 2,
    ) -> None:
        super().__init__(channels, num_places, num_outputs)
        if dimensions < 1 or not 1 <= neighbours <= clusters:
            raise ConfigurationError(
                f"ClusterHead: dimensions {dimensions} must be positive, and neighbours {neighbours} lie in 1 to "
                f"clusters {clusters}"
            )
        self.neighbours = neighbours
        self.embedding = nn.Linear(num_places * channels, num_outputs * dimensions)
        # sums, not means, so that a moving average of them weighs as many images as there were
        self.register_buffer("sums", torch.zeros(num_outputs, 2, clusters, dimensions))
        self.register_buffer("sizes", torch.zeros(num_outputs, 2, clusters))

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        embeddings = self.embedding(pooled.vectors.flatten(1)).unflatten(1, (len(self.sums), -1))
        embeddings = normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=2)
        # in training they have no gradient: the clusters that it would need have moved before it is computed
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
            logits = self.decide(embeddings)
        return {"logits": logits, "embeddings": embeddings, "sums": self.sums, "sizes": self.sizes}

    def decide(self, embeddings: Tensor) -> Tensor:
        """The logits ``(B, A)`` of embeddings ``(B, A, D)``."""
        distances = squared_distances(embeddings, means(self.sums, self.sizes).to(embeddings.dtype))
        empty = self.sizes < LEAST
        near = distances.masked_fill(empty, torch.inf).sort(dim=3).values[..., : self.neighbours]
        sums = near[..., 0] + near.masked_fill(near.isinf(), -torch.inf).amax(dim=3)
        sums = sums.where(~empty.all(dim=2), 8)  # a class without clusters is as far as can be
        return sums[..., 0] - sums[..., 1]
