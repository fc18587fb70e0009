"""Checkpoints of tiny trainings through the command line."""

import shutil
from pathlib import Path

import lightning  # noqa: F401  # its log stays with the stderr of its import: not with that of the first test
import pytest

from facelightning.__main__ import main
from tests.test_configs import small_overlay

AVG, BBOX, SEGNET, JOINT = (
    f"runs/{name}/version_0/checkpoints/best.ckpt" for name in ("avg", "bbox", "segnet", "joint")
)
"""What ``runs`` holds."""

TINY = "extends: avg.yaml\nmodel: {init_args: {width: 2}}\n"
"""A configuration of the paper's image size, and of the network in ``AVG``."""


@pytest.fixture(scope="session")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of four runs, each trained for two steps on images of ``SIZE``."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, config in {"avg": "avg", "bbox": "bbox", "segnet": "segnet", "joint": "quickstart"}.items():
            words = ["fit", f"--config={config}.yaml", f"--config={small_overlay(f'{config}.yaml', faces, root)}"]
            assert main([*words, f"--trainer.logger.name={name}", "--test_after_fit=false"]) == 0
    return root / "runs"


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them in the folder in which the test works."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"
