"""What trained a checkpoint: the commit, and energy as the machine counts it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from facelightning.callbacks.energy import Energy
from facelightning.callbacks.training_record import TrainingRecord, commit
from facelightning.card import model_card
from facelightning.errors import CheckpointError


def zone(folder: Path, name: str, label: str, microjoules: int) -> Path:
    """A counter as Linux shows it."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    for file, text in {"name": label, "max_energy_range_uj": 262_143_000_000, "energy_uj": microjoules}.items():
        (path / file).write_text(f"{text}\n")
    return path / "energy_uj"


def test_processors_are_counted_once(tmp_path: Path) -> None:
    """Cores lie in a package, a platform contains it; a counter begins again at its range."""
    files = [
        zone(tmp_path, name, label, 262_142_000_000)
        for name, label in {
            "intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram",
            "intel-rapl:1": "package-1", "intel-rapl:2": "psys", "intel-rapl-mmio:0": "package-0",
        }.items()
    ]  # fmt: skip
    energy = Energy(powercap=tmp_path)
    assert energy.joules() == {"processors": 0}
    for file in files:
        file.write_text("262142500000")
    assert energy.joules() == {"processors": 1.5}
    for file in files:
        file.write_text("500000")  # 0.5 J to the range, and as much behind it
    assert energy.joules() == {"processors": 4.5}
    files[3].unlink()
    assert energy.joules() == {"processors": None}  # a part is not the whole
    assert Energy(powercap=tmp_path).joules() == {"processors": None}


def test_gpus_are_counted_by_their_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the names and units of NVIDIA's own package; torch may number GPUs otherwise."""
    millijoules = {"GPU-a": 5_000, "GPU-b": 9_000}
    driver = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=millijoules.__getitem__,
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid="ba"[number]))
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    energy = Energy([0], tmp_path)
    millijoules |= {"GPU-a": 6_000, "GPU-b": 11_500}
    assert energy.joules() == {"processors": None, "gpus": 2.5}
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert Energy([0], tmp_path).joules() == {"processors": None, "gpus": None}


def test_the_commit_is_that_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
    (tmp_path / "a.txt").write_text("a")
    me = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
    for words in (["init", "-q"], ["add", "a.txt"], [*me, "commit", "-q", "-m", "a"], ["tag", "-m", "v", "v1"]):
        subprocess.run(["git", *me, *words], check=True)
    found = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert commit() == found
    (tmp_path / "a.txt").write_text("b")
    assert commit() == f"{found}-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_a_card_says_what_a_training_took() -> None:
    facts = {"image_size": [9, 8], "label_space": "helen7", "attributes": None}
    training = {
        "command": "facelightning fit", "version": "0.1.0", "commit": "c0ffee", "machine": "2 × H200",
        "began": "2026-01-01 00:00 UTC", "seconds": 5410.2, "joules": {"processors": None, "gpus": 7200.0},
    }  # fmt: skip
    card = model_card({"task": "SegNet", "settings": {}, "facts": facts}, trainings=[training])
    assert "in a folder at commit c0ffee; 1 h 30 min on 2 × H200." in card
    assert "Energy: processors not measured, gpus 2.00 Wh." in card


def test_a_damaged_record_is_one_sentence() -> None:
    with pytest.raises(CheckpointError, match="does not say what trained it"):
        TrainingRecord(["fit"]).load_state_dict({"trainings": 3})
