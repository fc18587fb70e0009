"""Face parsing alone."""

from typing import Literal

from facelightning.labels import LABEL_SPACES
from facelightning.models.segmentation import SegmentationNetwork
from facelightning.tasks.base import Batch, FaceTask, Outputs


class SegNet(FaceTask):
    """Learn face parsing with the network of Kalayeh et al. (CVPR 2017), §3.2; defaults are the paper's.

    This is that paper's parser, not the SegNet of Badrinarayanan et al.

    Args:
        labels: The label space of the masks.
        width: Filters of the first layer; scales every layer.
        optimizer: The paper's AdaGrad, or AdamW.
        learning_rate: Constant, or the peak of the one-cycle schedule.
        weight_decay: L2 penalty (AdaGrad) or decoupled decay (AdamW).
        schedule: Constant as in the paper, or one cycle over the whole training.

    Example:
        >>> SegNet(width=4).network.encoder.out_channels
        32
    """

    def __init__(
        self,
        labels: Literal["helen7", "helen11"] = "helen7",
        width: int = 64,
        optimizer: Literal["adagrad", "adamw"] = "adagrad",
        learning_rate: float = 0.001,
        weight_decay: float = 0.0005,
        schedule: Literal["constant", "one_cycle"] = "constant",
    ) -> None:
        super().__init__(LABEL_SPACES[labels], False, optimizer, learning_rate, weight_decay, schedule)
        self.save_hyperparameters()
        self.network = SegmentationNetwork(len(LABEL_SPACES[labels]), width)

    def predict_batch(self, batch: Batch) -> tuple[Outputs, Batch]:
        """Parse the pictures of a batch."""
        return Outputs(parsing=self.network(batch["image"])), batch
