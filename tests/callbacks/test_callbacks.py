"""What a run leaves behind, held against the data on disk by independent means."""

import csv
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import cv2
import lightning as L
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchmetrics
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import average_precision_score, confusion_matrix
from torch import nn

from facelightning import AttributeNet, JointNet
from facelightning.__main__ import main
from facelightning.callbacks import Figures, PredictionWriter, Report
from facelightning.callbacks.predictions import relative_path
from facelightning.callbacks.report import score_table
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.figures import average_precision_figure, faces_figure, relations_figure
from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11, HELEN11_TO_7
from facelightning.models.heads import LocalizationHead
from facelightning.models.pooling import SemanticPooling
from facelightning.objectives import Batch, Objective, Output, RelatedAttributes
from facelightning.tasks import FaceTask
from tests.conftest import SIZE
from tests.test_configs import small_overlay

FULL_SIZE = "--data.image_size=[218,178]"  # that of the files: truth can be read without resizing
FACTS = DataFacts(SIZE, HELEN7, ATTRIBUTES)


@pytest.fixture(scope="module")
def runs(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two runs: one that trained and tested, and one that predicted with its best checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    arguments = ["--config", "quickstart.yaml", "--config", small_overlay("quickstart.yaml", faces, folder), FULL_SIZE]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # enough to tell faces apart: the scores of equal faces would hang on the last bit
        arguments += ["--trainer.max_steps=6", "--model.learning_rate=0.03"]
        once = ["--trainer.check_val_every_n_epoch=3", "--figures.num_images=6"]
        assert main(["fit", *arguments, *once]) == 0
        assert main(["predict", "--ckpt_path=runs/quickstart/version_0/checkpoints/best.ckpt"]) == 0
    return folder / "runs" / "quickstart"


def joint_net() -> JointNet:
    """One that weighs regions."""
    return JointNet(width=2, pooling=SemanticPooling, head=LocalizationHead).build(FACTS)


def results_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "test_results.json").read_text())
    return content


def is_percentage(value: object) -> bool:
    return value is None or (isinstance(value, float) and 0 <= value <= 100)


def test_a_run_folder_holds_everything(runs: Path) -> None:
    run = runs / "version_0"
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert names - {"hparams.yaml"} == {
        "config.yaml",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "test_results.json",
        "training.json",
        "figures/attributes.png",
        "figures/faces.png",
        "figures/parsing.png",
        "figures/region_weights.png",
    }
    config = yaml.safe_load((run / "config.yaml").read_text())
    parts = [config["model"]["init_args"][part]["class_path"].rpartition(".")[2] for part in ("pooling", "head")]
    assert parts == ["SemanticPooling", "LocalizationHead"]
    assert config["trainer"]["max_time"] is None  # what is empty is written, too
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/loss"] for row in rows)
    assert any(row["val/mean_ap"] and row["val/mean_iou"] for row in rows)
    for figure in ("attributes", "faces", "parsing", "region_weights"):
        assert cv2.imread(str(run / "figures" / f"{figure}.png")) is not None


def test_test_results_have_the_documented_structure(runs: Path) -> None:
    results = results_of(runs / "version_0")
    assert results.keys() == {"attributes", "parsing", "weights"}
    attributes, parsing = results["attributes"], results["parsing"]
    whole = {"error", "mean_ap", "balanced_accuracy", "per_attribute", "undefined", "contradictions"}
    assert attributes.keys() == whole
    assert attributes["contradictions"].keys() == {"predicted", "labelled"}
    assert tuple(attributes["per_attribute"]) == ATTRIBUTES
    for name, scores in attributes["per_attribute"].items():
        assert scores.keys() == {"error", "ap", "balanced_accuracy"}
        assert all(map(is_percentage, scores.values()))
        assert (None in scores.values()) == (name in attributes["undefined"])
    assert attributes["undefined"]  # of 13 images: the case is met
    assert parsing.keys() == {"iou", "mean_iou", "f1", "mean_f1", "overall_f1"}
    assert tuple(parsing["iou"]) == tuple(parsing["f1"]) == HELEN7.classes
    means = [attributes[key] for key in ("error", "mean_ap", "balanced_accuracy")]
    means += [parsing[key] for key in ("mean_iou", "mean_f1", "overall_f1")]
    assert all(map(is_percentage, [*parsing["iou"].values(), *parsing["f1"].values(), *means]))
    assert None not in means


