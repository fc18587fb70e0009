"""Linear SVMs on the features of a trained network, or of a backbone as it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import torch
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from facelightning.errors import ConfigurationError, DivergenceError
from facelightning.facts import DataFacts
from facelightning.models.encoders import Encoder, Input
from facelightning.models.regions import RegionSource
from facelightning.models.svm import SVMNetwork
from facelightning.objectives import Batch, DecidedAttributes, Objective
from facelightning.tasks.anet import ANet
from facelightning.tasks.attributenet import AttributeNet
from facelightning.tasks.base import FaceTask, trained
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
        network: Checkpoint of an :class:`ANet`, :class:`AttributeNet`, :class:`IdentityNet` or :class:`JointNet`,
            whatever it has learned: the SVMs are of the data's attributes. Or a description from a checkpoint, for a
            network whose weights are loaded later.
        encoder: Takes the place of ``network``: features off the shelf, such as those of
            :class:`~facelightning.models.encoders.TorchvisionEncoder` with pretrained weights, or hand-crafted ones:
            :class:`~facelightning.models.facetracer.FaceTracer`.
        image_input: For an encoder; see :class:`AttributeNet`.
        regions: For an encoder or an image input that needs them.

    Raises:
        ConfigurationError: If there is neither a network nor an encoder, or both; or parts of an encoder without one.
        CheckpointError: If the file is missing, broken, or of another task.

    Example:
        >>> SVMNet("runs/avg/version_0/checkpoints/missing.ckpt")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: SVMNet's network: checkpoint runs/avg/... does not exist; ...
    """

    made_of = "network"
    fitted_by_test = True
    network: SVMNetwork

    def __init__(
        self,
        network: str | None = None,
        encoder: Callable[[Input], Encoder] | None = None,
        image_input: Callable[[int], Input] | None = None,
        regions: Callable[[], RegionSource] | None = None,
    ) -> None:
        if (network is None) == (encoder is None):
            raise ConfigurationError("SVMNet needs the checkpoint of a `network`, or an `encoder` in its place")
        if network is not None and (image_input or regions):
            raise ConfigurationError("SVMNet: image_input and regions belong to an `encoder`; a `network` has its own")
        kinds = (ANet, AttributeNet, IdentityNet, JointNet)
        found = None if network is None else trained(network, kinds, "SVMNet's network", "avg")
        parts = {"encoder": encoder, "image_input": image_input, "regions": regions}
        super().__init__({"network": found and found[0], **parts})
        task = found[1] if found else AttributeNet(encoder=encoder, image_input=image_input, regions=regions)
        self._parts = (task,)  # in a tuple: of the network alone

    def build(self, facts: DataFacts) -> Self:
        """Build it for the data's attributes; all else is as the network knows it."""
        (task,) = self._parts
        if task.facts is not None:
            task.any_size = self.any_size
            task.check(replace(facts, attributes=None, identities=None), "the data")
            facts = replace(task.facts, attributes=facts.attributes, identities=None)
        return super().build(facts)

    def make(self, facts: DataFacts) -> tuple[SVMNetwork, list[Objective]]:
        """The frozen network with an SVM for each attribute, and the attributes."""
        (task,) = self._parts
        if facts.attributes is None:
            raise ConfigurationError("SVMNet cannot be fitted: the data has no attributes; use CelebADataModule")
        if task.facts is None:
            task.build(facts)
            self.settings["regions"] = task.settings["regions"]  # a parser's file is not needed again
        network = SVMNetwork(task.network, task.predict_batch, facts.image_size, len(facts.attributes))
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
        data, rank, processes = getattr(self.trainer, "datamodule", None), self.global_rank, self.trainer.world_size
        if data is None:
            raise ConfigurationError(
                "SVMNet is fitted on the validation split: test it with a data module, not with a loader of test images"
            )
        data.setup("validate")
        loaders = CombinedLoader(data.val_dataloader(), "sequential").flattened
        found = [self._describe(batch) for loader in loaders for batch in loader if "attributes" in batch]
        if not found:
            raise ConfigurationError("SVMNet: the validation data has no attributes to fit to")
        features, targets = (self._of_all(torch.cat(part)) for part in zip(*found, strict=True))
        if not features.isfinite().all():
            raise DivergenceError("SVMNet: features of the validation data are not finite: use another network")
        rank_zero_info(f"fitting an SVM for each of {targets.shape[1]} attributes to {len(targets)} validation images")
        # each process fits its share of the attributes
        self.network.svms.coefficients = self._of_all(fit_svms(features, targets[:, rank::processes]).coefficients)

    def _describe(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features and attributes of a batch, on the CPU; computed as in a test step."""
        precision = self.trainer.precision_plugin
        batch = self.trainer.strategy.batch_to_device(precision.convert_input(batch))
        with precision.test_step_context():
            features = self.network.features(batch["image"], batch.get("landmarks"))
        return features.cpu(), batch["attributes"].cpu()

    def _of_all(self, rows: Tensor) -> Tensor:
        """The rows of all processes."""
        if self.trainer.world_size == 1:
            return rows
        return interleaved([part.cpu() for part in gather_all_tensors(rows.to(self.device))])

    def configure_optimizers(self) -> None:
        """There is nothing to train."""
        raise ConfigurationError("SVMNet has nothing to learn: `facelightning test` writes its checkpoint")


def interleaved(parts: Sequence[Tensor]) -> Tensor:
    """The rows of P processes in order, if each had every P-th, as evaluation gives them samples.

    Example:
        >>> interleaved([torch.tensor([0, 2, 4]), torch.tensor([1, 3])])
        tensor([0, 1, 2, 3, 4])
    """
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
