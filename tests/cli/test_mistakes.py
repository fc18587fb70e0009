"""A user's mistakes are sentences that say what to do, never a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest

from facelightning.__main__ import COMMANDS, OWN
from facelightning.data.synthetic import write_synthetic
from tests.cli.conftest import AVG, SEGNET
from tests.test_configs import small_overlay

FIT = ("fit", "--config", "avg.yaml")
DATA = ("--data.root=FACES/celeba", "--data.num_workers=0", "--trainer.max_steps=1")
SSP = ("fit", "--config", "ssp.yaml", *DATA)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((*FIT, "--model.optimizer=sgd"), ["optimizer takes 'adagrad', 'adamw', not sgd"]),
        ((*FIT, "--trainer.precision=bf17"), ["'transformer-engine'", "'bf16-mixed'", "not bf17"]),
        ((*FIT, "--data.cache=jpg"), ["cache takes true, false, 'jpeg', not jpg"]),
        (FIT, ["data root data/celeba does not exist", "list_attr_celeba.txt"]),
        (("fit", "--config", "segnet.yaml"), ["data root data/helen does not exist", "exemplars.txt"]),
        (SSP, ["runs/segnet/version_0/checkpoints/best.ckpt does not exist", "train one with", "segnet.yaml"]),
        ((*SSP, "--model.regions.checkpoint=x.ckpt"), ["checkpoint x.ckpt does not exist", "train one with"]),
        ((*FIT, *DATA, "--model.regions=LandmarkBoxes"), ["no part of this network needs regions", "LandmarkBoxes"]),
        ((*FIT, *DATA, "--model.pooling=SemanticPooling"), ["SemanticPooling needs regions", "ParserRegions"]),
        (("test", "--config", "avg.yaml", "--ckpt_path", "no.ckpt"), ["checkpoint no.ckpt does not exist"]),
        (("attribution",), ["are required: ckpt_path"]),
        (("attribution", "--ckpt_path=no.ckpt"), ["checkpoint no.ckpt does not exist"]),
        (("visualize", "--ckpt_path=no.ckpt"), ["checkpoint no.ckpt does not exist"]),
        (("visualize",), ["visualize needs a trained model", "--ckpt_path="]),
    ],
)
def test_a_mistake_is_one_sentence(
    args: tuple[str, ...], words: list[str], refused: Callable[..., str], faces: Path
) -> None:
    message = refused(*(word.replace("FACES", str(faces)) for word in args))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("--model.gate=AveragePooling", "gate takes a Gate, not AveragePooling"),
        ("--model.pooling=SemanticGating", "pooling takes another class: SemanticGating is a kind of Gate"),
        ("--data=JointNet", "data takes another class: JointNet is a kind of LearningTask"),
        ("--model.objective=Parsing", "objective takes another class: Parsing is a kind of Objective"),
        ("--model=CelebADataModule", "model takes a FaceTask, not CelebADataModule"),
    ],
)
def test_a_class_in_the_wrong_place(word: str, sentence: str, refused: Callable[..., str]) -> None:
    assert refused(*FIT, word).strip().splitlines()[-1] == f"facelightning: error: {sentence}"


@pytest.mark.parametrize(
    ("args", "unknown", "meant"),
    [
        (("fti",), "unknown command 'fti'", "fit"),
        (("visualise", "--ckpt_path=x.ckpt"), "unknown command 'visualise'", "visualize"),
        ((*FIT, "--model.widht=3"), "'widht' is not accepted", "width"),
        ((*FIT, "--trainer.max_epoch=3"), "--trainer.max_epoch=3", "max_epochs"),  # no abbreviation
        ((*FIT, "--data.rot=3"), "'rot' is not accepted", "root"),
        ((*FIT, "--data.btch_size=3"), "'btch_size' is not accepted", "batch_size"),  # of all data modules
        ((*FIT, "--test_after_fti=true"), "--test_after_fti=true", "test_after_fit"),
        ((*FIT, "--recpie=small"), "--recpie=small", "recipe"),
        ((*SSP, "--model.regions.chekpoint=x"), "'chekpoint' is not accepted", "checkpoint"),
        ((*FIT, "--model=AttributNet"), "no class is named AttributNet", "AttributeNet"),
        (("fit", "--config=quickstart.yaml", "--model=JointNett"), "no class is named JointNett", "JointNet"),
        (("fit", "--model.help=JointNett"), "no class is named JointNett", "JointNet"),
        ((*FIT, "--model.pooling=SemantcPooling"), "no class is named SemantcPooling", "SemanticPooling"),
        ((*FIT, "--model.gate=SemanticGatin"), "no class is named SemanticGatin", "SemanticGating"),
        ((*FIT, "--model.head=LocalisationHead"), "no class is named LocalisationHead", "LocalizationHead"),
        ((*FIT, "--model.encoder=TorchVisionEncoder"), "no class is named TorchVisionEncoder", "TorchvisionEncoder"),
        ((*FIT, "--model.regions=LandmarksBox"), "no class is named LandmarksBox", "LandmarkBoxes"),
        ((*FIT, "--model.image_input=MaskInput"), "no class is named MaskInput", "MaskedInput"),
        ((*FIT, "--data=CelbADataModule"), "no class is named CelbADataModule", "CelebADataModule"),
        (("fit", "--config=agv.yaml"), "agv.yaml is neither in", "avg"),
        ((*FIT, "--config=overlays/adamv.yaml"), "overlays/adamv.yaml is neither in", "overlays/adamw"),
        ((*FIT, "--recipe=smal"), "no recipe is named smal", "small"),
        (("attribution", "--ckpt_pth=x.ckpt"), "--ckpt_pth=x.ckpt", "ckpt_path"),
        (("visualize", "--ckpt_path=AVG", "--agianst=x.ckpt"), "--agianst=x.ckpt", "against"),
        (("test", "--ckpt_path=AVG", "--data.rot=x"), "'rot' is not accepted", "root"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_right_one(
    args: tuple[str, ...], unknown: str, meant: str, refused: Callable[..., str], faces: Path, trained: Path
) -> None:
    checkpoint = str(trained / Path(AVG).relative_to("runs"))
    message = refused(*(word.replace("FACES", str(faces)).replace("AVG", checkpoint) for word in args))
    assert unknown in message
    assert f"did you mean {meant}?" in message


def test_a_misspelt_key_of_a_file_is_answered_with_the_right_one(refused: Callable[..., str], tmp_path: Path) -> None:
    for content, unknown, meant in (
        ("trainr: {max_epochs: 3}", "trainr.max_epochs", None),
        ("trainer: {max_epoch: 3}", "max_epoch", "max_epochs"),
        ("model: {init_args: {widht: 3}}", "widht", "width"),
        ("model: {init_args: {pooling: SemantcPooling}}", "no class is named SemantcPooling", "SemanticPooling"),
        ("data: {class_path: CelbADataModule}", "no class is named CelbADataModule", "CelebADataModule"),
    ):
        (tmp_path / "own.yaml").write_text(f"extends: avg.yaml\n{content}\n")
        message = refused("fit", "--config", "own.yaml")
        assert unknown in message
        assert meant is None or f"did you mean {meant}?" in message


def test_a_name_that_is_unlike_any_lists_what_there_is(refused: Callable[..., str]) -> None:
    assert f"commands are {', '.join([*COMMANDS, *OWN])}" in refused("xyzzy")
    nowhere = refused("fit", "--config", "nope.yaml")
    assert "nope.yaml is neither in" in nowhere
    assert "there are agenet, " in nowhere
    assert "overlays/cpu, " in nowhere
    assert "there are adagrad, eighth, eighth_long, longer, quickstart" in refused(*FIT, "--recipe=xyzzy")
    assert "small is a recipe, which changes a configuration: add --recipe small" in refused("fit", "--config=small")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"own.yaml": "model: [unclosed"}, ["own.yaml is not YAML"]),
        ({"own.yaml": "- a list"}, ["own.yaml must hold keys and values, not a list"]),
        ({"own.yaml": "extends: mine.yaml", "mine.yaml": "extends: own.yaml"}, ["own.yaml", "mine.yaml", "a circle"]),
        ({"own.yaml": "extends: own.yaml"}, ["own.yaml", "a circle"]),
        ({"own.yaml": "extends: gone.yaml"}, ["gone.yaml is neither in"]),
        ({"own.yaml": "extends: mine.yaml", "mine.yaml": "- a list"}, ["mine.yaml must hold keys and values"]),
    ],
)
def test_a_broken_configuration_is_one_sentence(
    files: dict[str, str], words: list[str], refused: Callable[..., str], tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    message = refused("fit", "--config", "own.yaml")
    for word in words:
        assert word in message


def test_the_wrong_data_is_one_sentence(refused: Callable[..., str], faces: Path, runs: Path, tmp_path: Path) -> None:
    parsing = small_overlay("segnet.yaml", faces, tmp_path)
    assert "cannot learn attributes" in refused(*FIT, "--config", parsing)
    helen = ("--data=HelenDataModule", f"--data.root={faces / 'helen'}", "--data.num_workers=0")
    spaces = refused("test", f"--ckpt_path={SEGNET}", *helen, "--data.label_space=helen11")
    assert "SegNet is built for label space helen7, but the data has helen11" in spaces
    nothing = refused("test", f"--ckpt_path={AVG}", *helen)
    assert "AttributeNet: the test data has nothing that this task predicts" in nothing


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
@pytest.mark.parametrize("config", [(), ("--config", "avg.yaml")], ids=["alone", "with a configuration"])
@pytest.mark.parametrize("checkpoint", [(), ("--ckpt_path=last",)], ids=["none", "last"])
def test_nothing_is_scored_without_a_trained_model(
    stage: str, config: tuple[str, ...], checkpoint: tuple[str, ...], refused: Callable[..., str]
) -> None:
    assert f"{stage} needs a trained model" in refused(stage, *config, *checkpoint)


def test_nothing_is_trained_without_a_configuration(refused: Callable[..., str]) -> None:
    assert "--config" in refused("fit")


def test_a_broken_image_is_one_sentence_also_from_a_worker(refused: Callable[..., str], tmp_path: Path) -> None:
    write_synthetic(tmp_path / "faces", attributes=(4, 2, 2), parsing=(2, 2, 2), seed=0)
    (broken,) = (tmp_path / "faces/celeba/Img/img_align_celeba").glob("000005.jpg")
    broken.write_bytes(b"no image")
    small = small_overlay("avg.yaml", tmp_path / "faces", tmp_path)
    message = refused(*FIT, "--config", small, "--data.num_workers=1")
    assert f"facelightning: cannot decode {broken}" in message


def test_a_recipe_in_a_file_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "own.yaml").write_text("extends: avg.yaml\nrecipe: small\n")
    assert "recipe small in a configuration does nothing: pass --recipe" in refused("fit", "--config=own.yaml")


def test_what_lightning_refuses_is_a_sentence(refused: Callable[..., str]) -> None:
    message = refused("fit", "--config=avg.yaml", "--trainer.accelerator=gpu", "--model.width=2")
    assert message.startswith("facelightning: ")
