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
    gradient = transformer.affine.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_the_spatial_transformer_moves_the_image() -> None:
    """Shifted by a tenth of the width to the right: the grid's x runs from -1 to 1."""
    transformer = SpatialTransformer(width=4).eval()
    images = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        transformer.affine.bias[2] = 0.2
        moved = transformer(images)
    torch.testing.assert_close(moved[..., :-2], Normalize()(images)[..., 2:], rtol=1e-4, atol=1e-4)


def test_the_spatial_transformer_takes_no_regions() -> None:
    with pytest.raises(ConfigurationError, match="leave out `regions`"):
        AttributeNetwork(2, 2, image_input=SpatialTransformer, pooling=SemanticPooling, regions=LandmarkBoxes)
