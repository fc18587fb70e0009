"""Cartoon faces somewhere in a picture, drawn on first use."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from facelightning.data.celeba import read_celeba
from facelightning.data.datamodule import AttributeDataModule
from facelightning.data.files import Split
from facelightning.data.synthetic import write_scenes
from facelightning.data.tables import AttributeDataset


@dataclass(eq=False)
class SyntheticScenesDataModule(AttributeDataModule):
    """Pictures with cartoon faces of any scale and place among much that is none, to learn and measure localisation.

    They are drawn once by :func:`~facelightning.data.synthetic.write_scenes`, which says what lies where, and read as
    CelebA's original images: box, landmarks, attributes and identity are those of the largest face.

    Args:
        root: Folder to write the scenes to, and to read them from.
        scenes: How many scenes to draw for train, val and test.
        faceless: How many scenes without a face to draw for each split; ``root/Img/faceless`` holds them, no batch.
        faces: The fewest and the most faces of a scene, in 1...5.
        scene_size: Height and width of the pictures in pixels, at least 64.
        drawing_seed: Another seed draws other identities; needs another ``root``.

    Example:
        >>> SyntheticScenesDataModule(scenes=(600, 50, 50), faces=(1, 3)).facts.image_size
        (128, 128)
    """

    root: str = "data/scenes"
    scenes: tuple[int, int, int] = (6000, 300, 500)
    faceless: tuple[int, int, int] = (0, 300, 500)
    faces: tuple[int, int] = (1, 1)
    scene_size: tuple[int, int] = (128, 128)
    drawing_seed: int = 0
    image_size: tuple[int, int] = field(default=(128, 128), kw_only=True)

    def prepare_data(self) -> None:
        """Draw the scenes, unless they exist already."""
        root = Path(self.root).expanduser()
        write_scenes(root, self.scenes, self.faceless, self.faces, self.scene_size, self.drawing_seed)

    @cached_property
    def splits(self) -> dict[Split, AttributeDataset]:
        """The data set, read on first use."""
        return read_celeba(self.root, "wild")
