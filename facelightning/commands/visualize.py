"""``facelightning visualize``: draws what a trained model sees, as in Figures 3 to 5 of Kalayeh et al. (CVPR 2017)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from jsonargparse import auto_cli
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader
from tqdm import tqdm

from facelightning.configs import read_config
from facelightning.data import CelebADataModule, HelenDataModule
from facelightning.data.datamodule import FaceDataset
from facelightning.errors import ConfigurationError
from facelightning.figures import (
    Picture,
    channels_figure,
    parsing_panels,
    region_weights_figure,
    save_picture,
    strongest_channels,
)
from facelightning.labels import ATTRIBUTES
from facelightning.tasks import AttributeNet, FaceTask, JointNet, load_model

Array = npt.NDArray[np.floating]
Describing = AttributeNet | JointNet
"""A task with one last map of channels, from which it predicts attributes."""


def visualize(
    checkpoint: str,
    celeba: str | None = None,
    helen: str | None = None,
    against: str | None = None,
    output: str | None = None,
    faces: int = 256,
    batch_size: int = 32,
    split: Literal["val", "test"] = "test",
    image_size: tuple[int, int] | None = None,
) -> None:
    """Draw what a trained model sees, as in Kalayeh et al. (CVPR 2017), Figures 3 to 5: what it and the data allow.

    With Helen parsing.png: image, truth and prediction of six pictures. With CelebA region_weights.png, how
    much each region counts for each attribute, and channels.png, the 50 strongest channels of the last map, with
    measures of how local they are; both are means over faces.

    Args:
        checkpoint: Of the model.
        celeba: Folder of CelebA.
        helen: Folder of Helen.
        against: Checkpoint of a second network, whose channels are drawn above those of the first.
        output: Folder of the pictures; if not given, the run folder's figures, or ./figures without a run folder.
        faces: How many faces a mean is over, the first of the split.
        batch_size: Faces at a time.
        split: Of both data sets.
        image_size: Height and width of what the network sees; if not given, the run's, or 218×178 if it is unknown.
    """
    if faces < 1:
        raise ConfigurationError(f"faces must be positive, not {faces}")
    # in this order from top to bottom: the paper has average pooling above SSP
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tasks = {path: load_model(path).to(device) for path in (against, checkpoint) if path is not None}
    task = tasks[checkpoint]
    describing = {path: task for path, task in tasks.items() if isinstance(task, Describing)}
    if against is not None and len(describing) < len(tasks):
        found = " and ".join(f"{type(task).__name__} ({path})" for path, task in tasks.items())
        raise ConfigurationError(f"--against compares channels of AttributeNet and JointNet, but these are {found}")
    settings = {path: data_settings(path) for path in tasks}
    sizes = {path: tuple(image_size or settings[path].get("image_size", (218, 178))) for path in tasks}
    if len(set(sizes.values())) > 1:
        found = " and ".join(f"{path} sees {height}×{width}" for path, (height, width) in sizes.items())
        raise ConfigurationError(f"--against compares networks of one image_size, but {found}")

    size: Any = sizes[checkpoint]
    folder = Path(output) if output is not None else (run_folder(checkpoint) or Path()) / "figures"
    drawn = False
    if task.labels is not None and helen is not None:
        labels = cast(Literal["helen7", "helen11"], task.labels.name)
        pictures = HelenDataModule(helen, labels, size, num_workers=0).dataset(split)
        write(folder / "parsing.png", draw_parsing(task, pictures))
        drawn = True
    if checkpoint in describing and celeba is not None:
        images = settings[checkpoint].get("images", "aligned")
        data = CelebADataModule(celeba, images, size, batch_size, num_workers=0)
        loader = data.val_dataloader() if split == "val" else data.test_dataloader()
        means = mean_over_faces(describing, loader, faces)
        if task.regions is not None:
            write(folder / "region_weights.png", region_weights_figure(means["weights"].T, ATTRIBUTES, task.regions))
        channels = {}
        for path, network in describing.items():
            shown = strongest_channels(means[f"channels of {path}"])
            title = f"{title_of(network)}: {path}\n{describe_locality(shown, means.get('face'))}"
            print(title)
            channels[title] = shown
        write(folder / "channels.png", channels_figure(channels))
        drawn = True
    if not drawn:
        raise ConfigurationError(
            f"nothing to draw for {type(task).__name__} ({checkpoint}): SegNet and JointNet need --helen, AttributeNet "
            "and JointNet --celeba; of EnsembleNet draw the members"
        )


def main(args: Sequence[str]) -> None:
    """The command line of :func:`visualize`."""
    auto_cli(visualize, args=list(args), prog="facelightning visualize")


def run_folder(checkpoint: str) -> Path | None:
    """The folder of the run that wrote a checkpoint, if it is still there: it holds the run's configuration."""
    folder = Path(checkpoint).absolute().parent.parent
    return folder if (folder / "config.yaml").is_file() else None


def data_settings(checkpoint: str) -> dict[str, Any]:
    """What the run of a checkpoint told its data module of pictures with attributes; empty if that is unknown."""
    folder = run_folder(checkpoint)
    data = {} if folder is None else read_config(folder / "config.yaml").get("data") or {}
    settings: dict[str, Any] = data.get("init_args") or {}
    return settings["attributes"].get("init_args") or {} if "attributes" in settings else settings


def write(path: Path, picture: Picture) -> None:
    """Save a picture and say so."""
    try:
        save_picture(path, picture)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}; choose another --output") from None
    print(f"written: {path}")


