"""What a user reads: every line that a command prints, and no line more."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from facelightning.__main__ import main
from tests.processes import SECONDS, run
from tests.test_configs import small_overlay

BEST = "runs/segnet/version_0/checkpoints/best.ckpt"
SCORES = [
    "  parsing      mean IoU # %   mean F1 (foreground) # %   overall F1 (parts) # %",
    "  IoU          background #   hair #   face_skin #   eyes #   eyebrows #   mouth #   nose #",
]


def lines(*texts: str) -> list[list[str]]:
    """The lines of each; ``#`` is any number."""
    return [re.sub(r"\b\d+\.\d+\b", "#", text).splitlines() for text in texts]


def printed_by(folder: Path, *args: str) -> list[list[str]]:
    """The lines on stdout and on stderr of a command."""
    done = run(args, folder=folder)
    assert done.poll() == 0, done.err
    return lines(done.out, done.err)


@pytest.fixture(scope="module")
def printed(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """A small training, with augmentations: its folder, and what it printed, all imports included."""
    folder = tmp_path_factory.mktemp("output")
    small = small_overlay("segnet.yaml", faces, folder)
    command = [sys.executable, "-m", "facelightning", "fit", "--config=segnet.yaml", "--recipe=small"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(
        [*command, f"--config={small}"], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    out, err = lines(done.stdout, done.stderr)
    return folder, out, err


def test_every_line_of_a_training(printed: tuple[Path, list[str], list[str]]) -> None:
    _, out, err = printed
    assert out == ["scores of the last validation", *SCORES]
    assert err == [
        "SegNet: 13,836 parameters",
        "run folder: runs/segnet/version_0",
        "speed: 32-true, not compiled, 1 thread",
        "`Trainer.fit` stopped: `max_steps=2` reached.",
        "run folder: runs/segnet/version_0",
    ]


def test_every_line_of_a_test(printed: tuple[Path, list[str], list[str]]) -> None:
    folder, *_ = printed
    out, err = printed_by(folder, "test", f"--ckpt_path={BEST}", "--trainer.enable_progress_bar=false")
    assert out == ["test scores", *SCORES]
    assert err == [
        f"Loaded model weights from the checkpoint at {BEST}",
        f"written: {folder}/runs/segnet/version_1/test_results.json",
    ]


def test_every_line_of_a_resumed_training(printed: tuple[Path, list[str], list[str]]) -> None:
    folder, *_ = printed
    last = BEST.replace("best", "last")
    out, err = printed_by(
        folder, "fit", f"--ckpt_path={last}", "--trainer.max_steps=4", "--trainer.logger.version=more"
    )
    assert out == ["scores of the last validation", *SCORES]
    assert err == [
        "SegNet: 13,836 parameters",
        "run folder: runs/segnet/more",
        "the one-cycle schedule of 2 steps had ended: it restarts warm at step 2 of a plan of 4 steps",
        f"Restored all states from the checkpoint at {last}",
        "speed: 32-true, not compiled, 1 thread",
        "`Trainer.fit` stopped: `max_steps=4` reached.",
        "run folder: runs/segnet/more",
    ]


def on_a_terminal(folder: Path, *args: str) -> list[str]:
    """The lines of a command on both streams, with its progress bars."""
    text = run(args, folder=folder, together=True).out.strip()
    return re.split(r"[\r\n]+", re.sub(r"\b\d+\.\d+(?= %|  |$)", "#", text, flags=re.MULTILINE))


def test_lines_do_not_stand_in_a_progress_bar(printed: tuple[Path, list[str], list[str]], faces: Path) -> None:
    folder, *_ = printed
    seen = on_a_terminal(folder, "test", f"--ckpt_path={BEST}", "--trainer.logger.version=bar")
    assert any("Testing DataLoader 0: 100%" in line for line in seen)
    start = seen.index("test scores")
    assert seen[start : start + 3] == ["test scores", *SCORES]
    assert f"written: {folder}/runs/segnet/bar/test_results.json" in seen
    data = ["--data=CelebADataModule", f"--data.root={faces / 'celeba'}"]
    seen = on_a_terminal(folder, "validate", f"--ckpt_path={BEST}", *data)
    assert seen[-1] == "facelightning: SegNet: the val data has nothing that this task predicts"


def test_gpus_that_are_not_there(
    command: Callable[..., None], faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    (tmp_path / "small.yaml").write_text(Path(small).read_text().replace("accelerator: cpu", "benchmark: false"))
    words = ["fit", "--config=avg.yaml", f"--config={tmp_path / 'small.yaml'}", "--config=overlays/multi_gpu.yaml"]
    assert main(words) == 1
    sentence = "facelightning: trainer.accelerator gpu: torch finds no GPU here; add --config overlays/cpu.yaml"
    assert capsys.readouterr().err.splitlines()[-1] == sentence
    command(*words, "--config=overlays/cpu.yaml")


def test_frozen_parameters_are_counted_apart(printed: tuple[Path, list[str], list[str]], faces: Path) -> None:
    folder, *_ = printed
    small = small_overlay("ssp.yaml", faces, folder)
    parser = f"--model.regions.checkpoint={BEST}"
    _, err = printed_by(folder, "fit", "--config=ssp.yaml", f"--config={small}", parser)
    assert err[0] == "AttributeNet: 39,962 parameters, 13,836 of them frozen"
