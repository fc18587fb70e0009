"""Several trained attribute networks as one: the paper's "SSP + SSG"."""

from collections.abc import Mapping
from typing import Any

from facelightning.checkpoint import restore
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.models.ensemble import EnsembleNetwork
from facelightning.tasks.attributenet import AttributeNet, read_task
from facelightning.tasks.base import Batch, FaceTask, Outputs


class EnsembleNet(FaceTask):
    """Average the predictions of trained :class:`AttributeNet` s (Kalayeh et al., CVPR 2017, Table 2, "SSP + SSG").

    ``fit`` trains nothing: it scores the ensemble on the validation data and writes a checkpoint that holds all of its
    members, and tests, predicts and loads like any other.

    Args:
        members: Checkpoints of :class:`AttributeNet`.
        member_settings: The members' own settings. Filled in from their checkpoints; a checkpoint of this task holds
            them, so that the members' files are not needed again.

    Raises:
        ConfigurationError: If there is no member.
        CheckpointError: If a member's file is missing, broken, or of another task.

    Example:
        >>> EnsembleNet(["runs/ssp/version_0/checkpoints/missing.ckpt"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: EnsembleNet's member: checkpoint runs/ssp/... does not exist; ...
    """

    network: EnsembleNetwork

    def __init__(self, members: list[str] | None = None, member_settings: list[dict[str, Any]] | None = None) -> None:
        super().__init__(None, True, "adagrad", 0.001, 0.0, "constant")  # no parameter, so nothing to optimise
        self.save_hyperparameters()
        if not members and not member_settings:
            raise ConfigurationError("EnsembleNet: `members` must name checkpoints of trained AttributeNets")
        checkpoints = []
        if member_settings is None:
            checkpoints = [read_task(path, "AttributeNet", "EnsembleNet's member") for path in members or ()]
            member_settings = [_settings(checkpoint["hyper_parameters"]) for checkpoint in checkpoints]
            self.hparams["member_settings"] = member_settings
        try:
            tasks = [AttributeNet(**settings) for settings in member_settings]
        except TypeError as error:
            raise CheckpointError(f"EnsembleNet: a member is of another version of facelightning: {error}") from None
        for task, checkpoint, path in zip(tasks, checkpoints, members or (), strict=False):
            restore(task, checkpoint["state_dict"], path)
        self.network = EnsembleNetwork(task.network for task in tasks)

    def predict_batch(self, batch: Batch) -> tuple[Outputs, Batch]:
        """Describe the pictures of a batch."""
        return Outputs(attributes=self.network(batch["image"], batch.get("landmarks"))), batch

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]  # there is no loss
        """Nothing is learnt."""

    def configure_optimizers(self) -> None:  # type: ignore[override]  # there is none
        """Nothing is optimised."""


def _settings(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings without the notes of Lightning's command line, whose names start with "_"."""
    return {key: value for key, value in hyperparameters.items() if not key.startswith("_")}
