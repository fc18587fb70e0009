"""Separate networks as one computation: each equals the same network alone."""

import pytest
import torch
from torch import nn

from facelightning.errors import ConfigurationError
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.separate import SeparateEncoder, SeparateHead


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
    with pytest.raises(ConfigurationError, match=r"SeparateHead needs a network for each attribute: .*SeparateEncoder"):
        AttributeNetwork(4, width=2, head=SeparateHead)
    with pytest.raises(ConfigurationError, match="64 channels"):
        SeparateHead(64, 1, 3)
    with pytest.raises(ConfigurationError, match="holds 2 networks for 4 attributes"):
        AttributeNetwork(4, encoder=lambda image_input: SeparateEncoder(image_input, 2, width=2), head=SeparateHead)
