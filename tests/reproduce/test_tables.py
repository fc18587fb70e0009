"""The files that ``reproduce`` leaves: each number in its cell, and LFWA's rows on LFWA's images."""

import csv
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score

from facelightning.__main__ import main
from facelightning.data import CelebA
from facelightning.labels import ATTRIBUTES
from facelightning.reproduce import scheduler
from facelightning.reproduce.plan import Plan, Run
from facelightning.reproduce.tables import read_tables, write_tables
from tests.processes import Command, train_within
from tests.reproduce.conftest import small, words

ROWS = {"Avg. Pooling": "avg", "SPPNet*": "spp"}
ENDS = ("low", "high")
SCORES = ("error", "mean_ap", "balanced_accuracy")
ATTRIBUTION = ("region_preference", "evidence_inside", "chance", "evidence_on_change", "chance_on_change")
Scores = dict[str, dict[str, Any]]


def test_tables_hold_what_was_published_and_measured(reproduced: Path) -> None:
    runs = {title: reproduced / row / "seed_0" for title, row in ROWS.items()}
    ours = {title: json.loads((run / "test_results.json").read_text())["attributes"] for title, run in runs.items()}
    looked = {title: json.loads((run / "attribution.json").read_text()) for title, run in runs.items()}
    assert all(ours["SPPNet*"][name] != ours["Avg. Pooling"][name] for name in SCORES)
    records = json.loads((reproduced / "tables.json").read_text())
    check_json(records, ours, looked)
    differences = next(record["difference"] for record in records if record["row"] == "SPPNet*")["persons"]
    check_markdown((reproduced / "tables.md").read_text(), ours, looked, differences)
    check_csv(reproduced / "tables.csv", records)


def test_two_processes_have_shared_the_runs(reproduced: Path) -> None:
    attempts = [json.loads(path.read_text())["attempts"] for path in reproduced.glob("*/*/finished.json")]
    assert attempts == [1, 1]


