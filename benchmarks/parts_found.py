"""How often a parser finds the parts of CelebA's aligned faces where they are, and parts of faces where none can be.

    python benchmarks/parts_found.py --celeba /path/to/celeba --parsers runs/segnet/version_0/checkpoints/best.ckpt ...

CelebA has no masks. But eyes, nose and mouth lie in nearly the same place of each aligned image: a part is found if a
thousandth of the image in a window around that place is likeliest of its class. Beside it stands how often as much is
likeliest eyes, eyebrows, mouth or nose outside the box of all windows. Last comes how sharp the masks are: the share of
these parts' probabilities that lies where their class is the likeliest. Validation images.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from facelightning.data import CelebADataModule
from facelightning.models import ParserRegions

WINDOWS = {
    "left eye": ("eyes", 92, 132, 40, 88),
    "right eye": ("eyes", 92, 132, 90, 138),
    "eyebrows": ("eyebrows", 76, 116, 40, 138),
    "mouth": ("mouth", 136, 172, 60, 118),
    "nose": ("nose", 106, 148, 68, 110),
}
"""Of each part: its class; first and last row, first and last column in an image of 218×178."""


@torch.inference_mode()
def found(parser: ParserRegions, data: CelebADataModule) -> dict[str, float]:
    """The share of images in which each part is found, and of the parts' masks that lies in them, in percent."""
    inside_and_all = torch.zeros(2)
    hits = dict.fromkeys((*WINDOWS, "parts elsewhere"), 0)
    parts = torch.tensor(parser.label_space.part_indices)
    data.setup("validate")
    for batch in tqdm(data.val_dataloader(), desc="parsing", unit="batch"):
        masks = parser.parse(batch["image"]).at(1)
        classes = masks.argmax(dim=1)
        of_parts = masks[:, parts]
        inside_and_all[0] += of_parts[classes.unsqueeze(1) == parts.view(-1, 1, 1)].sum()
        inside_and_all[1] += of_parts.sum()
        height, width = classes.shape[1:]
        enough, elsewhere = height * width / 1000, torch.isin(classes, parts)
        for name, (label, *edges) in WINDOWS.items():
            top, bottom = (round(edge * height / 218) for edge in edges[:2])
            left, right = (round(edge * width / 178) for edge in edges[2:])
            inside = classes[:, top:bottom, left:right] == parser.label_space.index(label)
            hits[name] += int((inside.sum(dim=(1, 2)) >= enough).sum())
        tops, bottoms, lefts, rights = zip(*(edges for _, *edges in WINDOWS.values()), strict=True)
        rows = slice(round(min(tops) * height / 218), round(max(bottoms) * height / 218))
        columns = slice(round(min(lefts) * width / 178), round(max(rights) * width / 178))
        elsewhere[:, rows, columns] = False
        hits["parts elsewhere"] += int((elsewhere.sum(dim=(1, 2)) >= enough).sum())
    shares = {name: count / len(data.dataset("val")) for name, count in hits.items()}
    shares["of masks inside"] = float(inside_and_all[0] / inside_and_all[1])
    return {name: round(100 * share, 1) for name, share in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=Path, required=True, help="folder of CelebA")
    parser.add_argument("--parsers", nargs="+", required=True, help="checkpoints of SegNets, of seven classes")
    parser.add_argument("--size", type=int, nargs=2, default=(109, 89), help="height and width of the images")
    asked = parser.parse_args()
    for path in asked.parsers:
        data = CelebADataModule(str(asked.celeba), image_size=tuple(asked.size), batch_size=64, num_workers=0)
        print(path, json.dumps(found(ParserRegions(path), data)))


if __name__ == "__main__":
    main()
