"""Two data sets side by side: one with masks, one with attributes."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import lightning as L

from facelightning.data.celeba_lfwa_helen import CelebADataModule, HelenDataModule
from facelightning.data.datamodule import FaceDataModule, Loading
from facelightning.data.synthetic import write_synthetic
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts


class JointDataModule(L.LightningDataModule):
    """A parsing and an attribute data module for one :class:`~facelightning.tasks.JointNet`.

    A training batch is ``{"parsing_batch": batch, "attribute_batch": batch}``; an epoch is one pass over the longer
    set, and the shorter one restarts as often as needed, each time in a new order. Validation, test and prediction
    run on one set after the other.

    Args:
        parsing: The data set with masks.
        attributes: The data set with attributes.
    """

    def __init__(self, parsing: FaceDataModule, attributes: FaceDataModule) -> None:
        super().__init__()
        self.parts = {"parsing_batch": parsing, "attribute_batch": attributes}

    @property
    def facts(self) -> DataFacts:
        """The label space of one data set and the attributes of the other.

        Raises:
            ConfigurationError: If their images differ in size.
        """
        parsing, attributes = (part.facts for part in self.parts.values())
        if parsing.image_size != attributes.image_size:
            raise ConfigurationError(
                f"one network sees images of one size, but parsing has image_size {parsing.image_size} and attributes "
                f"{attributes.image_size}; make them equal"
            )
        return replace(attributes, label_space=parsing.label_space)

    def prepare_data(self) -> None:
        """Prepare both."""
        for part in self.parts.values():
            part.prepare_data()

    def setup(self, stage: str) -> None:
        """Open both."""
        _ = self.facts  # two image sizes are refused before files are read
        for part in self.parts.values():
            part.trainer = self.trainer
            part.setup(stage)

    def train_dataloader(self) -> dict[str, Any]:
        """Both loaders; Lightning cycles the shorter."""
        return {name: part.train_dataloader() for name, part in self.parts.items()}

    def val_dataloader(self) -> dict[str, Any]:
        """Both, one after the other."""
        return {name: part.val_dataloader() for name, part in self.parts.items()}

    def test_dataloader(self) -> dict[str, Any]:
        """Both, one after the other."""
        return {name: part.test_dataloader() for name, part in self.parts.items()}

    def predict_dataloader(self) -> dict[str, Any]:
        """Both test sets, one after the other."""
        return {name: part.predict_dataloader() for name, part in self.parts.items()}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Of a training batch each part, as its own data module does; others are of one part, and complete."""
        if not self.parts.keys() <= batch.keys():
            return batch
        return {name: part.on_after_batch_transfer(batch[name], dataloader_idx) for name, part in self.parts.items()}


@dataclass(eq=False)
class SyntheticDataModule(Loading, JointDataModule):
    """Cartoon faces with known ground truth: drawn once at 218×178, written and read in CelebA's and Helen's layouts.

    Needs no download and no photographs. Every attribute is visible in known regions
    (:data:`~facelightning.labels.ATTRIBUTE_REGIONS`), so that one can measure whether a model looks there.

    Args:
        root: Folder to write the faces to, and to read them from.
        label_space: Label space of the masks.
        faces: How many faces with attributes to draw for train, val and test.
        masks: How many other faces with masks to draw for each split.
        drawing_seed: Another seed draws other identities; needs another ``root``.
        mask_batch_size: Faces with masks per step and process; a few suffice, because every pixel has a label.
        faces_per_identity: How many faces of each identity to draw.
        known_masks: Whether to write the masks of the faces with attributes too, to ``celeba/Masks``, for a
            :class:`CelebADataModule` with these ``masks``.
    """

    root: str = "data/synthetic"
    label_space: Literal["helen7", "helen11"] = "helen7"
    faces: tuple[int, int, int] = (2000, 300, 300)
    masks: tuple[int, int, int] = (400, 100, 100)
    drawing_seed: int = 0
    mask_batch_size: int = 8
    faces_per_identity: int = 4
    known_masks: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        shared: dict[str, Any] = {option.name: getattr(self, option.name) for option in fields(Loading)}
        celeba = CelebADataModule(f"{self.root}/celeba", **shared)
        shared["batch_size"] = self.mask_batch_size
        JointDataModule.__init__(self, HelenDataModule(f"{self.root}/helen", self.label_space, **shared), celeba)

    def prepare_data(self) -> None:
        """Draw the faces, unless they exist already."""
        root = Path(self.root).expanduser()
        write_synthetic(root, self.faces, self.masks, self.drawing_seed, self.faces_per_identity, self.known_masks)
