"""Trained networks as one that works on whole photographs: find each face, then describe it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info
from torch import Tensor, nn

from facelightning.boxes import Floats
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.cascade import CascadeNetwork, whole
from facelightning.models.density_peaks import FRACTION
from facelightning.models.finding import MARGINS, Finder, LNetFinder, Localizer
from facelightning.objectives import Attributes, Batch, Faces, Objective, Output
from facelightning.tasks.anet import ANet
from facelightning.tasks.attributenet import AttributeNet
from facelightning.tasks.base import FaceTask, trained
from facelightning.tasks.fitting import of_all_processes, validation_batches
from facelightning.tasks.jointnet import JointNet
from facelightning.tasks.svmnet import SVMNet

if TYPE_CHECKING:
    from facelightning.prediction import Predictor

WEAKEST = 0.02
"""The share of images with a face that ``least`` lets go, as weak as those without: a choice between the two errors."""


class CascadeNet(FaceTask):
    """Find the faces of whole photographs, and describe each (Liu et al., ICCV 2015, Figure 3).

    It has nothing to learn: ``facelightning test`` scores it and writes one checkpoint with all its parts, which tests,
    predicts and loads like any other. Images may have any size.

    A weak response is no face. How weak, ``least``, belongs to LNet_o: that test fits it to the validation split, whose
    images all have a face, and neither to boxes nor to images without one. 2 % of the images respond less.

    Args:
        stages: Checkpoints of LNet_o, or of LNet_o and LNet_s: :class:`AttributeNet` s, whose heads fall away. None
            with a ``detector``.
        describer: Checkpoint of an :class:`ANet`, :class:`AttributeNet`, :class:`JointNet` or :class:`SVMNet`; none to
            only find faces.
        detector: Finds the faces in place of ``stages``: see :mod:`~facelightning.models.detectors`.
        levels: Of each stage: a window holds the responses above this fraction of its summit's. They suit log-sum-exp
            pooling in LNet_o and average pooling in LNet_s, whose response is the wider: configs/README.md.
        least: The least response of LNet_o in an image with a face; fitted if not given.
        fraction: Other faces of an image respond more than this fraction of its strongest.
        search_size: Height and width at which LNet_o searches the image. Its training size if not given; a larger one
            finds smaller faces.
        head_margins: LNet_s sees cuts of these many times the longer side of LNet_o's window, and its responses are
            their mean; the paper's single cut is ``[1.8]``.
        face_margin: The describer sees a cut of this many times the longer side of a face's box.
        rescale: Width and height of a face as multiples of its window's, and the shift of its centre down in heights
            of the window. None if not given: they are fitted on boxes, which attribute tags do not give.

    Raises:
        ConfigurationError: If there is neither a stage nor a detector, or both, or more than two stages; if a number is
            out of its range; if a stage needs regions, or the describer landmarks.
        CheckpointError: If a file is missing, broken, or of another task.

    Example:
        >>> CascadeNet(["runs/lnet_o/version_0/checkpoints/missing.ckpt"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: CascadeNet's stage: checkpoint runs/lnet_o/... does not exist; ...
    """

    made_of = "stages"
    any_size = True

    def __init__(
        self,
        stages: list[str] | None = None,
        describer: str | None = None,
        detector: Callable[[], Finder] | None = None,
        levels: tuple[float, float] = (0.35, 0.4),
        least: float | None = None,
        fraction: float = FRACTION,
        search_size: tuple[int, int] | None = None,
        head_margins: Sequence[float] = MARGINS,
        face_margin: float = 1.8,
        rescale: tuple[float, float, float] | None = None,
    ) -> None:
        stages = stages or []
        if len(stages) > 2 or bool(stages) == (detector is not None):
            raise ConfigurationError("CascadeNet needs one or two `stages`, or a `detector` in their place")
        if detector is not None and (rescale or search_size):
            raise ConfigurationError("CascadeNet: rescale and search_size belong to `stages`, not to a `detector`")
        _check("levels", levels, 0, 1 - 1e-9)
        _check("fraction", [fraction], 0, 1 - 1e-9)
        _check("least", [] if least is None else [least], 0, 1e30)
        if not head_margins:
            raise ConfigurationError("CascadeNet: head_margins is empty: name at least one, as the paper's [1.8]")
        _check("head_margins and face_margin", [*head_margins, face_margin], 0.1, 100)
        _check("search_size", search_size or [], 32, 10_000)
        _check("rescale's width and height", (rescale or [])[:2], 0.01, 100)
        _check("rescale's shift", (rescale or [])[2:], -10, 10)
        found = [trained(stage, (AttributeNet,), "CascadeNet's stage", "lnet_o") for stage in stages]
        kinds = (ANet, AttributeNet, JointNet, SVMNet)
        described = trained(describer, kinds, "CascadeNet's describer", "avg") if describer else None
        for _, task in found:
            encoder = cast(AttributeNetwork, task.network).encoder
            _refuse(encoder, "needs_regions", "CascadeNet's stage: {} needs regions, which a stage does not get")
        if described:
            found_faces = "CascadeNet's describer: {} needs landmarks, which a found face does not have"
            _refuse(described[1].network, "needs_landmarks", found_faces)
        texts = {"stages": [text for text, _ in found], "describer": described and described[0], "detector": detector}
        rules = {"levels": levels, "least": least, "fraction": fraction, "search_size": search_size}
        margins = {"head_margins": head_margins, "face_margin": face_margin}
        super().__init__(texts | rules | margins | {"rescale": rescale})
        if detector is not None:
            finder = detector()
        else:
            nets = [(cast(AttributeNetwork, task.network), _facts(task).image_size) for _, task in found]
            sizes = [size for _, size in nets]
            if search_size is not None:
                sizes[0] = (search_size[0], search_size[1])  # a list, if it comes from a checkpoint
            localizers = [Localizer(*each) for each in zip((net for net, _ in nets), sizes, levels, strict=False)]
            finder = LNetFinder(localizers, head_margins, least or 0.0, fraction, rescale)
        self._parts = (finder, described and described[1].network, face_margin)  # in a tuple: of the network alone
        known = [task for _, task in (*([described] if described else []), *found)]
        self.build(_facts(known[0]) if known else DataFacts((1, 1)))

    @classmethod
    def fitted_by_test(cls, settings: Mapping[str, Any]) -> bool:
        """If ``least`` is not given, and not a detector's own matter."""
        return settings.get("least") is None and settings.get("detector") is None

    def make(self, facts: DataFacts) -> tuple[CascadeNetwork, list[Objective]]:
        """The network of all parts, and what it predicts."""
        finder, describer, margin = self._parts
        network = CascadeNetwork(finder, describer, facts.image_size, margin)
        if describer is None:
            return network, [Faces()]
        assert facts.attributes is not None
        return network, [Faces(facts.attributes), Attributes(facts.attributes)]

    def on_test_start(self) -> None:
        """Fit ``least``, unless it is known; refuse images that the finder cannot know."""
        super().on_test_start()
        self._check_names(self.trainer.test_dataloaders)
        if self.fitted_by_test(self.settings):
            self._fit()

    def on_predict_start(self) -> None:
        """Refuse images that the finder cannot know."""
        super().on_predict_start()
        self._check_names(self.trainer.predict_dataloaders)

    def _check_names(self, loaders: Any) -> None:
        sets = [loader.dataset for loader in CombinedLoader(loaders, "sequential").flattened]
        names = [name for dataset in sets for name in getattr(dataset, "names", ())]
        if names:
            cast(CascadeNetwork, self.network).finder.check(names)

    def _fit(self) -> None:
        finder = cast(LNetFinder, cast(CascadeNetwork, self.network).finder)
        strongest = [
            torch.from_numpy(finder.search(batch["image"], frames_of(batch))[0].responses.max(axis=(1, 2)))
            for batch in validation_batches(self)
        ]
        maxima = of_all_processes(self, torch.cat(strongest)).numpy()
        # more digits would differ between processors
        finder.least = self.settings["least"] = float(f"{np.quantile(maxima, WEAKEST):.4g}")
        rank_zero_info(f"least response of a face: {finder.least}, fitted to {len(maxima)} validation images")

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """The faces of a batch and their attributes, and the ground truth to compare them with."""
        sizes = batch["size"].double().cpu().numpy() if "size" in batch else None
        return self.network(batch["image"], frames_of(batch), sizes, batch.get("name", ())), batch

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """The images' ``name``, and for each a table of its ``faces``, in pixels of the file."""
        output, _ = self.predict_batch(batch)
        tables: list[Tensor] = self.objectives["faces"].predict(output)  # type: ignore[assignment]  # see Faces
        if "frame" in batch:
            for table, frame, size in zip(tables, batch["frame"].cpu(), batch["size"].cpu(), strict=True):
                scale = size.flip(0) / (frame[2:] - frame[:2])
                table[:, :4] = (table[:, :4] - frame[:2].repeat(2)) * scale.repeat(2)
        return {"name": batch["name"], "faces": tables}

    def predictor(self, finder: Finder | None = None, margin: float | None = None) -> "Predictor":
        """It finds the faces itself, unless another finder is given."""
        network = cast(CascadeNetwork, self.network)

        def describe(images: Tensor) -> Output:
            return cast(Output, cast(nn.Module, network.describer)(images.to(self.device)))

        describer = network.describer
        finder = finder or network.finder
        return self._predictor(describe if describer else None, finder, network.margin, margin, describer)

    def configure_optimizers(self) -> None:
        """There is nothing to learn."""
        raise ConfigurationError("CascadeNet has nothing to learn: `facelightning test` writes its checkpoint")


def frames_of(batch: Batch) -> Floats:
    """Where the photographs of a batch lie in its images, ``(B, 4)``: they fill them if it does not say.

    Raises:
        ConfigurationError: If the images were cut out of photographs.
    """
    if "is_cut" in batch:
        raise ConfigurationError("CascadeNet finds the faces itself, in whole images: leave out data.crop")
    return batch["frame"].double().cpu().numpy() if "frame" in batch else whole(batch["image"])


def _facts(task: FaceTask) -> DataFacts:
    assert task.facts is not None
    return task.facts


def _refuse(network: nn.Module, need: str, reason: str) -> None:
    """Refuse a network with a part that has the attribute ``need``; the reason names the part."""
    for part in network.modules():
        if getattr(part, need, False):
            raise ConfigurationError(f"{reason.format(type(part).__name__)}: take a network without it")


def _check(name: str, values: Sequence[float], low: float, high: float) -> None:
    if not all(low <= value <= high for value in values):  # not so for NaN either
        raise ConfigurationError(f"CascadeNet: {name} must lie in {low:g}...{high:g}, not {list(values)}")
