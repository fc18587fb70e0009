"""The tables: what is published, how differences are measured, and that an interruption changes nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score

from facelightning.__main__ import main
from facelightning.configs import config_folder
from facelightning.errors import ConfigurationError
from facelightning.reproduce.command import reproduce
from facelightning.reproduce.plan import Plan, Run, check_settings, write_settings
from facelightning.reproduce.scheduler import _is_whole
from facelightning.reproduce.tables import read_rows, read_tables
from facelightning.statistics import _errors, _mean_aps, bootstrap_differences
from tests.conftest import SIZE


def small(folder: Path) -> str:
    """An overlay for any network."""
    path = folder / "tiny.yaml"
    overlay = {
        "model": {"init_args": {"width": 2}},
        "data": {"init_args": {"image_size": list(SIZE), "num_workers": 0, "batch_size": 4}},
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


class TestPublished:
    def test_every_row_has_its_configuration_and_parents(self) -> None:
        rows = read_rows()
        for row in rows.values():
            assert (config_folder() / f"{row.config}.yaml").is_file()
            assert set(row.parents) <= rows.keys()
            assert row.needs.keys() <= {"parser", "weights", "members"}

    def test_numbers_are_the_papers(self) -> None:
        """Kalayeh et al., Table 2 (pre-cropped) and Table 4, as printed."""
        tables = {table["name"]: {row["title"]: row for row in table["rows"]} for table in read_tables()}
        printed = {
            title: tuple(row.get("published", {}).get(key) for key in ("error", "mean_ap"))
            for title, row in tables["table2"].items()
        }
        expected = {
            "SPPNet*": (9.49, 77.69), "Naive Approach": (9.13, 79.74), "BBox": (8.76, 79.95),
            "Avg. Pooling": (9.14, 79.74), "SSG": (8.38, 80.55), "SSP": (8.33, 81.02), "SSP + SSG": (8.20, 81.45),
        }  # fmt: skip
        assert expected.items() <= printed.items()
        for row, average in (("without attributes", 61.84), ("with attributes", 65.66)):
            numbers = tables["table4"][row]["published"]
            assert numbers["mean_iou"] == average
            assert np.mean([value for key, value in numbers.items() if key != "mean_iou"]) == pytest.approx(
                average, abs=0.01
            )


class TestBootstrap:
    def test_scores_are_scikit_learns(self) -> None:
        """With weights, with equal scores, and with an attribute that a weighting leaves without positives."""
        rng = np.random.default_rng(0)
        scores, truth = rng.integers(5, size=(40, 3)) / 5, rng.random((40, 3)) < 0.3
        truth[:, 2] = False
        truth[7, 2] = True
        weights = rng.integers(3, size=(6, 40)).astype(float)
        weights[:3, 7] = 0
        for row, found in zip(weights, _mean_aps(scores, truth, weights), strict=True):
            aps = [
                average_precision_score(truth[:, a], scores[:, a], sample_weight=row)
                for a in range(3)
                if (truth[:, a] * row).any()
            ]
            assert found == pytest.approx(100 * np.mean(aps))
        for row, found in zip(weights, _errors(scores, truth, weights), strict=True):
            wrong = [row[i] * ((scores[i, a] > 0.5) != truth[i, a]) for i in range(40) for a in range(3)]
            assert found == pytest.approx(100 * sum(wrong) / 3 / row.sum())

    def test_interval_holds_the_difference_and_not_its_absence(self) -> None:
        rng = np.random.default_rng(0)
        truth = rng.random((400, 5)) < 0.4
        good = truth + rng.normal(0, 0.4, truth.shape)
        bad = truth + rng.normal(0, 1.5, truth.shape)
        value, low, high = bootstrap_differences([(good, bad)], truth, 200)["mean_ap"]
        assert 0 < low < value < high
        assert bootstrap_differences([(good, good)], truth, 50) == {"error": [0, 0, 0], "mean_ap": [0, 0, 0]}

    def test_equal_pictures_of_a_person_tell_nothing_more(self) -> None:
        """Four copies of each picture: the interval is that of one copy, and not half as wide."""
        rng = np.random.default_rng(0)
        truth = rng.random((100, 5)) < 0.4
        pair = tuple(truth + rng.normal(0, noise, truth.shape) for noise in (0.4, 1.5))
        once = bootstrap_differences([(pair[0], pair[1])], truth, 200)
        four = [np.repeat(array, 4, axis=0) for array in (*pair, truth)]
        copies = bootstrap_differences([(four[0], four[1])], four[2], 200, np.repeat(np.arange(100), 4))
        for name in once:
            assert copies[name] == pytest.approx(once[name])
        apart = bootstrap_differences([(four[0], four[1])], four[2], 200)["error"]
        assert apart[2] - apart[1] < 0.7 * (once["error"][2] - once["error"][1])


class TestCommand:
    def test_dry_run(self, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A row brings what it starts from; nothing is written."""
        settings = [f"--celeba={faces / 'celeba'}", f"--helen={faces / 'helen'}", f"--output={tmp_path / 'out'}"]
        assert main(["reproduce", *settings, "--rows=[ssp_ssg,avg_balanced]", "--seeds=[0,1]", "--dry-run"]) == 0
        names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert names == 2 * ["segnet", "ssp", "ssg", "ssp_ssg", "avg", "avg_balanced"]
        assert not (tmp_path / "out").exists()

    def test_overlays_go_to_their_rows(self, tmp_path: Path) -> None:
        names = {"": "small", "segnet": "small_segnet", "jointnet": "small_jointnet", "balanced": "cpu"}
        overlays = {row: [f"overlays/{name}.yaml"] for row, name in names.items()}
        plan = Plan({"celeba": "celeba", "helen": "helen"}, overlays, tmp_path)
        for name in ("ssp_ssg", "ssp_balanced", "jointnet"):
            plan.add(name, 0)
        configs = {
            name: [Path(word).stem for word in run.command if word.startswith("--config=")]
            for (name, _), run in plan.runs.items()
        }
        assert configs == {
            "segnet": ["segnet", "small_segnet"],
            "ssp": ["ssp", "small"],
            "ssg": ["ssg", "small"],
            "ssp_ssg": ["ssp_ssg"],
            "ssp_balanced": ["balanced", "small", "cpu"],
            "jointnet": ["jointnet", "small_jointnet"],
        }

    def test_settings_know_overlays_in_their_order_and_parents(self, tmp_path: Path) -> None:
        """Begun with one order of overlays, or from another parser, a run is refused; with the same it goes on."""

        def run(overlays: list[str], parser: str) -> Run:
            plan = Plan({"celeba": "celeba", "helen": "helen"}, {"": overlays, "segnet": [parser]}, tmp_path)
            return plan.add("ssp", 0)

        small, cpu = "overlays/small.yaml", "overlays/cpu.yaml"
        begun = run([small, cpu], "overlays/small_segnet.yaml")
        parser = tmp_path / "segnet/seed_0"
        for folder in (parser, begun.folder):
            folder.mkdir(parents=True)
        (parser / "settings.json").write_text("one parser")
        write_settings(begun)
        check_settings(run([small, cpu], "overlays/small_segnet.yaml"))
        with pytest.raises(ConfigurationError, match="begun with other settings"):
            check_settings(run([cpu, small], "overlays/small_segnet.yaml"))
        (parser / "settings.json").write_text("another parser")
        with pytest.raises(ConfigurationError, match="begun with other settings"):
            check_settings(begun)

    def test_a_part_of_a_checkpoint_is_not_gone_on_from(self, tmp_path: Path) -> None:
        whole, part = tmp_path / "whole.ckpt", tmp_path / "part.ckpt"
        torch.save({"facelightning_task": "AttributeNet", "hyper_parameters": {}, "state_dict": {}}, whole)
        part.write_bytes(whole.read_bytes()[:-200])
        assert _is_whole(whole)
        assert not _is_whole(part)
        assert not _is_whole(tmp_path / "none.ckpt")

    def test_mistakes(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"no row is named spp_net; rows are .*spp"):
            reproduce(celeba=str(tmp_path), rows=["spp_net"])
        with pytest.raises(ConfigurationError, match="row segnet is trained on helen: give --helen"):
            reproduce(celeba=str(tmp_path), rows=["ssp"])
        with pytest.raises(ConfigurationError, match="nothing to train"):
            reproduce()

    def test_a_kill_changes_nothing(self, faces: Path, tmp_path: Path) -> None:
        """Killed in mid-training and started again, the table is that of a run without interruption."""
        settings = [f"--celeba={faces / 'celeba'}", "--rows=[spp]", f"--overlay=[{small(tmp_path)}]", "--resamples=20"]

        def start(folder: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "facelightning", "reproduce", f"--output={tmp_path / folder}", *settings]
            return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)

        killed = start("killed")
        while not list(tmp_path.glob("killed/*/*/checkpoints/last.ckpt")):
            assert killed.poll() is None
            time.sleep(0.01)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        assert not list(tmp_path.glob("killed/*/*/finished.json"))
        assert not (tmp_path / "killed/tables.json").exists()
        assert start("killed").wait() == 0
        assert start("whole").wait() == 0
        assert ours(tmp_path / "killed") == ours(tmp_path / "whole")

        (tmp_path / "tiny.yaml").write_text((tmp_path / "tiny.yaml").read_text().replace("width: 2", "width: 3"))
        assert start("whole").wait() == 1  # other settings are not mixed in

    def test_ends_with_its_training(self, faces: Path, tmp_path: Path) -> None:
        """SIGTERM to the command alone ends the training that it runs, and is its status."""
        overlay = Path(small(tmp_path))
        overlay.write_text(overlay.read_text().replace("max_epochs: 3", "max_epochs: 300"))
        command = [sys.executable, "-m", "facelightning", "reproduce", f"--output={tmp_path / 'out'}"]
        command += [f"--celeba={faces / 'celeba'}", "--rows=[avg]", f"--overlay=[{overlay}]"]
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        while not list(tmp_path.glob("out/*/*/checkpoints/last.ckpt")):
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert process.wait() == 143
        with pytest.raises(ProcessLookupError):  # nobody of its group is left
            os.killpg(process.pid, 0)

    def test_processes_share_the_runs(self, faces: Path, tmp_path: Path) -> None:
        """Two at once: each run is trained by one of them, a row waits for what it needs, and both end with all."""
        settings = [f"--celeba={faces / 'celeba'}", f"--helen={faces / 'helen'}", "--rows=[ssp_ssg]"]
        overlay = small(tmp_path)
        settings += [f"--overlay=[{overlay}]", f"--segnet_overlay=[{overlay}]", "--resamples=20"]
        command = [sys.executable, "-m", "facelightning", "reproduce", f"--output={tmp_path / 'out'}", *settings]
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
        printed = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], printed
        trained = [re.findall(r"^\[\d/4\] (\w+), seed 0$", text, re.MULTILINE) for text in printed]
        assert all(trained)
        assert sorted(trained[0] + trained[1]) == ["segnet", "ssg", "ssp", "ssp_ssg"]
        attempts = [json.loads(path.read_text())["attempts"] for path in tmp_path.glob("out/*/*/finished.json")]
        assert attempts == [1, 1, 1, 1]
        records = json.loads((tmp_path / "out/tables.json").read_text())
        assert sum(bool(record["seeds"]) for record in records) == 1


def ours(folder: Path) -> Any:
    """The scores of every row, without times."""
    records = json.loads((folder / "tables.json").read_text())
    scores = {record["row"]: record["ours"] for record in records if record["seeds"]}
    assert len(scores) == 1
    return scores
