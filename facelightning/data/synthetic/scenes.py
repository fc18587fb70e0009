"""Scenes with cartoon faces anywhere in them, written to disk exactly as CelebA's original images are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facelightning.data.files import SPLITS, Record
from facelightning.data.synthetic.attributes import sample_attributes
from facelightning.data.synthetic.canvas import HEIGHT, WIDTH, Colour
from facelightning.data.synthetic.clutter import Picture, Pose, draw_body, draw_clutter
from facelightning.data.synthetic.dataset import (
    IMAGES_PER_IDENTITY,
    OF_THE_MOMENT,
    write_celeba,
    write_image,
    write_lines,
    written_once,
)
from facelightning.data.synthetic.drawing import DRAWING_VERSION, CartoonFace, draw_face
from facelightning.errors import ConfigurationError

SCENES_VERSION = 1
"""Incremented whenever the same arguments give other scenes than before."""

MOST_FACES = 5
SMALLEST, TALLEST = 24, 300  # pixels from the top of the hair to the chin, or to the ends of long hair
_LEAST_SIDE = 64  # of a picture, in pixels
_MOST_SIDE = 4096

_CHEST = 207  # above this row of a drawing is all that an attribute shows: collar, necklace and knot of the tie
_Y, _X = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
_BUST = np.where(_Y < 170, 1, np.clip(4 - 4 * (((_X - 88.5) / 88) ** 4 + ((_Y - 100) / 116) ** 4), 0, 1))
"""How much of a drawing is kept: its lower edge is round and soft, for no straight edge may give a face away."""


@dataclass(frozen=True)
class Scene:
    """A picture of N faces and its ground truth, the largest face first.

    Args:
        image: RGB, ``(H, W, 3)``.
        faces: Which of the given faces these are.
        boxes: ``(N, 4)``, x0, y0, x1, y1 of hair and face in pixels, right and bottom excluded.
        landmarks: ``(N, 5, 2)``, as in :class:`CartoonFace`.
    """

    image: Picture
    faces: list[int]
    boxes: NDArray[np.int64]
    landmarks: NDArray[np.float32]


def draw_scene(faces: Sequence[CartoonFace], size: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Put faces of any scale, place and tilt into clutter.

    A face is 24 to 300 pixels tall, uniformly on a logarithmic scale, if there is room; more than about 150 are
    more than was drawn. It is tilted by up to 15° besides its own 5°, cut out by its soft mask with all that it wears,
    and four of five have a body. All of hat, face and collar is within the picture, and none hides another's; a face
    without room, which the first never is, is left out.

    Args:
        faces: What to put there.
        size: Height and width in pixels, at least 64.
        rng: The source of randomness.

    Example:
        >>> face = draw_face(np.zeros(40, bool), identity=1, seed=2)
        >>> scene = draw_scene([face], (128, 128), np.random.default_rng(0))
        >>> scene.image.shape, scene.boxes.shape, scene.landmarks.shape
        ((128, 128, 3), (1, 4), (1, 5, 2))
    """
    picture = draw_clutter(size, rng)
    poses = _arrange(faces, size, rng)
    for place, pose in poses.items():  # before all faces, so that no body hides one
        if rng.random() < 0.8:
            draw_body(picture, pose @ _FACE_TO_DRAWING, _cloth(faces[place]))
    boxes = np.array([_paste(picture, faces[place], pose) for place, pose in poses.items()], np.int64).reshape(-1, 4)
    landmarks = [faces[place].landmarks @ pose[:, :2].T + pose[:, 2] for place, pose in poses.items()]
    if rng.random() < 0.5:
        noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(2, 10))
        picture = cv2.add(picture, noise, dtype=cv2.CV_8U).astype(np.uint8, copy=False)
    order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")
    points = np.array(landmarks, np.float32).reshape(-1, 5, 2)
    return Scene(picture, [list(poses)[index] for index in order], boxes[order], points[order])


