"""A trained parser, for the tasks that need one."""

import shutil
from pathlib import Path

import pytest
import torch

from facelightning.tasks import SegNet
from tests.tasks.tiny import FACTS, save


@pytest.fixture(scope="session")
def trained_parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    return save(SegNet(width=2).build(FACTS), tmp_path_factory.mktemp("parser") / "parser.ckpt")


@pytest.fixture
def parser(trained_parser: Path, tmp_path: Path) -> Path:
    """A copy of it: some tests change or remove theirs."""
    return Path(shutil.copy(trained_parser, tmp_path))
