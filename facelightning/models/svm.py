"""Linear SVMs on the features of a trained network."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.models.blocks import Frozen
from facelightning.models.encoders import Encoder
from facelightning.models.pooling import Pooling


class LinearSVMs(nn.Module):
    """A linear SVM for each attribute, with a sigmoid that makes a probability of its decision.

    After Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, §5.1, and Platt, "Probabilistic
    outputs for support vector machines", 1999. :func:`~facelightning.models.svm_fitting.fit_svms` makes fitted ones.

    A decision above 0 is positive. A probability above 1/2 mostly is, too, but not always: the sigmoid has an offset.

    Args:
        num_features: D.
        num_attributes: A.

    Shape:
        - features: ``(B, D)``.
        - return: decisions ``(B, A)``, float64, on the CPU.

    Raises:
        ConfigurationError: If they are not fitted.

    Example:
        >>> svms = LinearSVMs(num_features=2, num_attributes=1)
        >>> svms.coefficients = torch.tensor([[1.0, -1.0, 0.5, 2.0, 0.0]], dtype=torch.float64)
        >>> svms(torch.tensor([[3.0, 1.0]]))
        tensor([[2.5000]], dtype=torch.float64)
        >>> svms.calibrate(torch.tensor([[2.5]])).sigmoid()
        tensor([[0.9933]], dtype=torch.float64)
    """

    coefficients: Tensor
    """``(A, D + 3)``: weights, bias, slope and offset of the sigmoid; all 0 until fitted.

    No buffer, because that would follow the network to its precision, and to a GPU that may have no float64.
    """

    def __init__(self, num_features: int, num_attributes: int) -> None:
        super().__init__()
        self.coefficients = torch.zeros(num_attributes, num_features + 3, dtype=torch.float64)

    @property
    def fitted(self) -> bool:
        """Whether they can decide."""
        return bool(self.coefficients.any())

    def get_extra_state(self) -> Tensor:
        """What a checkpoint holds."""
        return self.coefficients

    def set_extra_state(self, state: Tensor) -> None:
        """Take what a checkpoint holds; raises :class:`CheckpointError` if it does not fit."""
        if state.shape != self.coefficients.shape:
            expected, found = (tuple(each.shape) for each in (self.coefficients, state))
            raise CheckpointError(f"the checkpoint's SVMs are {found}, not {expected}")
        self.coefficients = state.to("cpu", torch.float64)

    def forward(self, features: Tensor) -> Tensor:
        if not self.fitted:
            raise ConfigurationError(
                "the SVMs are not fitted yet: `facelightning test` fits them on the validation split, and writes a "
                "checkpoint for all else"
            )
        return features.cpu().double() @ self.coefficients[:, :-3].T + self.coefficients[:, -3]

    def calibrate(self, decisions: Tensor) -> Tensor:
        """The logits of the probabilities, ``(B, A)``, float64, of decisions ``(B, A)``."""
        return decisions * self.coefficients[:, -2] + self.coefficients[:, -1]


def as_vectors(features: Tensor) -> Tensor:
    """The features of each image as a vector, ``(B, D)``, float32 or float64; a map is averaged over its cells.

    Args:
        features: ``(B, D, h, w)`` or ``(B, D)``.

    Example:
        >>> as_vectors(torch.tensor([[[[1.0, 3.0]], [[4.0, 4.0]]]]))
        tensor([[2., 4.]])
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features


@contextmanager
def collect_maps(network: nn.Module, level: int | None) -> Iterator[list[Tensor]]:
    """Collect the maps of a level that the network's encoder makes while the block runs; none without a level."""
    maps = list[Tensor]()
    if level is None:
        yield maps
        return
    handle = network.get_submodule("encoder").register_forward_hook(lambda _, __, made: maps.append(made[level]))
    try:
        yield maps
    finally:
        handle.remove()


class SVMNetwork(Frozen):
    """SVMs on the features of a trained network, which is frozen and always in evaluation mode.

    A vector of features is taken as it is; a map is pooled, and its places are put beside one another.

    Args:
        network: The network.
        describe: Its task's ``predict_batch``, whose output has ``"features"``: ``(B, D, h, w)`` or ``(B, D)``.
        image_size: Height and width of images that it takes.
        num_attributes: A.
        level: Which of its encoder's maps is taken in place of its features: 0 is the finest.
        pooling: Makes the pooling of a map; the mean of the whole map if not given.

    Shape:
        - images: ``(B, 3, H, W)``, uint8, or float in [0, 1].
        - landmarks: ``(B, 5, 2)``, if the network needs them.
        - return: ``"decisions"``: ``(B, A)``; ``"attributes"``: logits ``(B, A)`` of the probabilities; both float32.

    Raises:
        ConfigurationError: If the network has no such map, or the pooling needs regions, or there is no map to pool.
    """

    def __init__(
        self,
        network: nn.Module,
        describe: Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], Any]],
        image_size: tuple[int, int],
        num_attributes: int,
        level: int | None = None,
        pooling: Callable[[int], Pooling] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.describe, self.level = network, describe, level
        encoder = getattr(network, "encoder", None)
        levels = len(encoder.channels) if isinstance(encoder, Encoder) else 0
        if level is not None and level not in range(levels):
            its = f"has {levels} maps, from 0 on" if levels else "has no encoder"
            raise ConfigurationError(f"SVMNet: there is no level {level}: {type(network).__name__} {its}")
        self.pooling = None if pooling is None else pooling(16)  # the stride matters with regions only
        if self.pooling is not None and self.pooling.needs_regions:
            raise ConfigurationError(f"SVMNet: {type(self.pooling).__name__} needs regions, which SVMs have not")
        self.freeze()
        found = self.features(torch.zeros(1, 3, *image_size), torch.zeros(1, 5, 2))
        self.svms = LinearSVMs(found.shape[1], num_attributes)

    def features(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """The features ``(B, D)`` of images ``(B, 3, H, W)``."""
        with collect_maps(self.network, self.level) as maps:
            # with the key "attributes", a network that also parses does not
            output, _ = self.describe({"image": images, "landmarks": landmarks, "attributes": None})
        features = maps[0] if maps else output["features"]
        if self.pooling is None:
            return as_vectors(features)
        if features.ndim == 2:
            raise ConfigurationError(
                f"SVMNet: the features of {type(self.network).__name__} are a vector, which has no pooling: set `level`"
            )
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        return cast(Tensor, self.pooling(features, None).vectors.flatten(1))

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, Any]:
        decisions: Tensor = self.svms(self.features(images, landmarks))
        output = {"decisions": decisions, "attributes": self.svms.calibrate(decisions)}
        return {key: value.float().to(images.device) for key, value in output.items()}
