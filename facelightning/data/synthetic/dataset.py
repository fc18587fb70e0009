"""A data set of cartoon faces, written to disk exactly as CelebA and Helen are."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facelightning.data.celeba import CelebADataModule
from facelightning.data.helen import HelenDataModule
from facelightning.data.joint import JointDataModule
from facelightning.data.synthetic.attributes import sample_attributes
from facelightning.data.synthetic.drawing import DRAWING_VERSION, CartoonFace, draw_face
from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.labels import ATTRIBUTES

STAMP = "synthetic.json"
"""The file that says with which parameters, and by which version of the drawing, a data set was made."""

_PICTURES_PER_IDENTITY = 4
_LANDMARKS = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
_LISTS = ("exemplars.txt", "tuning.txt", "testing.txt")  # Helen's names of train, val, test
_OF_THE_MOMENT = np.isin(
    ATTRIBUTES,
    ("Bags_Under_Eyes", "Blurry", "High_Cheekbones", "Mouth_Slightly_Open", "Narrow_Eyes", "Smiling"),
)  # what differs between two pictures of one person


class SyntheticDataModule(JointDataModule):
    """Cartoon faces with known truth: drawn once, written as CelebA and Helen, and read by their readers.

    Needs no download, and nobody's photograph. Every attribute is visible where it lives
    (:data:`~facelightning.labels.ATTRIBUTE_REGIONS`), so that one can measure whether a model looks there.

    Args:
        root: Folder to write to, and to read from the next time.
        labels: The label space of the masks.
        faces: How many faces with attributes to draw for train, val and test.
        masks: How many other faces with masks.
        drawing_seed: Another seed draws other people; needs another ``root``.
        image_size: Height and width of what the network sees, in pixels; drawn at 218×178.
        batch_size: Faces with attributes a step and process.
        mask_batch_size: Faces with masks a step and process; few will do, every pixel of them teaches.
        num_workers: Processes that read and augment, for each part.
        augmentations: Albumentations transforms for training; a horizontal flip if not given.
        seed: Of order and augmentation; the run's ``seed_everything`` if not given.
    """

    def __init__(
        self,
        root: str = "data/synthetic",
        labels: Literal["helen7", "helen11"] = "helen7",
        faces: tuple[int, int, int] = (2000, 300, 300),
        masks: tuple[int, int, int] = (400, 100, 100),
        drawing_seed: int = 0,
        image_size: tuple[int, int] = (218, 178),
        batch_size: int = 32,
        mask_batch_size: int = 8,
        num_workers: int = 2,
        augmentations: list[A.BasicTransform] | None = None,
        seed: int | None = None,
    ) -> None:
        self.root, self.faces, self.masks, self.drawing_seed = Path(root).expanduser(), faces, masks, drawing_seed
        helen = HelenDataModule(f"{root}/helen", labels, image_size, mask_batch_size, num_workers, augmentations, seed)
        celeba = CelebADataModule(f"{root}/celeba", "aligned", image_size, batch_size, num_workers, augmentations, seed)
        super().__init__(parsing=helen, attributes=celeba)

    def prepare_data(self) -> None:
        """Draw the faces, unless they lie there already."""
        write_synthetic(self.root, self.faces, self.masks, self.drawing_seed)


def write_synthetic(root: Path, attributes: tuple[int, int, int], parsing: tuple[int, int, int], seed: int) -> None:
    """Write cartoon faces as ``root/celeba`` and ``root/helen`` in the layouts of CelebA [1]_ and Helen [2]_.

    A folder that holds the same data set already is left as it is. The files are written beside ``root`` and moved
    there when all are complete: an interrupted run leaves no ``root``.

    Args:
        root: Folder to make; its parents are made too.
        attributes: How many faces with attributes, identity and landmarks to write for train, val and test.
        parsing: How many faces with masks. No person is in two splits, nor in both data sets.
        seed: The same seed gives the same files. Not negative.

    Raises:
        DataFormatError: If ``root`` exists and is no such data set, or one of other parameters; nothing is changed.
        ConfigurationError: If a count or the seed is negative.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_synthetic(Path(folder) / "faces", attributes=(4, 2, 2), parsing=(2, 1, 1), seed=0)
        ...     sorted(path.name for path in (Path(folder) / "faces").iterdir())
        ['celeba', 'helen', 'synthetic.json']

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    .. [2] Smith, Zhang, Brandt, Lin, Yang, "Exemplar-Based Face Parsing", CVPR 2013.
    """
    if min(*attributes, *parsing, seed) < 0:
        raise ConfigurationError(f"counts {attributes} and {parsing} and seed {seed} must not be negative")
    stamp = {"attributes": list(attributes), "parsing": list(parsing), "seed": seed, "version": DRAWING_VERSION}
    if _is_complete(root, stamp):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder,
        tqdm(total=sum(attributes) + sum(parsing), desc="drawing faces", unit="face") as progress,
    ):
        made = Path(folder) / root.name
        _write_celeba(made / "celeba", attributes, seed, progress.update)
        _write_helen(made / "helen", parsing, seed, progress.update)
        (made / STAMP).write_text(json.dumps(stamp, indent=2) + "\n")
        try:
            made.rename(root)
        except OSError:
            if not _is_complete(root, stamp):  # another process may have been quicker
                raise


def _is_complete(root: Path, stamp: dict[str, object]) -> bool:
    """Whether ``root`` holds the data set of ``stamp``; False if there is nothing yet."""
    if not root.exists():
        return False
    try:
        found = json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        raise DataFormatError(
            f"{root} exists but has no readable {STAMP}, so it is no synthetic data set: choose another folder"
        ) from None
    if found != stamp:
        raise DataFormatError(
            f"{root} holds a synthetic data set of {json.dumps(found)}, not of {json.dumps(stamp)}: "
            "choose another folder or delete this one"
        )
    return True


def _people(counts: tuple[int, int, int], stream: int, seed: int) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """For each face of train, val and test in turn its split, its person's number in the stream, its attributes."""
    person = 0
    for split, count in enumerate(counts):
        for face in range(count):
            if face % _PICTURES_PER_IDENTITY == 0:
                person += 1
                rng = np.random.default_rng([seed, stream, person])
                lasting = sample_attributes(rng)
            yield split, person, np.where(_OF_THE_MOMENT, sample_attributes(rng), lasting)


