"""A small synthetic set on disk, and the command line run on it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from facelightning.__main__ import main
from facelightning.data.synthetic import write_synthetic

os.environ["WANDB_MODE"] = "offline"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
torch.set_num_threads(1)  # the tests run side by side

SIZE = (40, 32)
"""Height and width that the tiny networks see."""


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic faces in CelebA's and Helen's layouts; odd numbers, so that nothing divides by two processes."""
    root = tmp_path_factory.mktemp("faces") / "synthetic"
    write_synthetic(root, attributes=(21, 11, 13), parsing=(9, 5, 7), seed=0)
    return root


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run ``facelightning`` in an empty folder, in this process, and insist on success."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> None:
        assert main(args) == 0

    return run