def read_table(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", *ATTRIBUTES]
    table = {name: np.array(values, np.float32) for name, *values in rows}
    assert len(table) == len(rows)
    return table


def test_the_written_probabilities_give_the_scores_of_the_test(runs: Path, faces: Path) -> None:
    table = read_table(runs / "version_1" / "predictions" / "attributes.csv")
    assert not list((runs / "version_1" / "predictions").glob("attributes_*"))
    partition = dict(line.split() for line in (faces / "celeba/Eval/list_eval_partition.txt").read_text().splitlines())
    annotation = [line.split() for line in (faces / "celeba/Anno/list_attr_celeba.txt").read_text().splitlines()[2:]]
    truth = {name: np.array(labels, int) == 1 for name, *labels in annotation if partition[name] == "2"}
    assert len(truth) == 13
    assert len(table) == 13 + 7  # both test sets
    probabilities = np.stack([table[name] for name in truth])
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert probabilities.std(axis=0).min() > 1e-4
    labels = np.stack(list(truth.values()))
    expected = {
        name: 100 * average_precision_score(labels[:, i], probabilities[:, i])
        for i, name in enumerate(ATTRIBUTES)
        if labels[:, i].any()
    }
    scores = results_of(runs / "version_0")["attributes"]
    found = {name: row["ap"] for name, row in scores["per_attribute"].items() if row["ap"] is not None}
    assert found == pytest.approx(expected)
    assert scores["mean_ap"] == pytest.approx(np.mean(list(expected.values())))
    assert scores["error"] == pytest.approx(100 * ((probabilities > 0.5) != labels).mean())


def test_the_written_masks_give_the_scores_of_the_test(runs: Path, faces: Path) -> None:
    folder = runs / "version_1" / "predictions" / "parsing"
    celeba = [f"{number:06d}.jpg.png" for number in range(33, 46)]
    ids = [line.split(" , ")[1] for line in (faces / "helen/testing.txt").read_text().splitlines()]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*celeba, *(f"{name}.png" for name in ids)])
    confusion = np.zeros((7, 7))
    for name in ids:
        alphas = [
            cv2.imread(str(faces / f"helen/labels/{name}/{name}_lbl{label:02d}.png"), cv2.IMREAD_GRAYSCALE)
            for label in range(len(HELEN11))
        ]
        stack = np.stack([np.asarray(alpha, float) for alpha in alphas])
        groups = [stack[[HELEN11.index(part) for part in parts]].sum(axis=0) for parts in HELEN11_TO_7.values()]
        truth = np.stack(groups).clip(max=255).argmax(axis=0)
        predicted = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert predicted is not None
        assert predicted.shape == truth.shape
        confusion += confusion_matrix(truth.ravel(), predicted.ravel(), labels=range(7))
    hits = confusion.diagonal()
    iou = 100 * hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)
    scores = results_of(runs / "version_0")["parsing"]
    assert list(scores["iou"].values()) == pytest.approx(list(iou))
    assert scores["mean_iou"] == pytest.approx(iou.mean())


