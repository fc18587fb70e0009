"""Data modules: options that are written once, and facts that a task reads; data sets do without either."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
from jsonargparse import ArgumentParser

from facelightning.data import (
    CelebA,
    CelebADataModule,
    FaceDataModule,
    FolderDataModule,
    HelenDataModule,
    JointDataModule,
    LFWADataModule,
    SyntheticDataModule,
    SyntheticScenesDataModule,
)
from facelightning.data.batch_augmentation import Affine
from facelightning.data.files import Split
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11
from tests.conftest import SIZE, write_lfwa

SMALL: dict[str, Any] = {"image_size": SIZE, "batch_size": 4, "num_workers": 0}
MODULES = [CelebADataModule, LFWADataModule, HelenDataModule, FolderDataModule, SyntheticDataModule]
MODULES += [SyntheticScenesDataModule]


def test_a_data_set_is_read_without_lightning(faces: Path) -> None:
    code = f"""
import sys
from facelightning.data import CelebA, Folder, Helen
for kind, folder, key in (CelebA, "celeba", "attributes"), (Helen, "helen", "mask"), (Folder, "helen/images", "name"):
    assert len(kind({str(faces)!r} + "/" + folder)[0][key]) > 0
assert not {{"lightning", "albumentations"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def celeba(faces: Path, **options: Any) -> CelebADataModule:
    return CelebADataModule(str(faces / "celeba"), **SMALL | options)


def helen(faces: Path, **options: Any) -> HelenDataModule:
    return HelenDataModule(str(faces / "helen"), **SMALL | options)


def synthetic(faces: Path) -> SyntheticDataModule:
    return SyntheticDataModule(str(faces), faces=(21, 11, 13), masks=(9, 5, 7), **SMALL)


@pytest.mark.parametrize(
    ("make", "before"),
    [
        (celeba, DataFacts(SIZE, attributes=ATTRIBUTES)),
        (helen, DataFacts(SIZE, HELEN7)),
        (lambda faces: helen(faces, label_space="helen11"), DataFacts(SIZE, HELEN11)),
        (lambda faces: JointDataModule(helen(faces), celeba(faces)), DataFacts(SIZE, HELEN7, ATTRIBUTES)),
        (synthetic, DataFacts(SIZE, HELEN7, ATTRIBUTES)),
    ],
    ids=["CelebA", "Helen", "Helen, eleven labels", "joint", "synthetic"],
)
def test_facts(make: Callable[[Path], Any], before: DataFacts, faces: Path) -> None:
    assert make(Path("nowhere")).facts == before
    data = make(faces)
    data.setup("test")
    assert data.facts == before
    data.setup("fit")
    found = data.facts
    if before.attributes is not None:
        train = CelebA(faces / "celeba")
        assert found.positive_rates == pytest.approx(train.attributes.mean(axis=0), abs=1e-6)
        assert found.identities == tuple(sorted({train[i]["identity"] for i in range(len(train))}))
        assert len(found.identities) == 6
    assert DataFacts(found.image_size, found.label_space, found.attributes) == before


def test_facts_of_lfwa_and_photographs(tmp_path: Path, faces: Path) -> None:
    write_lfwa(tmp_path)
    data = LFWADataModule(str(tmp_path), **SMALL)
    assert data.facts == DataFacts(SIZE, attributes=ATTRIBUTES)
    data.setup("fit")
    rates, identities = data.facts.positive_rates, data.facts.identities
    assert rates is not None and len(rates) == 40
    assert identities is not None and list(identities) == sorted(set(identities))
    assert len(identities) == len({name.partition("/")[0] for name in data.records("train").names.tolist()})
    photographs = FolderDataModule(str(faces / "helen" / "images"), **SMALL)
    photographs.setup("predict")
    assert photographs.facts == DataFacts(SIZE)


def test_identities_may_be_unknown(faces: Path, tmp_path: Path) -> None:
    root = tmp_path / "anonymous"
    for path in (faces / "celeba").rglob("*.txt"):
        if path.name != "identity_CelebA.txt":
            (root / path.parent.name).mkdir(parents=True, exist_ok=True)
            (root / path.parent.name / path.name).symlink_to(path)
    (root / "Img").symlink_to(faces / "celeba" / "Img")
    data = CelebADataModule(str(root), **SMALL)
    data.setup("fit")
    assert data.facts.identities is None and data.facts.positive_rates is not None


def test_joint_parts_of_two_sizes_are_refused(faces: Path) -> None:
    data = JointDataModule(helen(faces), celeba(faces, image_size=(20, 16)))
    with pytest.raises(ConfigurationError, match=r"parsing has image_size \(40, 32\) and attributes \(20, 16\)"):
        _ = data.facts
    with pytest.raises(ConfigurationError, match="image_size"):
        data.setup("fit")


def test_a_joint_batch_names_its_parts(faces: Path) -> None:
    data = synthetic(faces)
    data.setup("fit")
    batches = {name: next(iter(loader)) for name, loader in data.train_dataloader().items()}
    assert {"image", "mask"} <= set(batches["parsing_batch"])
    assert {"image", "attributes", "identity", "landmarks"} <= set(batches["attribute_batch"])
    assert (len(batches["parsing_batch"]["name"]), len(batches["attribute_batch"]["name"])) == (8, 4)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("option", [{"image_size": (0, 32)}, {"batch_size": 0}, {"num_workers": -1}, {"seed": -1}])
def test_impossible_options_are_refused(module: type[FaceDataModule], option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"{module.__name__}: .*{next(iter(option))}"):
        module(**option)


@pytest.fixture
def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False)
    made.add_argument("--config", action="config")
    made.add_subclass_arguments(L.LightningDataModule, "data")
    return made


TOGETHER = "{class_path: BatchAugmentation, init_args: {affine: {rotate: [-9, 9]}, outside: 0}}"


@pytest.mark.parametrize("module", MODULES)
def test_shared_options_are_options_of_every_data_module(module: type[FaceDataModule], parser: ArgumentParser) -> None:
    flip = "[{class_path: albumentations.VerticalFlip, init_args: {p: 1.0}}]"
    given = ["--data.image_size=[40, 32]", "--data.batch_size=4", "--data.seed=3", f"--data.augmentations={flip}"]
    config = parser.parse_args([f"--data={module.__name__}", *given])
    assert config.data.class_path.endswith(f".{module.__name__}")
    assert {"image_size", "batch_size", "num_workers", "augmentations", "seed"} <= set(vars(config.data.init_args))
    assert config.data.init_args.cache is None  # a default, in what is printed and saved
    data = parser.instantiate_classes(config).data
    assert isinstance(data, module)
    assert (data.image_size, data.batch_size, data.seed) == (SIZE, 4, 3)
    assert [type(transform).__name__ for transform in data.augmentations or []] == ["VerticalFlip"]
    for kind in ("BatchAugmentation", "DeviceAugmentation"):
        given = [f"--data.augmentations={TOGETHER.replace('BatchAugmentation', kind)}"]
        data = parser.instantiate_classes(parser.parse_args([f"--data={module.__name__}", *given])).data
        assert type(data.augmentations).__name__ == kind
        assert (data.augmentations.affine, data.augmentations.outside) == (Affine(rotate=(-9, 9)), 0)
    for wrong in ("batchsize=4", "batch_size=four", f"augmentations={TOGETHER.replace('affine', 'afine')}"):
        with pytest.raises(Exception, match=wrong.split("=")[0]):
            parser.parse_args([f"--data={module.__name__}", f"--data.{wrong}"])
    with pytest.raises(TypeError, match="batchsize"):
        module(batchsize=4)  # type: ignore[call-arg]


def test_parts_of_a_joint_data_module_in_a_file_and_behind_it(parser: ArgumentParser, tmp_path: Path) -> None:
    (tmp_path / "joint.yaml").write_text("""
data:
  class_path: JointDataModule
  init_args:
    parsing: {class_path: HelenDataModule, init_args: {root: masks, batch_size: 3}}
    attributes: {class_path: CelebADataModule, init_args: {batch_size: 4}}
""")
    file = f"--config={tmp_path / 'joint.yaml'}"
    config = parser.parse_args([file, "--data.attributes.root=faces", "--data.parsing.label_space=helen11"])
    data = parser.instantiate_classes(config).data
    parsing, attributes = data.parts["parsing_batch"], data.parts["attribute_batch"]
    assert (parsing.root, parsing.label_space, parsing.batch_size) == ("masks", "helen11", 3)
    assert (attributes.root, attributes.batch_size) == ("faces", 4)
    with pytest.raises(Exception, match="'rot' is not accepted"):
        parser.parse_args([file, "--data.parsing.rot=masks"])


def test_all_images_are_predicted_if_asked_for(faces: Path) -> None:
    for predicted, first, count in (("test", 33, 13), ("all", 1, 45)):
        data = celeba(faces, predicted=predicted)
        data.setup("predict")
        names = [name for batch in data.predict_dataloader() for name in batch["name"]]
        assert names == [f"{number:06d}.jpg" for number in range(first, first + count)]


def test_batches_by_identity(faces: Path) -> None:
    data = celeba(faces, images_per_identity=2, seed=5)
    data.setup("fit")
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 4  # five identities have four images: two rounds of two batches
    for batch in batches:
        _, counts = np.unique(batch["identity"], return_counts=True)
        assert counts.tolist() == [2, 2]
    assert [len(batch["name"]) for batch in data.val_dataloader()] == [4, 4, 3]  # scores are of all images
    assert [batch["name"] for batch in data.train_dataloader()] == [batch["name"] for batch in batches]


@pytest.mark.parametrize("images", [3, 8, 0, -2])
@pytest.mark.parametrize("module", [CelebADataModule, LFWADataModule, SyntheticScenesDataModule])
def test_images_per_identity_divide_the_batch_size(module: type[CelebADataModule], images: int) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{module.__name__}: images_per_identity {images} must divide batch_"
    ):
        module(batch_size=4, images_per_identity=images)


