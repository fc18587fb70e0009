"""Pictures of objects that are no faces, drawn on first use."""

from dataclasses import dataclass, field
from pathlib import Path

from facelightning.data.categories import ImageFolderDataModule
from facelightning.data.synthetic import write_objects


@dataclass(eq=False)
class SyntheticObjectsDataModule(ImageFolderDataModule):
    """Drawn objects of 20 categories on the clutter of :class:`SyntheticScenesDataModule`, without a face.

    They are drawn once by :func:`~facelightning.data.synthetic.write_objects`, and read as any images by category.

    Args:
        root: Folder to write the pictures to, and to read them from.
        objects: How many to draw for train, val and test.
        picture_size: Height and width of the pictures, at least 64.
        drawing_seed: Another seed draws other pictures; needs another ``root``.

    Example:
        >>> SyntheticObjectsDataModule(objects=(600, 50, 50)).facts.image_size
        (128, 128)
    """

    root: str = "data/objects"
    objects: tuple[int, int, int] = (6000, 500, 500)
    picture_size: tuple[int, int] = (128, 128)
    drawing_seed: int = 0
    image_size: tuple[int, int] = field(default=(128, 128), kw_only=True)

    def prepare_data(self) -> None:
        """Draw the objects, unless they exist already."""
        write_objects(Path(self.root).expanduser(), self.objects, self.picture_size, self.drawing_seed)
