"""A part of the user's own: one module and one line, from training to prediction, in new processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SIZE

POOLING = """
from facelightning.models.pooling import Pooling, Pooled

class MaxPooling(Pooling):
    def places(self, regions):
        return ("image",)

    def forward(self, features, regions):
        vectors = features.amax(dim=(2, 3)).unsqueeze(1)
        return Pooled(vectors, vectors[..., :1] == vectors[..., :1])
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]
OWN = "model: {init_args: {width: 2, pooling: mine.MaxPooling}}"


@pytest.fixture
def run(tmp_path: Path, faces: Path) -> Run:
    (tmp_path / "mine.py").write_text(POOLING)
    (tmp_path / "own.yaml").write_text(f"extends: avg.yaml\n{OWN}\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    small = [f"--data.image_size={list(SIZE)}", "--data.batch_size=4", "--data.num_workers=0"]
    small += [f"--data.root={faces / 'celeba'}", "--trainer.enable_progress_bar=false"]

    def call(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "facelightning", *words, *small]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return call


def test_from_training_to_prediction(run: Run, tmp_path: Path) -> None:
    done = run("fit", "--config=own.yaml", "--trainer.max_steps=2")
    assert done.returncode == 0, done.stderr
    best = "--ckpt_path=runs/avg/version_0/checkpoints/best.ckpt"
    refused = run("test", best)
    assert refused.returncode == 1
    assert "names a class mine.MaxPooling, which a checkpoint may not: pass the --config that does" in refused.stderr
    for command in ("test", "predict"):
        done = run(command, best, "--config=own.yaml")
        assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/avg/*/predictions/attributes.csv"))
