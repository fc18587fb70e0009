"""``facelightning visualize``: draws what a trained model sees, as in the figures of the papers."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.special import entr
from torch.utils.data import DataLoader
from tqdm import tqdm

from facelightning.callbacks.figures import draw_parsing
from facelightning.cli import FaceCLI
from facelightning.commands import localization, studies
from facelightning.commands.kinds import Drawn, Kind, KindName, Subject
from facelightning.data import FaceDataModule, JointDataModule
from facelightning.errors import ConfigurationError
from facelightning.facts import shown
from facelightning.figures import Floats, channels_figure, region_weights_figure, save_image, strongest_channels
from facelightning.runs import RunFolder
from facelightning.tasks import CascadeNet, FaceTask, load_model


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
    local they are, and how much each region counts for each attribute, if the network weighs regions. Both are means
    over faces.

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
    if not possible:
        raise ConfigurationError(f"nothing to draw for {whose}: {NEEDS}")
    for name in kinds or ():
        if name not in possible:
            raise ConfigurationError(
                f"{name} cannot be drawn for {whose} and this data; possible: {', '.join(possible)}"
            )
    at_once = [name for name, kind in possible.items() if kind.at_once]
    return [possible[name] for name in kinds or at_once or list(possible)[:1]]


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
    if not all(map(describes, tasks.values())):
        found = " and ".join(f"{type(each).__name__} ({path})" for path, each in tasks.items())
        raise ConfigurationError(f"--against compares channels of AttributeNet and JointNet, but these are {found}")
    size, seen = tasks[against].facts.plain()["image_size"], list(subject.data[0].image_size)  # type: ignore[union-attr]  # built
    if size != seen:
        raise ConfigurationError(
            f"--against compares networks of one image size, but {against} sees {shown(size)}, not {shown(seen)}"
        )


def describes(task: FaceTask) -> bool:
    """Whether a network has a last map that attributes are read from."""
    return hasattr(task.network, "tail")


def with_masks(subject: Subject) -> list[FaceDataModule]:
    """The data that a parser is compared with."""
    return [module for module in subject.data if module.facts.label_space and "parsing" in subject.task.objectives]


def with_attributes(subject: Subject) -> list[FaceDataModule]:
    """The data that an attribute network describes."""
    return subject.described if describes(subject.task) else []


def draw_masks(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    """Images, their masks and what is predicted."""
    faces = [(sample["image"], sample["mask"]) for sample in subject.spread(with_masks(subject)[0])]
    yield "parsing.png", draw_parsing(subject.task, faces)


def draw_channels(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    """Region weights, if the network has them, and the strongest channels."""
    module = with_attributes(subject)[0]
    describing = {path: task for path, task in subject.tasks.items() if describes(task)}
    means = mean_over_faces(describing, subject.loader(module), subject.faces)
    if "region_weights" in means:
        names = module.facts.attributes or ()
        yield "region_weights.png", region_weights_figure(means["region_weights"].T, names, subject.task.places)
    channels = {}
    for path, task in describing.items():
        strongest = strongest_channels(means[f"channels of {path}"])
        title = f"{title_of(task)}: {path}\n{describe_locality(strongest, means.get('face'))}"
        print(title)
        channels[title] = strongest
    yield "channels.png", channels_figure(channels)


KINDS: dict[KindName, Kind] = {
    "parsing": Kind(lambda subject: bool(with_masks(subject)), draw_masks),
    "channels": Kind(lambda subject: bool(with_attributes(subject)), draw_channels),
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


@torch.inference_mode()
def mean_over_faces(networks: Mapping[str, FaceTask], loader: DataLoader[Any], faces: int) -> dict[str, Floats]:
    """Channels and region weights of networks, averaged over the first faces.

    Negative activations, which PReLU allows, are set to 0 on each face, so that they do not cancel positive ones
    on other faces.

    Args:
        networks: By name; the last is the main one.
        loader: Loads images, and whatever else the networks need.
        faces: Number of faces.

    Returns:
        - ``channels of NAME``: ``(C, h, w)``, non-negative, for each network.
        - ``region_weights``: ``(N, A)`` of the main network, if it weighs regions.
        - ``face``: ``(h, w)`` in [0, 1], the foreground share of each cell, as parsed by the last network that parses.
    """
    tasks, sums = list(networks.values()), dict[str, Tensor]()
    count, total = 0, min(faces, len(loader.dataset))  # type: ignore[arg-type]  # a sized data set
    with tqdm(total=total, desc="looking at faces", unit="face") as progress:
        for batch in loader:
            batch = {key: value[: total - count] for key, value in batch.items()}
            batch = move_data_to_device(batch, tasks[-1].device)
            outputs = {name: task.predict_batch(batch)[0] for name, task in networks.items()}
            seen = {f"channels of {name}": output["features"].clamp(min=0) for name, output in outputs.items()}
            *_, main_output = outputs.values()
            if "region_weights" in main_output:
                seen["region_weights"] = main_output["region_weights"]
            parsed = (parse(task, batch["image"]) for task in reversed(tasks))
            masks = next((masks for masks in parsed if masks is not None), None)
            if masks is not None:
                cell = -(-masks.shape[-1] // main_output["features"].shape[-1])
                seen["face"] = avg_pool2d(1 - masks[:, :1], cell, ceil_mode=True).squeeze(1)
            sums = {key: sums.get(key, 0) + value.double().sum(dim=0) for key, value in seen.items()}
            count += len(batch["image"])
            progress.update(len(batch["image"]))
            if count == total:
                break
    return {key: (value / count).cpu().numpy() for key, value in sums.items()}


def parse(task: FaceTask, images: Tensor) -> Tensor | None:
    """Probabilities ``(B, K, H, W)`` of the parser in a network; ``None`` if it has none."""
    if "parsing" in task.objectives:
        return cast(Tensor, task.network(images)["parsing"][-1].softmax(dim=1))
    regions: Any = task.network.regions
    return None if regions is None or "background" not in regions.names else regions(images, None).at(1)


def title_of(task: FaceTask) -> str:
    """A task's name, and the parts that distinguish its network.

    Example:
        >>> from facelightning.tasks import AttributeNet
        >>> from facelightning.models.pooling import PyramidPooling
        >>> title_of(AttributeNet(width=4, pooling=PyramidPooling))
        'AttributeNet, PyramidPooling'
    """
    parts = (task.settings.get(key) for key in ("encoder", "image_input", "gate", "pooling"))
    names = [part["class_path"].rpartition(".")[2] for part in parts if part is not None]
    return ", ".join([type(task).__name__, *names])


def describe_locality(maps: Floats, face: Floats | None) -> str:
    """How local channels ``(C, H, W)`` are, in words; ``face``, ``(H, W)`` in [0, 1], marks face and hair.

    Example:
        >>> print(describe_locality(np.array([[[3.0, 1.0]], [[0.0, 4.0]]]), np.array([[1.0, 0.5]])))
        mean entropy 0.41 of at most 1.00 bits; 69 % of the activation on face and hair (75 % of the image)
    """
    text = f"mean entropy {activation_entropy(maps):.2f} of at most {math.log2(maps[0].size):.2f} bits"
    if face is None or face.shape != maps.shape[1:]:  # or parsed at the other network's cell size
        return text
    share, area = 100 * share_inside(maps, face), 100 * face.mean()
    return f"{text}; {share:.0f} % of the activation on face and hair ({area:.0f} % of the image)"


def activation_entropy(maps: Floats) -> float:
    """The mean entropy, in bits, of channels that are each normalised to a distribution over space.

    0 for channels that are active in one place only, log₂(H·W) for uniform ones. A channel that is zero everywhere
    does not count; NaN if all are.

    Shape:
        - maps: ``(C, H, W)``, non-negative.

    Example:
        >>> activation_entropy(np.array([[[1.0, 1.0]], [[5.0, 0.0]]]))
        0.5
    """
    active = torch.from_numpy(maps[maps.any(axis=(1, 2))]).double()
    nats = entr(active / active.sum(dim=(1, 2), keepdim=True)).sum(dim=(1, 2))
    return float(nats.mean() / math.log(2))


def share_inside(maps: Floats, mask: Floats) -> float:
    """The share of all channels' activation that lies within a mask; NaN if there is no activation.

    Shape:
        - maps: ``(C, H, W)``, non-negative.
        - mask: ``(H, W)`` in [0, 1]; a fraction counts in part.

    Example:
        >>> share_inside(np.array([[[3.0, 1.0]], [[0.0, 4.0]]]), np.array([[1.0, 0.5]]))
        0.6875
    """
    total = maps.sum(dtype=np.float64)
    return float((maps * mask).sum(dtype=np.float64) / total) if total else math.nan
