"""What the channels of a network's last map respond to, and how local they are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.special import entr
from torch.utils.data import DataLoader
from tqdm import tqdm

from facelightning.commands.kinds import Drawn, Kind, KindName, Subject
from facelightning.data import FaceDataModule
from facelightning.figures import Floats, channels_figure, mean_masks_figure, region_weights_figure, strongest_channels
from facelightning.labels import LabelSpace
from facelightning.models import ParserRegions
from facelightning.tasks import FaceTask


def describes(task: FaceTask) -> bool:
    """Whether a network has a last map that attributes are read from."""
    return hasattr(task.network, "tail")


def with_attributes(subject: Subject) -> list[FaceDataModule]:
    """The data that an attribute network describes."""
    return subject.described if describes(subject.task) else []


def draw_channels(subject: Subject) -> Iterator[tuple[str, Drawn]]:
    """Region weights and the parser's masks, if the network has them, and the strongest channels."""
    module = with_attributes(subject)[0]
    describing = {path: task for path, task in subject.tasks.items() if describes(task)}
    means = mean_over_faces(describing, subject.loader(module), subject.faces)
    if "region_weights" in means:
        names = module.facts.attributes or ()
        yield "region_weights.png", region_weights_figure(means["region_weights"].T, names, subject.task.places)
    if "masks" in means:
        yield "mean_masks.png", mean_masks_figure(means["masks"], parsed_classes([*describing.values()]))
    channels = {}
    for path, task in describing.items():
        strongest = strongest_channels(means[f"channels of {path}"])
        title = f"{title_of(task)}: {path}\n{describe_locality(strongest, means.get('face'))}"
        print(title)
        channels[title] = strongest
    yield "channels.png", channels_figure(channels)


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
        - ``masks``: ``(K, H, W)`` in [0, 1], as parsed by the last network that parses.
        - ``face``: ``(h, w)`` in [0, 1], the foreground share of each cell in them.
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
                seen["masks"] = masks
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
    regions = task.network.regions
    return regions.parse(images).at(1) if isinstance(regions, ParserRegions) else None


def parsed_classes(tasks: Sequence[FaceTask]) -> LabelSpace:
    """The classes of the last network that parses."""
    for task in reversed(tasks):
        if "parsing" in task.objectives and task.facts is not None and task.facts.label_space is not None:
            return task.facts.label_space
        if isinstance(task.network.regions, ParserRegions):
            return task.network.regions.label_space
    raise AssertionError("no network parses")


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


KINDS: dict[KindName, Kind] = {"channels": Kind(lambda subject: bool(with_attributes(subject)), draw_channels)}
