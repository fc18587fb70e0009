"""Every notebook runs from top to bottom, and shows in git what it does: a trained model, in small pictures."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
TINY = "faces, masks = (12, 6, 6), (6, 4, 4)\nwidth, epochs, size = 2, 1, (40, 32)"
"""In place of the cell tagged ``parameters``."""


def code_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell: Any) -> list[str]:
    return [output.data["image/jpeg"] for output in cell.outputs if "image/jpeg" in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = (cell for cell in code_of(notebook) if "parameters" in cell.metadata.get("tags", []))
    assert re.findall(r"^(.*?) =", parameters.source, re.MULTILINE) == re.findall(r"^(.*?) =", TINY, re.MULTILINE)
    parameters.source = TINY
    shown = [bool(pictures(cell)) for cell in code_of(notebook)]
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [bool(pictures(cell)) for cell in code_of(notebook)] == shown
    assert any(shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_is_kept_in_git(path: Path) -> None:
    """It was run in order, its model learned, and nothing tells of the machine."""
    notebook = nbformat.read(path, as_version=4)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert path.stat().st_size < 600_000
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "stream"}
    text = "".join(output.get("text", "") for output in outputs)
    assert not re.search(r"(?<![\w.])/\w+/|Warning|Error", text)
    (iou,) = re.findall(r"mean IoU ([\d.]+) %", text)
    (precision,) = re.findall(r"mean AP ([\d.]+) %", text)
    assert float(iou) > 60
    assert float(precision) > 50
