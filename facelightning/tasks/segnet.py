"""Face parsing alone."""

from collections.abc import Callable
from dataclasses import dataclass

from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.encoders import Encoder, Input
from facelightning.models.segmentation import SegmentationNetwork
from facelightning.objectives import Batch, Objective, Output, Parsing
from facelightning.tasks.learning import LearningTask


@dataclass(eq=False, repr=False)
class SegNet(LearningTask):
    """Learn face parsing with the network of Kalayeh et al. (CVPR 2017), §3.2; defaults are the paper's.

    This is that paper's parser, not the SegNet of Badrinarayanan et al.

    Args:
        width: Filters of the first layer; scales every layer.
        encoder: The paper's if not given, or :class:`~facelightning.models.encoders.TorchvisionEncoder`.

    Example:
        >>> from facelightning.labels import HELEN7
        >>> SegNet(width=4).build(DataFacts((109, 89), HELEN7)).network.encoder.channels
        (4, 8, 16, 32)
    """

    width: int = 64
    encoder: Callable[[Input], Encoder] | None = None

    def make(self, facts: DataFacts) -> tuple[SegmentationNetwork, list[Objective]]:
        """The parser for a label space."""
        space = facts.label_space
        if space is None:
            raise ConfigurationError("SegNet cannot learn parsing: the data has no masks; use HelenDataModule")
        return SegmentationNetwork(len(space), self.width, self.encoder), [Parsing(space)]

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        """Parse the images of a batch."""
        return self.network(batch["image"]), batch
