"""What a user gets wrong, or the system refuses, is one sentence: never a traceback, a hang or a page."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from facelightning.__main__ import main, sentence
from facelightning.errors import ConfigurationError

QUICK = (
    "fit --config=quickstart.yaml --data.image_size=[40,32] --data.batch_size=4 --data.num_workers=0 --model.width=2 "
    "--data.faces=[21,11,13] --data.masks=[9,5,7] --trainer.enable_progress_bar=false"
).split()


@pytest.fixture
def refused(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command in an empty folder; its sentence."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(*words: str) -> str:
        try:
            status = main([*QUICK, f"--data.root={faces}", *words] if words[0].startswith("-") else words)
        except SystemExit as end:
            status = int(end.code or 0)
        assert status != 0
        error = capsys.readouterr().err.strip()
        lines = [line for line in error.splitlines() if not line.startswith(("wandb:", "drawing"))]
        assert lines[0].startswith("facelightning: ")
        assert len(lines) == 1 or (len(lines) == 2 and "did you mean" in lines[1])
        assert len(lines[0]) <= 330
        assert not list(tmp_path.glob("runs/*/*"))
        return "\n".join(lines)

    return run


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--model=AtributeNet", "no class is named AtributeNet\n  did you mean AttributeNet?"),
        ("--config=overlays/wand.yaml", "did you mean overlays/wandb?"),
        ("--trainer.logger=MLFlowLogger", "mlflow"),
        ("--trainer.logger=WandbLogger", "API key"),
        ("--trainer.logger=foo", "no class is named foo"),
        ("--trainer.precision=17", "trainer.precision takes 64, 32, .*, not 17"),
        ("--trainer.precision=bf16-tru", "not bf16-tru"),
        ("--trainer.devices=0", "devices"),
        ("--trainer.devices=99999", "too many processes"),
        ("--trainer.strategy=foo", "strategy"),
        ("--trainer.accelerator=foo", "accelerator"),
        ("--trainer.max_epochs=-3", "max_epochs"),
        ("--trainer.max_steps=-7", "max_steps"),
        ("--trainer.limit_train_batches=-2", "limit_train_batches"),
        ("--trainer.limit_train_batches=0", "nothing to train"),
        ("--trainer.val_check_interval=1000", "val_check_interval"),
        ("--trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch must be 1 or more, not 0"),
        ("--trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches must be 1 or more"),
        ("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val must be 0 or more"),
        ("--trainer.enable_checkpointing=false", "enable_checkpointing"),
        ("--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "ModelCheckpoint"),
        ("--trainer.callbacks+=foo", "no class is named foo"),
        ("--seed_everything=-1", "-1"),
        ("--recipe=", "no recipe"),
        ("--model.learning_rate=-1", "learning_rate must lie in"),
        ("--model.width=0", "width must lie in"),
        ("--data.batch_size=0", "must be positive"),
        ('--data.augmentations=[{"class_path":"albumentations.HorizontlFlip"}]', "albumentations.HorizontlFlip"),
        ("--data.augmentations=[1]", r"augmentations takes .*, not \[1\]"),
        (
            "--data.augmentations={class_path: DeviceAugmentation, init_args: {mirror: 2}}",
            r"DeviceAugmentation: mirror must lie in 0\.\.\.1, not 2",
        ),
        (
            "--data.augmentations={class_path: DeviceAugmentation, init_args: {affine: {scale: [2, 1]}}}",
            r"Affine: scale must be \[lowest, highest\]",
        ),
        ("--data.augmentations={class_path: DeviceAugmentation, init_args: {mirors: 1}}", "mirors"),
        ("--data.root=/proc/nowhere", "/proc"),
        ("--trainer.logger.save_dir=/proc/x", "/proc/x"),
    ],
)
def test_a_wrong_word(word: str, message: str, refused: Callable[..., str]) -> None:
    assert re.search(message, refused(word))


@pytest.mark.parametrize("command", ["overlays/wandb.yaml", "overlays/fast.yaml"])
def test_an_overlay_alone(command: str, refused: Callable[..., str]) -> None:
    assert "before overlays" in refused("fit", f"--config={command}")


def test_a_file_in_the_place_of_the_run_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    assert "a file stands where a folder is needed" in refused("--trainer.max_steps=1")


class TestSentence:
    def test_a_full_disk_behind_torchs_error(self) -> None:
        try:
            try:
                raise OSError(28, "No space left on device", "runs/last.ckpt")
            except OSError:
                raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")  # noqa: B904  # as torch raises it
        except RuntimeError as error:
            assert sentence(error) == "runs/last.ckpt: No space left on device; free some space, or write elsewhere"

    def test_of_a_worker(self) -> None:
        error = ConfigurationError(
            'Caught ConfigurationError in worker 0.\nTraceback:\n  File "x"\nConfigurationError: so'
        )
        assert sentence(error) == "so"

    def test_a_bug_is_none(self) -> None:
        assert sentence(KeyError("bug")) is None
        assert sentence(AssertionError()) is None