def write_scenes(
    root: Path,
    scenes: tuple[int, int, int],
    faceless: tuple[int, int, int] = (0, 0, 0),
    faces: tuple[int, int] = (1, 1),
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
) -> None:
    """Write scenes in the layout of CelebA's original images, to be read with ``images="wild"``.

    Box, landmarks, attributes and identity of an image are those of its largest face. ``Anno/all_boxes.csv`` has a row
    ``image_id,x0,y0,x1,y1`` for every face, right and bottom excluded. Scenes without a face have no row anywhere;
    they lie in ``Img/faceless/train``, ``val`` and ``test``, to be read as a :class:`~facelightning.data.Folder`.

    If ``root`` already holds the same scenes, nothing is written; an interrupted run leaves no ``root``. The persons of
    four consecutive scenes are the same.

    Args:
        root: Folder to create, with its parents.
        scenes: How many scenes with faces to write for train, val and test. No identity is in two splits.
        faceless: How many scenes without a face.
        faces: The fewest and the most faces of a scene, in 1...5; fewer where there is no room.
        size: Height and width in pixels, at least 64.
        seed: The same seed gives the same files. Not negative.

    Raises:
        DataFormatError: If ``root`` exists, but is no such data set or has other parameters; nothing is changed.
        ConfigurationError: If a number is out of its range.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_scenes(Path(folder) / "scenes", (2, 1, 1), faceless=(0, 1, 1), size=(64, 64))
        ...     sorted(path.name for path in (Path(folder) / "scenes" / "Img").iterdir())
        ['faceless', 'img_celeba']
    """
    sides = min(size) < _LEAST_SIDE or max(size) > _MOST_SIDE
    if min(*scenes, *faceless, seed) < 0 or not sum(scenes) or sides or not 1 <= faces[0] <= faces[1] <= MOST_FACES:
        raise ConfigurationError(
            f"scenes {scenes}, faceless {faceless} and seed {seed} must not be negative, nor all scenes 0; sides of "
            f"size {size} must lie in {_LEAST_SIDE}...{_MOST_SIDE}, and faces {faces} be two ascending numbers in "
            f"1...{MOST_FACES}"
        )
    stamp: dict[str, object] = {"scenes": [*scenes], "faceless": [*faceless], "faces": [*faces], "size": [*size]}
    stamp |= {"seed": seed, "version": [DRAWING_VERSION, SCENES_VERSION]}
    with written_once(root, stamp) as made:
        if made is not None:
            with tqdm(total=sum(scenes) + sum(faceless), desc="drawing scenes", unit="scene") as progress:
                all_boxes = ["image_id,x0,y0,x1,y1"]
                write_celeba(made, "wild", _draw_scenes(scenes, faces, size, seed, all_boxes, progress))
                write_lines(made / "Anno" / "all_boxes.csv", all_boxes)
                _write_faceless(made / "Img" / "faceless", faceless, size, seed, progress)


def _draw_scenes(
    counts: tuple[int, int, int],
    faces: tuple[int, int],
    size: tuple[int, int],
    seed: int,
    all_boxes: list[str],
    progress: "tqdm[NoReturn]",
) -> Iterator[tuple[int, Record]]:
    """Split and record of each scene, its largest face described; the boxes of all faces are added to a list."""
    number = group = 0
    for split, count in enumerate(counts):
        for index in range(count):
            number += 1
            group += index % IMAGES_PER_IDENTITY == 0
            rng = np.random.default_rng([seed, 2, number])
            persons = [group * MOST_FACES + place for place in range(int(rng.integers(faces[0], faces[1] + 1)))]
            lasting = [sample_attributes(np.random.default_rng([seed, 3, person])) for person in persons]
            attributes = [np.where(OF_THE_MOMENT, sample_attributes(rng), traits) for traits in lasting]
            first = 2 * 10**15 + seed * 10**7  # beyond the identities of write_synthetic and of the attribution command
            drawn = [draw_face(attributes[place], first + person, number) for place, person in enumerate(persons)]
            scene = draw_scene(drawn, size, rng)
            name, largest = f"{number:06d}.jpg", scene.faces[0]
            all_boxes += [",".join(map(str, (name, *sides))) for sides in scene.boxes.tolist()]
            record = Record(name=name, image=scene.image, attributes=attributes[largest].astype(np.float32))
            record |= Record(landmarks=scene.landmarks[0], box=scene.boxes[0].astype(np.float32))
            yield split, record | Record(identity=persons[largest])
            progress.update()


def _write_faceless(
    folder: Path, counts: tuple[int, int, int], size: tuple[int, int], seed: int, progress: "tqdm[NoReturn]"
) -> None:
    for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        (folder / split).mkdir(parents=True)
        for index in range(count):
            scene = draw_scene((), size, np.random.default_rng([seed, 4, number, index]))
            write_image(folder / split / f"{index + 1:06d}.jpg", scene.image)
            progress.update()


