"""A part of the user's own: one module and one line, from training to prediction."""

import sys
from collections.abc import Callable
from importlib import import_module
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
OBJECTIVE = """
from facelightning.losses import attribute_loss
from facelightning.objectives import Attributes

class Smoothed(Attributes):
    def __init__(self, names, weight=1.0, smoothing=0.1):
        super().__init__(names, weight)
        self.smoothing = smoothing

    def loss(self, output, batch):
        targets = batch["attributes"] * (1 - self.smoothing) + self.smoothing / 2
        return attribute_loss(output["attributes"], targets)
"""
PACKAGE = """
from mine import MaxPooling

class OptionPooling(MaxPooling):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
"""
OWN = "model: {init_args: {width: 2, pooling: mine.MaxPooling}}"
OWN_OBJECTIVE = "model: {init_args: {width: 2, objective: {class_path: mine.Smoothed, init_args: {smoothing: 0.2}}}}"
OWN_PACKAGE = OWN.replace("mine.", "shelf.")
OWN_OPTIONS = OWN.replace("mine.MaxPooling", "{class_path: shelf.OptionPooling, init_args: {}}")
CONFIGS = {
    "own.yaml": OWN,
    "own_objective.yaml": OWN_OBJECTIVE,
    "own_package.yaml": OWN_PACKAGE,
    "own_options.yaml": OWN_OPTIONS,
}
CLASSES = ["mine.MaxPooling", "mine.Smoothed", "mine.MaxPooling", "shelf.OptionPooling"]
BEST = "--ckpt_path=runs/avg/version_0/checkpoints/best.ckpt"


@pytest.fixture
def run(tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mine.py").write_text(POOLING + OBJECTIVE)
    Path("shelf.py").write_text(PACKAGE)
    for name, text in CONFIGS.items():
        Path(name).write_text(f"extends: avg.yaml\n{text}\n")
    small = [f"--data.image_size={list(SIZE)}", "--data.batch_size=4", "--data.num_workers=0"]
    small += [f"--data.root={faces / 'celeba'}", "--trainer.enable_progress_bar=false", "--figures.num_images=0"]

    def call(*words: str) -> int:
        for name in ("mine", "shelf"):  # as in a new process
            sys.modules.pop(name, None)
        return main([*words, *small])

    return call


@pytest.mark.parametrize(
    ("config", "part"),
    list(zip(CONFIGS, CLASSES, strict=True)),
    ids=["pooling", "objective", "imported by another module", "with keywords of its base"],
)
def test_from_training_to_prediction(
    config: str, part: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", f"--config={config}", "--trainer.max_steps=2") == 0
    assert run("test", BEST) == 1
    refusal = f"names a class {part}, which a checkpoint may not: pass the --config that does"
    assert refusal in capsys.readouterr().err
    for command in ("test", "predict"):
        assert run(command, BEST, f"--config={config}") == 0
    assert list(Path("runs").glob("avg/*/predictions/attributes.csv"))


def test_a_mistake_in_an_own_loss_is_not_blamed_on_the_checkpoint(run: Callable[..., int]) -> None:
    assert run("fit", "--config=own_objective.yaml", "--trainer.max_steps=2") == 0
    Path("mine.py").write_text(OBJECTIVE.replace("return attribute_loss", "int('mine'); return attribute_loss"))
    with pytest.raises(ValueError, match=r"invalid literal .*'mine'"):
        run("fit", "--config=own_objective.yaml", BEST.replace("best", "last"), "--trainer.max_steps=4")


def test_the_command_finds_parts_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "argv", ["facelightning", "--version"])
    Path("of_mine.py").write_text("answer = 42")
    with pytest.raises(ModuleNotFoundError):
        import_module("of_mine")
    assert main() == 0
    assert import_module("of_mine").answer == 42
