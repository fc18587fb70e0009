"""Weights & Biases without an account or a network: what the run's own file holds."""

import csv
import json
import os
import struct
from collections.abc import Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at import

from facelightning.__main__ import main
from facelightning.configs import config_folder
from facelightning.labels import HELEN7, IGNORE_INDEX
from tests.conftest import SIZE
from tests.processes import run
from tests.test_configs import small_overlay

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # LevelDB's log format: checksum, length, kind of each fragment
FULL, LAST = 1, 4  # kinds that end a record


def read_records(path: Path) -> Iterator[Record]:
    """The records of a ``.wandb`` file, in order."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, collected = 7, b""
    while position + HEADER.size <= len(content):
        left_in_block = BLOCK - position % BLOCK
        if left_in_block < HEADER.size:
            position += left_in_block
            continue
        _, length, kind = HEADER.unpack_from(content, position)
        position += HEADER.size
        collected += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(collected)
            collected = b""
            yield record


def values(items: Any) -> dict[str, Any]:
    """Keys and JSON values of a list of protobuf items; a nested key's parts are joined by slashes."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


SWEEPS = sorted(config_folder().glob("sweeps/*.yaml"))
ONLINE = "--config=overlays/wandb_online.yaml"


def words_of(sweep: Path, place: int) -> list[str]:
    """What an agent of W&B would call: the command of a sweep at one of its points."""
    content = yaml.safe_load(sweep.read_text())
    point = {
        key: said["values"][place] if "values" in said else (said["min"], said["max"])[place]
        for key, said in content["parameters"].items()
    }
    assert content["command"][:3] == ["${env}", "facelightning", "fit"] and content["command"][-1] == "${args}"
    return [*content["command"][2:-1], *(f"--{key}={value}" for key, value in point.items())]


