"""Networks side by side as one computation: each equals the same network alone."""

import pytest
import torch
from torch import nn

from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTE_GROUPS, ATTRIBUTES
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.blocks import Normalize
from facelightning.models.encoders import PlainInput
from facelightning.models.heads import GroupHead
from facelightning.models.pooling import Pooled, SemanticPooling
from facelightning.models.regions import LandmarkBoxes
from facelightning.models.separate import SeparateEncoder, SeparateHead
from facelightning.models.transformer import SpatialTransformer


def test_group_head_is_nine_heads() -> None:
    """Each group: a convolution, a hidden layer and a classifier of its own, on all places."""
    torch.manual_seed(0)
    head = GroupHead(8, 4, 40, filters=3, width=5).double()
    vectors = torch.rand(6, 4, 8, dtype=torch.float64)
    logits = head(Pooled(vectors, torch.ones(6, 4, 1, dtype=torch.bool)))["logits"]
    for number, names in enumerate(ATTRIBUTE_GROUPS.values()):
        convolution = nn.Conv2d(8, 3, kernel_size=1).double()
        hidden, classifier = nn.Linear(12, 5).double(), nn.Linear(5, len(names)).double()
        with torch.no_grad():
            rows = slice(3 * number, 3 * number + 3)
            convolution.weight.copy_(head.convolution.weight[rows, :, None, None])
            convolution.bias.copy_(head.convolution.bias[rows])
            hidden.weight.copy_(head.hidden.weight[number].T)
            hidden.bias.copy_(head.hidden.bias[number, 0])
            classifier.weight.copy_(head.classifier.weight[number, :, : len(names)].T)
            classifier.bias.copy_(head.classifier.bias[number, 0, : len(names)])
        maps = convolution(vectors.transpose(1, 2).unflatten(2, (2, 2))).relu()  # a map of 2×2 places
        expected = classifier(hidden(maps.permute(0, 2, 3, 1).flatten(1)).relu())
        found = logits[:, [ATTRIBUTES.index(name) for name in names]]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ConfigurationError, match="40 attributes, not of 3"):
        GroupHead(8, 4, 3)


def test_no_separate_network_sees_another() -> None:
    torch.manual_seed(0)
    network = AttributeNetwork(
        3, encoder=lambda image_input: SeparateEncoder(image_input, networks=3, width=2), head=SeparateHead
    )
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # else all are alike
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    network.eval()
    images = torch.rand(2, 3, 40, 32)
    logits = network(images)["attributes"]
    for number in range(3):
        alone = AttributeNetwork(
            1, encoder=lambda image_input: SeparateEncoder(image_input, networks=1, width=2), head=SeparateHead
        )
        # the first of one network is a third of three; but all share the image
        for mine, theirs in zip(alone.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.shape == theirs.shape:
                mine.copy_(theirs)
            else:
                mine.copy_(theirs.unflatten(0, (3, -1))[number])
        torch.testing.assert_close(alone.eval()(images)["attributes"][:, 0], logits[:, number], rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigurationError, match="64 channels"):
        SeparateHead(64, 1, 3)
    with pytest.raises(ConfigurationError, match="holds 2 networks for 4 attributes"):
        AttributeNetwork(4, encoder=lambda image_input: SeparateEncoder(image_input, 2, width=2), head=SeparateHead)


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
    assert PlainInput().channels == SpatialTransformer().channels
