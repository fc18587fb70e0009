"""Run folders are claimed by runs that have something to write, and named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from facelightning.__main__ import main
from tests.test_configs import small_overlay


@pytest.mark.parametrize("overlays", [[], ["overlays/wandb.yaml"]], ids=["csv", "wandb"])
@pytest.mark.parametrize(
    "mistake",
    [
        ["--data.root=nowhere"],
        ["--model.learning_rate=-1"],
        ["--model.weights=missing.ckpt"],
        ["--ckpt_path=last"],
        ["--ckpt_path=best"],
        ["--ckpt_path=hpc"],
    ],
)
def test_a_command_that_fails_leaves_nothing(
    mistake: list[str],
    overlays: list[str],
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"--config={name}" for name in ("avg.yaml", *overlays)]
    assert main(["fit", *words, f"--data.root={faces / 'celeba'}", *mistake]) != 0
    assert len(capsys.readouterr().err.strip().splitlines()) < 3
    assert not list(tmp_path.iterdir())


def test_it_is_named_and_a_finished_run_says_so(
    command: Callable[..., None], faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    command("fit", "--config=avg.yaml", f"--config={small}")
    assert caplog.text.count("run folder: runs/avg/version_0") == 2
    last = tmp_path / "runs/avg/version_0/checkpoints/last.ckpt"
    command("fit", f"--ckpt_path={last}")
    assert "nothing was trained: the checkpoint is at the end" in caplog.text


def test_a_run_resumed_elsewhere_is_tested(
    command: Callable[..., None], faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    command("fit", "--config=avg.yaml", f"--config={small}")
    last = Path("runs/avg/version_0/checkpoints/last.ckpt").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("moved.ckpt").write_bytes(last)
    command("fit", "--ckpt_path=moved.ckpt", f"--data.root={faces / 'celeba'}", "--test_after_fit=true")
    assert list(Path("runs").glob("*/*/test_results.json"))
