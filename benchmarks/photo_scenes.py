"""Scenes with photographed faces: CelebA's aligned photographs, cut out and pasted anywhere onto drawn clutter.

    python benchmarks/photo_scenes.py --celeba /path/to/celeba --parser segnet.ckpt --output data/photo_scenes
    facelightning fit --config lnet_o.yaml --recipe=scenes --data=CelebADataModule --data.images=wild \
      --data.root=data/photo_scenes

They are what drawn scenes are, faces with attribute tags and known boxes, but of real people. A trained SegNet finds
hair and face; its probability is the soft edge of the cut. The outlines of one to three other faces are cut alike and
filled with what is no face, so that neither an edge nor an outline gives a face away. Treat the result as you treat
CelebA: it shows real people.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from tqdm import tqdm

from facelightning.data.celeba import read_celeba
from facelightning.data.files import SPLITS, Record
from facelightning.data.synthetic.clutter import Picture, Pose, draw_clutter
from facelightning.data.synthetic.dataset import write_celeba, written_once
from facelightning.data.synthetic.scenes import SMALLEST, paste
from facelightning.errors import ConfigurationError, FacelightningError
from facelightning.tasks import SegNet
from facelightning.tasks.base import trained

BATCH_SIZE = 64
LEAST_SIDE = 64  # of a scene, in pixels
TALLEST = 0.7  # height of a head in the scene's shorter side
LEAST_AREA = 0.05  # of a photograph that is hair and face; with less, the parser has missed the face


class Head(NamedTuple):
    """A photograph ``(h, w, 3)``, and how much of each pixel is hair and face, ``(h, w)`` in [0, 1]."""

    photograph: Picture
    alpha: NDArray[np.float32]


@torch.no_grad()
def cut_out(parser: SegNet, photographs: list[Picture]) -> list[Head]:
    """Hair and face of each photograph, by the parser's probability of all that is not background."""
    assert parser.facts is not None
    height, width = parser.facts.image_size
    seen = [cv2.resize(each, (width, height), interpolation=cv2.INTER_AREA) for each in photographs]
    logits = parser(torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2))["parsing"][-1]
    inside = 1 - logits.softmax(dim=1)[:, :1]
    return [
        Head(photograph, feathered(interpolate(each[None], photograph.shape[:2], mode="bilinear")[0, 0].numpy()))
        for photograph, each in zip(photographs, inside, strict=True)
    ]


def feathered(inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest piece of a soft mask, its edge softer, and fading out towards the ends of the photograph."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats((inside > 0.5).astype(np.uint8))
    if count == 1:  # the background alone
        return np.zeros_like(inside)
    largest = (pieces == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    height, width = inside.shape
    reach = max(1, height // 50)
    near = cv2.dilate(largest, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    soft = cv2.GaussianBlur(inside * near, (0, 0), height / 100)
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.06 * n) for n in (height, width))
    return np.asarray(soft * np.minimum(down[:, None], across).clip(max=1), np.float32)


def phase_scrambled(photograph: Picture, rng: np.random.Generator) -> Picture:
    """Texture with a photograph's colours and spatial frequencies, and none of its shapes."""
    height, width = photograph.shape[:2]
    phases = np.angle(np.fft.rfft2(rng.random((height, width))))
    spectrum = np.fft.rfft2(photograph, axes=(0, 1)) * np.exp(1j * phases)[..., None]  # one shift for all channels
    texture = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    return np.asarray(texture.round().clip(0, 255), np.uint8)


def pose_of(head: Head, size: tuple[int, int], rng: np.random.Generator) -> Pose:
    """A random scale, tilt of up to 15° and place within the scene: pixels of the photograph to those of the scene."""
    x, y, width, height = cv2.boundingRect((head.alpha > 0.5).astype(np.uint8))
    angle = np.deg2rad(rng.uniform(-15, 15))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([(x, y), (x + width, y), (x, y + height), (x + width, y + height)]) @ turn.T
    first, extent = corners.min(axis=0), np.ptp(corners, axis=0)
    tall = np.exp(rng.uniform(np.log(SMALLEST), np.log(TALLEST * min(size))))
    scale = min(tall / height, *(np.array(size[::-1]) / extent))  # a wide head must have room, too
    start = rng.random(2) * (size[::-1] - scale * extent)
    return np.column_stack([scale * turn, start - scale * first])


def make_scene(
    face: Head, others: list[Head], size: tuple[int, int], rng: np.random.Generator
) -> tuple[Picture, NDArray[np.float32]]:
    """A face among non-faces on clutter, and the box of its hair and face."""
    picture = draw_clutter(size, rng)
    for other in others:
        scrambled = rng.random() < 0.5
        filling = phase_scrambled(other.photograph, rng) if scrambled else draw_clutter(other.alpha.shape, rng)
        paste(picture, filling, other.alpha, other.alpha, pose_of(other, size, rng))
    box = paste(picture, face.photograph, face.alpha, face.alpha, pose_of(face, size, rng))
    if rng.random() < 0.5:
        noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(2, 10))
        picture = np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U), np.uint8)
    return picture, np.array(box, np.float32)


