"""What a task must know about its data: provided by the data module, stored in the checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from facelightning.labels import LABEL_SPACES, LabelSpace

LARGEST = 10_000
"""Pixels of an image's side above which a file's word is not taken."""


@dataclass(frozen=True)
class DataFacts:
    """The properties of the data that a network is built for.

    Args:
        image_size: Height and width of the images, in pixels.
        label_space: The masks' label space; ``None`` for data without masks.
        attributes: Attribute names in the order of a batch's columns; ``None`` for data without attributes.
        positive_rates: How often each attribute occurs in the training split, in [0, 1]; known after setup.
        images: How many images the training split has; known after setup.
        identities: Numbers of the identities in the training split, ascending; known after setup.
        categories: Names of the categories in the order of their numbers; known after setup.

    Example:
        >>> facts = DataFacts((109, 89), LABEL_SPACES["helen7"])
        >>> facts.plain()
        {'image_size': [109, 89], 'label_space': 'helen7', 'attributes': None, 'identities': None, 'categories': None}
        >>> DataFacts.of(facts.plain()) == facts
        True
    """

    image_size: tuple[int, int]
    label_space: LabelSpace | None = None
    attributes: tuple[str, ...] | None = None
    positive_rates: tuple[float, ...] | None = None
    images: int | None = None
    identities: tuple[int, ...] | None = None
    categories: tuple[str, ...] | None = None

    def plain(self) -> dict[str, Any]:
        """Plain numbers and names, as a checkpoint stores them."""
        return {
            "image_size": list(self.image_size),
            "label_space": None if self.label_space is None else self.label_space.name,
            "attributes": None if self.attributes is None else list(self.attributes),
            "identities": None if self.identities is None else list(self.identities),
            "categories": None if self.categories is None else list(self.categories),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`plain`."""
        height, width = plain["image_size"]
        space, names = plain["label_space"], plain["attributes"]
        if not all(type(side) is int and 0 < side <= LARGEST for side in (height, width)):
            raise ValueError(f"an image of {height}×{width} pixels")
        if names is not None and not (all(isinstance(name, str) for name in names) and len(set(names)) == len(names)):
            raise ValueError("names of attributes that are no text, or not different")
        # a checkpoint from before these were kept has neither
        numbers, categories = plain.get("identities"), plain.get("categories")
        return cls(
            (height, width),
            space and LABEL_SPACES[space],
            names and tuple(names),
            identities=numbers and tuple(numbers),
            categories=categories and tuple(categories),
        )


def shown_apart(first: Any, second: Any) -> tuple[str, str]:
    """Two different values as text; cut to their first difference where :func:`shown` prints both alike.

    Example:
        >>> shown_apart(["Bald", "Male", "Young"], ["Bald", "Young", "Male"])
        ("…['Bald', 'Male', 'Young']…", "…['Bald', 'Young', 'Male']…")
    """
    short = shown(first), shown(second)
    if short[0] != short[1]:
        return short
    whole = str(first), str(second)
    place = max(0, next(i for i, pair in enumerate(zip(*whole, strict=False)) if pair[0] != pair[1]) - 30)
    return f"…{whole[0][place : place + 60]}…", f"…{whole[1][place : place + 60]}…"


def shown(value: Any) -> str:
    """A fact or setting as text for a message: a size as 218×178, names as their number, a part as its class.

    Example:
        >>> shown([218, 178]), shown("helen7"), shown(["Male", "Young", "Bald"])
        ('218×178', 'helen7', '3 names (Male, …)')
        >>> shown({"class_path": "facelightning.models.heads.LinearHead", "init_args": {}})
        'LinearHead'
    """
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list) and value:
        return f"{len(value)} names ({value[0]}, …)" if isinstance(value[0], str) else "×".join(map(str, value))
    return str(value)
