"""A data set of cartoon faces, written to disk exactly as CelebA and Helen are."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facelightning.boxes import POINTS
from facelightning.data.celeba import BOX, IMAGE_FOLDERS, LANDMARK_FILES, Crop
from facelightning.data.files import Record, stem
from facelightning.data.helen import GROUPS, LISTS, mask_name, merge_masks
from facelightning.data.synthetic.attributes import sample_attributes
from facelightning.data.synthetic.drawing import DRAWING_VERSION, CartoonFace, draw_face
from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.labels import ATTRIBUTES

STAMP = "synthetic.json"
"""The file that records a data set's parameters and the version of its drawing."""

IMAGES_PER_IDENTITY = 4
"""So many consecutive images show one identity, if nothing else is said."""

OF_THE_MOMENT = np.isin(
    ATTRIBUTES, "Bags_Under_Eyes Blurry High_Cheekbones Mouth_Slightly_Open Narrow_Eyes Smiling".split()
)
"""Which attributes vary between images of one identity."""


def write_synthetic(
    root: Path,
    attributes: tuple[int, int, int],
    parsing: tuple[int, int, int],
    seed: int,
    images_per_identity: int = IMAGES_PER_IDENTITY,
    known_masks: bool = False,
) -> None:
    """Write cartoon faces as ``root/celeba`` and ``root/helen`` in the layouts of CelebA and Helen.

    If ``root`` already holds the same data set, nothing is written. The files are written beside ``root`` and moved
    there when all are complete: an interrupted run leaves no ``root``.

    Args:
        root: Folder to create, with its parents.
        attributes: How many faces with attributes, identity and landmarks to write for train, val and test.
        parsing: How many faces with masks. No identity is in two splits or in both data sets.
        seed: The same seed gives the same files. Not negative.
        images_per_identity: How many faces of each identity to write; the last one of a split may have fewer.
        known_masks: Whether to write the masks of the faces with attributes too, to ``root/celeba/Masks``.

    Raises:
        DataFormatError: If ``root`` exists, but is no such data set or has other parameters; nothing is changed.
        ConfigurationError: If a count or the seed is negative, or an identity has no image.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_synthetic(Path(folder) / "faces", attributes=(4, 2, 2), parsing=(2, 1, 1), seed=0)
        ...     sorted(path.name for path in (Path(folder) / "faces").iterdir())
        ['celeba', 'helen', 'synthetic.json']
    """
    if min(*attributes, *parsing, seed) < 0:
        raise ConfigurationError(f"counts {attributes} and {parsing} and seed {seed} must not be negative")
    if images_per_identity < 1:
        raise ConfigurationError(f"an identity must have at least one image, not {images_per_identity}")
    stamp = {"attributes": list(attributes), "parsing": list(parsing), "seed": seed, "version": DRAWING_VERSION}
    if images_per_identity != IMAGES_PER_IDENTITY:  # data sets of before there was a choice have no such entry
        stamp["images_per_identity"] = images_per_identity
    if known_masks:
        stamp["known_masks"] = True
    with written_once(root, stamp) as made:
        if made is not None:
            with tqdm(total=sum(attributes) + sum(parsing), desc="drawing faces", unit="face") as progress:
                drawn = _celeba_records(attributes, seed, images_per_identity, known_masks, progress)
                write_celeba(made / "celeba", "aligned", drawn)
                _write_helen(made / "helen", parsing, seed, images_per_identity, progress)


@contextmanager
def written_once(root: Path, stamp: dict[str, object]) -> Iterator[Path | None]:
    """A folder to fill, which is moved to ``root`` when the block ends without an error.

    Args:
        root: Folder to create, with its parents.
        stamp: The parameters of the data set, which are written into the folder too.

    Yields:
        The empty folder; ``None`` if ``root`` already holds the data set of ``stamp``.

    Raises:
        DataFormatError: If ``root`` exists, but is no such data set or has other parameters; nothing is changed.
    """
    if _is_complete(root, stamp):
        yield None
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder:
        made = Path(folder) / root.name
        made.mkdir()
        yield made
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
            f"{root} exists but has no readable {STAMP}, so it is not a synthetic data set: choose another folder"
        ) from None
    if found != stamp:
        raise DataFormatError(
            f"{root} holds a synthetic data set of {json.dumps(found)}, not of {json.dumps(stamp)}: "
            "choose another folder or delete this one"
        )
    return True


