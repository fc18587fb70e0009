"""One small reproduction, trained by two processes that share it."""

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import SIZE
from tests.processes import Command


def small(folder: Path) -> str:
    """An overlay for any network."""
    path = folder / "tiny.yaml"
    overlay = {
        # a rate so large that no two predictions are nearly equal
        "model": {"init_args": {"width": 2, "learning_rate": 0.05}},
        "data": {"init_args": {"image_size": list(SIZE), "num_workers": 0, "batch_size": 4}},
        "figures": {"num_images": 0},
        "trainer": {
            "max_steps": -1,
            "max_epochs": 3,
            "accelerator": "cpu",
            "check_val_every_n_epoch": 1,
            "val_check_interval": 1.0,
            "enable_progress_bar": False,
        },
    }
    path.write_text(yaml.safe_dump(overlay))
    return str(path)


def words(faces: Path, folder: Path, *rows: str) -> list[str]:
    """The command that reproduces rows in ``folder/out``."""
    settings = [f"--celeba={faces / 'celeba'}", f"--overlay=[{small(folder)}]", "--resamples=20"]
    return ["reproduce", f"--output={folder / 'out'}", f"--rows=[{','.join(rows)}]", *settings]


@pytest.fixture(scope="session")
def reproduced(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of rows avg and spp, with attribution: two processes were started at once, and each trained one."""
    folder = tmp_path_factory.mktemp("reproduced")
    command = [*words(faces, folder, "avg", "spp"), "--attribution=true"]
    first, second = (Command(command, folder=folder, within=True) for _ in range(2))
    with first, second:
        statuses = [first.wait(), second.wait()]
    assert statuses == [0, 0], (first.err, second.err)
    trained = [re.findall(r"^\[\d/2\] (\w+), seed 0$", each.err, re.MULTILINE) for each in (first, second)]
    assert sorted(map(tuple, trained)) == [("avg",), ("spp",)]
    return folder / "out"