def test_batches_by_identity_need_identities(faces: Path, tmp_path: Path) -> None:
    root = tmp_path / "anonymous"
    root.mkdir()
    for path in (faces / "celeba").rglob("*_celeba.txt"):
        (root / path.name).symlink_to(path)
    (root / "list_eval_partition.txt").symlink_to(faces / "celeba" / "Eval" / "list_eval_partition.txt")
    (root / "Img").symlink_to(faces / "celeba" / "Img")
    data = CelebADataModule(str(root), **SMALL, images_per_identity=2)
    data.setup("fit")
    with pytest.raises(ConfigurationError, match="the identities are unknown, but images_per_identity is 2"):
        data.train_dataloader()


def test_fewer_training_images_are_those_of_whole_identities(faces: Path) -> None:
    """A function of the seed; more images include the fewer; the other splits keep theirs."""
    everything = celeba(faces).records("train")
    chosen = {}
    for count in (1, 4, 6, 9, 21):
        data = celeba(faces, train_images=count, seed=3)
        data.setup("fit")
        records = data.records("train")
        chosen[count] = set(records.names.tolist())
        assert len(chosen[count]) == len(data.dataset("train")) == count
        assert list(records.names) == [name for name in everything.names if name in chosen[count]]
        assert records.identities is not None and everything.identities is not None
        partly = [
            identity
            for identity in np.unique(records.identities)
            if (records.identities == identity).sum() < (everything.identities == identity).sum()
        ]
        assert len(partly) <= 1
        assert data.facts.identities == tuple(np.unique(records.identities).tolist())
        assert data.facts.positive_rates == pytest.approx(records.attributes.mean(axis=0), abs=1e-6)
        assert len(data.dataset("val")) == 11
        again = celeba(faces, train_images=count, seed=3).records("train")
        assert np.array_equal(again.names, records.names)
    assert chosen[1] < chosen[4] < chosen[6] < chosen[9] < chosen[21]
    others = [set(celeba(faces, train_images=6, seed=seed).records("train").names.tolist()) for seed in range(4)]
    assert len({frozenset(each) for each in others}) > 1


