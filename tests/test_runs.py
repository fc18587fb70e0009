"""Where a run's files lie, told by its logger or by a checkpoint of it."""

import csv
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger

from facelightning.runs import RunFolder, RunLogger
from tests.processes import FORKS


def test_every_file_is_in_the_folder() -> None:
    run = RunFolder(Path("runs/avg/version_3"))
    names = ("config", "best", "last", "training", "results", "attribution", "figures", "predictions")
    assert [getattr(run, name).relative_to(run.path).as_posix() for name in names] == [
        "config.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "training.json",
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


def logged(folder: Path, scores: dict[int, dict[str, float]]) -> list[dict[str, str]]:
    """Log scores of steps, in a folder, and read what it then has."""
    logger = RunLogger(folder, "avg", version="trial")
    logger.log_hyperparams({})
    for step, values in scores.items():
        logger.log_metrics(values, step)
    logger.save()
    with (folder / "avg/trial/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("cut", ["", "3,4", '"3'], ids=["whole", "cut", "cut within quotes"])
def test_a_run_that_goes_on_keeps_its_metrics(cut: str, tmp_path: Path) -> None:
    """Those of steps that it repeats stand once; those of a test are added."""
    logged(tmp_path, {0: {"loss": 5}, 1: {"loss": 4}, 2: {"loss": 3}, 3: {"loss": 2}})
    with (tmp_path / "avg/trial/metrics.csv").open("a") as file:
        file.write(cut)
    rows = logged(tmp_path, {2: {"loss": 3, "error": 9}, 4: {"loss": 1}})
    assert rows == [
        {"loss": "5", "error": "", "step": "0"},
        {"loss": "4", "error": "", "step": "1"},
        {"loss": "3", "error": "9", "step": "2"},
        {"loss": "1", "error": "", "step": "4"},
    ]
    assert logged(tmp_path, {5: {"test": 7}}) == [{**row, "test": ""} for row in rows] + [
        {"loss": "", "error": "", "test": "7", "step": "5"}
    ]
    assert len(logged(tmp_path, {})) == 5  # one that is killed before it has logged anything loses nothing


def claim(folder: Path, start: Barrier, found: Queue) -> None:
    """Claim thirty folders, when all are there to begin."""
    start.wait()
    found.put([RunLogger(folder, "avg").version for _ in range(30)])


def test_runs_that_start_at_one_moment_share_no_folder(tmp_path: Path) -> None:
    start, found = FORKS.Barrier(2), FORKS.Queue()
    processes = [FORKS.Process(target=claim, args=(tmp_path, start, found)) for _ in range(2)]
    for process in processes:
        process.start()
    numbers = found.get(timeout=60) + found.get(timeout=60)
    for process in processes:
        process.join()
    assert sorted(numbers) == list(range(60))
    assert len(list((tmp_path / "avg").iterdir())) == 60


def test_a_folder_is_claimed_once_and_not_before_it_is_needed(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, "avg")
    assert not list(tmp_path.iterdir())
    assert Path(logger.log_dir) == tmp_path / "avg" / "version_0" == Path(logger.log_dir)
    assert RunLogger(tmp_path, "avg").version == 1
    assert Path(RunLogger(tmp_path, "avg", "mine").log_dir) == tmp_path / "avg" / "mine"


def test_a_folder_that_another_run_has_just_claimed_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw that ``version_0`` was free."""
    monkeypatch.setattr(CSVLogger, "version", property(lambda logger: 0))
    assert [RunLogger(tmp_path, "avg").version for _ in range(3)] == [0, 1, 2]
