"""Does semantic pooling look in the right place? On synthetic faces, where each attribute's own region is known.

    python benchmarks/region_preference.py runs/quickstart/version_0/checkpoints/best.ckpt

Prints for how many of the local attributes the region that the model weighs most, on average over the validation
faces, is one in which the attribute lives (``facelightning.labels.ATTRIBUTE_REGIONS``). The faces are those that the
configuration beside the checkpoint names; run it where the training was run.
"""

import argparse
from pathlib import Path

import torch
import yaml

from facelightning import SyntheticDataModule, load_model
from facelightning.labels import ATTRIBUTE_REGIONS, ATTRIBUTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="of a model with semantic pooling")
    args = parser.parse_args()

    task = load_model(args.checkpoint)
    regions = task.regions
    if regions is None:
        parser.error(f"{args.checkpoint} holds a model that weighs no regions")
    config = yaml.safe_load(Path(args.checkpoint).parents[1].joinpath("config.yaml").read_text())
    data = SyntheticDataModule(**config["data"]["init_args"])
    data.prepare_data()
    data.setup("validate")
    with torch.no_grad():
        weights = [task.region_weights(batch) for batch in data.parts["attributes"].val_dataloader()]
    preferred = torch.cat(weights).mean(dim=0).argmax(dim=0)  # of (faces, regions, attributes)

    local = [name for name in ATTRIBUTES if ATTRIBUTE_REGIONS[name]]
    found = {name: regions[int(preferred[ATTRIBUTES.index(name)])] for name in local}
    for name, region in found.items():
        print(f"{'   ' if region in ATTRIBUTE_REGIONS[name] else 'not'} {name:20} {region}")
    right = sum(region in ATTRIBUTE_REGIONS[name] for name, region in found.items())
    print(f"right region: {right} of {len(local)} local attributes")


if __name__ == "__main__":
    main()
