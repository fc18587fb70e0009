"""``facelightning visualize``: draws what a trained model sees, as in the figures of the papers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.cli import LightningArgumentParser

from facelightning.callbacks.figures import parse
from facelightning.cli import FaceCLI
from facelightning.commands import channels, localization, studies
from facelightning.commands.kinds import Drawn, Kind, KindName, Subject
from facelightning.data import FaceDataModule, JointDataModule
from facelightning.errors import ConfigurationError
from facelightning.facts import shown
from facelightning.figures import save_image
from facelightning.runs import RunFolder
from facelightning.tasks import CascadeNet, load_model


def visualize(
    ckpt_path: str,
    data: FaceDataModule | JointDataModule,
    against: str | None = None,
    beside: dict[str, list[str]] | None = None,
    boxes: str | None = None,
    output: str | None = None,
    faces: int = 256,
    split: Literal["val", "test"] = "test",
    kinds: list[KindName] | None = None,
) -> None:
    """Draw what a trained model sees and has learned, as in the papers' figures, as far as model and data allow.

    Of parsers and attribute networks, as in Kalayeh et al. (CVPR 2017), Figures 3 to 5: ``parsing`` is image, ground
    truth and prediction of six images; ``channels``, the 50 strongest channels of the last map, with measures of how
    local they are; with them, how much each region counts for each attribute, if the network weighs regions, and where
    each of its parser's classes lies. These three are means over faces, and show no person.

    Of cascades, as in Liu et al. (ICCV 2015), Figures 6 and 7: ``responses``, from LNet's responses to the faces of six
    images; ``recall`` against overlap with true boxes, and its numbers as recall.json.

    Of attribute networks, as in Liu et al., Figures 8 to 11: ``neurons``, mean faces of a neuron's high, medium and low
    responses; ``groups``, attributes whose weights are alike; ``attribute_regions``, where the evidence for each
    attribute lies; ``layers``, with a table, how right SVMs are that are fitted to each layer of ANet on val, and
    tested on test. That takes minutes.

    Args:
        ckpt_path: Checkpoint of the model.
        data: Data module of one data set, or of two.
        against: Checkpoint of a second network, whose channels are drawn above those of the first.
        beside: Checkpoints of other cascades, whose recall is drawn beside that of the first, by their names in the
            legend. Several of one name are its seeds, and so are those with the name of the first one's run.
        boxes: Table of the true boxes of every face, such as Anno/all_boxes.csv of drawn scenes; if not given, the
            data's own box of the largest face of each image.
        output: Folder of the images; if not given, figures/visualize_SPLIT in the run folder, beside the figures of the
            training, or here if the checkpoint is in no run folder.
        faces: Number of faces to average over, the first of the split.
        split: The split of all data sets.
        kinds: What to draw. If not given, the first four, as far as possible; of ANet and IdentityNet the neurons.
    """
    if faces < 1:
        raise ConfigurationError(f"faces must be positive, not {faces}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    others = [path for paths in (beside or {}).values() for path in paths]
    # the order from top to bottom: the paper has average pooling above SSP
    paths = [path for path in (*others, against, ckpt_path) if path is not None]
    tasks = {path: load_model(path).to(device) for path in sorted(paths, key=ckpt_path.__eq__)}
    parts = list(data.parts.values()) if isinstance(data, JointDataModule) else [data]
    subject = Subject(
        ckpt_path=ckpt_path,
        tasks=tasks,
        data=parts,
        against=against,
        split=split,
        faces=faces,
        beside=beside,
        boxes=boxes,
    )
    task = subject.task
    check_against(subject)
    check_beside(subject)
    task.any_size = True  # the command line took the checkpoint's size, or was given another
    for module in parts:
        task.check(module.facts, "the data")
    chosen = choose(kinds, subject)
    data.prepare_data()
    run = RunFolder.of_checkpoint(ckpt_path)
    figures = run.figures if run is not None else Path("figures")
    folder = Path(output) if output is not None else figures / f"visualize_{split}"  # the training draws its own
    for kind in chosen:
        for name, drawn in kind.draw(subject):
            write(folder / name, drawn)


def choose(kinds: Sequence[KindName] | None, subject: Subject) -> list[Kind]:
    """What to draw: what is asked for, or else what is quick and possible."""
    possible = {name: kind for name, kind in KINDS.items() if kind.fits(subject)}
    whose = f"{type(subject.task).__name__} ({subject.ckpt_path})"
    for name in kinds or ():
        if name not in possible:
            raise ConfigurationError(
                f"{name} cannot be drawn for {whose} and this data; possible: {', '.join(possible)}"
            )
    at_once = [name for name, kind in possible.items() if kind.at_once]
    chosen = kinds or at_once or [name for name in possible if name == "neurons"]
    if not chosen:
        raise ConfigurationError(f"nothing to draw for {whose}: {NEEDS}")
    return [possible[name] for name in chosen]


def check_beside(subject: Subject) -> None:
    """Refuse what is no cascade beside a cascade."""
    others = [path for paths in (subject.beside or {}).values() for path in paths]
    for path in (*others, subject.ckpt_path) if others else ():
        if not isinstance(subject.tasks[path], CascadeNet):
            found = type(subject.tasks[path]).__name__
            raise ConfigurationError(f"--beside compares cascades, but {path} holds {found}")


def check_against(subject: Subject) -> None:
    """Refuse a second network whose channels cannot be drawn above those of the first."""
    against = subject.against
    if against is None:
        return
    tasks = {path: subject.tasks[path] for path in (against, subject.ckpt_path)}
    if not all(map(channels.describes, tasks.values())):
        found = " and ".join(f"{type(each).__name__} ({path})" for path, each in tasks.items())
        raise ConfigurationError(f"--against compares channels of AttributeNet and JointNet, but these are {found}")
    size, seen = tasks[against].facts.plain()["image_size"], list(subject.data[0].image_size)  # type: ignore[union-attr]  # built
    if size != seen:
        raise ConfigurationError(
            f"--against compares networks of one image size, but {against} sees {shown(size)}, not {shown(seen)}"
        )


def with_masks(subject: Subject) -> list[FaceDataModule]:
    """The data that a parser is compared with."""
    return [module for module in subject.data if module.facts.label_space and "parsing" in subject.task.objectives]


def draw_masks(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    """Images, their masks and what is predicted."""
    faces = [(sample["image"], sample["mask"]) for sample in subject.spread(with_masks(subject)[0])]
    yield "parsing.png", parse(subject.task, faces).draw()


KINDS: dict[KindName, Kind] = {
    "parsing": Kind(lambda subject: bool(with_masks(subject)), draw_masks),
    **channels.KINDS,
    **localization.KINDS,
    **studies.KINDS,
}
"""All that can be drawn, in this order."""

NEEDS = (
    "SegNet and JointNet need data with masks, AttributeNet and JointNet data with attributes, CascadeNet LNets or "
    "true boxes; of EnsembleNet draw the members"
)
"""What can be drawn, in words."""


class VisualizeCLI(FaceCLI):
    """The options of :func:`visualize`, and those of the data."""

    own_command = "visualize"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """``--data`` defines the data module."""
        parser.add_function_arguments(visualize, skip={"data"})


def main(args: Sequence[str]) -> None:
    """The command line of :func:`visualize`."""
    cli = VisualizeCLI(args)
    options = {key: cli.config[key] for key in signature(visualize).parameters if key != "data"}
    visualize(data=cli.datamodule, **options)


def write(path: Path, drawn: Drawn) -> None:
    """Save an image, or numbers as JSON, and say so, also if it replaces one."""
    verb = "replaced" if path.exists() else "written"
    try:
        if isinstance(drawn, Mapping):
            drawn = json.dumps(drawn, indent=2, allow_nan=False) + "\n"
        if isinstance(drawn, str):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(drawn, encoding="utf-8")
        else:
            save_image(path, drawn)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}; choose another --output") from None
    print(f"{verb}: {path}")