@pytest.fixture(scope="module")
def folder(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the quickstart ran, in a process of its own that knows no account and reaches no network."""
    folder = tmp_path_factory.mktemp("wandb")
    small = small_overlay("quickstart.yaml", faces, folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    nowhere = "http://127.0.0.1:9"
    environment |= {"HOME": str(folder / "home"), "WANDB_BASE_URL": nowhere, "OMP_NUM_THREADS": "1"}
    environment |= {"http_proxy": nowhere, "https_proxy": nowhere, "WANDB_MODE": "offline"}
    arguments = [*words_of(config_folder() / "sweeps/pooling.yaml", -1), f"--config={small}"]
    arguments += ["--trainer.limit_train_batches=2", "--trainer.max_steps=4", "--trainer.log_every_n_steps=1"]
    arguments += ["--figures.num_images=2"]
    done = run(arguments, folder=folder, variables=environment)
    assert done.poll() == 0, done.err
    return folder / "runs"


@pytest.fixture
def records(folder: Path) -> list[Record]:
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return list(read_records(path))


@pytest.fixture
def history(records: list[Record]) -> list[dict[str, Any]]:
    return [values(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]


def test_scores_are_those_of_the_run_folder(folder: Path, history: list[dict[str, Any]]) -> None:
    with (folder / "quickstart" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for key in ("train/loss", "val/loss", "val/mean_iou", "val/mean_ap", "val/iou_hair", "test/mean_iou"):
        written = [(int(row["step"]), float(row[key])) for row in rows if row[key]]
        logged = [(entry["trainer/global_step"], entry[key]) for entry in history if key in entry]
        assert logged == written
        assert len(logged) == {"train": 4, "val": 2, "test": 1}[key.split("/")[0]]


def test_the_whole_configuration_is_there(folder: Path, records: list[Record]) -> None:
    config: dict[str, Any] = {}
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            config |= values(record.run.config.update if kind == "run" else record.config.update)
    written = yaml.safe_load((folder / "quickstart" / "version_0" / "config.yaml").read_text())
    assert config["config"] == written
    assert config["config"]["model"]["class_path"] == "facelightning.JointNet"
    pooling = config["config"]["model"]["init_args"]["pooling"]["class_path"]
    assert pooling.rpartition(".")[2] == "SemanticPooling"
    assert config["config"]["model"]["init_args"]["width"] == 2
    assert config["config"]["data"]["init_args"]["batch_size"] == 4


@pytest.mark.parametrize("name", [f"figures/{name}" for name in ("attributes", "faces", "parsing", "region_weights")])
def test_panels_lie_beside_the_scores_of_their_step(folder: Path, history: list[dict[str, Any]], name: str) -> None:
    entries = [entry for entry in history if f"{name}/filenames" in entry]
    steps = [entry["trainer/global_step"] for entry in history if "val/loss" in entry]
    assert [entry["trainer/global_step"] for entry in entries] == steps
    (media,) = folder.glob("wandb/offline-run-*/files")
    images = [cv2.imread(str(media / file)) for entry in entries for file in entry[f"{name}/filenames"]]
    assert len(images) == 2
    last = cv2.imread(str(folder / "quickstart" / "version_0" / f"{name}.png"))
    assert last is not None
    assert images[-1] is not None
    assert (images[-1] == last).all()


def files_of(folder: Path) -> Path:
    (files,) = folder.glob("wandb/offline-run-*/files")
    return files


def test_tables_hold_the_scores(folder: Path, history: list[dict[str, Any]]) -> None:
    results = json.loads((folder / "quickstart/version_0/test_results.json").read_text())
    scores = {name: list(each.values()) for name, each in results["attributes"]["per_attribute"].items()}
    classes = {name: [iou, results["parsing"]["f1"][name]] for name, iou in results["parsing"]["iou"].items()}
    for key, rows in {"attributes": scores, "parsing": classes}.items():
        assert len([entry for entry in history if f"val/{key}/path" in entry]) == 2
        (entry,) = [entry for entry in history if f"test/{key}/path" in entry]
        table = json.loads((files_of(folder) / entry[f"test/{key}/path"]).read_text())
        assert len(table["columns"]) == len(table["data"][0])
        assert {name: values for name, *values in table["data"]} == rows


def test_masks_are_laid_over_images(folder: Path, history: list[dict[str, Any]]) -> None:
    """In W&B's own format: classes as grey values, of the images of the figure."""
    entries = [entry for entry in history if "masks/all_masks" in entry]
    assert [entry["trainer/global_step"] for entry in entries] == [1, 3]
    read = partial(cv2.imread, flags=cv2.IMREAD_UNCHANGED)
    for image, masks in zip(entries[-1]["masks/filenames"], entries[-1]["masks/all_masks"], strict=True):
        assert masks.keys() == {"prediction", "ground_truth"}
        for mask in masks.values():
            found = read(str(files_of(folder) / mask["path"]))
            assert found.shape[:2] == read(str(files_of(folder) / image)).shape[:2] == SIZE
            assert set(np.unique(found)) <= {*range(len(HELEN7)), IGNORE_INDEX}
        truth = read(str(files_of(folder) / masks["ground_truth"]["path"]))  # the prediction may be of one class
        assert len(np.unique(truth)) > 2


def test_a_run_is_named_by_its_configuration(records: list[Record]) -> None:
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert run.display_name == "quickstart"
    assert {"JointNet", "SemanticPooling", "SyntheticDataModule"} <= set(run.tags)


def test_the_best_checkpoint_goes_along(folder: Path, records: list[Record]) -> None:
    found = [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    (model,) = [artifact for artifact in found if artifact.type == "model"]
    assert json.loads(model.metadata)["original_filename"] == "best.ckpt" and "best" in model.aliases


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_what_a_sweep_varies_is_known(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One point of one sweep is trained above."""
    words = words_of(sweep, 0)
    assert ONLINE in words
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert stop.value.code == 0
    found = yaml.safe_load(capsys.readouterr().out)
    for key in yaml.safe_load(sweep.read_text())["parameters"]:
        value = reduce(lambda settings, part: settings[part], key.split("."), found)
        text = str(value["class_path"] if isinstance(value, dict) else value)
        assert any(word.startswith(f"--{key}=") and word.endswith(text.rpartition(".")[2]) for word in words)


def test_the_run_ended_well(records: list[Record]) -> None:
    exits = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    assert exits == [0]
