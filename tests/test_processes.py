"""Two processes give exactly the scores of one, whatever the numbers of samples divide by."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_configs import small_overlay


@pytest.mark.parametrize("config", ["avg.yaml", "quickstart.yaml"])
def test_scores_do_not_depend_on_the_number_of_processes(
    config: str, command: Callable[..., None], faces: Path, tmp_path: Path
) -> None:
    arguments = ["--config", config, "--config", small_overlay(config, faces, tmp_path)]
    two = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    # Lightning leaves the address of an earlier group of processes behind, where somebody may still listen
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MASTER_")}
    environment |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}

    def on_two(*args: str) -> None:
        run = [sys.executable, "-m", "facelightning", *args, *two]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr

    on_two("fit", *arguments, "--test_after_fit=true")  # 13 and 7 test pictures: neither is a multiple of two
    (run,) = Path("runs").iterdir()
    best = run / "version_0" / "checkpoints" / "best.ckpt"
    command("test", *arguments, "--ckpt_path", str(best), "--trainer.devices=1")
    results = [json.loads((run / version / "test_results.json").read_text()) for version in ("version_0", "version_1")]
    assert results[0] == results[1]
