"""Landmarks of CelebA's aligned images by a parser, where none were annotated, for the rows BBox and PANDA-l.

    python benchmarks/landmarks.py --celeba CELEBA --parser PARSER.ckpt --output list_landmarks_align_celeba.csv

Put the file beside CelebA's other annotations. Eyes, nose and mouth are the centroids of the pixels of their class, in
a window around their usual place; the tip of a nose lies a little below, and the corners of a mouth two standard
deviations to the left and right. Where a class covers less than a thousandth of the image, the usual place stays.
Printed is the share of images in which each part was found.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import cv2
import torch
from parts_found import WINDOWS
from torch import Tensor
from tqdm import tqdm

from facelightning.boxes import POINTS
from facelightning.data.celeba import read_celeba
from facelightning.labels import LabelSpace
from facelightning.models import ParserRegions

USUAL = {"left eye": (69.0, 111.0), "right eye": (108.0, 111.0), "nose": (88.0, 127.0), "mouth": (89.0, 152.0)}
"""Where the middle of each part lies in an aligned image of 218×178: x, y in pixels."""

TIP, CORNER = 8.0, 16.0
"""How far a nose's tip lies below its middle, and the corners of a mouth that was not found beside its middle."""

BATCH = 64
"""Images that are parsed at once."""


def landmarks(classes: Tensor, label_space: LabelSpace) -> tuple[Tensor, dict[str, Tensor]]:
    """The five landmarks of aligned images, and in which images each part was found.

    Shape:
        - classes: ``(B, H, W)``, the likeliest class of each pixel.
        - return: ``(B, 5, 2)``, x, y from the corner of an image of 218×178; for each part ``(B,)``, whether it was
          found.
    """
    height, width = classes.shape[1:]
    rows, columns = (torch.arange(count) + 0.5 for count in (height, width))
    y, x = (rows * 218 / height).double(), (columns * 178 / width).double()
    points, found = dict[str, Tensor](), dict[str, Tensor]()
    half = torch.empty(0)
    for name, usual in USUAL.items():
        label, top, bottom, left, right = WINDOWS[name]
        window = ((y >= top) & (y < bottom)).unsqueeze(1) & (x >= left) & (x < right)
        mask = (window & (classes == label_space.index(label))).double()
        area = mask.sum(dim=(1, 2), keepdim=True)
        found[name] = area.flatten() >= height * width / 1000
        mask /= area
        across = mask.sum(dim=1)
        middle = torch.stack([across @ x, mask.sum(dim=2) @ y], dim=1)
        points[name] = torch.where(found[name].unsqueeze(1), middle, torch.tensor(usual).double())
        if name == "mouth":
            spread = (across @ x.square() - middle[:, 0].square()).clamp(min=0).sqrt()
            half = torch.where(found[name], 2 * spread, CORNER)
    corner = torch.stack([half, torch.zeros_like(half)], dim=1)
    tip = points["nose"] + torch.tensor([0, TIP])
    five = points["left eye"], points["right eye"], tip, points["mouth"] - corner, points["mouth"] + corner
    return torch.stack(five, dim=1), found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, required=True, help="folder of CelebA")
    parser.add_argument("--parser", required=True, help="checkpoint of a SegNet of seven classes")
    parser.add_argument("--output", type=Path, required=True, help="file to write, which must not exist")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width of what is parsed")
    asked = parser.parse_args()
    if asked.output.exists():
        sys.exit(f"landmarks: {asked.output} exists: remove it, or write another file")
    regions, records = ParserRegions(asked.parser), read_celeba(asked.celeba)["all"]
    rows, counts = list[list[object]](), dict.fromkeys(USUAL, 0)
    for start in tqdm(range(0, len(records), BATCH), desc="parsing", unit="batch"):
        some = [records[number] for number in range(start, min(start + BATCH, len(records)))]
        shrunk = [cv2.resize(each["image"], asked.size[::-1], interpolation=cv2.INTER_AREA) for each in some]
        images = torch.stack([torch.from_numpy(image).movedim(2, 0) for image in shrunk])
        points, found = landmarks(regions.parse(images).at(1).argmax(dim=1), regions.label_space)
        for name, where in found.items():
            counts[name] += int(where.sum())
        for record, five in zip(some, points, strict=True):
            height, width, _ = record["image"].shape
            # CelebA's are numbers of pixels: the middle of the first is 0, not 0.5
            places = five * torch.tensor([width / 178, height / 218]) - 0.5
            rows.append([record["name"], *(f"{value:.1f}" for value in places.flatten())])
    with asked.output.open("w", newline="") as file:
        csv.writer(file).writerows([["image_id", *POINTS], *rows])
    print(json.dumps({name: round(100 * count / len(rows), 1) for name, count in counts.items()}))


if __name__ == "__main__":
    main()
