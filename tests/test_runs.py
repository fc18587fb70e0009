"""Where a run's files lie, told by its logger or by a checkpoint of it."""

from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger

from facelightning.runs import RunFolder


def test_every_file_is_in_the_folder() -> None:
    run = RunFolder(Path("runs/avg/version_3"))
    names = ("config", "best", "last", "results", "attribution", "figures", "predictions")
    assert [getattr(run, name).relative_to(run.path).as_posix() for name in names] == [
        "config.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "test_results.json",
        "attribution.json",
        "figures",
        "predictions",
    ]


@pytest.mark.parametrize("start", ["", "ROOT/"], ids=["relative", "absolute"])
def test_a_checkpoint_tells_its_run(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = start.replace("ROOT", str(tmp_path)) + "runs/avg/version_3/checkpoints/best.ckpt"
    for given in (checkpoint, Path(checkpoint)):
        assert RunFolder.of_checkpoint(given) == RunFolder(tmp_path / "runs/avg/version_3")


@pytest.mark.parametrize("name", ["best.ckpt", "runs/avg/version_3/best.ckpt", "checkpoints"])
def test_a_checkpoint_that_was_moved_tells_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunFolder.of_checkpoint(name) is None


def test_a_trainer_tells_its_run(tmp_path: Path) -> None:
    def folder(logger: CSVLogger | bool) -> RunFolder | None:
        return RunFolder.of(L.Trainer(accelerator="cpu", logger=logger, default_root_dir=tmp_path))

    assert folder(CSVLogger(tmp_path, name="avg", version=3)) == RunFolder(tmp_path / "avg" / "version_3")
    assert folder(False) is None
    assert not list(tmp_path.iterdir())  # to ask makes nothing