def make_scenes(
    celeba: Path, parser: SegNet, size: tuple[int, int], seed: int, most: Sequence[int]
) -> Iterator[tuple[int, Record]]:
    """Split and record of a scene for each of the first photographs of each split whose face the parser has found."""
    splits = read_celeba(celeba)
    counts = {split: min(len(splits[split]), limit) for split, limit in zip(SPLITS, most, strict=True)}
    missed = 0
    with tqdm(total=sum(counts.values()), desc="making scenes", unit="scene") as progress:
        for number, (split, count) in enumerate(counts.items()):
            for start in range(0, count, BATCH_SIZE):
                records = [splits[split][row] for row in range(start, min(start + BATCH_SIZE, count))]
                heads = cut_out(parser, [record["image"] for record in records])
                found = [place for place, head in enumerate(heads) if (head.alpha > 0.5).mean() >= LEAST_AREA]
                missed += len(heads) - len(found)
                for place in found:
                    rng = np.random.default_rng([seed, number, start + place])
                    beside = [other for other in found if other != place] or [place]
                    others = [heads[other] for other in rng.choice(beside, int(rng.integers(1, 4)))]
                    image, box = make_scene(heads[place], others, size, rng)
                    records[place].pop("landmarks", None)  # of the photograph, not of the scene
                    yield number, Record(**{**records[place], "image": image, "box": box})
                progress.update(len(records))
    if missed:
        print(f"{missed} photographs are left out: the parser sees no face in them")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, required=True, help="root folder of CelebA's aligned photographs")
    parser.add_argument("--parser", type=Path, required=True, help="checkpoint of a SegNet")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to create, in the layout of CelebA's originals"
    )
    every = (sys.maxsize,) * len(SPLITS)
    parser.add_argument(
        "--photographs", type=int, nargs=3, default=every, help="of each split at most; all if not given"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), help="height and width of a scene in pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    size = (args.size[0], args.size[1])
    try:
        if min(size) < LEAST_SIDE or min(args.seed, *args.photographs) < 0:
            raise ConfigurationError(
                f"a scene's sides must be {LEAST_SIDE} pixels at least, and the seed and the counts not negative"
            )
        read_celeba(args.celeba)  # a wrong folder is refused before anything is loaded
        _, task = trained(str(args.parser), (SegNet,), "the parser", "segnet")
        assert isinstance(task, SegNet)
        about = {"celeba": str(args.celeba.resolve()), "parser": crc32(args.parser.read_bytes())}
        about |= {"photographs": [*args.photographs]} if args.photographs != every else {}
        with written_once(args.output, {"size": [*size], "seed": args.seed, **about}) as made:
            if made is not None:
                write_celeba(made, "wild", make_scenes(args.celeba, task.eval(), size, args.seed, args.photographs))
    except FacelightningError as error:
        sys.exit(f"photo_scenes: {error}")


if __name__ == "__main__":
    main()
