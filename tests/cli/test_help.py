"""What the command line says of itself."""

import pytest

from facelightning.__main__ import main


def said(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What a command that asks for help prints, without line breaks."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "visualize"])
def test_help_tells_how_to_see_the_keys_of_a_part(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, command, "--help")
    assert "--model.help=JointNet" in text
    for option in ("--config CONFIG", "--recipe RECIPE", "--ckpt_path CKPT_PATH", "--trainer.max_steps MAX_STEPS"):
        assert option in text


@pytest.mark.parametrize(
    ("part", "keys"),
    [
        ("--model.help=JointNet", ["--model.parsing_weight", "--model.pooling", "Weight of the parsing loss"]),
        ("--model.help=AttributeNet", ["--model.gate", "--model.regions", "Checkpoint of an"]),
        ("--model.help=EnsembleNet", ["--model.members"]),
        ("--data.help=CelebADataModule", ["--data.root", "--data.image_size", "--data.batch_size"]),
        ("--data.help=JointDataModule", ["--data.parsing", "--data.attributes"]),
    ],
)
def test_the_keys_of_a_part(part: str, keys: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "fit", part)
    for key in keys:
        assert key in text


def test_the_keys_of_a_part_beside_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--model.parsing_weight" in said(capsys, "fit", "--config=avg.yaml", "--model.help=JointNet")
