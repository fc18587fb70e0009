"""``test``, ``validate`` and ``predict`` from a checkpoint alone: it knows its task, its data and its image size."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import yaml

from facelightning.data import CelebADataModule
from facelightning.tasks import AttributeNet, load_model
from tests.cli.conftest import AVG, BBOX, JOINT, SEGNET, TINY
from tests.conftest import SIZE
from tests.test_configs import small_overlay

Command = Callable[..., None]
Refused = Callable[..., str]


def what_was_left(run: Path, stage: str) -> Any:
    """The scores or the predictions in a run folder."""
    if stage == "test":
        return json.loads((run / "test_results.json").read_text())
    if stage == "validate":
        with (run / "metrics.csv").open() as file:
            return list(csv.DictReader(file))
    return {path.relative_to(run): path.read_bytes() for path in run.glob("predictions/**/*") if path.is_file()}


@pytest.mark.parametrize(
    ("stage", "checkpoint", "config", "data"),
    [
        ("test", BBOX, "bbox.yaml", "--data.root=FACES/celeba"),
        ("test", SEGNET, "segnet.yaml", "--data.root=FACES/helen"),
        ("validate", JOINT, "quickstart.yaml", "--data.root=FACES"),
        ("predict", JOINT, "quickstart.yaml", "--data.root=FACES"),
    ],
)
def test_no_configuration_is_needed(
    stage: str, checkpoint: str, config: str, data: str, command: Command, runs: Path, faces: Path, tmp_path: Path
) -> None:
    """Without one, and without the place of the data, it is as with both; and lies beside the run that was trained."""
    small = small_overlay(config, faces, tmp_path)
    folder = Path(checkpoint).parents[2]
    place = [f"--trainer.logger.name={folder.name}"]
    command(stage, f"--config={config}", f"--config={small}", f"--ckpt_path={checkpoint}", *place)
    command(stage, f"--ckpt_path={checkpoint}", data.replace("FACES", str(faces)))
    command(stage, "--ckpt_path", checkpoint)
    with_config, *without = (what_was_left(folder / f"version_{number}", stage) for number in (1, 2, 3))
    assert with_config
    assert without == [with_config, with_config]
    assert sorted(path.name for path in runs.iterdir()) == ["avg", "bbox", "joint", "segnet"]


def test_what_is_said_beside_a_checkpoint_wins(command: Command, runs: Path, tmp_path: Path) -> None:
    """Data, logger and trainer are those of the command line, then of a configuration, then of the checkpoint."""
    (tmp_path / "own.yaml").write_text(
        "data: {init_args: {batch_size: 3, num_workers: 0}}\ntrainer: {logger: {init_args: {name: other}}}\n"
    )
    command("test", "--config=own.yaml", f"--ckpt_path={AVG}", "--data.batch_size=2", "--trainer.precision=bf16-true")
    (saved,) = Path("runs/other").glob("*/config.yaml")
    config = yaml.safe_load(saved.read_text())
    assert config["data"]["init_args"]["batch_size"] == 2
    assert config["data"]["init_args"]["image_size"] == list(SIZE)
    assert config["data"]["class_path"] == "facelightning.CelebADataModule"
    assert config["trainer"]["precision"] == "bf16-true"
    assert config["model"]["init_args"]["width"] == 2


def test_of_two_checkpoints_the_last_counts(command: Command, runs: Path) -> None:
    command("test", "--ckpt_path=missing.ckpt", "--ckpt_path", SEGNET, f"--ckpt_path={AVG}")
    assert what_was_left(Path("runs/avg/version_1"), "test").keys() == {"attributes", "weights"}


def test_an_overlay_that_also_trains_otherwise_is_no_contradiction(command: Command, runs: Path) -> None:
    """How a network was trained does not matter to its scores."""
    command("test", f"--ckpt_path={AVG}", "--config=overlays/adamw.yaml")
    assert Path("runs/avg/version_1/test_results.json").is_file()


def test_other_data_may_be_named(command: Command, runs: Path, faces: Path) -> None:
    helen = ("--data=HelenDataModule", f"--data.root={faces / 'helen'}", "--data.num_workers=0")
    command("test", f"--ckpt_path={JOINT}", *helen)
    command("test", f"--ckpt_path={JOINT}")
    alone, both = (what_was_left(Path(f"runs/joint/version_{number}"), "test") for number in (1, 2))
    assert alone.keys() == {"parsing", "weights"}
    assert both.keys() == {"parsing", "attributes", "weights"}
    assert alone["parsing"] == both["parsing"]
    folder = ("--data=FolderDataModule", f"--data.root={faces / 'helen/images'}", "--data.num_workers=0")
    command("predict", f"--ckpt_path={JOINT}", *folder)
    written = Path("runs/joint/version_3/predictions")
    assert len(list(written.glob("parsing/*.png"))) == 9 + 5 + 7
    assert len((written / "attributes.csv").read_text().splitlines()) == 1 + 9 + 5 + 7


@pytest.mark.parametrize("encoder", [None, "mobilenet_v3_small"], ids=["paper", "torchvision"])
def test_a_parser_is_inside(encoder: str | None, command: Command, runs: Path, faces: Path, tmp_path: Path) -> None:
    """Whatever its encoder: its own file is not needed."""
    parser = SEGNET
    if encoder is not None:
        small = small_overlay("segnet.yaml", faces, tmp_path)
        words = ("--model.encoder=TorchvisionEncoder", f"--model.encoder.name={encoder}")
        command("fit", "--config=segnet.yaml", f"--config={small}", *words, "--trainer.logger.name=other")
        parser = SEGNET.replace("segnet", "other")
    words = ("--config=ssp.yaml", f"--config={small_overlay('ssp.yaml', faces, tmp_path)}")
    command("fit", *words, f"--model.regions.checkpoint={parser}", "--test_after_fit=true")
    Path(parser).unlink()
    command("test", "--ckpt_path=runs/ssp/version_0/checkpoints/best.ckpt")
    after_training, alone = (what_was_left(Path(f"runs/ssp/version_{number}"), "test") for number in (0, 1))
    assert alone == after_training


def test_results_lie_beside_the_run_wherever_one_is(
    command: Command, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command("test", f"--ckpt_path={tmp_path / AVG}")
    assert (runs / "avg/version_1/test_results.json").is_file()
    assert not list(Path().iterdir())


def test_a_checkpoint_that_was_moved_makes_a_run_of_its_own(command: Command, runs: Path) -> None:
    Path("mine.ckpt").write_bytes(Path(AVG).read_bytes())
    command("test", "--ckpt_path=mine.ckpt")
    command("test", f"--ckpt_path={AVG}")
    moved, there = (what_was_left(Path(run), "test") for run in ("runs/mine/version_0", "runs/avg/version_1"))
    assert moved == there


class TestSizes:
    """Images are as large as in the training, unless the command line says otherwise."""

    def sizes(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
        """Filled with the height and width of every batch of attributes that is predicted."""
        found: list[tuple[int, ...]] = []
        predict = AttributeNet.predict_batch

        def noting(task: AttributeNet, batch: Any) -> Any:
            found.append(tuple(batch["image"].shape[-2:]))
            return predict(task, batch)

        monkeypatch.setattr(AttributeNet, "predict_batch", noting)
        return found

    def test_a_configuration_of_another_size_is_refused(self, refused: Refused, runs: Path, tmp_path: Path) -> None:
        (tmp_path / "tiny.yaml").write_text(TINY)
        for stage in ("test", "validate", "predict"):
            message = refused(stage, "--config=tiny.yaml", f"--ckpt_path={AVG}", "--data.root=nowhere")
            assert f"{AVG} was trained on images of 40×32, but the configuration says 218×178" in message
            assert "--data.image_size" in message

    def test_the_parts_of_joint_data_count_too(self, refused: Refused, runs: Path, faces: Path) -> None:
        parts = "".join(
            f"    {part}: {{class_path: {name}, init_args: {{root: {faces / root}, image_size: [64, 48]}}}}\n"
            for part, name, root in (
                ("parsing", "HelenDataModule", "helen"),
                ("attributes", "CelebADataModule", "celeba"),
            )
        )
        Path("both.yaml").write_text(f"data:\n  class_path: JointDataModule\n  init_args:\n{parts}")
        message = refused("test", "--config=both.yaml", f"--ckpt_path={JOINT}")
        assert f"{JOINT} was trained on images of 40×32, but the configuration says 64×48" in message

    @pytest.mark.parametrize("option", ["--data.image_size=[{},{}]", "--data.init_args.image_size=[{},{}]"])
    @pytest.mark.parametrize("size", [SIZE, (64, 48)], ids=["the same", "another"])
    def test_the_command_line_may_ask_for_it(
        self,
        option: str,
        size: tuple[int, int],
        command: Command,
        runs: Path,
        faces: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        Path("tiny.yaml").write_text(TINY)
        data = (f"--data.root={faces / 'celeba'}", "--data.num_workers=0", option.format(*size))
        found = self.sizes(monkeypatch)
        command("test", "--config=tiny.yaml", f"--ckpt_path={AVG}", *data)
        assert set(found) == {size}

    def test_two_words_ask_as_well_as_one(self, command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.sizes(monkeypatch)
        command("test", f"--ckpt_path={AVG}", "--data.image_size", "[64,48]")
        assert set(found) == {(64, 48)}

    def test_without_a_configuration_it_is_that_of_the_training(
        self, command: Command, runs: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = self.sizes(monkeypatch)
        command("test", f"--ckpt_path={AVG}")
        folder = ("--data=FolderDataModule", f"--data.root={faces / 'helen/images'}", "--data.num_workers=0")
        command("predict", f"--ckpt_path={AVG}", *folder)  # whose own default is 218×178
        assert set(found) == {SIZE}


@pytest.mark.parametrize("flag", ["--model.width=3", "--model=SegNet", "--model.pooling=PyramidPooling"])
def test_the_model_is_that_of_the_checkpoint(flag: str, refused: Refused, runs: Path) -> None:
    for stage in ("test", "validate", "predict"):
        message = refused(stage, f"--ckpt_path={AVG}", flag)
        assert f"the model is that of {AVG}: leave out {flag}" in message


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        (["segnet.yaml"], ["holds", "AttributeNet", "SegNet"]),
        (["quickstart.yaml"], ["holds", "AttributeNet", "JointNet"]),
        (["avg.yaml"], ["trained with width 2, but the configuration says 64"]),
        (["tiny.yaml", "wider.yaml"], ["trained with width 2, but the configuration says 3"]),
        (["pyramid.yaml"], ["trained with pooling AveragePooling, but the configuration says PyramidPooling"]),
    ],
    ids=["another task", "one more task", "another width", "another width in an overlay", "another part"],
)
def test_a_configuration_of_another_model_is_refused_before_data_is_read(
    configs: list[str], words: list[str], refused: Refused, runs: Path
) -> None:
    Path("tiny.yaml").write_text(TINY)
    Path("wider.yaml").write_text("model: {init_args: {width: 3}}\n")
    Path("pyramid.yaml").write_text("extends: spp.yaml\nmodel: {init_args: {width: 2}}\n")
    arguments = [f"--config={name}" for name in configs]
    message = refused("test", *arguments, f"--ckpt_path={AVG}", "--data.root=nowhere")
    assert AVG in message
    for word in words:
        assert word in message
    assert "nowhere" not in message
    assert len(message.splitlines()) == 1


class TestFromPython:
    """A training without the command line leaves no configuration in its checkpoint."""

    @pytest.fixture
    def checkpoint(self, faces: Path, tmp_path: Path) -> str:
        data = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=4, num_workers=0, seed=0)
        trainer = L.Trainer(
            max_steps=1,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
        )
        trainer.fit(AttributeNet(width=2), datamodule=data)
        trainer.save_checkpoint(tmp_path / "python.ckpt")
        return "python.ckpt"

    def test_data_is_named_beside_it(
        self, checkpoint: str, command: Command, faces: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = ("--data=CelebADataModule", f"--data.root={faces / 'celeba'}", "--data.num_workers=0")
        command("test", f"--ckpt_path={checkpoint}", *data)
        found = what_was_left(Path("runs/python/version_0"), "test")
        task = load_model(checkpoint)
        module = CelebADataModule(str(faces / "celeba"), image_size=SIZE, num_workers=0)
        L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False).test(
            task, datamodule=module, verbose=False
        )
        for key in ("error", "mean_ap", "balanced_accuracy"):
            assert found["attributes"][key] == pytest.approx(task.results["test"]["attributes"][key])

    @pytest.mark.parametrize("words", [[], ["--data.root=FACES/celeba"]], ids=["alone", "with a place"])
    def test_without_data_it_says_what_to_pass(
        self, words: list[str], checkpoint: str, refused: Refused, faces: Path
    ) -> None:
        for stage in ("test", "validate", "predict", "visualize"):
            given = [word.replace("FACES", str(faces)) for word in words]
            assert "--data=" in refused(stage, f"--ckpt_path={checkpoint}", *given)
