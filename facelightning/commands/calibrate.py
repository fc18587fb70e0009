"""``facelightning calibrate``: probabilities that mean what they say, and a threshold for each attribute."""

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_info

from facelightning.checkpoint import Checkpoint
from facelightning.cli import FaceCLI, options, own_data
from facelightning.errors import ConfigurationError
from facelightning.figures import reliability_figure, save_image
from facelightning.runs import RunFolder

USAGE = """usage: facelightning calibrate CHECKPOINT [--data.root FOLDER] [--model.criterion NAME] [--KEY VALUE ...]

Fits a temperature and a threshold for each attribute to the validation split of the data that the checkpoint was
trained on, scores its test split before and after, draws the reliability of the probabilities, and writes one
checkpoint, runs/calibrated/version_N/checkpoints/best.ckpt, which tests, predicts and loads like any other.

  --model.criterion   what the thresholds make best: balanced_accuracy (default), f1 or cost
  --model.miss_cost   for cost: what a miss costs, if a false alarm costs 1

All other keys are those of `facelightning test`."""


def main(args: Sequence[str]) -> None:
    """Calibrate a checkpoint, and draw what has changed."""
    words = list(args)
    if {"-h", "--help"} & set(words):
        print(USAGE)
        return
    for start, end, named in options(words, "--ckpt_path"):  # the other commands' spelling
        words = [named, *words[:start], *words[end:]]
    if not words or words[0].startswith("-"):
        raise ConfigurationError("calibrate needs a checkpoint: facelightning calibrate runs/NAME/…/best.ckpt")
    path, *words = words
    data = own_data(words, Checkpoint.read(path))
    cli = FaceCLI(["test", "--config=calibrated.yaml", *data, f"--model.network={path}"], ["calibrate", *args])
    folder = RunFolder.of(cli.trainer)
    if folder is None:
        raise ConfigurationError("calibrate writes a checkpoint into the run folder: leave out --trainer.logger=false")
    curves = cli.model.results["test"]["attributes"]["reliability"]
    if cli.trainer.is_global_zero and all(curves.values()):  # without a label there is nothing to draw
        picture = folder.figures / "reliability.png"
        save_image(picture, reliability_figure(curves))
        rank_zero_info(f"written: {picture}")
    rank_zero_info(f"written: {folder.best}")
