"""What every task can do with photographs once it is trained."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, cast, overload

import lightning as L
from torch import Tensor, nn

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.blocks import evaluating
from facelightning.models.finding import Finder
from facelightning.objectives import Attributes, Batch, Objective, Output

if TYPE_CHECKING:
    from facelightning.prediction import Prediction, Predictor, Source


class PredictingTask(L.LightningModule):
    """Base of the tasks: predicts photographs of any size."""

    network: nn.Module
    objectives: Mapping[str, Objective]
    facts: DataFacts | None
    crop_margin: float | None = None
    """The margin of the cuts around faces that it was trained on; ``None`` if they were not cut out by boxes."""

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """The network's output for a batch, and the ground truth to compare it with."""
        raise NotImplementedError

    @overload
    def predict(  # type: ignore[overload-overlap]  # a path holds letters
        self, images: "Source", finder: Finder | None = None, margin: float | None = None
    ) -> "Prediction": ...
    @overload
    def predict(
        self, images: "Iterable[Source]", finder: Finder | None = None, margin: float | None = None
    ) -> "list[Prediction]": ...
    def predict(
        self, images: "Source | Iterable[Source]", finder: Finder | None = None, margin: float | None = None
    ) -> "Prediction | list[Prediction]":
        """Predict a photograph, or each of several: attributes and parsing, in the photograph's own pixels.

        Threads may share a task that is loaded and not trained.

        Args:
            images: A path, a Pillow image, an array ``(H, W, 3)``, uint8, RGB, or a tensor ``(3, H, W)``, RGB, uint8,
                or float in [0, 1]; or several of any sizes.
            finder: Finds the faces: see :mod:`~facelightning.models.detectors`. If not given, a cascade's own; any
                other network takes a photograph for the cut around one face.
            margin: A found face is seen in a cut of this many times its box's longer side; as in training if not given.

        Returns:
            A :class:`~facelightning.prediction.Prediction`, or one for each.

        Raises:
            DataNotFoundError: If there is no such file, or it cannot be read.
            DataFormatError: If an image cannot be decoded, or has another shape or type.
            ConfigurationError: If the task predicts neither attributes nor parsing, or needs more than an image.
        """
        with evaluating(self):
            return self.predictor(finder, margin)(images)

    def predictor(self, finder: Finder | None = None, margin: float | None = None) -> "Predictor":
        """What :meth:`predict` calls, with the same arguments."""
        if not {"attributes", "parsing"} & set(self.objectives):
            raise ConfigurationError(
                f"{type(self).__name__} predicts neither attributes nor parsing: use Trainer.predict, or "
                "`facelightning predict --ckpt_path=...`"
            )
        if any(getattr(part, "needs_landmarks", False) for part in self.network.modules()):
            raise ConfigurationError(f"{type(self).__name__} needs landmarks, which a photograph does not have")

        def describe(images: Tensor) -> Output:
            return self.predict_batch({"image": images.to(self.device)})[0]

        return self._predictor(describe, finder, self.crop_margin, margin, self.network)

    def _predictor(
        self,
        describe: Callable[[Tensor], Output] | None,
        finder: Finder | None,
        trained: float | None,
        margin: float | None,
        network: nn.Module | None,
    ) -> "Predictor":
        """The predictor of a network that was trained on cuts of a margin, or else on CelebA's aligned images.

        Of the latter, faces are aligned, too, if their points are known and no margin is asked for.
        """
        from facelightning.prediction import Predictor, View  # here, because only this reads photographs

        for each in (margin, trained):  # a file may say anything
            if each is not None and not 0.1 <= each <= 10:
                raise ConfigurationError(f"margin must lie in 0.1...10, not {each:g}")
        factor, shift = (1.0, 0.0) if finder is None else finder.aligned if trained is None else (trained, 0.0)
        facts = cast(DataFacts, self.facts)
        known = dict(self.objectives.items())  # a ModuleDict has no get
        aligns = trained is None and margin is None
        view = View(facts.image_size, finder, margin or factor, shift, aligns)
        attributes = cast(Attributes | None, known.get("attributes"))
        return Predictor(describe, facts, attributes, view, getattr(network, "places", ()))
