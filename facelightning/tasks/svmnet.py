"""Linear SVMs on the features of a trained network, or of a backbone as it is."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from lightning.pytorch.utilities import rank_zero_info

from facelightning.errors import ConfigurationError, DivergenceError
from facelightning.facts import DataFacts
from facelightning.models.encoders import Encoder, Input
from facelightning.models.pooling import Pooling
from facelightning.models.regions import RegionSource
from facelightning.models.svm import SVMNetwork
from facelightning.objectives import DecidedAttributes, Objective
from facelightning.tasks.anet import ANet
from facelightning.tasks.attributenet import AttributeNet
from facelightning.tasks.base import FaceTask, trained
from facelightning.tasks.embeddingnet import EmbeddingNet
from facelightning.tasks.fitting import of_all_processes, validation_batches
from facelightning.tasks.identitynet import IdentityNet
from facelightning.tasks.jointnet import JointNet


class SVMNet(FaceTask):
    """One linear SVM for each attribute on frozen features (Liu et al., ICCV 2015, §5.1).

    There is no training: ``facelightning test`` fits the SVMs on the validation split, as the paper does, scores them
    on the test split, and writes one checkpoint with all parts. That tests, predicts and loads like any other, and is
    not fitted again. See :func:`~facelightning.models.svm_fitting.fit_svms`.

    Error and balanced accuracy take a decision above 0 as positive, as the paper does; average precision ranks by
    decisions. Predictions are calibrated probabilities, and the loss is theirs.

    Args:
        network: Checkpoint of an :class:`ANet`, :class:`AttributeNet`, :class:`EmbeddingNet`, :class:`IdentityNet` or
            :class:`JointNet`, whatever it has learned: the SVMs are of the data's attributes. Or a description from a
            checkpoint, for a network whose weights are loaded later.
        encoder: Takes the place of ``network``: features off the shelf, such as those of
            :class:`~facelightning.models.encoders.TorchvisionEncoder` with pretrained weights, or hand-crafted ones:
            :class:`~facelightning.models.facetracer.FaceTracer`.
        image_input: For an encoder; see :class:`AttributeNet`.
        regions: For an encoder or an image input that needs them.
        level: Which map of the network's encoder the features are, 0 the finest; what its head sees if not given.
            Zhong, Sullivan, Li take a middle one [1]_.
        pooling: Pooling of a map: :class:`~facelightning.models.pooling.GridPooling` keeps places apart; the mean of
            the whole map if not given.

    Raises:
        ConfigurationError: If there is neither a network nor an encoder, or both; or parts of an encoder without one;
            or, when built, no such map.
        CheckpointError: If the file is missing, broken, or of another task.

    Example:
        >>> SVMNet("runs/avg/version_0/checkpoints/missing.ckpt")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: SVMNet's network: checkpoint runs/avg/... does not exist; ...

    .. [1] "Leveraging Mid-Level Deep Representations for Predicting Face Attributes in the Wild", ICIP 2016.
    """

    made_of = "network"
    network: SVMNetwork

    def __init__(
        self,
        network: str | None = None,
        encoder: Callable[[Input], Encoder] | None = None,
        image_input: Callable[[int], Input] | None = None,
        regions: Callable[[], RegionSource] | None = None,
        level: int | None = None,
        pooling: Callable[[int], Pooling] | None = None,
    ) -> None:
        if (network is None) == (encoder is None):
            raise ConfigurationError("SVMNet needs the checkpoint of a `network`, or an `encoder` in its place")
        if network is not None and (image_input or regions):
            raise ConfigurationError("SVMNet: image_input and regions belong to an `encoder`; a `network` has its own")
        kinds = (ANet, AttributeNet, EmbeddingNet, IdentityNet, JointNet)
        found = None if network is None else trained(network, kinds, "SVMNet's network", "avg")
        parts = {"encoder": encoder, "image_input": image_input, "regions": regions}
        super().__init__({"network": found and found[0], **parts, "level": level, "pooling": pooling})
        task = found[1] if found else AttributeNet(encoder=encoder, image_input=image_input, regions=regions)
        self._parts = (task,)  # in a tuple: of the network alone
        self._taken = (level, pooling)

    def build(self, facts: DataFacts) -> Self:
        """Build it for the data's attributes; all else is as the network knows it."""
        (task,) = self._parts
        if task.facts is not None:
            task.any_size = self.any_size
            task.check(replace(facts, attributes=None, identities=None), "the data")
            facts = replace(task.facts, attributes=facts.attributes, identities=None)
        return super().build(facts)

    @classmethod
    def fitted_by_test(cls, settings: Mapping[str, Any]) -> bool:
        """Always."""
        return True

    def make(self, facts: DataFacts) -> tuple[SVMNetwork, list[Objective]]:
        """The frozen network with an SVM for each attribute, and the attributes."""
        (task,) = self._parts
        if facts.attributes is None:
            raise ConfigurationError("SVMNet cannot be fitted: the data has no attributes; use CelebADataModule")
        if task.facts is None:
            task.build(facts)
            self.settings |= {key: task.settings[key] for key in ("encoder", "regions")}  # need no file again
        size, count = facts.image_size, len(facts.attributes)
        network = SVMNetwork(task.network, task.predict_batch, size, count, *self._taken)
        return network, [DecidedAttributes(facts.attributes)]

    def on_test_start(self) -> None:
        """Fit the SVMs, unless they come from a checkpoint."""
        super().on_test_start()
        if not self.network.svms.fitted:
            with torch.inference_mode(False), torch.no_grad():
                self._fit()

    def _fit(self) -> None:
        try:
            from facelightning.models.svm_fitting import fit_svms  # here, because only this needs scikit-learn
        except ImportError:
            raise ConfigurationError(
                "SVMs are fitted by scikit-learn, which is not installed: pip install 'facelightning[svm]'"
            ) from None
        found = [
            (self.network.features(batch["image"], batch.get("landmarks")).cpu(), batch["attributes"].cpu())
            for batch in validation_batches(self)
            if "attributes" in batch
        ]
        if not found:
            raise ConfigurationError("SVMNet: the validation data has no attributes to fit to")
        features, targets = (of_all_processes(self, torch.cat(part)) for part in zip(*found, strict=True))
        if not features.isfinite().all():
            raise DivergenceError("SVMNet: features of the validation data are not finite: use another network")
        rank_zero_info(f"fitting an SVM for each of {targets.shape[1]} attributes to {len(targets)} validation images")
        # each process fits its share of the attributes
        fitted = fit_svms(features, targets[:, self.global_rank :: self.trainer.world_size])
        self.network.svms.coefficients = of_all_processes(self, fitted.coefficients)

    def configure_optimizers(self) -> None:
        """There is nothing to train."""
        raise ConfigurationError("SVMNet has nothing to learn: `facelightning test` writes its checkpoint")
