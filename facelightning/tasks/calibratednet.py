"""A trained network whose probabilities mean what they say, and whose decisions have fitted thresholds."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_info

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.calibration import CalibratedNetwork, Criterion
from facelightning.objectives import Attributes, Batch, CalibratedAttributes, Objective, Output
from facelightning.tasks.anet import ANet
from facelightning.tasks.attributenet import AttributeNet
from facelightning.tasks.base import FaceTask, trained
from facelightning.tasks.ensemblenet import EnsembleNet
from facelightning.tasks.fitting import of_all_processes, validation_batches
from facelightning.tasks.jointnet import JointNet


class CalibratedNet(FaceTask):
    """Calibrate the attributes of a trained network, and choose a threshold for each.

    There is no training: ``facelightning test`` fits a temperature and a threshold for each attribute to the validation
    split, scores the test split before and after, and writes one checkpoint. That tests, predicts and loads like any
    other, and is not fitted again; the network's own stays as it is. All that a network gives besides attributes is
    unchanged. See :mod:`facelightning.models.calibration`.

    Args:
        network: Checkpoint of an :class:`ANet`, :class:`AttributeNet`, :class:`EnsembleNet` or :class:`JointNet`; or a
            description from a checkpoint, for a network whose weights are loaded later.
        criterion: What the thresholds make best: ``balanced_accuracy``, ``f1``, or ``cost``, the number of false alarms
            and misses.
        miss_cost: What a miss costs, if a false alarm costs 1; for ``cost`` only.

    Raises:
        ConfigurationError: If the cost is not positive, or is given for another criterion.
        CheckpointError: If the file is missing, broken, or of another task.

    Example:
        >>> CalibratedNet("runs/avg/version_0/checkpoints/missing.ckpt")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: CalibratedNet's network: checkpoint runs/avg/... does not exist; ...
    """

    made_of = "network"
    network: CalibratedNetwork

    def __init__(self, network: str, criterion: Criterion = "balanced_accuracy", miss_cost: float = 1.0) -> None:
        if not 0 < miss_cost < 1e6:
            raise ConfigurationError(f"CalibratedNet: miss_cost must be positive, not {miss_cost}")
        if miss_cost != 1 and criterion != "cost":
            raise ConfigurationError(f"CalibratedNet: miss_cost belongs to the criterion cost, not {criterion}")
        kinds = (ANet, AttributeNet, EnsembleNet, JointNet)
        description, task = trained(network, kinds, "CalibratedNet's network", "avg")
        super().__init__({"network": description, "criterion": criterion, "miss_cost": miss_cost})
        self.criterion, self.miss_cost = criterion, miss_cost
        self._parts = (task,)  # in a tuple: of the network alone
        assert task.facts is not None
        self.build(task.facts)

    @classmethod
    def fitted_by_test(cls, settings: Mapping[str, Any]) -> bool:
        """Always."""
        return True

    def make(self, facts: DataFacts) -> tuple[CalibratedNetwork, list[Objective]]:
        """The calibrated network, and the objectives of the network itself."""
        (task,) = self._parts
        assert facts.attributes is not None
        before = cast(Attributes, task.objectives["attributes"])
        network = CalibratedNetwork(task.network, len(facts.attributes), before.logits)
        others = [each for key, each in task.objectives.items() if key != "attributes"]
        return network, [*others, CalibratedAttributes(facts.attributes, before)]

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """What the network gives, calibrated; raises :class:`ConfigurationError` before that is fitted."""
        (task,) = self._parts
        if not self.network.calibration.fitted:
            raise ConfigurationError(
                "the network is not calibrated yet: `facelightning calibrate` fits it to the validation split, and "
                "writes a checkpoint for all else"
            )
        output, truth = task.predict_batch(batch)
        return self.network.calibrated(output), truth

    def on_test_start(self) -> None:
        """Fit it, unless it comes from a checkpoint."""
        super().on_test_start()
        if not self.network.calibration.fitted:
            with torch.inference_mode(False), torch.no_grad():
                self._fit()

    def _fit(self) -> None:
        (task,) = self._parts
        found = [
            (self.network.logits(task.predict_batch(batch)[0]).cpu(), batch["attributes"].cpu())
            for batch in validation_batches(self)
            if "attributes" in batch
        ]
        if not found:
            raise ConfigurationError("CalibratedNet: the validation data has no attributes to fit to")
        logits, targets = (of_all_processes(self, torch.cat(part)) for part in zip(*found, strict=True))
        rank_zero_info(f"calibrating {targets.shape[1]} attributes on {len(targets)} validation images")
        self.network.calibration.fit(logits, targets, self.criterion, self.miss_cost)

    def configure_optimizers(self) -> None:
        """There is nothing to train."""
        raise ConfigurationError("CalibratedNet has nothing to learn: `facelightning test` writes its checkpoint")
