"""The benchmark runs, and is fair: both learn one network, and what is printed are a time for each and their ratio."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import torch

from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.tasks import AttributeNet
from tests.conftest import SIZE

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


def test_both_are_one_network() -> None:
    spec = importlib.util.spec_from_file_location("plain_loop", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    torch.manual_seed(0)
    task = AttributeNet(width=3).build(DataFacts(SIZE, attributes=ATTRIBUTES)).train()
    images = torch.randint(256, (4, 3, *SIZE), dtype=torch.uint8)
    task.network(images)  # moves the statistics of BatchNorm
    plain = script.plain_network(3)
    # the layers come in one order; the normalisation of images is no layer of the plain loop's
    weights = [value for name, value in task.network.state_dict().items() if not name.startswith("encoder.input.")]
    plain.load_state_dict(dict(zip(plain.state_dict(), weights, strict=True)))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        found = plain.eval()((images / 255 - mean) / std)
        torch.testing.assert_close(found, task.eval().network(images)["attributes"], rtol=1e-4, atol=1e-5)
