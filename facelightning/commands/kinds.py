"""The kinds of pictures that ``facelightning visualize`` draws: which are possible, and how some are drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from facelightning.commands.studies import Evaluated, draw_attribute_regions, draw_neurons
from facelightning.data import FaceDataModule
from facelightning.errors import ConfigurationError
from facelightning.figures import Image
from facelightning.tasks import ANet, AttributeNet, EnsembleNet, FaceTask, IdentityNet, JointNet

Kind = Literal["parsing", "region_weights", "channels", "neurons", "groups", "attribute_regions", "layers"]
AT_ONCE: tuple[Kind, ...] = ("parsing", "region_weights", "channels")
"""What is drawn unless other kinds are asked for."""


def choose(
    kinds: Sequence[Kind] | None, task: FaceTask, data: Sequence[FaceDataModule], path: str
) -> dict[Kind, FaceDataModule]:
    """What to draw, each kind with its data module: what is asked for, or else what is quick and possible."""
    possible = possible_kinds(task, data)
    name = f"{type(task).__name__} ({path})"
    at_once = AT_ONCE if "channels" in possible or "parsing" in possible else ("neurons",)
    chosen = {kind: possible[kind] for kind in kinds or at_once if kind in possible}
    if not chosen and not kinds:
        raise ConfigurationError(
            f"nothing to draw for {name}: SegNet and JointNet need data with masks, all others data with attributes; "
            "of EnsembleNet draw the members"
        )
    for kind in kinds or ():
        if kind not in possible:
            listed = ", ".join(possible) or "nothing"
            raise ConfigurationError(f"{kind} cannot be drawn for {name} and this data; possible: {listed}")
    return chosen


def possible_kinds(task: FaceTask, data: Sequence[FaceDataModule]) -> dict[Kind, FaceDataModule]:
    """What can be drawn of a task, each with the data module that it is drawn with."""
    with_masks = [module for module in data if module.facts.label_space]
    with_attributes = [module for module in data if module.facts.attributes]
    maps, vectors = isinstance(task, AttributeNet | JointNet), isinstance(task, ANet | IdentityNet)
    wanted: dict[Kind, tuple[bool, Sequence[FaceDataModule]]] = {
        "parsing": ("parsing" in task.objectives, with_masks),
        "region_weights": (maps, with_attributes),
        "channels": (maps, with_attributes),
        "neurons": (maps or vectors, with_attributes),
        "groups": (maps or isinstance(task, ANet), data),
        "attribute_regions": (maps or isinstance(task, ANet | EnsembleNet), with_attributes),
        "layers": (vectors, with_attributes),
    }
    return {kind: modules[0] for kind, (of_task, modules) in wanted.items() if of_task and modules}


def draw(kind: Kind, task: FaceTask, module: FaceDataModule, split: Evaluated, faces: int, folder: Path) -> Image:
    """The picture of a kind that Liu et al. have; ``folder`` takes the table of ``layers``."""
    if kind == "neurons":
        return draw_neurons(task, module, split, faces)
    if kind == "attribute_regions":
        return draw_attribute_regions(task, module, split, faces)
    try:
        from facelightning.commands.fitted_studies import draw_groups, draw_layers  # these need scikit-learn
    except ImportError:
        raise ConfigurationError(
            f"{kind} is fitted by scikit-learn, which is not installed: pip install 'facelightning[svm]'"
        ) from None
    return draw_groups(task) if kind == "groups" else draw_layers(task, module, folder / "layers.csv")
