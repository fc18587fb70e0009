"""``facelightning shard``, and trainings and tests of what it writes, through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from facelightning.data.shard_format import INDEX
from tests.test_configs import small_overlay
from tests.test_resume import assert_same

OWN_SIZE = "--data.image_size=[218,178]"
"""That of the image files, whose bytes are then kept."""

SHARDS = ("--data=ShardsDataModule", "--data.root=shards", "--data.window=3", OWN_SIZE)


@pytest.fixture
def avg(command: Callable[..., None], faces: Path, tmp_path: Path) -> tuple[str, ...]:
    """A tiny training of attributes, in a folder where its data lie as shards."""
    words = ("--config=avg.yaml", f"--config={small_overlay('avg.yaml', faces, tmp_path)}")
    command("shard", *words, OWN_SIZE, "--output=shards", "--images_per_shard=4")
    return words


def test_scores_are_those_of_the_source(
    command: Callable[..., None], avg: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    command("fit", *avg, OWN_SIZE)
    checkpoint = "--ckpt_path=runs/avg/version_0/checkpoints/best.ckpt"
    scores: list[Any] = []
    for number, words in enumerate(((), SHARDS), start=1):
        command("test", checkpoint, *words, "--data.num_workers=0")
        scores.append(json.loads(Path(f"runs/avg/version_{number}/test_results.json").read_text()))
    assert scores[0]["attributes"] == scores[1]["attributes"]


def test_a_training_resumes_within_an_epoch(command: Callable[..., None], avg: tuple[str, ...]) -> None:
    """With other workers; five batches of four images are an epoch."""
    words = (*avg, *SHARDS, "--trainer.limit_train_batches=null")
    command("fit", *words, "--trainer.max_steps=8", "--trainer.logger.version=whole")
    command("fit", *words, "--trainer.max_steps=3", "--trainer.logger.version=begun")
    begun = "--ckpt_path=runs/avg/begun/checkpoints/last.ckpt"
    command("fit", begun, "--trainer.max_steps=8", "--trainer.logger.version=resumed", "--data.num_workers=2")
    whole, resumed = (
        torch.load(f"runs/avg/{version}/checkpoints/last.ckpt", weights_only=True) for version in ("whole", "resumed")
    )
    assert whole["global_step"] == resumed["global_step"] == 8
    for part in ("state_dict", "optimizer_states"):
        assert_same(resumed[part], whole[part])


def test_a_joint_data_module_is_two_folders(
    command: Callable[..., None], faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--config=quickstart.yaml", f"--config={small_overlay('quickstart.yaml', faces, tmp_path)}")
    command("shard", *words, "--output=shards")
    out = capsys.readouterr().out
    assert "shards/parsing (21 images in 3 shards" in out
    assert "shards/attributes (45 images in 3 shards" in out
    assert "45 images are encoded anew as JPEG of quality 95" in out
    parts = {"parsing": "shards/parsing", "attributes": "shards/attributes"}
    part = {"image_size": [40, 32], "batch_size": 4, "num_workers": 0}
    data = {
        name: {"class_path": "ShardsDataModule", "init_args": part | {"root": root}} for name, root in parts.items()
    }
    both = json.dumps({"class_path": "JointDataModule", "init_args": data})
    command("fit", *words, f"--data={both}", "--test_after_fit=true")
    results = json.loads(Path("runs/quickstart/version_0/test_results.json").read_text())
    assert {"parsing", "attributes"} <= results.keys()


def test_an_image_that_cannot_be_read_ends_the_writing(
    refused: Callable[..., str],
    faces: Path,
    tmp_path: Path,
) -> None:
    """And what was written by then is not taken for all."""
    shutil.copytree(faces / "celeba", tmp_path / "celeba")
    last = max((tmp_path / "celeba/Img").rglob("*.jpg"))  # of the last split
    last.write_bytes(last.read_bytes()[:100])
    words = ("--config=avg.yaml", f"--config={small_overlay('avg.yaml', faces, tmp_path)}")
    message = refused("shard", *words, f"--data.root={tmp_path / 'celeba'}", "--output=shards")
    assert f"cannot decode {last}" in message
    assert list(Path("shards").glob("train-*.tar"))
    assert "was interrupted: write them anew" in refused("fit", *words, *SHARDS)


def test_a_checkpoint_does_not_say_where_to_fetch_from(
    refused: Callable[..., str],
    command: Callable[..., None],
    avg: tuple[str, ...],
) -> None:
    """It may be anybody's; the user may say so."""
    address = Path("shards").absolute().as_uri()
    fetched = (f"--data.root={address}", "--data.cache_folder=kept")
    command("fit", *avg, *SHARDS, *fetched)
    shutil.rmtree("kept")
    checkpoint = "--ckpt_path=runs/avg/version_0/checkpoints/last.ckpt"
    for stage in ("test", "fit"):
        message = refused(stage, checkpoint)
        assert f"names an address to fetch from, {address}, which a checkpoint may not: pass it yourself" in message
    assert not Path("kept").exists()
    command("test", checkpoint, fetched[0])
    assert list(Path("kept").rglob("test-*.tar")) == [] != list(Path("kept").rglob("*test-*.tar"))


def test_mistakes_are_one_sentence(
    refused: Callable[..., str],
    command: Callable[..., None],
    avg: tuple[str, ...],
    tmp_path: Path,
) -> None:
    before = sorted(path.name for path in Path("shards").iterdir())
    assert INDEX in before
    assert "not an empty folder: name a new one" in refused("shard", *avg, "--output=shards")
    assert "--output=FOLDER" in refused("shard", *avg)
    assert "images_per_shard" in refused("shard", *avg, "--output=new", "--images_per_shard=0")
    assert "not in shards yet" in refused("shard", *avg, *SHARDS, "--output=new")
    assert "no data root given" in refused("shard", "--config=avg.yaml", "--data.root=null", "--output=new")
    assert "a configuration" in refused("shard", "--output=new")
    assert not (tmp_path / "runs").exists()
    assert sorted(path.name for path in Path("shards").iterdir()) == before
    message = refused("fit", *avg, *SHARDS[:3])
    assert "are of 218×178 pixels, but image_size is 40×32" in message
    Path("shards", INDEX).unlink()
    assert "was interrupted: write them anew" in refused("fit", *avg, *SHARDS)