_FACE_TO_DRAWING = np.array([[1.0, 0, 89], [0, 1, 112], [0, 0, 1]])


def _arrange(faces: Sequence[CartoonFace], size: tuple[int, int], rng: np.random.Generator) -> dict[int, Pose]:
    """For each face that has room, the affine map ``(2, 3)`` from pixels of its drawing to those of the picture."""
    poses: dict[int, Pose] = {}
    taken: list[NDArray[np.float64]] = []
    width_height = np.array(size[::-1])
    for place, face in enumerate(faces):
        _, top, _, bottom = _bounds(face.masks[0] < 128)
        left, high, right, low = _bounds(face.person[:_CHEST] > 127)
        angle = np.deg2rad(rng.uniform(-15, 15))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = np.array([(left, high), (right, high), (left, low), (right, low)]) @ turn.T
        first, extent = corners.min(axis=0), np.ptp(corners, axis=0)
        room = (width_height / extent).min() * (bottom - top) / len(faces) ** 0.5
        for _ in range(100):
            tall = np.exp(rng.uniform(np.log(SMALLEST), np.log(np.clip(room, SMALLEST, TALLEST))))
            scale = tall / (bottom - top)
            start = rng.random(2) * (width_height - scale * extent)
            area = np.concatenate([start, start + scale * extent])
            if all((area[:2] >= other[2:]).any() or (area[2:] <= other[:2]).any() for other in taken):
                taken.append(area)
                poses[place] = np.column_stack([scale * turn, start - scale * first])
                break
    return poses


def _paste(picture: Picture, face: CartoonFace, pose: Pose) -> tuple[int, int, int, int]:
    """Lay a face over the picture; returns the box of hair and face."""
    # the outer half of the soft edge has the colours of the drawing's own background
    alpha = np.clip(face.person * np.float32(2 / 255) - 1, 0, 1) * _BUST.astype(np.float32)
    return paste(picture, face.image, alpha, 1 - face.masks[0] * np.float32(1 / 255), pose)


def paste(
    picture: Picture, image: Picture, alpha: NDArray[np.float32], head: NDArray[np.float32], pose: Pose
) -> tuple[int, int, int, int]:
    """Lay what is cut out of an image over a picture, blended at its soft edge.

    Args:
        picture: What to draw on, ``(H, W, 3)``.
        image: What to draw, ``(h, w, 3)``.
        alpha: How much of each of its pixels covers the picture, ``(h, w)`` in [0, 1].
        head: How much of each belongs to hair and face, ``(h, w)`` in [0, 1].
        pose: The affine map from pixels of the image to those of the picture, ``(2, 3)``.

    Returns:
        The box of hair and face: x0, y0, x1, y1 in pixels of the picture, right and bottom excluded.
    """
    sides = np.array(alpha.shape[::-1])
    shrink = min(1.0, float(np.hypot(*pose[:, 0])))
    small = np.maximum(1, np.round(sides * shrink)).astype(int).tolist()
    factor = sides / small
    from_small = np.column_stack([pose[:, :2] * factor, pose[:, :2] @ (factor / 2 - 0.5) + pose[:, 2]])
    height, width = picture.shape[:2]
    corners = np.array([(0, 0), (sides[0], 0), (0, sides[1]), sides]) @ pose[:, :2].T + pose[:, 2]
    x, y = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, None).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (width, height)).tolist()
    from_small[:, 2] -= x, y
    layers = np.dstack([image * alpha[..., None], alpha]).astype(np.float32)
    ink, inside = (
        cv2.warpAffine(cv2.resize(part, small, interpolation=cv2.INTER_AREA), from_small, (right - x, bottom - y))
        for part in (layers, head)
    )
    area = picture[y:bottom, x:right]
    area[:] = np.clip(area * (1 - ink[..., 3:]) + ink[..., :3] + 0.5, 0, 255)
    left, top, end, low = _bounds(np.asarray(inside > 0.5))
    return left + x, top + y, end + x, low + y


def _cloth(face: CartoonFace) -> Colour:
    """The colour of a face's clothes, in its light."""
    worn = (face.masks[0] > 250) & (face.person > 250)
    worn[:200] = False
    beside = worn.copy()
    beside[:, 54:124] = False  # neck and tie
    colours = face.image[beside if beside.sum() > 20 else worn]
    return np.asarray(np.median(colours, axis=0), dtype=np.float32)


def _bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is marked, right and bottom excluded."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height
