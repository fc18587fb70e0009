"""A tiny trained network for both tasks, and photographs as people have them."""

from pathlib import Path

import pytest

from tests.tasks.tiny import make_task, save


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a JointNet, trained for a step."""
    folder = tmp_path_factory.mktemp("joint")
    return save(make_task("jointnet-avg", folder), folder / "joint.ckpt")
