"""Every notebook runs from top to bottom with small parameters; git has none of what it showed."""

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import Image
from PIL import Image as Pillow
from traitlets.config import Config

from facelightning.prediction import Prediction
from tests.tasks.tiny import make_task, save

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
TRAINED = ("quickstart.ipynb", "your_own_part.ipynb")
TINY = "faces, masks = (12, 6, 6), (6, 4, 4)\nwidth, epochs, size = 2, 1, (40, 32)"
"""In place of the parameters of those that train."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    return save(make_task("jointnet-avg", folder), folder / "joint.ckpt")


def code_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_notebook_runs(path: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has imported torch already: a kernel of its own would do so anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # a shell takes its place
    shell, shown = InteractiveShell(config=Config(HistoryManager={"enabled": False})), []
    for cell in code_of(nbformat.read(path, as_version=4)):
        source = cell.source
        if "parameters" in cell.metadata.get("tags", []):
            source = TINY if path.name in TRAINED else source.replace("quickstart.ckpt", str(checkpoint))
            assert source != cell.source
        result = shell.run_cell(source)
        result.raise_error()
        shown.append(result.result)
    pictures = [each for each in shown if isinstance(each, Image | Pillow.Image | Prediction)]
    assert len(pictures) >= (1 if path.name == "your_own_part.ipynb" else 2)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_is_kept_in_git(path: Path) -> None:
    cells = code_of(nbformat.read(path, as_version=4))
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
