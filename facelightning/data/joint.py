"""Two data sets side by side: one with masks, one with attributes."""

import lightning as L

from facelightning.data.datamodule import FaceDataModule


class JointDataModule(L.LightningDataModule):
    """A parsing and an attribute data module for one :class:`~facelightning.tasks.JointNet`.

    A training batch is ``{"parsing": batch, "attributes": batch}``; an epoch is one pass over the longer set, and
    the shorter one starts again as often as needed, each time in another order. Validation, test and prediction
    run each on its own set, one after the other.

    Args:
        parsing: The data set with masks.
        attributes: The data set with attributes.
    """

    def __init__(self, parsing: FaceDataModule, attributes: FaceDataModule) -> None:
        super().__init__()
        self.parts = {"parsing": parsing, "attributes": attributes}

    @property
    def labels(self) -> str | None:
        """The name of the masks' label space."""
        return self.parts["parsing"].labels

    def prepare_data(self) -> None:
        """Prepare both."""
        for part in self.parts.values():
            part.prepare_data()

    def setup(self, stage: str) -> None:
        """Open both."""
        for part in self.parts.values():
            part.trainer = self.trainer
            part.setup(stage)

    def train_dataloader(self) -> dict[str, object]:
        """Both loaders; Lightning cycles the shorter."""
        return {name: part.train_dataloader() for name, part in self.parts.items()}

    def val_dataloader(self) -> dict[str, object]:
        """Both, one after the other."""
        return {name: part.val_dataloader() for name, part in self.parts.items()}

    def test_dataloader(self) -> dict[str, object]:
        """Both, one after the other."""
        return {name: part.test_dataloader() for name, part in self.parts.items()}

    def predict_dataloader(self) -> dict[str, object]:
        """Both test sets, one after the other."""
        return {name: part.predict_dataloader() for name, part in self.parts.items()}
