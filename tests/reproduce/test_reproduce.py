"""The command: its rows are data, what it would do, and that an interruption changes nothing."""

import inspect
import json
import re
import runpy
import subprocess
import sys
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import torch

from facelightning.__main__ import main
from facelightning.checkpoint import FORMAT
from facelightning.configs import config_folder
from facelightning.errors import ConfigurationError, DataNotFoundError
from facelightning.labels import ATTRIBUTES
from facelightning.reproduce import scheduler, tables
from facelightning.reproduce.command import reproduce
from facelightning.reproduce.plan import Plan, Run, check_settings, write_settings
from facelightning.reproduce.scheduler import _advance, _is_whole, alone
from facelightning.reproduce.tables import read_tables
from facelightning.tasks import TASKS
from tests.processes import FORKS, Command, check_sigterm_ends
from tests.reproduce.conftest import words


class TestRows:
    def test_every_run_has_its_seed(self, tmp_path: Path) -> None:
        plan = Plan({"celeba": "/celeba", "helen": "/helen"}, None, [], tmp_path)
        for name in plan.rows:
            for seed in (0, 3):
                assert f"--seed_everything={seed}" in plan.add(name, seed).command

    def test_what_starts_from_a_failure_is_left_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        plan = Plan({"celeba": "/celeba", "helen": "/helen"}, None, [], tmp_path)
        ssp = plan.add("ssp", 0)
        runs, failed = list(plan.runs.values()), list(ssp.parents)
        assert _advance(ssp, runs, failed, attribution=False)
        assert failed[-1] is ssp
        assert "[2/2] ssp, seed 0: skipped, because segnet, seed 0 failed" in capsys.readouterr().err

    def test_a_row_waits_for_what_it_starts_from(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Another process trains that."""
        plan = Plan({"celeba": "/celeba", "helen": "/helen"}, None, [], tmp_path)
        ssp, failed = plan.add("ssp", 0), list[Run]()
        assert not _advance(ssp, list(plan.runs.values()), failed, attribution=False)
        assert not failed
        assert not ssp.folder.exists()

    def test_every_row_has_its_configurations_data_and_parents(self, tmp_path: Path) -> None:
        plan = Plan({}, None, [], tmp_path)
        titles = [row for table in read_tables() for row in table.rows]
        assert len(plan.rows) == sum(row.name is not None for row in titles)  # no name is used twice
        for name in plan.rows:
            run = plan.add(name, 0)  # finds its configurations and what they extend
            assert set(run.row.data_sets) <= inspect.signature(reproduce).parameters.keys()
            assert run.row.predicts in ("attributes", "parsing", "faces", None)
            assert run.row.assembled == (run.command[0] == "test")
        assert all(table.baseline in plan.rows for table in read_tables())

    def test_the_code_names_no_row(self) -> None:
        """Another paper is another file of data."""
        names = {row.name for table in read_tables() for row in table.rows if row.name} | set(TASKS)
        names |= {path.stem for path in config_folder().glob("*.yaml")}
        for path in Path(tables.__file__).parent.glob("*.py"):
            text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)  # an example may name one
            assert not names & set(re.findall(r"\w+", text)), path

    def test_a_row_is_given_what_another_predicts_of_all_images(self, tmp_path: Path) -> None:
        plan = Plan({"wild": "/wild"}, None, [], tmp_path)
        cut = plan.add("lnet_s", 1)
        assert [name for name, _ in plan.runs] == ["lnet_o", "faces", "lnet_s"]
        predictions = tmp_path / "faces/seed_1/test/predictions/faces.csv"
        assert {f"--data.crop.boxes={predictions}", "--data.root=/wild"} <= set(cut.command) & set(cut.prediction)
        assert [name for name, _ in plan.runs if "--data.predicted=all" in plan.runs[name, 1].prediction] == ["faces"]
        assert plan.obstacle("lnet_anet") == "row anet needs celeba: give --celeba"
        assert (
            Plan({"celeba": "/celeba"}, None, [], tmp_path).obstacle("lnet_s") == "row lnet_s needs wild: give --wild"
        )

    def test_a_row_is_given_a_folder_of_a_data_set(self, tmp_path: Path) -> None:
        plan = Plan({"celeba": str(tmp_path)}, None, [], tmp_path)
        assert plan.obstacle("ssp_known") == f"row ssp_known needs the folder {tmp_path}/Masks, which does not exist"
        (tmp_path / "Masks").mkdir()
        assert plan.obstacle("ssp_known") is None
        assert {f"--data.root={tmp_path}", f"--data.masks={tmp_path}/Masks"} <= set(plan.add("ssp_known", 0).command)

    def test_numbers_are_those_of_liu(self) -> None:
        """Liu et al., Table 1, as printed: some cells, the sum of each line, and its average after it."""
        rows = {(table.name, row.title): row.published for table in read_tables() for row in table.rows}
        for table, title, cells, total, average in (
            ("table1", "FaceTracer", {"5_o_Clock_Shadow": 85, "Male": 91, "Young": 80}, 3245, 81),
            ("table1", "PANDA-w", {"Bald": 92, "Mouth_Slightly_Open": 82, "Wearing_Hat": 91}, 3194, 79),
            ("table1", "PANDA-l", {"Attractive": 81, "Eyeglasses": 98, "Wavy_Hair": 77}, 3417, 85),
            ("table1", "LNets+ANet", {"Big_Lips": 68, "Narrow_Eyes": 81, "Wearing_Necklace": 71}, 3498, 87),
            ("table1_lfwa", "FaceTracer", {"Bangs": 72, "Male": 84, "Rosy_Cheeks": 70}, 2957, 74),
            ("table1_lfwa", "PANDA-w", {"Blond_Hair": 87, "Mouth_Slightly_Open": 74, "Young": 76}, 2871, 71),
            ("table1_lfwa", "PANDA-l", {"Chubby": 69, "Smiling": 89, "Straight_Hair": 73}, 3241, 81),
            ("table1_lfwa", "LNets+ANet", {"Arched_Eyebrows": 82, "Goatee": 78, "No_Beard": 79}, 3354, 84),
        ):
            numbers = dict(rows[table, title])
            assert cells.items() <= numbers.items()
            assert numbers.pop("mean_accuracy") == average
            assert tuple(numbers) == ATTRIBUTES
            assert sum(numbers.values()) == total
            assert (abs(total / 40 - average) <= 0.5) == (title != "PANDA-w")  # its averages are rounded down
        assert rows["table1", "ANet without pre-training"] == {"mean_accuracy": 83}
        assert rows["table1_lfwa", "ANet without pre-training"] == {"mean_accuracy": 79}

    def test_numbers_are_those_of_wang(self) -> None:
        """Wang, Su, Zhao, Tables II and III, as printed: cells of both data sets, and what the paper says of them."""
        rows = {(table.name, row.title): row.published for table in read_tables() for row in table.rows}
        for title, celeba, lfwa in (
            ("Net_0", 89.21, 84.17), ("Net_1, OBRL", 90.97, 85.69), ("Net_2", 89.56, 85.02),
            ("Net_3, OBRL", 91.24, 85.90), ("Net_1 + Net_2", 90.09, 85.23), ("Net_1 + Net_3", 89.42, 85.32),
            ("Net_2 + Net_3, OBRL", 90.55, 86.28), ("Net_1 + Net_2 + Net_3", 90.38, 85.97),
            ("Net_1 + Net_2 + Net_3, OBRL", 91.47, 86.51),
        ):  # fmt: skip
            assert rows["fusion", title] == {"mean_accuracy": celeba}
            assert rows["fusion_lfwa", title] == {"mean_accuracy": lfwa}
        for title, celeba, lfwa in (
            ("FaceTracer", 81.13, 73.93), ("PANDA-I", 85.1, 80.06), ("PANDA-w", 85.43, 81.03),
            ("LNet + ANet", 87.3, 83.5), ("Location + Weather", 88.65, 86.6), ("Off-the-shelf", 86.3, 84.5),
            ("FaceSTN", 91.1, 86.0),
        ):  # fmt: skip
            assert rows["others", title] == {"mean_accuracy": celeba}
            assert rows["others_lfwa", title] == {"mean_accuracy": lfwa}
        for table, first, total in (("fusion", 89.21, 1446.02), ("fusion_lfwa", 84.17, 1368.82)):
            printed = [published["mean_accuracy"] for (name, _), published in rows.items() if name == table]
            assert (printed[0], len(printed)) == (first, 16)
            assert sum(printed) == pytest.approx(total)

    def test_a_row_of_table_ii_is_a_list_of_networks(self, tmp_path: Path) -> None:
        """Each starts from those of its title, with and without the relation loss; a recipe has something for each."""
        roots = dict.fromkeys(("celeba", "lfwa", "faces_and_others", "persons", "ages", "races", "helen"), "/data")
        plan = Plan(roots, "small", [], tmp_path)
        (table,) = (table for table in read_tables() if table.name == "fusion")
        for row in table.rows:
            assert row.name is not None
            nets = [
                {"0": "facenet0", "1": "identitynet", "2": "agenet", "3": "racenet"}[n]
                for n in re.findall(r"\d", row.title)
            ]
            assert row.parents == nets
            assert row.config == ["mtcnn_obrl" if "OBRL" in row.title else "mtcnn"]
            paths = json.dumps([f"{tmp_path}/{net}/seed_1/checkpoints/best.ckpt" for net in nets])
            assert f"--model.encoder.frozen={paths}" in plan.add(row.name, 1).command
        assert not [found for name in plan.rows if (found := plan.obstacle(name)) and "has nothing" in found]

    def test_numbers_are_the_papers(self) -> None:
        """Kalayeh et al., Table 2 (pre-cropped) and Table 4, as printed."""
        rows = {table.name: {row.title: row.published for row in table.rows} for table in read_tables()}
        printed = {
            title: tuple(published.get(key) for key in ("error", "mean_ap"))
            for title, published in rows["table2"].items()
        }
        expected = {
            "SPPNet*": (9.49, 77.69), "Naive Approach": (9.13, 79.74), "BBox": (8.76, 79.95),
            "Avg. Pooling": (9.14, 79.74), "SSG": (8.38, 80.55), "SSP": (8.33, 81.02), "SSP + SSG": (8.20, 81.45),
        }  # fmt: skip
        assert expected.items() <= printed.items()
        for row, average in (("without attributes", 61.84), ("with attributes", 65.66)):
            numbers = rows["table4"][row]
            assert numbers["mean_iou"] == average
            assert np.mean([value for key, value in numbers.items() if key != "mean_iou"]) == pytest.approx(
                average, abs=0.01
            )


class TestCommand:
    def test_dry_run(self, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A row brings what it starts from; nothing is written; times are those of finished runs, or the recipe's."""

        def listed(*args: str) -> str:
            assert main(["reproduce", f"--output={tmp_path / 'out'}", *args, "--dry-run"]) == 0
            return capsys.readouterr().out

        settings = [f"--celeba={faces / 'celeba'}", f"--helen={faces / 'helen'}", "--recipe=robust"]
        rows = listed(*settings, "--rows=[ssp_ssg,avg_balanced]", "--seeds=[0,1]")
        assert not (tmp_path / "out").exists()
        assert re.findall(r"^\w+(?=: .*published)", rows, re.MULTILINE) == [
            "segnet", "ssp", "ssg", "ssp_ssg", "avg", "avg_balanced"
        ]  # fmt: skip
        assert rows.splitlines()[3:6] == [
            "ssp: SSP; published: error 8.33, mean_ap 81.02 (original images: error 8.98, mean_ap 78.01)",
            "  data: celeba; starts from: segnet; time: 7 min a run (when the recipe was measured)",
            "  seed 0 to be trained, seed 1 to be trained",
        ]
        assert rows.splitlines()[-1] == "to do: 12 runs, 50 min one after another; 2 of them not measured"

        for seed, row in ((0, "ssp"), (2, "segnet")):
            (tmp_path / f"out/{row}/seed_{seed}").mkdir(parents=True)
            record = {"seconds": 3720, "attempts": 1, "peak_memory_mib": 1}
            (tmp_path / f"out/{row}/seed_{seed}/finished.json").write_text(json.dumps(record))
        rows = listed(*settings, "--rows=[ssp]", "--seeds=[0,1]")
        assert "segnet: 1 h 02 min a run (here)\n  seed 0 to be trained, seed 1 to be trained" in rows.replace(
            "data: helen; time: ", "segnet: "
        )
        assert "time: 1 h 02 min a run (here)\n  seed 0 finished, seed 1 to be trained" in rows
        assert rows.splitlines()[-1] == "to do: 3 runs, 3 h 06 min one after another"

    def test_dry_run_needs_no_data(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """It lists every row, with what stands in its way."""
        arguments = ["reproduce", "--dry-run", f"--output={tmp_path / 'out'}"]
        assert main(arguments) == 0
        every = capsys.readouterr().out
        names = Plan({}, None, [], tmp_path).rows.keys()
        assert set(re.findall(r"^(\w+): .*published", every, re.MULTILINE)) == names
        assert "give --" not in every
        assert (
            "lnet_anet: LNets+ANet; published: mean_accuracy 87 and 40 more\n  data: wild; starts from: lnet_o,"
            in every
        )
        assert every.splitlines()[-1] == f"to do: {len(names)} runs; {len(names)} of them not measured"
        assert main([*arguments, f"--helen={tmp_path}", "--recipe=quickstart"]) == 0
        found = capsys.readouterr().out
        assert "  seed 0 to be trained\n" in found
        assert "row ssp needs celeba: give --celeba" in found
        assert main([*arguments, "--recipe=quickstart"]) == 0
        assert "seed 0 to be trained; recipe quickstart has nothing for row jointnet\n" in capsys.readouterr().out

    def test_recipe_and_overlays_go_to_their_rows(self, tmp_path: Path) -> None:
        """A recipe to every training; overlays after it, and to ensembles what counts without a training."""
        wild = tmp_path / "wild.yaml"
        wild.write_text("data: {init_args: {images: wild, image_size: [40, 32]}}\nmodel: {init_args: {width: 2}}")
        overlays = ["overlays/fast.yaml", "overlays/cpu.yaml", str(wild)]
        plan = Plan({"celeba": "/celeba", "helen": "/helen"}, "adagrad", overlays, tmp_path)
        for name in ("ssp_ssg", "ssp_balanced", "jointnet"):
            plan.add(name, 0)
        configs = {
            name: [Path(word).stem for word in run.command if word.startswith("--config=")]
            for (name, _), run in plan.runs.items()
        }
        trained = {name: [name, "fast", "cpu", "wild"] for name in ("segnet", "ssp", "ssg", "jointnet")}
        assert configs == trained | {"ssp_balanced": ["balanced", "fast", "cpu", "wild"], "ssp_ssg": ["ssp_ssg"]}
        reckoned = ["--trainer.accelerator=cpu", "--trainer.precision=bf16-mixed"]
        for (name, _), run in plan.runs.items():
            assert ("--recipe=adagrad" in run.command) == (name != "ssp_ssg")
            assert set(reckoned) <= set(run.prediction)
            assert f"--ckpt_path={tmp_path / name}/seed_0/checkpoints/best.ckpt" in run.prediction
            assert not any(word.startswith("--config") for word in run.prediction)
        ensemble = plan.runs["ssp_ssg", 0].command
        assert {"--data.images=wild", "--data.root=/celeba", *reckoned} <= set(ensemble)
        assert not any("image_size" in word or "width" in word for word in ensemble)

    def test_settings_know_recipe_and_overlays_in_their_order_and_parents(self, tmp_path: Path) -> None:
        """Begun with one order of overlays, another recipe or parser, a run is refused; with the same it goes on."""

        def run(recipe: str | None, *overlays: str) -> Run:
            return Plan({"celeba": "celeba", "helen": "helen"}, recipe, overlays, tmp_path).add("ssp", 0)

        own, cpu = tmp_path / "own.yaml", "overlays/cpu.yaml"
        (tmp_path / "base.yaml").write_text("seed_everything: 0")
        own.write_text("extends: base.yaml")
        begun = run("small", str(own), cpu)
        parser = tmp_path / "segnet/seed_0"
        for folder in (parser, begun.folder):
            folder.mkdir(parents=True)
        (parser / "settings.json").write_text("one parser")
        write_settings(begun)
        names = [name for name, _ in json.loads((begun.folder / "settings.json").read_text())["configs"]]
        assert names[:2] == ["configs/avg.yaml", "configs/ssp.yaml"]
        assert names[2:] == [
            f"{tmp_path.name}/base.yaml",
            f"{tmp_path.name}/own.yaml",
            "overlays/cpu.yaml",
            "small/avg.yaml",
        ]
        check_settings(run("small", str(own), cpu))
        for other in (run("small", cpu, str(own)), run("longer", str(own), cpu), run(None, str(own), cpu)):
            with pytest.raises(ConfigurationError, match="begun with other settings"):
                check_settings(other)
        for changed in (tmp_path / "base.yaml", parser / "settings.json"):
            before = changed.read_text()
            changed.write_text("seed_everything: 1")
            with pytest.raises(ConfigurationError, match="begun with other settings"):
                check_settings(run("small", str(own), cpu))
            changed.write_text(before)
        check_settings(begun)

    def test_a_part_of_a_checkpoint_is_not_gone_on_from(self, tmp_path: Path) -> None:
        whole, part = tmp_path / "whole.ckpt", tmp_path / "part.ckpt"
        about = {"format": FORMAT, "task": "AttributeNet", "settings": {}, "facts": {}}
        torch.save({"facelightning": about, "state_dict": {}}, whole)
        part.write_bytes(whole.read_bytes()[:-200])
        assert _is_whole(whole)
        assert not _is_whole(part)
        assert not _is_whole(tmp_path / "none.ckpt")

    def test_mistakes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        celeba = str(tmp_path)
        with pytest.raises(ConfigurationError, match=r"no row is named sspp; did you mean ssp\?"):
            reproduce(celeba=celeba, rows=["sspp"])
        with pytest.raises(ConfigurationError, match="row segnet needs helen: give --helen"):
            reproduce(celeba=celeba, rows=["ssp"])
        with pytest.raises(ConfigurationError, match="recipe quickstart has nothing for row jointnet"):
            reproduce(celeba=celeba, helen=celeba, rows=["jointnet"], recipe="quickstart")
        with pytest.raises(ConfigurationError, match="recipe scenes has nothing for row avg"):  # it knows no times
            reproduce(celeba=celeba, rows=["avg"], recipe="scenes")
        with pytest.raises(ConfigurationError, match=r"no recipe is named smal; did you mean small\?"):
            reproduce(celeba=celeba, recipe="smal")
        with pytest.raises(ConfigurationError, match="nothing to train"):
            reproduce()
        with pytest.raises(ConfigurationError, match="compares predicted attributes, but segnet predicts none"):
            reproduce(helen=celeba, rows=["segnet"], split="val")
        with pytest.raises(
            DataNotFoundError, match=r"--celeba: the data root \S+nowhere does not exist; give the folder"
        ):
            reproduce(celeba=str(tmp_path / "nowhere"), dry_run=True)
        with pytest.raises(SystemExit):
            main(["reproduce", "--recpie=small", "--dry-run"])
        assert "did you mean recipe?" in capsys.readouterr().err

    def test_windows_gets_one_sentence(
        self, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "platform", "win32")
        assert main(["reproduce", f"--celeba={faces / 'celeba'}", "--rows=[avg]", f"--output={tmp_path}"]) == 1
        sentence = "facelightning: reproduce trains on Linux and macOS only: on Windows, start it in WSL\n"
        assert capsys.readouterr().err == sentence

    def test_dry_run_needs_no_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor the module that has them, which Windows lacks."""
        monkeypatch.setitem(sys.modules, "fcntl", None)
        runpy.run_path(scheduler.__file__)
        monkeypatch.chdir(tmp_path)
        assert main(["reproduce", "--dry-run"]) == 0

    def test_a_training_that_outlives_its_parent_keeps_the_lock(self, tmp_path: Path) -> None:
        locked, end = FORKS.Event(), tmp_path / "end"
        parent = FORKS.Process(target=lock, args=(tmp_path, locked, end))
        parent.start()
        assert locked.wait(60)
        parent.kill()
        parent.join()
        with alone(tmp_path, wait=False) as mine:
            assert not mine
        end.touch()  # ends the child
        with alone(tmp_path) as mine:  # waits for that
            assert mine

    def test_ends_with_its_training(self, faces: Path, tmp_path: Path) -> None:
        """SIGTERM to the command alone ends the training that it runs, and is its status."""
        command_line = words(faces, tmp_path, "avg")
        overlay = tmp_path / "tiny.yaml"
        overlay.write_text(overlay.read_text().replace("max_epochs: 3", "max_epochs: 300"))
        with Command(command_line) as command:
            check_sigterm_ends(command, lambda: any(tmp_path.glob("out/*/*/checkpoints/last.ckpt")))


def lock(folder: Path, locked: Event, end: Path) -> None:
    """Lock a folder and start a child that goes on until a file appears."""
    with alone(folder):
        code = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)"
        child = subprocess.Popen([sys.executable, "-c", code, end], close_fds=False)
        locked.set()
        child.wait()