def test_variants_are_chosen_on_val(
    reproduced: Path, faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finished runs predict val, once; what they scored on test is in other files, which stay."""
    test = {path: path.read_bytes() for path in reproduced.rglob("*") if path.is_file()}
    command = [*words(faces, reproduced.parent, "avg", "spp"), "--split=val"]
    assert main(command) == 0
    assert {path: path.read_bytes() for path in test} == test
    predicted = {title: reproduced / row / "seed_0/val/predictions/attributes.csv" for title, row in ROWS.items()}
    written = {path: path.stat().st_mtime_ns for path in predicted.values()}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written

    images = CelebA(str(faces / "celeba"), "val")
    every = json.loads((reproduced / "tables_val.json").read_text())
    records = {record["row"]: record for record in every if record["table"] == "table2"}
    errors = {}
    for title, path in predicted.items():
        with path.open(newline="") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
        assert list(rows) == list(images.names)
        likely = np.array([[float(rows[name][attribute]) for attribute in ATTRIBUTES] for name in images.names])
        truth = images.attributes.astype(bool)
        known = [i for i in range(40) if truth[:, i].any()]
        precisions = [average_precision_score(truth[:, i], likely[:, i]) for i in known]
        errors[title] = 100 * ((likely > 0.5) != truth).mean()
        assert records[title]["ours"]["error"] == [pytest.approx(errors[title])]
        assert records[title]["ours"]["mean_ap"] == [pytest.approx(100 * np.mean(precisions))]
    difference = records["SPPNet*"]["difference"]["persons"]["error"][0]
    assert difference == pytest.approx(errors["SPPNet*"] - errors["Avg. Pooling"])
    text = (reproduced / "tables_val.md").read_text()
    assert "Ours, on val:" in text
    assert "Δ: to Avg. Pooling, with a bootstrap interval over the persons of val" in text

    assert main([*command, "--baseline=spp"]) == 0
    every = json.loads((reproduced / "tables_val.json").read_text())
    others = {record["row"]: record["difference"] for record in every if "difference" in record}
    assert others.keys() == {"Avg. Pooling"}
    assert others["Avg. Pooling"]["persons"]["error"][0] == pytest.approx(-difference)
    assert "Δ: to SPPNet*, with" in (reproduced / "tables_val.md").read_text()
    capsys.readouterr()
    assert main([*command, "--baseline=ssp"]) == 1
    assert "--baseline=ssp is none of the rows: avg, spp" in capsys.readouterr().err

    capsys.readouterr()
    (reproduced / "spp/seed_0/val/finished").unlink()
    monkeypatch.setattr(scheduler, "_call", lambda _: None)
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "1 of 2 runs failed: spp, seed 0" in printed.err
    assert f"{errors['Avg. Pooling']:.2f}" in printed.out
    assert f"{errors['SPPNet*']:.2f}" not in printed.out


def test_a_kill_changes_nothing(reproduced: Path, faces: Path, tmp_path: Path) -> None:
    """Killed in mid-training and started again, the scores are those of a run without interruption."""
    command = words(faces, tmp_path, "spp")
    with Command(command, within=True) as killed:
        while not list(tmp_path.glob("out/*/*/checkpoints/last.ckpt")):
            assert killed.poll() is None
            time.sleep(0.01)
    assert not list(tmp_path.glob("out/*/*/finished.json"))
    assert not (tmp_path / "out/tables.json").exists()
    assert main(command) == 0
    assert scores(tmp_path / "out")["SPPNet*"] == scores(reproduced)["SPPNet*"]
    record = json.loads((tmp_path / "out/spp/seed_0/finished.json").read_text())
    assert record["attempts"] == 2
    assert 100 < record["peak_memory_mib"] < 10_000  # of the processes that trained and predicted

    overlay = tmp_path / "tiny.yaml"
    overlay.write_text(overlay.read_text().replace("width: 2", "width: 3"))
    assert main(command) == 1  # other settings are not mixed in


def scores(folder: Path) -> dict[str, Any]:
    """Those of every finished row."""
    records = json.loads((folder / "tables.json").read_text())
    return {record["row"]: record["ours"] for record in records if record["seeds"]}


def check_json(records: list[dict[str, Any]], ours: Scores, looked: Scores) -> None:
    """One record for each row, with the scores of its run and, against the baseline, what they differ by."""
    trained = {record["row"]: record for record in records if record["seeds"]}
    assert trained.keys() == ours.keys()
    for title, record in trained.items():
        assert (record["table"], record["seeds"]) == ("table2", [0])
        assert record["ours"] == {name: [ours[title][name]] for name in SCORES}
        assert record["attribution"] == [{name: looked[title][name] for name in ATTRIBUTION}]
    assert trained["SPPNet*"]["published"] == {"error": 9.49, "mean_ap": 77.69}
    assert "difference" not in trained["Avg. Pooling"]
    assert trained["SPPNet*"]["difference"].keys() == {"persons"}  # one training says nothing of others
    for name, (value, low, high) in trained["SPPNet*"]["difference"]["persons"].items():
        assert value == pytest.approx(ours["SPPNet*"][name] - ours["Avg. Pooling"][name], abs=1e-3)
        assert low < high


def check_markdown(text: str, ours: Scores, looked: Scores, differences: dict[str, list[float]]) -> None:
    """Every number in the cell of its column, rounded to two digits."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = {name: cells for name, *cells in ([cell.strip() for cell in line[1:-1].split(" | ")] for line in lines)}
    titles = ["error %", "mean AP %", "balanced accuracy %"]
    assert rows[""] == [
        *(f"{title}: {whose}" for whose in ("published", "ours") for title in titles),
        *("Δ error over persons [95 %]", "Δ mean AP over persons [95 %]"),
        *("right region %", "evidence in region %", "by chance %", "evidence on the attribute %", "by chance %"),
        *("time", "memory"),
    ]
    published = {"SPPNet*": ["9.49", "77.69", ""], "Avg. Pooling": ["9.14 (9.83)", "79.74 (77.16)", ""]}
    signed = [f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" for value, low, high in differences.values()]
    for title in ROWS:
        scores = [f"{ours[title][name]:.2f}" for name in SCORES]
        difference = signed if title == "SPPNet*" else ["", ""]
        assert looked[title]["region_preference"] is None  # these two weigh no regions
        measured = ["", *(f"{looked[title][name]:.2f}" for name in ATTRIBUTION[1:])]
        *cells, time, memory = rows[title]
        assert cells == [*published[title], *scores, *difference, *measured]
        assert re.fullmatch(r"(< 1|\d+) min", time)
        assert re.fullmatch(r"\d+ MiB", memory)
    assert rows["SSP"] == ["8.33 (8.98)", "81.02 (78.01)", *[""] * 13]  # not trained


def check_csv(path: Path, records: list[dict[str, Any]]) -> None:
    """A line for each record with all of its numbers, each in its own column, and no others."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, records, strict=True):
        numbers = {f"{kind}_{key}": value for kind in ("published", "original") for key, value in record[kind].items()}
        numbers |= {f"{key}_seed_0": values[0] for key, values in record["ours"].items() if values}
        numbers |= {f"{key}_seed_0": value for scores in record["attribution"] for key, value in scores.items()}
        for key, triple in record.get("difference", {"persons": {}})["persons"].items():
            names = (f"{key}_difference", f"{key}_low_over_persons", f"{key}_high_over_persons")
            numbers |= dict(zip(names, triple, strict=True))
        assert [row.pop(key) for key in ("table", "row")] == [record["table"], record["row"]]
        assert row.pop("seeds") == " ".join(map(str, record["seeds"]))
        assert numbers.keys() <= row.keys()
        assert {key: float(text) for key, text in row.items() if text} == {
            key: value for key, value in numbers.items() if value is not None
        }


def test_a_wide_table_is_printed_transposed(tmp_path: Path) -> None:
    """A line for each attribute; a column for what is published of a row, and for ours, if there is any."""
    (table,) = (table for table in read_tables() if table.name == "table1")
    records: list[dict[str, Any]] = []
    for row in table.rows:
        mine: list[int] = {"anet_scratch": [0, 1], "anet": [1]}.get(row.name or "", [])
        ours = {key: [60 + n + seed for seed in mine] for n, key in enumerate(table.columns)}
        record = {"table": "table1", "row": row.title, "seeds": mine, "published": row.published, "original": {}}
        finished = [{"seconds": 600, "attempts": 1, "peak_memory_mib": 900}] * len(mine)
        records.append(record | {"ours": ours, "finished": finished, "attribution": [None] * len(mine)})
    persons = {"error": [-1.0, -2.0, 0.5], "mean_ap": [3.0, 1.0, 4.0]}
    both = {"error": [-1.0, -2.5, 1.5], "mean_ap": [3.0, -1.0, 5.0]}
    records[-2]["difference"] = {"persons": persons, "persons_and_trainings": both}  # of anet
    text = write_tables(tmp_path, read_tables(), records)
    head, rule, *lines = [
        [cell.strip() for cell in line[1:-1].split(" | ")] for line in text.splitlines() if "|" in line
    ]
    assert head == [
        *("", "FaceTracer: published", "PANDA-w: published", "PANDA-l: published", "LNets+ANet: published"),
        *("ANet without pre-training: published", "ANet without pre-training: ours", "ANet: ours"),
    ]
    assert {len(line) for line in lines} == {len(head)}
    assert rule == ["---"] * 8
    titles = [name.replace("_", " ") for name in ("mean_accuracy", *ATTRIBUTES)]
    over = ("over persons", "over persons and trainings")
    titles += [f"Δ {score} {which} [95 %]" for which in over for score in ("error", "mean AP")]
    assert [line[0] for line in lines] == [*titles, "time", "memory"]
    assert lines[0][1:] == ["81", "79", "85", "87", "83", "60.50 ± 0.71 (60.00, 61.00)", "61.00"]
    assert lines[40][1:] == ["80", "77", "84", "87", "", "100.50 ± 0.71 (100.00, 101.00)", "101.00"]
    assert lines[41][1:] == [*[""] * 6, "-1.00 [-2.00, +0.50]"]
    assert lines[44][1:] == [*[""] * 6, "+3.00 [-1.00, +5.00]"]
    assert lines[45][5:] == ["", "10 min", "10 min"]
    assert "Δ: to ANet without pre-training, with" in text
    with (tmp_path / "tables.csv").open(newline="") as file:
        *_, row, anet, _ = csv.DictReader(file)
    assert (row["published_mean_accuracy"], row["Young_seed_0"], row["Young_seed_1"]) == ("83", "100", "101")
    ends = {name: text for name, text in anet.items() if name.startswith(("error_low", "error_high"))}
    assert list(ends) == [f"error_{end}_over_{over}" for over in ("persons", "persons_and_trainings") for end in ENDS]
    assert list(ends.values()) == ["-2.0", "0.5", "-2.5", "1.5"]


def test_differences_name_the_baseline_of_another_table(tmp_path: Path) -> None:
    record = {"table": "stages", "row": "off the shelf", "seeds": [0], "published": {}, "original": {}}
    ours = {"mean_accuracy": [80.0], "mean_ap": [50.0], "balanced_accuracy": [60.0]}
    difference = {"persons": {"error": [1.0, 0.5, 1.5], "mean_ap": [0.0, -1.0, 1.0]}}
    record |= {"ours": ours, "finished": [], "attribution": [None], "difference": difference}
    assert "\nΔ: to ANet without pre-training, with a bootstrap" in write_tables(tmp_path, read_tables(), [record])


def test_accuracy_of_anet_with_and_without_identities(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command, whose trainings run here, in one process: three beginnings would take most of the time."""
    monkeypatch.setattr(scheduler, "_call", train_within)
    overlay = yaml.safe_load(Path(small(tmp_path)).read_text())
    overlay["data"]["init_args"]["image_size"] = [129, 129]
    overlay["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(overlay))
    command = ["reproduce", f"--celeba={faces / 'celeba'}", "--recipe=small", f"--overlay=[{tmp_path / 'tiny.yaml'}]"]
    assert main([*command, f"--output={tmp_path}", "--rows=[anet,anet_scratch]", "--resamples=20"]) == 0
    every = json.loads((tmp_path / "tables.json").read_text())
    records = {record["row"]: record for record in every if record["table"] == "table1"}
    for title, row in {"ANet": "anet", "ANet without pre-training": "anet_scratch"}.items():
        scores = json.loads((tmp_path / row / "seed_0/test_results.json").read_text())["attributes"]
        ours = {name: 100 - each["error"] for name, each in scores["per_attribute"].items()}
        assert records[title]["ours"] == {key: [value] for key, value in ours.items()} | {
            "mean_accuracy": [100 - scores["error"]]
        }
    assert records["ANet"]["ours"] != records["ANet without pre-training"]["ours"]
    assert "difference" in records["ANet"]
    weights = yaml.safe_load((tmp_path / "anet/seed_0/config.yaml").read_text())["model"]["init_args"]["weights"]
    assert weights == str(tmp_path / "anet_identity/seed_0/checkpoints/best.ckpt")


def printed(run: Run, capsys: pytest.CaptureFixture[str]) -> Any:
    """The configuration that a run's command stands for."""
    with pytest.raises(SystemExit) as stop:
        main([*run.command, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


PARTS = {
    "avg": ("AveragePooling", "LinearHead", None, None),
    "ssg": ("AveragePooling", "LinearHead", "SemanticGating", "ParserRegions"),
    "ssp": ("SemanticPooling", "LocalizationHead", None, "ParserRegions"),
}


@pytest.mark.parametrize("name", PARTS)
def test_balanced_rows_are_of_the_networks_that_they_start_from(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan({"celeba": "/celeba", "helen": "/helen"}, "small", [], tmp_path)
    for row in (name, f"{name}_balanced"):
        settings = printed(plan.add(row, 0), capsys)["model"]["init_args"]
        parts = (settings[key] and settings[key]["class_path"] for key in ("pooling", "head", "gate", "regions"))
        assert tuple(part and part.rpartition(".")[2] for part in parts) == PARTS[name]
        assert settings["objective"]["class_path"].endswith(".BalancedAttributes") == (row != name)
    assert settings["weights"] == str(tmp_path / name / "seed_0/checkpoints/best.ckpt")


@pytest.mark.parametrize(
    ("row", "parents", "starts_from"),
    [
        ("lfwa_ssp_ssg", ["segnet", "lfwa_ssp", "lfwa_ssg"], {"members": ["lfwa_ssp", "lfwa_ssg"]}),
        (
            "lfwa_ssp_ssg_tuned",
            ["segnet", "ssp", "lfwa_ssp_tuned", "ssg", "lfwa_ssg_tuned"],
            {"members": ["lfwa_ssp_tuned", "lfwa_ssg_tuned"]},
        ),
        ("lfwa_anet_svm", ["anet_identity", "anet"], {"network": "anet"}),
    ],
)
def test_rows_of_lfwa_learn_from_lfwa(
    row: str,
    parents: list[str],
    starts_from: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They, and not the parser and the rows of CelebA that they start from; as their commands are understood."""
    plan = Plan({"celeba": "/celeba", "helen": "/helen", "lfwa": "/lfwa"}, "small", [], tmp_path)
    plan.add(row, 3)
    assert list(plan.runs) == [(name, 3) for name in [*parents, row]]
    modules = {"celeba": "CelebADataModule", "helen": "HelenDataModule", "lfwa": "LFWADataModule"}
    for (name, _), run in plan.runs.items():
        data = "lfwa" if name.startswith("lfwa_") else "helen" if name == "segnet" else "celeba"
        found = printed(run, capsys)
        assert found["data"]["class_path"].split(".")[-1] == modules[data]
        assert found["data"]["init_args"]["root"] == f"/{data}"

    def best(of: str | list[str]) -> Any:
        return str(tmp_path / of / "seed_3/checkpoints/best.ckpt") if isinstance(of, str) else list(map(best, of))

    given = found["model"]["init_args"]
    given["regions"] = (given.get("regions") or {"init_args": {"checkpoint": None}})["init_args"]["checkpoint"]
    assert {key: given[key] for key in starts_from} == {key: best(of) for key, of in starts_from.items()}


@pytest.mark.parametrize(
    ("row", "part", "settings"),
    [
        ("avg_summed", "objective", {"weight": 1}),
        ("ssp_hard", "regions", {"temperature": 0, "checkpoint": "segnet", "store": None}),
        ("bbox_parser", "regions", {"temperature": 1, "checkpoint": "segnet", "store": None}),
        ("ssg_plain", "gate", {"begin_plain": True, "norm_restored": False}),
        ("wild_ssg", "regions", {"temperature": 1, "checkpoint": "segnet", "store": None}),
    ],
)
def test_rows_that_examine_claims(
    row: str, part: str, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is another row but for one word."""
    found = printed(Plan(dict.fromkeys(("celeba", "helen", "wild"), "/"), None, [], tmp_path).add(row, 1), capsys)
    parser = str(tmp_path / "segnet/seed_1/checkpoints/best.ckpt")
    expected = {key: parser if value == "segnet" else value for key, value in settings.items()}
    chosen = found["model"]["init_args"][part]
    assert chosen["init_args"] == expected
    assert chosen["class_path"].endswith("ParserBoxes") == (row == "bbox_parser")
    assert chosen["class_path"].endswith("SummedAttributes") == (row == "avg_summed")
    assert found["data"]["init_args"]["images"] == ("wild" if row == "wild_ssg" else "aligned")


def test_dry_run_of_lfwa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A row brings what it starts from, and lacks what that lacks."""

    def listed(*args: str) -> list[str]:
        assert main(["reproduce", *args, "--dry-run"]) == 0
        return re.findall(r"^(\w+):.* published", capsys.readouterr().out, re.MULTILINE)

    monkeypatch.chdir(tmp_path)
    for name in ("celeba", "helen", "lfwa"):
        (tmp_path / name).mkdir()
    data = ["--celeba=celeba", "--helen=helen", "--lfwa=lfwa"]
    assert listed(*data, "--rows=[lfwa_ssp_ssg]") == ["segnet", "lfwa_ssp", "lfwa_ssg", "lfwa_ssp_ssg"]
    assert listed(*data, "--rows=[lfwa_ssp_tuned]") == ["segnet", "ssp", "lfwa_ssp_tuned"]
    assert listed("--lfwa=lfwa", "--celeba=celeba", "--rows=[lfwa_avg_tuned]") == ["avg", "lfwa_avg_tuned"]
    assert not (tmp_path / "runs").exists()
    plan = Plan({"lfwa": "/lfwa"}, None, [], tmp_path)
    alone = ["lfwa_avg", "lfwa_anet_scratch", "lfwa_stn"]
    assert [name for name in plan.rows if plan.obstacle(name) is None] == alone