@torch.inference_mode()
def draw_parsing(task: FaceTask, pictures: FaceDataset, count: int = 6) -> Picture:
    """Image, truth and prediction of a few pictures, spread evenly over a data set."""
    step = max(1, len(pictures) // count)
    samples = [pictures[index, 0] for index in range(0, len(pictures), step)[:count]]
    images, masks = (torch.stack([sample[key] for sample in samples]) for key in ("image", "mask"))
    outputs, _ = task.predict_batch({"image": images.to(task.device), "mask": masks})
    predicted = outputs["parsing"][-1].max(dim=1).indices.cpu()
    assert task.labels is not None
    return parsing_panels(images.numpy(), masks.numpy(), predicted.numpy(), task.labels)


@torch.inference_mode()
def mean_over_faces(networks: Mapping[str, Describing], loader: DataLoader[Any], faces: int) -> dict[str, Array]:
    """What networks see, as a mean over the first faces.

    Activations below 0, which PReLU leaves, are set to 0 face by face: a channel that says "no" on one face takes
    nothing from where it says "yes" on another.

    Args:
        networks: By name; the last is the main one.
        loader: Of pictures with whatever the networks ask for.
        faces: How many.

    Returns:
        - ``channels of NAME``: ``(C, h, w)``, non-negative, for each network.
        - ``weights``: ``(N, A)`` of the main network, if it weighs regions.
        - ``face``: ``(h, w)`` in [0, 1], how much of each cell is not background, of the last network that parses.
    """
    tasks = list(networks.values())
    sums: dict[str, Tensor] = {}
    count, total = 0, min(faces, len(loader.dataset))  # type: ignore[arg-type]  # a sized data set
    with tqdm(total=total, desc="looking at faces", unit="face") as progress:
        for batch in loader:
            batch = {key: value[: total - count] for key, value in batch.items()}
            batch = move_data_to_device(batch, tasks[-1].device)
            images = batch["image"]
            seen = {
                f"channels of {name}": task.network.features(images).clamp(min=0) for name, task in networks.items()
            }
            if tasks[-1].regions is not None:
                seen["weights"] = tasks[-1].region_weights(batch)
            parsed = (parse(task, images) for task in reversed(tasks))
            logits = next((logits for logits in parsed if logits is not None), None)
            if logits is not None:
                foreground = 1 - logits.softmax(dim=1)[:, :1]
                seen["face"] = avg_pool2d(foreground, 16, ceil_mode=True).squeeze(1)  # cells of the last map
            sums = {key: sums.get(key, 0) + value.double().sum(dim=0) for key, value in seen.items()}
            count += len(images)
            progress.update(len(images))
            if count == total:
                break
    return {key: (value / count).cpu().numpy() for key, value in sums.items()}


def parse(task: Describing, images: Tensor) -> Tensor | None:
    """Logits ``(B, K, H, W)`` of the parser in a network; ``None`` if it has none."""
    if isinstance(task, JointNet):
        return task.network.parse(images)[-1]
    parser = task.network.parser
    return None if parser is None else cast(Tensor, parser(images, 4)[-1])


def title_of(task: Describing) -> str:
    """A task and those of its settings that make its network another.

    Example:
        >>> title_of(AttributeNet(width=4, pooling="spp"))
        'AttributeNet, pooling spp'
    """
    settings = {key: task.hparams.get(key, "none") for key in ("pooling", "gating", "inputs")}
    parts = [f"{key} {value}" for key, value in settings.items() if value not in ("none", "rgb")]
    return ", ".join([type(task).__name__, *parts])


def describe_locality(maps: Array, face: Array | None) -> str:
    """How local channels are, in words.

    Shape:
        - maps: ``(C, H, W)``, non-negative.
        - face: ``(H, W)`` in [0, 1].

    Example:
        >>> print(describe_locality(np.array([[[3.0, 1.0]], [[0.0, 4.0]]]), np.array([[1.0, 0.5]])))
        mean entropy 0.41 of at most 1.00 bits; 69 % of the activation on face and hair (75 % of the picture)
    """
    text = f"mean entropy {activation_entropy(maps):.2f} of at most {math.log2(maps[0].size):.2f} bits"
    if face is None:
        return text
    share, area = 100 * share_inside(maps, face), 100 * face.mean()
    return f"{text}; {share:.0f} % of the activation on face and hair ({area:.0f} % of the picture)"


def activation_entropy(maps: Array) -> float:
    """The mean entropy in bits of channels whose values, divided by their sum, are taken as a distribution over space.

    0 for channels that are active in one place alone, log₂(H·W) for uniform ones. A channel that is zero everywhere
    has none and does not count; NaN if all are.

    Shape:
        - maps: ``(C, H, W)``, non-negative.

    Example:
        >>> activation_entropy(np.array([[[1.0, 1.0]], [[5.0, 0.0]]]))
        0.5
    """
    active = maps[maps.any(axis=(1, 2))].astype(np.float64)
    if not len(active):
        return math.nan
    shares = active / active.sum(axis=(1, 2), keepdims=True)
    logarithms = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    return float(-(shares * logarithms).sum(axis=(1, 2)).mean())


def share_inside(maps: Array, mask: Array) -> float:
    """The share of all channels' activation that lies within a mask; NaN if there is no activation.

    Shape:
        - maps: ``(C, H, W)``, non-negative.
        - mask: ``(H, W)`` in [0, 1]; between them it counts in part.

    Example:
        >>> share_inside(np.array([[[3.0, 1.0]], [[0.0, 4.0]]]), np.array([[1.0, 0.5]]))
        0.6875
    """
    total = maps.sum(dtype=np.float64)
    return float((maps * mask).sum(dtype=np.float64) / total) if total else math.nan
