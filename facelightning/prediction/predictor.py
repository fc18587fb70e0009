"""From photographs to predictions: one body of code for Python and the command line."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facelightning.facts import DataFacts
from facelightning.objectives import Attributes, Output
from facelightning.prediction.doubt import LEAST, face_shares, one_a_face
from facelightning.prediction.masks import photograph_mask
from facelightning.prediction.photographs import Source, as_image, is_one, named
from facelightning.prediction.results import Face, Prediction
from facelightning.prediction.seeing import Seen, View

BATCH_SIZE = 32
"""Faces that the network sees at once."""


class _Described(NamedTuple):
    """What the network says of one face; empty if it says nothing of that kind.

    ``(A,)``, ``(A,)``, ``(K, h, w)``, and the weights of N places, ``(N, A)``.
    """

    probabilities: npt.NDArray[np.float32]
    decisions: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]


class Predictor:
    """A trained network, ready for photographs. It keeps nothing of them: threads may share it.

    Args:
        describe: From images of faces ``(B, 3, h, w)``, uint8, to the network's output; none to only find faces.
        facts: What the network was built for.
        attributes: Makes probabilities and decisions of the output; none if the network has no attributes.
        view: What the network sees of a photograph.
        places: Names of the places that it weighs for each attribute, if it does.
    """

    def __init__(
        self,
        describe: Callable[[Tensor], Output] | None,
        facts: DataFacts,
        attributes: Attributes | None,
        view: View,
        places: tuple[str, ...] = (),
    ) -> None:
        self.describe, self.facts, self.attributes, self.view = describe, facts, attributes, view
        self.places = places

    @overload
    def __call__(self, images: Source) -> Prediction: ...  # type: ignore[overload-overlap]  # a path holds letters
    @overload
    def __call__(self, images: Iterable[Source]) -> list[Prediction]: ...
    def __call__(self, images: Source | Iterable[Source]) -> Prediction | list[Prediction]:
        """Predict a photograph, or each of several of any sizes; see :func:`~.photographs.as_image`."""
        if is_one(images):
            return self([images])[0]
        rest, predictions = named(cast(Iterable[Source], images)), list[Prediction]()
        while some := list(islice(rest, BATCH_SIZE)):
            predictions += self.predict([self.view(as_image(image), name) for name, image in some])
        return predictions

    @property
    def weighs_regions(self) -> bool:
        """Whether the network weighs places for each attribute: it is asked about a black image."""
        if self.describe is None or not self.places:
            return False
        with torch.inference_mode():
            return "region_weights" in self.describe(torch.zeros(1, 3, *self.facts.image_size, dtype=torch.uint8))

    def predict(self, seen: Sequence[Seen]) -> Iterator[Prediction]:
        """Predict what was seen of some photographs; all their faces go through the network in batches."""
        faces = self._described(np.concatenate([each.images for each in seen]))
        for each in seen:
            yield self._assemble(each, list(islice(faces, len(each.images))))

    def _described(self, images: npt.NDArray[np.uint8]) -> Iterator[_Described]:
        """One after another, as they are asked for: the maps of all would fill the memory."""
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.from_numpy(images[start : start + BATCH_SIZE])
            with torch.inference_mode():
                output = {} if self.describe is None else self.describe(batch)
                empty = torch.empty(len(batch), 0)
                likely, decided, classes, weights = empty, empty.bool(), empty, empty
                if self.attributes is not None and "attributes" in output:
                    likely, decided = self.attributes.predict(output), self.attributes.decide(output)
                if "parsing" in output:
                    classes = output["parsing"][-1].float().softmax(dim=1)
                if "region_weights" in output:
                    weights = output["region_weights"].float()
            yield from map(_Described, *(part.cpu().numpy() for part in (likely, decided, classes, weights)))

    def _assemble(self, seen: Seen, described: Sequence[_Described]) -> Prediction:
        if self.view.finder is not None and self.view.finder.unsure:
            seen, described = self._likely(seen, described)
        names, faces = self.facts.attributes or (), []
        for box, score, five, said in zip(seen.boxes, seen.scores, seen.points, described, strict=True):
            x0, y0, x1, y1 = box.tolist()
            attributes = dict(zip(names, said.probabilities.tolist(), strict=False))
            decisions = dict(zip(names, said.decisions.tolist(), strict=False))
            rows = [dict(zip(self.places, row, strict=False)) for row in said.weights.T.tolist()]  # of each attribute
            weights = dict(zip(names, rows, strict=False))
            certain = None if np.isnan(score) else float(score)
            points = () if np.isnan(five).any() else tuple((x, y) for x, y in five.tolist())
            faces.append(Face((x0, y0, x1, y1), certain, attributes, decisions, weights, points))
        mask, space = None, self.facts.label_space
        if space is not None:
            maps = [said.classes for said in described]
            mask = photograph_mask(maps, seen.turns, seen.cuts, seen.frames, seen.size)
        return Prediction(seen.name, seen.size, faces, mask, space, seen.picture)

    def _likely(self, seen: Seen, described: Sequence[_Described]) -> tuple[Seen, Sequence[_Described]]:
        """Without the boxes that hold no face as the network parses them, and with one box a face."""
        scores = seen.scores
        if self.facts.label_space is not None:
            maps = [said.classes for said in described]
            scores = face_shares(maps, seen.boxes, seen.cuts, seen.frames, self.facts.label_space)
        likely = np.flatnonzero(scores >= LEAST)  # without a parser all are
        kept = likely[one_a_face(seen.boxes[likely], scores[likely])]
        return replace(seen, scores=scores).only(kept), [described[index] for index in kept]