def test_scores_are_printed(
    command: Callable[..., None], faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", "quickstart.yaml", "--config", small_overlay("quickstart.yaml", faces, tmp_path)]
    command("fit", *arguments, "--trainer.limit_train_batches=2")
    after_training, after_test = capsys.readouterr().out.split("test scores\n")
    assert after_training.count("scores of the last validation\n") == 1
    results = results_of(Path("runs/quickstart/version_0"))
    assert f"mean AP {results['attributes']['mean_ap']:.2f} %" in after_test
    assert f"mean IoU {results['parsing']['mean_iou']:.2f} %" in after_test
    for name, iou in results["parsing"]["iou"].items():
        assert f"{name} {iou:.2f}" in after_test
    printed = " ".join(after_test.split())
    assert f"positives or negatives: {', '.join(results['attributes']['undefined'])}" in printed
    shares = results["attributes"]["contradictions"]
    assert printed.endswith(
        f"predicted in {shares['predicted']:.2f} %, labelled in {shares['labelled']:.2f} % of the images"
    )


def test_the_table_holds_only_what_was_scored() -> None:
    parsing = {"iou": {"hair": 47.56}, "mean_iou": 61.84, "f1": {"hair": 64.46}, "mean_f1": 70.0, "overall_f1": 80.0}
    lines = score_table("title", joint_net(), {"parsing": parsing}).splitlines()
    assert [line.split()[0] for line in lines] == ["title", "parsing", "IoU"]
    assert "61.84" in lines[1]
    assert "hair 47.56" in lines[2]


class Faces(torch.utils.data.Dataset[dict[str, Any]]):
    """Noise with the given names."""

    def __init__(self, names: list[str], **truth: torch.Tensor) -> None:
        self.names, self.truth = names, truth
        self.images = torch.randint(0, 256, (len(names), 3, *SIZE), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        truth = {key: values[index] for key, values in self.truth.items()}
        return {"image": self.images[index], "name": self.names[index], **truth}


def make_trainer(folder: Path | None, *callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False if folder is None else CSVLogger(folder, name="run", version=0),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


def predict(folder: Path, names: list[str]) -> Path:
    loader = torch.utils.data.DataLoader(Faces(names), batch_size=2)
    make_trainer(folder, PredictionWriter()).predict(joint_net(), loader)
    return folder / "run" / "version_0" / "predictions"


def test_no_name_leaves_the_folder_or_meets_another(tmp_path: Path) -> None:
    names = ["1.jpg", "1.png", "1", "../up", "..", "/root", "a/b", "a%2Fb", "a\\b", "a_b", "ä, ö\n", ""]
    names += ["a/../b", "a//b", "a/./b", "a.png/b", "a.PNG/b", "a", "a/b/", "%/b", "x/%2E%2E/y", "x/../y", "bad\udcff"]
    folder = predict(tmp_path / "inner", names)
    files = {path for path in tmp_path.rglob("*") if path.is_file()} - {folder.parent / "metrics.csv"}
    files -= {folder.parent / "hparams.yaml"}
    masks = files - {folder / "attributes.csv"}
    assert len(masks) == len(names)
    assert all(path.is_relative_to(folder / "parsing") for path in masks)
    expected = {"1.jpg.png", "1.png.png", "1.png", "a/b.png", "a%252Fb.png", "%2E%2E/up.png", "%/root.png"}
    assert expected < {path.relative_to(folder / "parsing").as_posix() for path in masks}
    written = (folder / "attributes.csv").read_bytes().decode()  # UTF-8
    assert list(read_table(folder / "attributes.csv")) == [name.replace("\udcff", "\\udcff") for name in names]
    assert written.count("\\udcff") == 1


def test_a_name_that_is_too_long_costs_one_mask(tmp_path: Path) -> None:
    """252 characters are a file's name, but ``.png`` behind them is none."""
    names = ["a.jpg", "x" * 248 + ".jpg", "y" * 251, "long/" * 900 + "z.jpg"]
    folder = predict(tmp_path, names)
    assert list(read_table(folder / "attributes.csv")) == names
    with (folder / "failures.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "reason"]
    assert [name for name, _ in rows] == [names[1], names[3]]
    assert all(len(reason) <= 300 and "too long" in reason for _, reason in rows)
    assert {path.name for path in folder.rglob("*.png")} == {"a.jpg.png", f"{names[2]}.png"}


@given(st.sets(st.text("aA./\\%:\x00\udc80\udcffpng", max_size=12), max_size=30))
def test_no_two_names_share_a_path_and_none_leaves_the_folder(names: set[str]) -> None:
    paths = [relative_path(name) for name in names]
    assert len(set(paths)) == len(names)
    folders = {parent for path in paths for parent in PurePosixPath(path).parents}
    for path in paths:
        assert os.path.normpath(path) == path
        assert not path.startswith(("/", "../"))
        assert PurePosixPath(path) not in folders  # which another name would need
        path.encode()


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"two images are named a: .*a\.png would be overwritten"):
        predict(tmp_path, ["a", "b", "c", "a"])


def test_predictions_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    folder = predict(tmp_path, ["a", "b"])
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(ConfigurationError, match=r"predictions holds predictions already; delete it"):
        predict(tmp_path, ["c", "d"])
    assert before == {path: path.read_bytes() for path in folder.rglob("*.*")}


def test_predictions_need_a_run_folder() -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[PredictionWriter()], enable_progress_bar=False)
    with pytest.raises(ConfigurationError, match=r"configure a trainer\.logger"):
        trainer.predict(joint_net(), torch.utils.data.DataLoader(Faces(["a"])))


def test_tables_of_all_processes_are_put_together(tmp_path: Path) -> None:
    """Two writers take turns on one folder, as two processes would."""
    writers = []
    for rank in (0, 1):
        strategy = SimpleNamespace(barrier=lambda: None)
        trainer: Any = SimpleNamespace(
            global_rank=rank, world_size=2, is_global_zero=rank == 0, strategy=strategy, log_dir=tmp_path, logger=True,
            predict_dataloaders=[],
        )  # fmt: skip
        writers.append((PredictionWriter(), trainer))
    task = AttributeNet(width=2).build(FACTS)
    writers[0][0].setup(writers[0][1], task, "predict")
    writers[1][0]._folder = writers[0][0]._folder
    rows = torch.rand(4, 40)
    for turn, (writer, trainer) in enumerate(2 * writers):
        prediction = {"name": [f"face{turn}"], "attributes": rows[turn : turn + 1]}
        writer.write_on_batch_end(trainer, task, prediction, None, None, 0, 0)
    for writer, trainer in reversed(writers):
        writer.on_predict_end(trainer, task)
    (path,) = (tmp_path / "predictions").iterdir()
    table = read_table(path)
    assert sorted(table) == ["face0", "face1", "face2", "face3"]
    assert all(np.array_equal(table[f"face{turn}"], rows[turn].numpy()) for turn in range(4))  # to the last bit


def test_images_are_spread_and_weights_are_means(tmp_path: Path) -> None:
    """The figures' inputs, from 20 images with masks and 300 with attributes: what the validation saw of them."""
    torch.manual_seed(0)
    masks = Faces([""] * 20, mask=torch.randint(0, 7, (20, *SIZE)))
    attributes = Faces([""] * 300, attributes=torch.randint(0, 2, (300, 40)).float())
    seen: dict[str, Any] = {}

    class Watched(Figures):
        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            seen["images"], seen["weights"] = self._images, self._weights
            super().on_validation_end(trainer, pl_module)
            assert not self._images
            assert not self._weights

    task, calls = joint_net(), list[int]()
    task.network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    loaders = [torch.utils.data.DataLoader(data, batch_size=8) for data in (masks, attributes)]
    make_trainer(tmp_path, Watched(num_images=3)).validate(task, loaders, verbose=False)
    assert calls == [8, 8, 4, *(37 * [8]), 4, 3]  # each batch once, and the three that are drawn
    assert len(seen["images"]) == 20
    assert torch.equal(seen["images"][12][0], masks.images[12])
    with torch.no_grad():
        expected = task.eval().network(attributes.images[:256])["region_weights"]
    assert torch.allclose(torch.stack(seen["weights"]), expected, atol=1e-5)
    page = cv2.imread(str(tmp_path / "run/version_0/figures/parsing.png"))
    assert page is not None
    for chosen in (0, 6, 12):
        shown = masks.images[chosen].permute(1, 2, 0).numpy()[..., ::-1].repeat(8, axis=0).repeat(8, axis=1)
        assert cv2.matchTemplate(page, np.ascontiguousarray(shown[:64, :64]), cv2.TM_SQDIFF_NORMED).min() < 1e-6


@pytest.mark.parametrize("with_masks", [False, True])
def test_attributes_are_drawn_as_they_were_predicted(tmp_path: Path, with_masks: bool) -> None:
    """Scores of all 70 faces, by scikit-learn; and three of the first 64. Also where nothing is parsed."""
    torch.manual_seed(0)
    truth = torch.randint(0, 2, (70, 40)).float()
    truth[:, 4], truth[3, 7] = 0, math.nan  # an attribute without positives, and one that is not known
    data = Faces([""] * 70, attributes=truth)
    rates = replace(FACTS, positive_rates=(0.3,) * 40)
    task = joint_net() if with_masks else AttributeNet(width=2, objective=RelatedAttributes).build(rates)
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    make_trainer(tmp_path, Figures(num_images=3)).validate(task, loader, verbose=False)
    with torch.no_grad():
        logits = torch.cat([task.eval().network(part)["attributes"] for part in torch.split(data.images, 8)])
    likely = logits.sigmoid()  # rounded: two of them may be equal where logits are not
    scores = {}
    for column, name in enumerate(ATTRIBUTES):
        known = ~truth[:, column].isnan()
        true = truth[known, column]
        scores[name] = 100 * average_precision_score(true, logits[known, column]) if true.any() else math.nan
    chosen, images = [0, 21, 42], data.images.numpy()
    expected = {
        "attributes": average_precision_figure(scores, None if with_masks else dict.fromkeys(ATTRIBUTES, 0.3)),
        "faces": faces_figure(images[chosen], ATTRIBUTES, likely[chosen].numpy(), truth[chosen].numpy()),
    }
    if not with_masks:  # nothing is trained, so nothing is known of them
        expected["relations"] = relations_figure(np.full((40, 40), np.nan), ATTRIBUTES)
    folder = tmp_path / "run/version_0/figures"
    for name, image in expected.items():
        page = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_COLOR_RGB)
        assert page is not None
        assert np.array_equal(page, image), name
    assert not (folder / "parsing.png").exists()


class Brightness(Objective):
    """How bright an image is, in percent: an objective that this library does not know."""

    key, truth = "brightness", "light"

    def sample_loss(self, output: Output, batch: Batch) -> torch.Tensor:
        return (output["brightness"] - batch["light"]).square()

    def scores(self) -> torchmetrics.Metric:
        return MeanAbsoluteErrorOfLight()

    def count(self, scores: torchmetrics.Metric, output: Output, batch: Batch) -> None:
        scores.update(output["brightness"], batch["light"])

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        return {"off_by": scores["off_by"]}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        return [f"  brightness   off by {scores['off_by']:.2f} %"]

    def predict(self, output: Output) -> torch.Tensor:
        return output["brightness"][:, None]  # type: ignore[no-any-return]  # a network's outputs are of any type

    @property
    def columns(self) -> tuple[str, ...]:
        return ("percent",)


class MeanAbsoluteErrorOfLight(torchmetrics.MeanAbsoluteError):
    def compute(self) -> Any:
        return {"off_by": float(super().compute()), "of_the_dark": math.nan}


class BrightnessNetwork(nn.Module):
    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"brightness": images.float().mean(dim=(1, 2, 3)) / 2.55}


