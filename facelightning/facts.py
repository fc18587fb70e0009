"""What a task must know of its data: a data module says it, a checkpoint keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from facelightning.labels import LABEL_SPACES, LabelSpace


@dataclass(frozen=True)
class DataFacts:
    """What a network is built for.

    Args:
        image_size: Height and width of the images, in pixels.
        label_space: Of the masks; ``None`` for data without masks.
        attributes: Their names, in the order of a batch's columns; ``None`` for data without attributes.
        positive_rates: How often each attribute occurs in the training split, in [0, 1]; known once data is set up.
        identities: How many people the training split shows; known once data is set up.

    Example:
        >>> facts = DataFacts((109, 89), LABEL_SPACES["helen7"])
        >>> facts.plain()
        {'image_size': [109, 89], 'label_space': 'helen7', 'attributes': None}
        >>> DataFacts.of(facts.plain()) == facts
        True
    """

    image_size: tuple[int, int]
    label_space: LabelSpace | None = None
    attributes: tuple[str, ...] | None = None
    positive_rates: tuple[float, ...] | None = None
    identities: int | None = None

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps: numbers and names."""
        return {
            "image_size": list(self.image_size),
            "label_space": None if self.label_space is None else self.label_space.name,
            "attributes": None if self.attributes is None else list(self.attributes),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`plain`."""
        height, width = plain["image_size"]
        space, names = plain["label_space"], plain["attributes"]
        return cls((height, width), space and LABEL_SPACES[space], names and tuple(names))
