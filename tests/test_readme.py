"""What README, configs/README.md and the documentation tell people to type works."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from facelightning.__main__ import OWN, main
from facelightning.configs import find_config
from tests.test_configs import small_overlay

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "configs" / "README.md", *DOCS]


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every ``facelightning`` command, continued lines joined, and those within a sentence."""
    lines = [
        line for path in TEXTS for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [code for path in TEXTS for code in re.findall(r"`(facelightning [^`]+)`", path.read_text())]
    found = (re.search(r"\bfacelightning [a-z][^#]*", line) for line in lines)
    return sorted({" ".join(match.group().split()) for match in found if match})


def test_there_are_commands() -> None:
    assert "facelightning fit --config quickstart.yaml" in commands()
    assert {line.split()[1] for line in commands()} >= {"fit", "test", "predict", *OWN}


@pytest.mark.parametrize("line", commands())
def test_command_is_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each option exists and each value has its type; what they train is tested with the configurations."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    if "--ckpt_path" in line or words[0] == "reproduce" or not words[1].startswith("-"):
        # all that is wrong is what is not here
        status = main(words if "--dry-run" in words or words[0] != "reproduce" else [*words, "--dry-run"])
        message = capsys.readouterr().err
        absent = r"checkpoint \S+ does not exist|\S+ is no file, no folder, .*|.* data root \S+ does not exist; .*"
        assert (status, message) == (0, "") or (
            status == 1 and re.fullmatch(f"facelightning: ({absent})\n", message)
        ), message
    else:
        with pytest.raises(SystemExit) as stop:
            main(words if ".help=" in line else [*words, "--print_config"])
        assert stop.value.code == 0
    assert not list(tmp_path.iterdir())


def test_python_examples_run(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    small = small_overlay("quickstart.yaml", faces, tmp_path)
    command("fit", "--config", "quickstart.yaml", "--config", small, "--test_after_fit=false")
    shutil.copy(next((faces / "celeba").rglob("*.jpg")), "face.jpg")
    examples = {path: blocks(path, "python") for path in TEXTS}
    assert examples[ROOT / "README.md"] and examples[ROOT / "docs/index.md"]
    for path, codes in examples.items():
        for code in codes:
            exec(compile(code, path, "exec"), {})


def test_configurations_that_pages_name_exist() -> None:
    named = {name for path in DOCS for name in re.findall(r"`((?:overlays/)?\w+\.yaml)`", path.read_text())}
    assert len(named) > 20
    for name in named:
        assert find_config(name, ROOT).is_file()
