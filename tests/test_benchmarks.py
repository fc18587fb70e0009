"""The benchmark runs: what it prints is a time for each of the two, and how many times longer the library takes."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "plain_loop.py"


def test_plain_loop(faces: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), f"--celeba={faces / 'celeba'}", "--width=2", "--size", "40", "32"]
    command += ["--steps=2", "--rounds=1", "--threads=1"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    head, measured, median, ratio = process.stdout.splitlines()
    assert head.split()[0] == "round"
    assert measured.split()[1:] == median.split()[1:]  # of one round
    plain, library = map(float, median.split()[1:])
    found = re.fullmatch(r"facelightning / plain: (\d+\.\d{3})", ratio)
    assert found is not None
    # both times are rounded to milliseconds
    low, high = (library - 0.0005) / (plain + 0.0005), (library + 0.0005) / max(plain - 0.0005, 1e-9)
    assert low - 0.001 < float(found.group(1)) < high + 0.001
    assert not list(tmp_path.iterdir())
