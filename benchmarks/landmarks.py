"""Landmarks of CelebA's aligned images by a parser, where none were annotated, for the rows BBox and PANDA-l.

    python benchmarks/landmarks.py --celeba /path/to/celeba --parser PARSER.ckpt --output data/celeba_landmarks

Eyes, nose and mouth are the centroids of the pixels likeliest of their class, in a window around their usual place; the
tip of a nose lies a little below, and the corners of a mouth two standard deviations to the left and right. Where a
class covers less than a thousandth of the image, the usual place stays. The new folder has the file of landmarks, and
links to CelebA's own files. Printed is the share of images in which each part was found.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from parts_found import WINDOWS
from torch import Tensor
from tqdm import tqdm

from facelightning.boxes import POINTS
from facelightning.data.celeba import LANDMARK_FILES, find_annotation, read_celeba
from facelightning.data.transforms import FaceDataset, FaceTransform
from facelightning.labels import LabelSpace
from facelightning.models import ParserRegions

USUAL = {"left eye": (69.0, 111.0), "right eye": (108.0, 111.0), "nose": (88.0, 127.0), "mouth": (89.0, 152.0)}
"""Where the middle of each part lies in an aligned image of 218×178: x, y in pixels."""

TIP, CORNER = 8.0, 16.0
"""How far a nose's tip lies below its middle, and a usual mouth's corners beside it."""

BATCH = 64
"""Images that are parsed at once."""


def landmarks(classes: Tensor, label_space: LabelSpace) -> tuple[Tensor, dict[str, Tensor]]:
    """The five landmarks of aligned images, and in which images each part was found.

    Shape:
        - classes: ``(B, H, W)``, the likeliest of each pixel.
        - return: ``(B, 5, 2)``, x, y in pixels of 218×178; of each part ``(B,)``.
    """
    height, width = classes.shape[1:]
    rows, columns = (torch.arange(count) + 0.5 for count in (height, width))
    y, x = (rows * 218 / height).double(), (columns * 178 / width).double()
    points, found = dict[str, Tensor](), dict[str, Tensor]()
    for name, usual in USUAL.items():
        label, top, bottom, left, right = WINDOWS[name]
        window = ((y >= top) & (y < bottom)).unsqueeze(1) & (x >= left) & (x < right)
        mask = (window & (classes == label_space.index(label))).double()
        area = mask.sum(dim=(1, 2), keepdim=True)
        found[name] = area.flatten() >= height * width / 1000
        mask /= area
        across = mask.sum(dim=1)
        middle = torch.stack([across @ x, mask.sum(dim=2) @ y], dim=1)
        spread = (across @ x.square() - middle[:, 0].square()).clamp(min=0).sqrt()
        points[name] = torch.where(found[name].unsqueeze(1), middle, torch.tensor(usual).double())
    half = torch.where(found["mouth"], 2 * spread, CORNER)
    corner = torch.stack([half, torch.zeros_like(half)], dim=1)
    tip = points["nose"] + torch.tensor([0, TIP])
    five = points["left eye"], points["right eye"], tip, points["mouth"] - corner, points["mouth"] + corner
    return torch.stack(five, dim=1), found


def linked(celeba: Path, output: Path) -> None:
    """A folder with links to CelebA's files."""
    for source in (*celeba.glob("*/*"), *celeba.glob("*.*")):
        place = output / source.relative_to(celeba)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.resolve())


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, required=True, help="folder of CelebA")
    parser.add_argument("--parser", required=True, help="checkpoint of a SegNet of seven classes")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width of what is parsed")
    asked = parser.parse_args()
    file = Path("Anno") / f"{LANDMARK_FILES['aligned']}.txt"
    if (known := find_annotation(asked.celeba, file.stem)) is not None:
        sys.exit(f"landmarks: {known} has annotated landmarks: use {asked.celeba} as it is")
    asked.output.mkdir(parents=True)
    regions, records = ParserRegions(asked.parser), read_celeba(asked.celeba)["all"]
    height, width, _ = records[0]["image"].shape
    faces = FaceDataset(records, FaceTransform(tuple(asked.size), None, ()))
    rows, counts = [], dict.fromkeys(USUAL, 0)
    for start in tqdm(range(0, len(records), BATCH), desc="parsing", unit="batch"):
        numbers = range(start, min(start + BATCH, len(records)))
        images = torch.stack([faces[number, 0]["image"] for number in numbers])
        classes = regions.parse(images).at(1).argmax(dim=1)
        points, found = landmarks(classes, regions.label_space)
        rows += (points * torch.tensor([width / 178, height / 218])).flatten(1).tolist()
        for name, where in found.items():
            counts[name] += int(where.sum())
    linked(asked.celeba, asked.output)
    lines = [str(len(rows)), " ".join(POINTS)]
    for name, row in zip(records.names, rows, strict=True):
        lines.append(" ".join([str(name), *(f"{value:.1f}" for value in row)]))
    (asked.output / file).write_text("\n".join(lines) + "\n")
    print(json.dumps({name: round(100 * count / len(rows), 1) for name, count in counts.items()}))


if __name__ == "__main__":
    main()
