"""A part of the user's own: one module and one line, from training to prediction."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from facelightning.__main__ import main
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
OWN = "model: {init_args: {width: 2, pooling: mine.MaxPooling}}"
BEST = "--ckpt_path=runs/avg/version_0/checkpoints/best.ckpt"


@pytest.fixture
def run(tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mine.py").write_text(POOLING)
    Path("own.yaml").write_text(f"extends: avg.yaml\n{OWN}\n")
    small = [f"--data.image_size={list(SIZE)}", "--data.batch_size=4", "--data.num_workers=0"]
    small += [f"--data.root={faces / 'celeba'}", "--trainer.enable_progress_bar=false"]

    def call(*words: str) -> int:
        sys.modules.pop("mine", None)  # as in a new process
        return main([*words, *small])

    return call


def test_from_training_to_prediction(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--config=own.yaml", "--trainer.max_steps=2") == 0
    assert run("test", BEST) == 1
    refusal = "names a class mine.MaxPooling, which a checkpoint may not: pass the --config that does"
    assert refusal in capsys.readouterr().err
    for command in ("test", "predict"):
        assert run(command, BEST, "--config=own.yaml") == 0
    assert list(Path("runs").glob("avg/*/predictions/attributes.csv"))
