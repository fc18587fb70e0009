"""Cartoon faces of persons whose identity, age and tone of skin are known, written to disk as a table of images."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from facelightning.data.files import SPLITS
from facelightning.data.synthetic.attributes import sample_attributes
from facelightning.data.synthetic.dataset import OF_THE_MOMENT, write_image, write_lines, written_once
from facelightning.data.synthetic.drawing import DRAWING_VERSION, draw_face
from facelightning.data.synthetic.parameters import sample_identity, skin_tone
from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTES

PEOPLE_VERSION = 1
"""Incremented whenever the same arguments give other people than before."""

TONES = ("light", "medium", "dark")
"""What stands in for a race: the third of the painter's range that the skin lies in."""

AGES = (15, 40, 80)
"""The youngest, the first who is not ``Young``, and the oldest, in years."""

_FIRST = 3 * 10**15  # beyond the identities of all other data sets
_YOUNG, _PALE = ATTRIBUTES.index("Young"), ATTRIBUTES.index("Pale_Skin")


def write_people(root: Path, persons: tuple[int, int, int], faces_per_person: int = 16, seed: int = 0) -> None:
    """Write cartoon faces as ``root/train/PERSON/01.jpg``, ``val`` and ``test``, and what is true of them.

    ``root/faces.csv`` has the columns ``file``, ``age``, ``race``, ``identity`` and ``split``, as
    :class:`~facelightning.data.FaceTable` reads them. A person's attributes are sampled as those of all cartoon faces;
    the age follows them, in 15…39 years for who is ``Young`` and 40…80 for others, and differs by up to two years
    between images. It shows in wrinkles and the skin's colour, which deepen from year to year.

    The ``race`` is a stand-in, because cartoons have none: the tone of the skin, ``light``, ``medium`` or ``dark``.
    Nobody has ``Pale_Skin``, which would cover it.

    If ``root`` already holds the same people, nothing is written; an interrupted run leaves no ``root``.

    Args:
        root: Folder to create, with its parents.
        persons: How many persons to draw for train, val and test; none is in two splits.
        faces_per_person: How many faces of each, at least 1.
        seed: The same seed gives the same files. Not negative.

    Raises:
        DataFormatError: If ``root`` exists, but is no such data set or has other parameters; nothing is changed.
        ConfigurationError: If a number is out of its range.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_people(Path(folder) / "people", (2, 1, 1), faces_per_person=2)
        ...     (Path(folder) / "people/faces.csv").read_text().splitlines()[:2]
        ['file,age,race,identity,split', 'train/000001/01.jpg,26,light,000001,train']
    """
    if min(*persons, seed) < 0 or faces_per_person < 1:
        raise ConfigurationError(
            f"persons {persons} and seed {seed} must not be negative, and faces_per_person {faces_per_person} positive"
        )
    version = [DRAWING_VERSION, PEOPLE_VERSION]
    stamp: dict[str, object] = {"persons": [*persons], "faces": faces_per_person, "seed": seed, "version": version}
    with written_once(root, stamp) as made:
        if made is None:
            return
        lines = ["file,age,race,identity,split"]
        splits = [split for split, count in zip(SPLITS, persons, strict=True) for _ in range(count)]
        for number, split in enumerate(tqdm(splits, desc="drawing people", unit="person"), start=1):
            folder = made / split / f"{number:06d}"
            folder.mkdir(parents=True)
            for image, (age, tone) in enumerate(_draw_person(folder, number, faces_per_person, seed), start=1):
                lines.append(f"{split}/{folder.name}/{image:02d}.jpg,{age},{tone},{folder.name},{split}")
        write_lines(made / "faces.csv", lines)


def _draw_person(folder: Path, number: int, faces: int, seed: int) -> list[tuple[int, str]]:
    """Draw all faces of a person; the age and the tone of the skin in each."""
    rng = np.random.default_rng([seed, 6, number])
    identity = _FIRST + seed * 10**7 + number
    tone = TONES[int(skin_tone(sample_identity(identity)))]
    lasting = sample_attributes(rng)
    youngest, middle, oldest = AGES
    low, high = (youngest, middle) if lasting[_YOUNG] else (middle, oldest + 1)
    about, known = int(rng.integers(low + 2, high - 2)), list[tuple[int, str]]()
    for image in range(1, faces + 1):
        age = about + int(rng.integers(-2, 3))
        attributes = np.where(OF_THE_MOMENT, sample_attributes(rng), lasting)
        attributes[_PALE] = False
        face = draw_face(attributes, identity, seed=image, ageing=(age - youngest) / (oldest - youngest))
        write_image(folder / f"{image:02d}.jpg", face.image)
        known.append((age, tone))
    return known
