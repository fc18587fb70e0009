"""Batches of any photographs, for prediction."""

from dataclasses import dataclass

from facelightning.data.datamodule import FaceDataModule
from facelightning.data.files import Split
from facelightning.data.folder import Folder
from facelightning.errors import ConfigurationError


@dataclass(eq=False)
class FolderDataModule(FaceDataModule):
    """Batches of :class:`~facelightning.data.Folder`, for prediction: one face per image, cropped about as in training.

    Args:
        root: A folder; its subfolders are read too.
    """

    root: str | None = None

    def setup(self, stage: str) -> None:
        """Open the folder; there is nothing to train on or to score."""
        if stage != "predict":
            raise ConfigurationError(f"FolderDataModule has no labels: use it with `predict`, not with {stage}")
        super().setup(stage)

    def records(self, split: Split) -> Folder:
        """All images."""
        return Folder(self.root)
