"""A small synthetic set on disk, and the command line run on it."""

import gc
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
import yaml
from hypothesis import settings
from torch import distributed

from facelightning.__main__ import main
from facelightning.data.synthetic import write_synthetic
from facelightning.labels import ATTRIBUTES

os.environ["WANDB_MODE"] = "offline"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start; two workers share two cores
torch.set_num_threads(1)  # the tests run side by side

yaml.SafeLoader, yaml.SafeDumper = yaml.CSafeLoader, yaml.CSafeDumper  # what they read and write is the same, faster

# HYPOTHESIS_PROFILE=long tries what a night has time for; the same examples in every short run
settings.register_profile("short", max_examples=100, derandomize=True, database=None, deadline=None)
settings.register_profile("long", max_examples=20_000, database=None, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


gc.disable()  # until all is collected


LONGEST = ("test_configs.py", "test_processes.py", "test_distributed.py", "test_resume.py", "test_tables.py")
"""Files that take a minute each: at the end, one of them would keep one worker busy, and the other would wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """What is imported and collected stays: the garbage collector need not look at it again and again."""
    gc.freeze()
    gc.enable()


SIZE = (40, 32)
"""Height and width that the tiny networks see."""


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic faces in CelebA's and Helen's layouts; odd numbers, so that nothing divides by two processes."""
    root = tmp_path_factory.mktemp("faces") / "synthetic"
    write_synthetic(root, attributes=(21, 11, 13), parsing=(9, 5, 7), seed=0)
    return root


def write_mat(path: Path, items: dict[str, Any]) -> None:
    """A MATLAB file: arrays, and lists of texts as cell arrays; nothing in place of ``None``."""
    with h5py.File(path, "w") as mat:
        for key, value in items.items():
            if isinstance(value, list):  # a cell array of texts
                codes = [np.array([[ord(letter)] for letter in text], np.uint16) for text in value]
                cells = [mat.create_dataset(f"#refs#/{key}{n}", data=code).ref for n, code in enumerate(codes)]
                mat.create_dataset(key, data=np.array([cells], dtype=h5py.ref_dtype))
            elif value is not None:
                mat[key] = value


UNCHANGED: dict[tuple[int, str], bytes] = {}
"""LFWA's files, by the number of images: to write their hundred texts takes long."""


def write_lfwa(root: Path, images: int = 30, **changes: Any) -> list[str]:
    """A fake LFWA: two images an identity, the last third of them for test; returns the images' names."""
    names = [f"Person_{n // 2:02d}\\Person_{n // 2:02d}_{n % 2 + 1:04d}.jpg" for n in range(images)]
    rng = np.random.default_rng(0)
    for name in names:
        path = root / "lfw" / name.replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", rng.integers(256, size=(50, 40, 3), dtype=np.uint8))[1].tobytes())
    last = 2 * (images // 3)
    content: dict[str, Any] = {
        "lfw_att_40.mat": {
            "label": rng.integers(2, size=(40, images)).astype(float),
            "name": names,
            "AttrName": [name.replace("_", " ").lower() for name in ATTRIBUTES],
        },
        "indices_train_test.mat": {
            "indices_img_train": np.arange(1.0, last + 1)[None],
            "indices_img_test": np.arange(last + 1.0, images + 1)[:, None],
        },
    }
    for file, items in content.items():
        changed = {key: value for key, value in changes.items() if key in items}
        if not changed and (images, file) in UNCHANGED:
            (root / file).write_bytes(UNCHANGED[images, file])
            continue
        write_mat(root / file, items | changed)
        if not changed:
            UNCHANGED[images, file] = (root / file).read_bytes()
    return [name.replace("\\", "/") for name in names]


@contextmanager
def bounded() -> Iterator[None]:
    """What is done within takes no more than 5 seconds of computing and 1 GB of memory, whatever a file says."""
    began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    finally:
        assert time.process_time() - began < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 1_000_000  # kilobytes


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Lightning leaves a group of processes behind, its rank and its address; the next group would wait for it."""
    before = dict(os.environ)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run ``facelightning`` in an empty folder, in this process, and insist on success."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> None:
        assert main(args) == 0

    return run


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """The processor's instruction sets are trusted: to try each one takes torch 20 seconds."""
    from torch._inductor import config

    with config.patch({"cpp.vec_isa_ok": True}):
        yield


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``facelightning`` in the folder of the test, insist on failure without a traceback, return what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> str:
        capsys.readouterr()
        try:
            status = main(args)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        assert status != 0
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return message

    return run