def _draw(attributes: NDArray[np.bool_], stream: int, person: int, face: int, seed: int) -> CartoonFace:
    # Streams keep the people of the two data sets apart, and the seed those of two data sets of one kind.
    return draw_face(attributes, identity=(seed * 2 + stream) * 10_000_000 + person, seed=face)


def _write_celeba(folder: Path, counts: tuple[int, int, int], seed: int, advance: Callable[[], object]) -> None:
    for name in ("Anno", "Eval", "Img/img_align_celeba"):
        (folder / name).mkdir(parents=True)
    rows, identities, landmarks, splits = [], [], [], []
    for number, (split, person, attributes) in enumerate(_people(counts, 0, seed), start=1):
        name = f"{number:06d}.jpg"
        face = _draw(attributes, 0, person, number, seed)
        _write_image(folder / "Img" / "img_align_celeba" / name, face.image)
        rows.append(f"{name} " + " ".join(f"{1 if value else -1:2d}" for value in attributes))
        identities.append(f"{name} {person}")
        points = face.landmarks.round().astype(int).ravel()
        landmarks.append(f"{name} " + " ".join(f"{value:4d}" for value in points))
        splits.append(f"{name} {split}")
        advance()
    count = str(len(rows))
    _write_lines(folder / "Anno" / "list_attr_celeba.txt", [count, " ".join(ATTRIBUTES) + " ", *rows])
    _write_lines(folder / "Anno" / "identity_CelebA.txt", identities)
    _write_lines(folder / "Anno" / "list_landmarks_align_celeba.txt", [count, _LANDMARKS, *landmarks])
    _write_lines(folder / "Eval" / "list_eval_partition.txt", splits)


def _write_helen(folder: Path, counts: tuple[int, int, int], seed: int, advance: Callable[[], object]) -> None:
    (folder / "images").mkdir(parents=True)
    lists: tuple[list[str], ...] = ([], [], [])
    for number, (split, person, attributes) in enumerate(_people(counts, 1, seed), start=1):
        name = f"{number:09d}_1"
        face = _draw(attributes, 1, person, number, seed)
        _write_image(folder / "images" / f"{name}.jpg", face.image)
        labels = folder / "labels" / name
        labels.mkdir(parents=True)
        for index, mask in enumerate(face.masks):
            _write_image(labels / f"{name}_lbl{index:02d}.png", mask)
        lists[split].append(f"{number} , {name}")
        advance()
    for name, lines in zip(_LISTS, lists, strict=True):
        _write_lines(folder / name, lines)


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    picture = image[..., ::-1] if image.ndim == 3 else image
    _, data = cv2.imencode(path.suffix, picture)
    path.write_bytes(data.tobytes())


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
