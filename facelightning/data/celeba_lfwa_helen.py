"""The data modules of CelebA, LFWA and Helen."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from facelightning.data.aligned_masks import AlignedRecords
from facelightning.data.celeba import Crop, read_celeba
from facelightning.data.datamodule import AttributeDataModule, FaceDataModule
from facelightning.data.files import Records, Split
from facelightning.data.helen import Helen
from facelightning.data.lfwa import read_lfwa
from facelightning.data.masks import MaskedRecords
from facelightning.data.tables import AttributeDataset
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import HELEN7, LABEL_SPACES


@dataclass(eq=False)
class CelebADataModule(AttributeDataModule):
    """Batches of :class:`~facelightning.data.CelebA`.

    Args:
        root: The folder of the data set; never written to.
        images: The pre-cropped images (``aligned``) or the original ones (``wild``).
        masks: Folder of known masks, for :class:`~facelightning.models.KnownMasks`, in the seven classes.

    Example:
        >>> data = CelebADataModule("~/celeba", image_size=(109, 89))
        >>> data.setup("fit")  # doctest: +SKIP
        >>> next(iter(data.val_dataloader()))["attributes"].shape  # doctest: +SKIP
        torch.Size([32, 40])
    """

    root: str | None = None
    images: Crop = "aligned"
    masks: str | None = None

    def seen(self, records: Records) -> Records:
        """With the known masks, if there are any."""
        if None not in (self.masks, self.crop):
            raise ConfigurationError("CelebADataModule: known masks are of whole images: leave out crop or masks")
        return MaskedRecords(records, self.masks, HELEN7) if self.masks else super().seen(records)

    @cached_property
    def splits(self) -> dict[Split, AttributeDataset]:
        """The data set, read on first use."""
        return read_celeba(self.root, self.images)


@dataclass(eq=False)
class LFWADataModule(AttributeDataModule):
    """Batches of :class:`~facelightning.data.LFWA`.

    Args:
        root: The folder of the two files and of the images, or of a folder ``lfw`` with the images; never written to.
    """

    root: str | None = None

    @cached_property
    def splits(self) -> dict[Split, AttributeDataset]:
        """The data set, read on first use."""
        return read_lfwa(self.root)


@dataclass(eq=False)
class HelenDataModule(FaceDataModule):
    """Batches of :class:`~facelightning.data.Helen`.

    Args:
        root: The folder of ``images``, ``labels`` and the three lists; never written to.
        label_space: Label space of the masks.
        aligned: Whether images are cut and scaled as CelebA's aligned ones, for a parser that shall see those; see
            :class:`~facelightning.data.aligned_masks.AlignedRecords`.
        trained: The images that are learned: those of the training split, or ``all``, as Kalayeh et al. (CVPR 2017,
            §4.1) allow for a parser that only serves attributes. Its scores, then, are of images that it has learned.
    """

    root: str | None = None
    label_space: Literal["helen7", "helen11"] = "helen7"
    aligned: bool = False
    trained: Literal["train", "all"] = "train"

    def records(self, split: Split) -> Helen:
        """One split of the data set."""
        return Helen(self.root, self.trained if split == "train" else split, self.label_space)

    def seen(self, records: Records) -> Records:
        """The whole images, or aligned ones."""
        return AlignedRecords(records, LABEL_SPACES[self.label_space]) if self.aligned else records

    @property
    def facts(self) -> DataFacts:
        """Image size and label space."""
        return DataFacts(self.image_size, LABEL_SPACES[self.label_space])