class BrightnessTask(FaceTask):
    """Nothing to learn."""

    def __init__(self) -> None:
        super().__init__({})

    def make(self, facts: DataFacts) -> tuple[nn.Module, list[Objective]]:
        return BrightnessNetwork(), [Brightness()]

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        return self.network(batch["image"]), batch


def test_any_objective_is_reported_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    names, task = ["a", "b", "c"], BrightnessTask().build(DataFacts(SIZE))
    data = Faces(names, light=torch.tensor([50.0, 40.0, 60.0]))
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    trainer = make_trainer(tmp_path, Report(), Figures(), PredictionWriter())
    trainer.validate(task, loader, verbose=False)
    trainer.test(task, loader, verbose=False)
    trainer.predict(task, loader)
    light = data.images.double().mean(dim=(1, 2, 3)) / 2.55
    off_by = float((light - data.truth["light"]).abs().mean())
    line = f"  brightness   off by {off_by:.2f} %"
    assert capsys.readouterr().out.splitlines() == ["validation scores", line, "test scores", line]
    run = tmp_path / "run" / "version_0"
    assert results_of(run)["brightness"] == {"off_by": pytest.approx(off_by), "of_the_dark": None}
    (table,) = (run / "predictions").iterdir()
    assert table.name == "brightness.csv"
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "percent"]
    assert [name for name, _ in rows] == names
    assert [float(value) for _, value in rows] == pytest.approx(light.tolist())
    assert not (run / "figures").exists()


def test_without_a_logger_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    masks = Faces([""] * 2, mask=torch.randint(0, 7, (2, *SIZE)))
    loader, task = torch.utils.data.DataLoader(masks), joint_net()
    trainer = make_trainer(None, Report(), Figures())
    trainer.validate(task, loader, verbose=False)
    trainer.test(task, loader, verbose=False)
    assert capsys.readouterr().out.count("mean IoU") == 2
    assert not list(tmp_path.iterdir())


def test_the_sanity_check_is_not_reported(
    command: Callable[..., None], faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = small_overlay("segnet.yaml", faces, tmp_path)
    root = tmp_path / "helen"
    shutil.copytree(faces / "helen", root)
    for name in (root / "exemplars.txt").read_text().split()[2::3]:
        (root / "images" / f"{name}.jpg").write_bytes(b"broken")  # the first step fails
    drawn = "--figures.num_images=2"
    assert main(["fit", "--config", "segnet.yaml", "--config", small, f"--data.root={root}", drawn]) == 1
    printed = capsys.readouterr()
    assert "cannot decode" in printed.err
    assert "mean IoU" not in printed.out
    assert not list(Path("runs").rglob("figures"))
