"""A trained parser, for the tasks that need one."""

from pathlib import Path

import pytest
import torch

from facelightning.tasks import SegNet
from tests.tasks.tiny import FACTS, save


@pytest.fixture
def parser(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return save(SegNet(width=2).build(FACTS), tmp_path / "parser.ckpt")
