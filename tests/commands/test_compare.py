"""Runs side by side: means over what they share, and the curve by training size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from facelightning.__main__ import main
from facelightning.figures import training_size_figure


def write(folder: Path, errors: dict[str, float], images: int | None = None) -> str:
    """A run folder as a test leaves it; average precision is 90 - error, and that of Bald undefined."""
    folder.mkdir(parents=True)
    rows = {name: {"error": error, "ap": None if name == "Bald" else 90 - error} for name, error in errors.items()}
    (folder / "test_results.json").write_text(json.dumps({"attributes": {"per_attribute": rows}}))
    content: dict[str, Any] = {"data": {"class_path": "CelebADataModule", "init_args": {"train_images": images}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return str(folder)


def test_means_are_over_what_all_runs_predict(
    command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "a", {"Bald": 1.0, "Male": 3.0, "Young": 20.0})
    second = write(tmp_path / "b", {"Young": 10.0, "Bald": 2.0, "Male": 5.0, "Smiling": 50.0}, images=700)
    command("compare", f"--runs=[{first},{second}]")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.count("3 attributes") == 2
    assert [line.split() for line in lines] == [[first, "all", "92.00", "78.50"], [second, "700", "94.33", "82.50"]]
    command("compare", f"--runs=[{first},{second}]", "--attributes=[Young,Bald]")
    head, *lines = capsys.readouterr().out.splitlines()
    assert "2 given" in head and "1 others" in head
    assert lines[0].split() == [first, "all", "89.50", "70.00", "97.00", "87.00"]
    assert not list(tmp_path.glob("*.png"))


def test_runs_of_several_sizes_are_drawn(
    command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"anet/500": (500, 20.0), "anet/1000": (1000, 15.0), "anet/1000_1": (1000, 13.0), "avg/500": (500, 22.0)}
    runs = [write(tmp_path / name, {"Male": error}, images) for name, (images, error) in sizes.items()]
    command("compare", f"--runs=[{','.join(runs)}]", "--output=made")
    assert "written: made/training_size.png" in capsys.readouterr().out
    drawn = cv2.imread("made/training_size.png", cv2.IMREAD_COLOR_RGB)
    expected = training_size_figure({"anet": [(500, 80.0), (1000, 85.0), (1000, 87.0)], "avg": [(500, 78.0)]})
    assert drawn is not None and np.array_equal(drawn, expected)


def test_runs_of_one_name_in_different_places_are_two_curves(command: Callable[..., None], tmp_path: Path) -> None:
    sizes = {"x/avg/1": (500, 20.0), "x/avg/2": (1000, 15.0), "y/avg/1": (500, 22.0)}
    runs = [write(tmp_path / name, {"Male": error}, images) for name, (images, error) in sizes.items()]
    command("compare", f"--runs=[{','.join(runs)}]", "--output=made")
    drawn = cv2.imread("made/training_size.png", cv2.IMREAD_COLOR_RGB)
    expected = training_size_figure({"x/avg": [(500, 80.0), (1000, 85.0)], "y/avg": [(500, 78.0)]})
    assert drawn is not None and np.array_equal(drawn, expected)


BROKEN = ('{"Male": {"ap": 1}}', '["Male"]', '{"Male": 3}', '{"Male": {"error": "x", "ap": 1}}', "null")


@pytest.mark.parametrize("scores", BROKEN)
def test_strange_results_are_one_sentence(scores: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "a", {"Male": 3.0})
    (tmp_path / "a/test_results.json").write_text(f'{{"attributes": {{"per_attribute": {scores}}}}}')
    assert main(["compare", f"--runs=[{folder}]"]) == 1
    assert "test_results.json has no scores of attributes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runs=[]"], "--runs must name folders"),
        (["--runs=[gone]"], "gone has no test_results.json"),
        (["--runs=[parsed]"], "parsed/test_results.json has no scores of attributes"),
        (["--runs=[a,b]"], "no attribute in common"),
        (["--runs=[a,b]", "--attributes=[Male]"], "b does not predict Male; there are Young"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a"), {"Male": 3.0})
    write(Path("b"), {"Young": 3.0})
    write(Path("parsed"), {})
    Path("parsed/test_results.json").write_text('{"parsing": {}}')
    assert main(["compare", *words]) == 1
    assert message in capsys.readouterr().err
