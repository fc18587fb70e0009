"""CategoryNet: learns from folders, keeps its categories, refuses others, and gives its filters to LNet_o."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from facelightning.data import ImageFolderDataModule
from facelightning.data.synthetic import OBJECTS, write_objects
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.models.heads import DenseHead
from facelightning.models.lnet import LNet
from facelightning.models.pooling import GridPooling
from facelightning.tasks import AttributeNet, CategoryNet, load_model
from tests.tasks.tiny import QUIET, Watch, assert_equal, make_trainer

pytestmark = QUIET

SIZE = (64, 64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects") / "objects"
    write_objects(folder, (20, 7, 5), SIZE)
    return folder


def make_data(root: Path) -> ImageFolderDataModule:
    return ImageFolderDataModule(str(root), image_size=SIZE, batch_size=10, num_workers=0, seed=0, augmentations=[])


def make_task() -> CategoryNet:
    torch.manual_seed(0)
    encoder = partial(LNet, width=3, kernel_size=7, stride=2)
    head = partial(DenseHead, width=8, dropout=0.0)
    return CategoryNet(encoder=encoder, pooling=GridPooling, head=head, optimizer="adamw", learning_rate=0.01)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watch]:
    watch, path = Watch(), tmp_path_factory.mktemp("trained") / "objects.ckpt"
    trainer = make_trainer(16, watch)
    trainer.fit(make_task(), datamodule=make_data(root))
    trainer.save_checkpoint(path)
    return path, watch


def test_learns_what_lies_in_which_folder(trained: tuple[Path, Watch]) -> None:
    losses = trained[1].losses
    assert losses[0] == pytest.approx(2.996, abs=0.3)  # log 20
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])


def test_one_file_is_enough(trained: tuple[Path, Watch], root: Path) -> None:
    task = load_model(trained[0])
    assert isinstance(task, CategoryNet)
    assert task.facts == DataFacts(SIZE, categories=OBJECTS)
    make_trainer().test(task, datamodule=make_data(root), verbose=False)
    with torch.no_grad():
        (batch,) = make_data(root).test_dataloader()
        likely = task.network(batch["image"])["category"]
    right = 100 * (likely.argmax(dim=1) == batch["category"]).double().mean()
    assert task.results["test"]["category"]["top_1"] == pytest.approx(float(right))
    (predicted,) = make_trainer().predict(task, datamodule=make_data(root)) or []
    assert isinstance(predicted, dict)
    torch.testing.assert_close(predicted["category"], likely.softmax(dim=1))


def test_other_categories_are_refused(trained: tuple[Path, Watch], root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "other")
    for split in ("train", "val", "test"):
        for folder in (tmp_path / "other" / split).glob("arrow_filled"):
            folder.rename(folder.with_name("arrow"))
    data = make_data(tmp_path / "other")
    with pytest.raises(ConfigurationError, match=r"categories .*\(arrow_filled, …\), but the data has .*\(arrow, "):
        make_trainer().test(load_model(trained[0]), datamodule=data, verbose=False)
    with pytest.raises(ConfigurationError, match=r"categories .*\(arrow, …\), but the checkpoint has .*_filled"):
        make_trainer(20).fit(make_task(), datamodule=data, ckpt_path=trained[0])


def test_data_without_categories_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="CategoryNet cannot learn categories: the data has none; use Image"):
        make_task().build(DataFacts(SIZE, attributes=ATTRIBUTES))


def test_lnet_begins_with_its_filters(trained: tuple[Path, Watch]) -> None:
    encoder = partial(LNet, width=3, kernel_size=7, stride=2, weights=str(trained[0]))
    task = AttributeNet(encoder=encoder).build(DataFacts(SIZE, attributes=ATTRIBUTES))
    assert_equal(task.network.encoder.state_dict(), load_model(trained[0]).network.encoder.state_dict())
