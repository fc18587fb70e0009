"""The spatial transformer: it begins as the identity, moves the image as its map says, and learns."""

import pytest
import torch

from facelightning.errors import ConfigurationError
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.blocks import Normalize
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import LandmarkBoxes
from facelightning.models.transformer import SpatialTransformer


def test_the_spatial_transformer_starts_as_the_identity_and_learns() -> None:
    transformer = SpatialTransformer(width=4)
    images = torch.rand(4, 3, 37, 29)
    moved = transformer(images)
    torch.testing.assert_close(moved, Normalize()(images), rtol=1e-4, atol=1e-4)
    moved.square().mean().backward()
    gradient = transformer.motion.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_starts_as_the_identity_under_autocast() -> None:
    """In bfloat16 its places would be off by up to a fifth of a pixel."""
    images = torch.rand(1, 3, 218, 178)
    with torch.autocast("cpu", torch.bfloat16):
        moved = SpatialTransformer(width=4)(images)
    torch.testing.assert_close(moved, Normalize()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adagrad])
def test_a_step_does_not_lose_the_face(kind: type[torch.optim.Optimizer]) -> None:
    """Each weight moves by the learning rate, and all may move the image the same way."""
    torch.manual_seed(0)
    transformer, images = SpatialTransformer(), torch.rand(4, 3, 37, 29)
    optimizer = kind(transformer.motion.parameters(), lr=0.002)  # type: ignore[call-arg]  # each kind's own
    transformer(images)[..., :14].sum().backward()
    optimizer.step()
    with torch.no_grad():
        shift = transformer(images) - Normalize()(images)
    assert 0 < shift.abs().mean() < 0.3  # 1.3 if features are not averaged


def test_the_spatial_transformer_moves_the_image() -> None:
    """Shifted by a tenth of the width to the right: the grid's x runs from -1 to 1."""
    transformer = SpatialTransformer(width=4).eval()
    images = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        transformer.motion.bias[2] = 0.2
        moved = transformer(images)
    torch.testing.assert_close(moved[..., :-2], Normalize()(images)[..., 2:], rtol=1e-4, atol=1e-4)


def test_the_spatial_transformer_takes_no_regions() -> None:
    with pytest.raises(ConfigurationError, match="leave out `regions`"):
        AttributeNetwork(2, 2, image_input=SpatialTransformer, pooling=SemanticPooling, regions=LandmarkBoxes)
