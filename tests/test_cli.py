"""The command line: a user's mistakes are sentences, and bundled configurations are found from anywhere."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from facelightning.__main__ import main
from facelightning.configs import config_folder, find_config
from facelightning.data.synthetic import write_synthetic
from facelightning.errors import ConfigurationError
from tests.test_configs import small_overlay

AVG = ("fit", "--config", "avg.yaml")


def refused(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must fail says; never a traceback."""
    try:
        status = main(args)
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    assert status != 0
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("fti",), ["unknown command 'fti'", "did you mean fit?"]),
        (("fit", "--config", "nope.yaml"), ["nope.yaml is not in", "bundled ones are: avg.yaml"]),
        ((*AVG, "--model.init_args.widht=3"), ["'widht' is not accepted", "did you mean width?"]),
        ((*AVG, "--trainer.max_epoch=3"), ["--trainer.max_epoch=3", "did you mean max_epochs?"]),  # no abbreviation
        ((*AVG, "--data.init_args.rot=3"), ["'rot' is not accepted", "did you mean root?"]),
        ((*AVG, "--model.init_args.optimizer=sgd"), ["'adagrad', 'adamw'", "Got value: sgd"]),
        (AVG, ["data root data/celeba does not exist", "list_attr_celeba.txt"]),
        (("fit", "--config", "segnet.yaml"), ["data root data/helen does not exist", "exemplars.txt"]),
        (("fit", "--config", "ssp.yaml"), ["runs/segnet/version_0/checkpoints/best.ckpt does not exist", "train one"]),
        ((*AVG, "--model.init_args.parser=x.ckpt"), ["pooling avg uses no parser", "x.ckpt"]),
        (("test", "--config", "avg.yaml", "--ckpt_path", "no.ckpt"), ["checkpoint no.ckpt does not exist"]),
    ],
)
def test_a_mistake_is_one_sentence(
    args: tuple[str, ...],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(args, capsys)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"own.yaml": "model: [unclosed"}, ["own.yaml is not YAML"]),
        ({"own.yaml": "- a list"}, ["own.yaml must hold keys and values, not a list"]),
        ({"own.yaml": "extends: mine.yaml", "mine.yaml": "extends: avg.yaml"}, ["itself extends another"]),
        ({"own.yaml": "extends: gone.yaml"}, ["gone.yaml is not in"]),
        ({"own.yaml": "extends: avg.yaml\ntrainr: {max_epochs: 3}"}, ["trainr.max_epochs"]),
    ],
)
def test_a_broken_configuration_is_one_sentence(
    files: dict[str, str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path(name).write_text(content)
    message = refused(("fit", "--config", "own.yaml"), capsys)
    for word in words:
        assert word in message


def test_the_wrong_data_is_one_sentence(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parsing = small_overlay("segnet.yaml", faces, tmp_path)
    config = ("fit", "--config", "avg.yaml", "--config", parsing, "--trainer.num_sanity_val_steps=0")
    assert "cannot learn attributes" in refused(config, capsys)
    spaces = ("fit", "--config", "segnet.yaml", "--config", parsing, "--model.init_args.labels=helen11")
    assert "the model parses helen11, but HelenDataModule gives masks of helen7" in refused(spaces, capsys)


def test_an_own_file_wins_over_a_bundled_one(tmp_path: Path) -> None:
    assert find_config("avg.yaml", tmp_path) == config_folder() / "avg.yaml"
    assert find_config("avg", tmp_path) == config_folder() / "avg.yaml"
    assert find_config("overlays/cpu.yaml", tmp_path) == config_folder() / "overlays" / "cpu.yaml"
    (tmp_path / "avg.yaml").write_text("{}")
    assert find_config("avg.yaml", tmp_path) == tmp_path / "avg.yaml"
    with pytest.raises(ConfigurationError, match="bundled ones are"):
        find_config("other.yaml", tmp_path)


def test_a_file_that_extends_another_shows_only_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: avg.yaml\nmodel: {init_args: {width: 3}}\n")
    Path("over.yaml").write_text("trainer: {max_epochs: 7}\n")
    with pytest.raises(SystemExit) as stop:
        main(
            ["fit", "--config", "mine.yaml", "--config", "over.yaml", "--data.init_args.batch_size=5", "--print_config"]
        )
    assert stop.value.code == 0
    found = yaml.safe_load(capsys.readouterr().out)
    base = yaml.safe_load((config_folder() / "avg.yaml").read_text())
    assert found["model"]["init_args"] | {"width": 64} == found["model"]["init_args"] | base["model"]["init_args"]
    assert found["model"]["init_args"]["width"] == 3
    assert found["data"]["init_args"]["batch_size"] == 5
    assert (found["trainer"]["max_epochs"], found["trainer"]["max_steps"]) == (7, 40000)


def test_the_saved_configuration_repeats_the_run(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    command("fit", "--config", "avg.yaml", "--config", small, "--trainer.limit_train_batches=2")
    command("fit", "--config", "runs/avg/version_0/config.yaml")
    saved = [Path(f"runs/avg/version_{n}/config.yaml").read_text() for n in (0, 1)]
    metrics = [Path(f"runs/avg/version_{n}/metrics.csv").read_text() for n in (0, 1)]
    assert saved[0] == saved[1]
    assert metrics[0] == metrics[1]


def test_an_installed_wheel_has_the_configurations(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    root = config_folder().parent
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    bundled = {f"facelightning/configs/{path.relative_to(config_folder())}" for path in config_folder().rglob("*.yaml")}
    assert bundled <= names
    assert not any(name.startswith(("tests/", "runs/", "data/")) for name in names)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
@pytest.mark.parametrize("checkpoint", [(), ("--ckpt_path=last",)])
def test_nothing_is_scored_without_a_trained_model(
    stage: str, checkpoint: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{stage} needs a trained model" in refused((stage, "--config", "avg.yaml", *checkpoint), capsys)


def test_a_broken_picture_is_one_sentence_also_from_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_synthetic(Path("faces"), attributes=(4, 2, 2), parsing=(2, 2, 2), seed=0)
    (broken,) = Path("faces/celeba/Img/img_align_celeba").glob("000005.jpg")
    broken.write_bytes(b"no picture")
    small = small_overlay("avg.yaml", Path("faces").resolve(), tmp_path)
    message = refused((*AVG, "--config", small, "--data.init_args.num_workers=1"), capsys)
    assert f"facelightning: cannot decode {broken.resolve()}" in message


def test_the_last_checkpoint_is_the_last(command: Callable[..., None], faces: Path, tmp_path: Path) -> None:
    """Whatever the best one is; and a resumed run goes on from there."""
    small = small_overlay("avg.yaml", faces, tmp_path)
    arguments = ("--config", "avg.yaml", "--config", small, "--trainer.limit_train_batches=5")
    command("fit", *arguments, "--trainer.max_steps=8")  # inside the second epoch: no validation follows
    last = Path("runs/avg/version_0/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 8
    command("fit", *arguments, "--trainer.max_steps=12", "--ckpt_path", str(last))
    assert torch.load("runs/avg/version_1/checkpoints/last.ckpt", weights_only=True)["global_step"] == 12
