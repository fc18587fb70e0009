"""``facelightning shard``: write a data set as shards, a few large files that can be read from afar."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.cli import LightningArgumentParser

from facelightning.cli import FaceCLI
from facelightning.data import FaceDataModule, JointDataModule, ShardsDataModule
from facelightning.data.shard_writing import write_shards
from facelightning.errors import ConfigurationError, reading

PARTS = {"parsing_batch": "parsing", "attribute_batch": "attributes"}
"""The folders of the parts of a joint data module, named as its arguments."""


class ShardCLI(FaceCLI):
    """The options of a training, of which the data's count, and where to write."""

    own_command = "shard"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of `fit`, and more."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--output", type=str, help="Folder to write to: a new one, or an empty one.")
        parser.add_argument("--images_per_shard", type=int, default=2000, help="Images of a file.")


def main(args: Sequence[str]) -> None:
    """Write the data of a configuration, and say what was written."""
    words = list(args)
    if words and not words[0].startswith("-"):
        words = [f"--config={words[0]}", *words[1:]]
    cli = ShardCLI(words)
    output, images, data = cli.config["output"], cli.config["images_per_shard"], cli.datamodule
    if output is None or images < 1:
        raise ConfigurationError("shard needs a folder to write to, --output=FOLDER, and a positive images_per_shard")
    if cli.trainer.world_size > 1:
        raise ConfigurationError("shard is one process, whose data.num_workers write: leave out devices")
    joint = isinstance(data, JointDataModule)
    parts = {PARTS[name]: part for name, part in data.parts.items()} if joint else {"": data}
    if not all(isinstance(part, FaceDataModule) and not isinstance(part, ShardsDataModule) for part in parts.values()):
        raise ConfigurationError("shard writes data of facelightning that is not in shards yet: name it with --data")
    folder = Path(output).expanduser()
    with reading(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(f"shard: {folder} is there, and not an empty folder: name a new one, or delete it")
    data.prepare_data()
    for name, part in parts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        index, encoded = write_shards(part, folder / name, images)
        every = [shard for shards in index.splits.values() for shard in shards]
        count, size = sum(shard.images for shard in every), sum(shard.size for shard in every)
        print(
            f"written: {folder / name} ({count} images in {len(every)} shards, {size / 1e6:.1f} MB); {encoded} images "
            "are encoded anew as JPEG of quality 95, the others are their files' own bytes"
        )