def test_images_of_unknown_identities_are_chosen_singly(faces: Path) -> None:
    records = celeba(faces).records("train")
    unknown = replace(records, identities=None).some(10, seed=0)
    assert len(set(unknown.names.tolist())) == 10
    assert unknown.identities is None


def test_left_out_attributes_are_nowhere(faces: Path) -> None:
    data = celeba(faces, leave_out=["Young", "Bald"])
    data.setup("fit")
    names = tuple(name for name in ATTRIBUTES if name not in ("Bald", "Young"))
    assert data.facts.attributes == names
    assert data.facts.positive_rates is not None and len(data.facts.positive_rates) == 38
    columns = [ATTRIBUTES.index(name) for name in names]
    loaders: list[tuple[Any, Split]] = [(data.train_dataloader(), "train"), (data.val_dataloader(), "val")]
    for loader, split in loaders:
        batch = next(iter(loader))
        truth = dict(
            zip(CelebA(faces / "celeba", split).names, CelebA(faces / "celeba", split).attributes, strict=True)
        )
        for name, row in zip(batch["name"], batch["attributes"], strict=True):
            assert row.tolist() == truth[name][columns].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_images": 0}, r"train_images must lie in 1\.\.\.21, the images of the split, not 0"),
        ({"train_images": 22}, "not 22"),
        ({"leave_out": ["Balt"]}, "no attribute is named Balt; did you mean Bald"),
        ({"leave_out": list(ATTRIBUTES)}, "leave some to learn"),
    ],
)
def test_fewer_than_there_can_be(options: dict[str, Any], message: str, faces: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        celeba(faces, **options).setup("fit")
