"""What all that ``facelightning visualize`` draws has in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from facelightning.data import FaceDataModule
from facelightning.figures import Image
from facelightning.tasks import FaceTask

Drawn = Image | str | Mapping[str, Any]
"""An image; or beside one a text, or numbers, which are written as JSON."""


KindName = Literal["parsing", "channels", "recall", "responses", "neurons", "groups", "attribute_regions", "layers"]


@dataclass(frozen=True)
class Subject:
    """What is drawn: trained tasks and data.

    Args:
        ckpt_path: Checkpoint of the main task.
        tasks: All by their checkpoints, in evaluation mode; the main one is the last.
        data: Data modules, each of one data set.
        against: Checkpoint of a second network, drawn above the main one.
        split: The split of all data sets.
        faces: Number of faces to average over.
        beside: Checkpoints of other cascades, by their names in a legend; several of one name are its seeds.
        boxes: Table of the true boxes of all faces; the data set's own if not given.
    """

    ckpt_path: str
    tasks: Mapping[str, FaceTask]
    data: Sequence[FaceDataModule]
    against: str | None = None
    split: Literal["val", "test"] = "test"
    faces: int = 256
    beside: Mapping[str, Sequence[str]] | None = None
    boxes: str | None = None

    @property
    def task(self) -> FaceTask:
        """The main task."""
        return self.tasks[self.ckpt_path]

    @property
    def described(self) -> list[FaceDataModule]:
        """The data with attributes."""
        return [module for module in self.data if module.facts.attributes]

    def loader(self, module: FaceDataModule) -> Any:
        """The batches of the split."""
        return module.val_dataloader() if self.split == "val" else module.test_dataloader()

    def spread(self, module: FaceDataModule, count: int = 6) -> list[Any]:
        """Samples spread evenly over the split."""
        dataset = module.dataset(self.split)
        return [dataset[index, 0] for index in range(0, len(dataset), max(1, len(dataset) // count))[:count]]


class Kind(NamedTuple):
    """One kind of drawing."""

    fits: Callable[[Subject], bool]
    """Whether model and data allow it, as far as one knows without reading an image."""
    draw: Callable[[Subject], Iterator[tuple[str, Drawn]]]
    """Files by their names, and what they hold."""
    at_once: bool = True
    """Whether it is drawn unless other kinds are asked for."""
