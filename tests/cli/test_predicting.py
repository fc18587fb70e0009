"""A prediction of photographs as people have them: what can be predicted is, and the rest is listed."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from facelightning.labels import ATTRIBUTES
from tests.cli.conftest import JOINT
from tests.data.test_prediction import write_photographs
from tests.processes import Command, check_sigterm_ends, run

PREDICT = ("predict", f"--ckpt_path={JOINT}", "--data=FolderDataModule", "--data.root=photos", "--data.batch_size=3")
PREDICTIONS = Path("runs/joint/predicted/predictions")
HERE = ("--trainer.logger.version=predicted", "--trainer.accelerator=cpu")


def check(names: list[str], broken: set[int]) -> None:
    """What is written, whatever the number of processes."""
    with (PREDICTIONS / "attributes.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", *ATTRIBUTES]
    assert sorted(row[0] for row in rows) == names
    assert sorted(path.name for path in PREDICTIONS.rglob("*.png")) == [f"{name}.png" for name in names]
    with (PREDICTIONS / "failures.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "reason"]
    assert sorted(name for name, _ in rows) == [f"{number:02}.png" for number in sorted(broken)]
    assert all(f"{name}: it is cut short" in reason and len(reason) <= 300 for name, reason in rows)
    assert {path.name for path in PREDICTIONS.iterdir()} - {"parsing"} == {"attributes.csv", "failures.csv"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("broken", [{9}, {2, 3, 4, 5, 8}, set(range(10))], ids=["one", "a batch and more", "all"])
def test_one_broken_image_costs_one_row(
    broken: set[int], workers: int, refused: Callable[..., str], runs: Path, tmp_path: Path
) -> None:
    names = write_photographs(tmp_path / "photos", 10, broken)
    message = refused(*PREDICT, *HERE, f"--data.num_workers={workers}")  # status 1
    check(names, broken)
    last = message.strip().splitlines()[-1]
    assert last.startswith(f"facelightning: {len(broken)} images lack predictions ({min(broken):02}.png")
    assert last.endswith("predictions/failures.csv says why")


def test_whole_images_leave_no_failures(command: Callable[..., None], runs: Path, tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos", 4, set())
    command(*PREDICT, *HERE, "--data.num_workers=0")  # status 0
    assert {path.name for path in PREDICTIONS.iterdir()} == {"attributes.csv", "parsing"}


@pytest.mark.parametrize("broken", [{0, 2, 4, 6, 8}], ids=["all of the first process"])
def test_two_processes_list_the_failures_of_both(broken: set[int], runs: Path, tmp_path: Path) -> None:
    names = write_photographs(tmp_path / "photos", 10, broken)
    words = [*PREDICT, *HERE, "--data.num_workers=0", "--trainer.strategy=ddp", "--trainer.devices=2"]
    done = run(words, folder=tmp_path)
    assert done.poll() == 1, done.err
    assert "Traceback" not in done.err
    assert done.err.count(f"facelightning: {len(broken)} images lack predictions") == 1
    check(names, broken)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_ends_a_prediction(processes: int, runs: Path, tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos", 1, set())
    for number in range(1, 5000):
        (tmp_path / f"photos/{number:04}.png").symlink_to("00.png")
    words = [*PREDICT[:-1], "--data.batch_size=1", "--data.num_workers=0", *HERE, f"--trainer.devices={processes}"]
    with Command([*words, *(["--trainer.strategy=ddp"] if processes > 1 else [])], folder=tmp_path) as command:
        check_sigterm_ends(command, lambda: any(PREDICTIONS.rglob("*.png")))
    assert len(list(PREDICTIONS.rglob("*.png"))) < 5000


def test_an_odd_folder_is_predicted_to_its_end(
    refused: Callable[..., str], runs: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """A pipe would be waited for; a name that is not UTF-8 must not spoil the table; folders are mirrored."""
    photos = tmp_path / "photos"
    write_photographs(photos, 2, set())
    whole = (photos / "00.png").read_bytes()
    for name in ("friends/a.png", "friends/à côté/b.png", "caf\udce9.png", "00.png.png/c.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(whole)
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "notes.txt").write_text("hello")
    assert "2 images lack predictions (gone.jpg, pipe.jpg)" in refused(*PREDICT, *HERE, "--data.num_workers=0")
    table = (PREDICTIONS / "attributes.csv").read_bytes().decode()
    names = {row[0] for row in csv.reader(table.splitlines())} - {"name"}
    assert names == {"00.png", "01.png", "friends/a.png", "friends/à côté/b.png", "caf\\udce9.png", "00.png.png/c.png"}
    masks = {
        path.relative_to(PREDICTIONS / "parsing").as_posix() for path in PREDICTIONS.rglob("*.png") if path.is_file()
    }
    assert masks == {
        "00.png.png", "01.png.png", "friends/a.png.png", "friends/à côté/b.png.png", "caf%DCE9.png.png",
        "00.png%2Epng/c.png.png",
    }  # fmt: skip
    assert any("1 of 9 files are left out (notes.txt)" in str(one.message) for one in recwarn)
