"""The benchmarks run, and are fair: both ways compute one network; what is printed are times, shares and ratios."""

import importlib.util
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from types import ModuleType

import pytest
import torch

from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.models.lnet import LNet
from facelightning.tasks import AttributeNet, CascadeNet, FaceTask
from tests.conftest import SIZE
from tests.tasks.tiny import make_trainer

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "plain_loop.py"


def module(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


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
    script = module(SCRIPT)
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


def test_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = partial(LNet, width=3, kernel_size=7, stride=2)
    lnet = AttributeNet(width=2, encoder=encoder).build(DataFacts((64, 64), attributes=ATTRIBUTES))
    describer = AttributeNet(width=2).build(DataFacts(SIZE, attributes=ATTRIBUTES))
    for name, task in (("lnet", lnet), ("describer", describer)):
        written(task, tmp_path / f"{name}.ckpt")
    stages = [str(tmp_path / "lnet.ckpt")] * 2
    written(CascadeNet(stages, str(tmp_path / "describer.ckpt"), least=0.0), tmp_path / "cascade.ckpt")
    words = ["--images=2", "--batch-size=1", "--size=64", "--rounds=2", "--threads=1", "--widths", "2", "--cell=3"]
    output = tmp_path / "faces.json"
    monkeypatch.setattr(
        sys, "argv", ["faces.py", f"--cascade={tmp_path / 'cascade.ckpt'}", f"--output={output}", *words]
    )
    module(SCRIPT.with_name("faces.py")).main()
    found = json.loads(output.read_text())
    shares, rates = found["cascade"]["shares"], found["cascade"]["images_per_second"]
    assert list(shares) == ["LNet_o", "LNet_s", "describer", "the rest"]
    assert all(0 < share < 1 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1, abs=0.2)  # medians
    (row,) = found["placements"]
    low, high = row["ratio_spread"]
    assert low <= row["ratio"] <= high
    printed = capsys.readouterr().out
    assert f"{median(rates):.1f} images a second" in printed
    assert f"{row['cropping_ms']:.1f}" in printed


def written(task: FaceTask, path: Path) -> None:
    trainer = make_trainer()
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
