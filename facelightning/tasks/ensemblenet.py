"""Several trained attribute networks as one: the paper's "SSP + SSG"."""

from typing import cast

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.ensemble import EnsembleNetwork
from facelightning.objectives import Attributes, Objective
from facelightning.tasks.attributenet import AttributeNet
from facelightning.tasks.base import FaceTask, trained


class EnsembleNet(FaceTask):
    """Average the predictions of trained :class:`AttributeNet` s (Kalayeh et al., CVPR 2017, Table 2, "SSP + SSG").

    It has nothing to learn: ``facelightning test`` scores it and writes one checkpoint with all its members, which
    tests, predicts and loads like any other.

    Args:
        members: Checkpoints of :class:`AttributeNet`, all for the same data; or descriptions from a checkpoint, for
            members whose weights are loaded later.

    Raises:
        ConfigurationError: If there is no member, or the members are for different data.
        CheckpointError: If a member's file is missing, broken, or of another task.

    Example:
        >>> EnsembleNet(["runs/ssp/version_0/checkpoints/missing.ckpt"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.CheckpointError: EnsembleNet's member: checkpoint runs/ssp/... does not exist; ...
    """

    made_of = "members"

    def __init__(self, members: list[str]) -> None:
        if not members:
            raise ConfigurationError("EnsembleNet: `members` must name checkpoints of trained AttributeNets")
        found = [trained(member, (AttributeNet,), "EnsembleNet's member", "avg") for member in members]
        super().__init__({"members": [description for description, _ in found]})
        self._members = [task for _, task in found]
        facts = [task.facts for task in self._members if task.facts is not None]
        self.build(facts[0])
        for other in facts[1:]:
            self.check(other, "another member")

    def make(self, facts: DataFacts) -> tuple[EnsembleNetwork, list[Objective]]:
        """The network of all members, and the attributes they predict."""
        assert facts.attributes is not None
        network = EnsembleNetwork(cast(AttributeNetwork, task.network) for task in self._members)
        return network, [Attributes(facts.attributes)]

    def configure_optimizers(self) -> None:
        """There is nothing to learn."""
        raise ConfigurationError("EnsembleNet has nothing to learn: `facelightning test` writes its checkpoint")
