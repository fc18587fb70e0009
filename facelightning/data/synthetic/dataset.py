"""A data set of cartoon faces, written to disk exactly as CelebA and Helen are."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facelightning.data.celeba import POINTS
from facelightning.data.helen import LISTS, mask_name
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
    with written_once(root, stamp) as made:
        if made is not None:
            with tqdm(total=sum(attributes) + sum(parsing), desc="drawing faces", unit="face") as progress:
                _write_celeba(made / "celeba", attributes, seed, images_per_identity, progress)
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


def _write_celeba(
    folder: Path, counts: tuple[int, int, int], seed: int, images_per_identity: int, progress: "tqdm[NoReturn]"
) -> None:
    for name in ("Anno", "Eval", "Img/img_align_celeba"):
        (folder / name).mkdir(parents=True)
    count = str(sum(counts))
    tables: dict[str, list[str]] = {
        "Anno/list_attr_celeba.txt": [count, " ".join(ATTRIBUTES) + " "],
        "Anno/list_landmarks_align_celeba.txt": [count, " ".join(POINTS)],
        "Anno/identity_CelebA.txt": [],
        "Eval/list_eval_partition.txt": [],
    }
    for number, split, identity, attributes, face in _draw_faces(counts, 0, seed, images_per_identity, progress):
        name = f"{number:06d}.jpg"
        write_image(folder / "Img" / "img_align_celeba" / name, face.image)
        labels = " ".join(f"{1 if value else -1:2d}" for value in attributes)
        points = " ".join(f"{value:4d}" for value in face.landmarks.round().astype(int).ravel())
        for rows, cells in zip(tables.values(), (labels, points, identity, split), strict=True):
            rows.append(f"{name} {cells}")
    for table, rows in tables.items():
        write_lines(folder / table, rows)


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


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB or grey image in the format of its suffix."""
    _, data = cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)  # OpenCV takes BGR
    path.write_bytes(data.tobytes())


def write_lines(path: Path, lines: list[str]) -> None:
    """Write lines of text."""
    path.write_text("".join(f"{line}\n" for line in lines))
