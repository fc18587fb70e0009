"""``test --report.subgroups`` scores subgroups of the images beside the whole."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from tests.cli.conftest import AVG, SEGNET


def test_subgroups_are_printed_written_and_drawn(
    command: Callable[..., None], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("test", f"--ckpt_path={AVG}", "--report.subgroups=[Male, Male*Young]")
    attributes = json.loads((runs / "avg/version_1/test_results.json").read_text())["attributes"]
    groups = attributes["subgroups"]["Male"]["groups"]
    assert sum(group["images"] for group in groups.values()) == 13
    assert len(attributes["subgroups"]["Male*Young"]["groups"]) == 4
    assert cv2.imread(str(runs / "avg/version_1/figures/subgroups.png")) is not None
    printed = capsys.readouterr().out
    assert "by Male*Young" in printed and "contradictions, such as No_Beard with Goatee" in printed


def test_a_mistake_is_a_sentence(refused: Callable[..., str], runs: Path) -> None:
    assert "subgroups Man: Man is no attribute of the data" in refused(
        "test", f"--ckpt_path={AVG}", "--report.subgroups=[Man]"
    )
    assert "report.subgroups: SegNet predicts no attributes" in refused(
        "test", f"--ckpt_path={SEGNET}", "--report.subgroups=[Male]"
    )