def _draw_faces(
    counts: tuple[int, int, int], stream: int, seed: int, images_per_identity: int, progress: "tqdm[NoReturn]"
) -> Iterator[tuple[int, int, int, NDArray[np.bool_], CartoonFace]]:
    """Number, split, identity, attributes and drawing of each face, first train, then val, then test."""
    number = identity = 0
    for split, count in enumerate(counts):
        for face in range(count):
            if face % images_per_identity == 0:
                identity += 1
                rng = np.random.default_rng([seed, stream, identity])
                lasting = sample_attributes(rng)
            number += 1
            attributes = np.where(OF_THE_MOMENT, sample_attributes(rng), lasting)
            # the stream separates the identities of the two data sets, the seed those of data sets with other seeds
            drawn = (seed * 2 + stream) * 10_000_000 + identity
            yield number, split, identity, attributes, draw_face(attributes, drawn, seed=number)
            progress.update()


def _celeba_records(
    counts: tuple[int, int, int], seed: int, images_per_identity: int, known_masks: bool, progress: "tqdm[NoReturn]"
) -> Iterator[tuple[int, Record]]:
    """Split and record of each face with attributes."""
    for number, split, identity, attributes, face in _draw_faces(counts, 0, seed, images_per_identity, progress):
        name, known = f"{number:06d}.jpg", attributes.astype(np.float32)
        record = Record(name=name, image=face.image, attributes=known, landmarks=face.landmarks, identity=identity)
        yield split, Record(**record, mask=merge_masks([*face.masks], GROUPS["helen7"])) if known_masks else record


def _write_helen(
    folder: Path, counts: tuple[int, int, int], seed: int, images_per_identity: int, progress: "tqdm[NoReturn]"
) -> None:
    (folder / "images").mkdir(parents=True)
    lists: tuple[list[str], ...] = ([], [], [])
    for number, split, _, _, face in _draw_faces(counts, 1, seed, images_per_identity, progress):
        name = f"{number:09d}_1"
        write_image(folder / "images" / f"{name}.jpg", face.image)
        (folder / "labels" / name).mkdir(parents=True)
        for label, mask in enumerate(face.masks):
            write_image(folder / "labels" / name / mask_name(name, label), mask)
        lists[split].append(f"{number} , {name}")
    for file, lines in zip(LISTS.values(), lists, strict=True):
        write_lines(folder / file, lines)


def write_celeba(folder: Path, images: Crop, records: Iterable[tuple[int, Record]]) -> None:
    """Write records in CelebA's official layout, which :func:`~facelightning.data.celeba.read_celeba` reads.

    Args:
        folder: Where to create ``Anno``, ``Eval`` and ``Img``.
        images: What the images are.
        records: Of each image the index of its split, and ``name``, ``image`` and ``attributes``; if all have them,
            also ``identity``, and ``landmarks`` and ``box``, which are rounded to whole pixels, and ``mask``, for a
            folder ``Masks``.
    """
    pictures = folder / "Img" / IMAGE_FOLDERS[images][0]
    for place in (pictures, folder / "Anno", folder / "Eval"):
        place.mkdir(parents=True)
    landmarks = f"Anno/{LANDMARK_FILES[images]}.txt"
    heads = {"Anno/list_attr_celeba.txt": " ".join(ATTRIBUTES) + " ", landmarks: " ".join(POINTS)}
    heads["Anno/list_bbox_celeba.txt"] = " ".join(("image_id", *BOX))
    tables: dict[str, list[str]] = {}
    for split, record in records:
        write_image(pictures / record["name"], record["image"])
        if "mask" in record:
            (folder / "Masks").mkdir(exist_ok=True)
            write_image(folder / "Masks" / f"{stem(record['name'])}.png", record["mask"])
        rows = {"Eval/list_eval_partition.txt": str(split)}
        rows["Anno/list_attr_celeba.txt"] = " ".join(f"{1 if value else -1:2d}" for value in record["attributes"])
        if "identity" in record:
            rows["Anno/identity_CelebA.txt"] = str(record["identity"])
        if "landmarks" in record:
            rows[landmarks] = _pixels(record["landmarks"])
        if "box" in record:
            corner, end = record["box"].reshape(2, 2)
            rows["Anno/list_bbox_celeba.txt"] = _pixels(np.concatenate([corner, end - corner]))
        for table, row in rows.items():
            tables.setdefault(table, []).append(f"{record['name']} {row}")
    for table, lines in tables.items():
        write_lines(folder / table, [str(len(lines)), heads[table], *lines] if table in heads else lines)


def _pixels(values: NDArray[np.float32]) -> str:
    return " ".join(f"{value:4d}" for value in values.round().astype(int).ravel())


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB or grey image in the format of its suffix."""
    _, data = cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)  # OpenCV takes BGR
    path.write_bytes(data.tobytes())


def write_lines(path: Path, lines: list[str]) -> None:
    """Write lines of text."""
    path.write_text("".join(f"{line}\n" for line in lines))
