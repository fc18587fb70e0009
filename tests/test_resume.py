"""A training that was interrupted anywhere ends with the same bits as one that was not."""

from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from facelightning.data import CelebADataModule, SyntheticDataModule
from facelightning.facts import DataFacts
from facelightning.labels import HELEN7
from facelightning.models.encoders import TorchvisionEncoder
from facelightning.models.gating import SemanticGating
from facelightning.models.heads import LinearHead, LocalizationHead
from facelightning.models.parser import ParserRegions
from facelightning.models.pooling import SemanticPooling
from facelightning.objectives import BalancedAttributes, RelatedAttributes
from facelightning.tasks import AttributeNet, FaceTask, JointNet, SegNet
from tests.conftest import SIZE
from tests.tasks.test_own_parts import DeepHead
from tests.tasks.tiny import QUIET, save

pytestmark = QUIET


@pytest.fixture(scope="session")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(SegNet(width=2).build(DataFacts(SIZE, HELEN7)), tmp_path_factory.mktemp("parser") / "segnet.ckpt")


def make(
    kind: str, faces: Path, workers: int, parser: Path | None = None, cache: bool = False
) -> tuple[FaceTask, L.LightningDataModule]:
    """A task and its data, with everything that is random switched on."""
    options: dict[str, Any] = {"image_size": SIZE, "batch_size": 4, "num_workers": workers}  # six batches an epoch
    options |= {"cache": cache, "cache_folder": str(faces.parent / "cache")}
    L.seed_everything(5, verbose=False)
    augmentations = [A.HorizontalFlip(p=0.5), A.Affine(scale=(0.7, 1.2), rotate=(-20, 20), p=0.8, fill_mask=255)]
    if kind in ("single", "ssg", "dropout"):
        attributes = CelebADataModule(str(faces / "celeba"), augmentations=augmentations, **options)
        if kind == "single":
            return AttributeNet(width=2, head=LinearHead), attributes
        if kind == "dropout":
            return AttributeNet(width=2, head=DeepHead, objective=RelatedAttributes), attributes
        regions = partial(ParserRegions, checkpoint=str(parser))
        return AttributeNet(width=2, gate=SemanticGating, regions=regions, objective=BalancedAttributes), attributes
    both = SyntheticDataModule(
        str(faces),
        faces=(21, 11, 13),
        masks=(9, 5, 7),
        mask_batch_size=4,  # three batches: cycled twice
        augmentations=augmentations,
        **options,
    )
    pooling, head = SemanticPooling, LocalizationHead
    encoder = partial(TorchvisionEncoder, name=kind) if kind != "joint" else None
    return JointNet(2, encoder, pooling, head, optimizer="adamw", schedule="one_cycle"), both


def train(
    kind: str, faces: Path, folder: Path, workers: int, parser: Path, resume: Path | None = None, by_steps: bool = False
) -> dict[str, object]:
    """Two epochs, with a checkpoint after each step; what the last one holds. What is resumed reads from a cache."""
    task, data = make(kind, faces, workers, parser, cache=resume is not None)
    keep = ModelCheckpoint(
        folder, filename="{step}", auto_insert_metric_name=False, every_n_train_steps=1, save_top_k=-1
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1 if by_steps else 2,
        max_steps=12 if by_steps else -1,
        callbacks=[keep],
        logger=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(task, datamodule=data, ckpt_path=resume)
    assert trainer.global_step == 12
    checkpoint: dict[str, object] = torch.load(folder / "12.ckpt", weights_only=True)
    return checkpoint


def assert_same(found: object, expected: object) -> None:
    """Equal to the last bit, however deep."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert isinstance(found, list)
        for left, right in zip(found, expected, strict=True):
            assert_same(left, right)
    elif isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert torch.equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("kind", "workers"),
    [("ssg", 0), ("joint", 0), ("joint", 2), ("mobilenet_v3_small", 0), ("dropout", 0)],
)
def test_resuming_mid_epoch_continues_bit_identically(
    kind: str, workers: int, faces: Path, parser: Path, tmp_path: Path
) -> None:
    whole = train(kind, faces, tmp_path / "whole", workers, parser)
    # inside the first epoch (and the second cycle of the shorter set), at its very end, inside the second
    for step in (4, 6, 8) if workers == 0 and kind != "mobilenet_v3_small" else (4,):
        resumed = train(kind, faces, tmp_path / f"from{step}", 0, parser, tmp_path / "whole" / f"{step}.ckpt")
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_same(resumed[part], whole[part])


@pytest.mark.parametrize("by_steps", [False, True])
def test_resuming_twice_continues_bit_identically(by_steps: bool, faces: Path, parser: Path, tmp_path: Path) -> None:
    """The second time from a checkpoint of the first; an epoch has six steps."""
    whole = train("single", faces, tmp_path / "whole", 0, parser, by_steps=by_steps)
    for first, second in ((4, 5), (4, 9), (5, 6), (5, 11), (6, 7), (6, 9), (7, 8), (7, 11)):
        once = tmp_path / f"once{first}"
        if not once.exists():
            train("single", faces, once, 0, parser, tmp_path / f"whole/{first}.ckpt", by_steps)
        resume = once / f"{second}.ckpt"
        twice = train("single", faces, tmp_path / f"twice{first}{second}", 0, parser, resume, by_steps)
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_same(twice[part], whole[part])


def test_a_training_that_ended_goes_on_where_it_would_have(faces: Path, tmp_path: Path) -> None:
    """Its last validation, after which it was saved, belongs to its end alone; two sets, one of them cycled."""

    class Keep(L.Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def trained(epochs: int, resume: Path | None = None) -> L.Trainer:
        task, data = make("joint", faces, 0)
        assert isinstance(task, JointNet)
        task.schedule = "constant"  # the other depends on the length
        assert isinstance(data, SyntheticDataModule)
        data.parts["parsing_batch"].batch_size = 2  # five batches of masks for six of attributes
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            check_val_every_n_epoch=5,
            num_sanity_val_steps=0,
            callbacks=[Keep()],
            logger=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(task, datamodule=data, ckpt_path=resume)
        return trainer

    trained(2)
    assert trained(2, tmp_path / "12.ckpt").global_step == 12
    resumed, whole = trained(3, tmp_path / "12.ckpt"), trained(3)
    assert resumed.global_step == whole.global_step == 18
    assert_same(resumed.model.state_dict(), dict(whole.model.state_dict()))


@pytest.mark.parametrize("kind", ["single", "joint"])
def test_resuming_amid_an_accumulation_continues_bit_identically(kind: str, faces: Path, tmp_path: Path) -> None:
    """Gradients of two batches make a step, and a checkpoint is written after every batch."""

    class Keep(L.Callback):
        def __init__(self, folder: Path, every: bool) -> None:
            self.folder, self.every = folder, every

        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
            if self.every or done == 10:
                trainer.save_checkpoint(self.folder / f"{done}.ckpt")

    def trained(folder: Path, resume: Path | None = None) -> dict[str, object]:
        task, data = make(kind, faces, 0)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=2,
            limit_train_batches=5,  # so that an epoch ends with a step of one batch
            accumulate_grad_batches=2,
            val_check_interval=1,
            limit_val_batches=1,
            num_sanity_val_steps=0,
            callbacks=[Keep(folder, every=resume is None)],
            logger=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(task, datamodule=data, ckpt_path=resume)
        assert trainer.global_step == 6
        checkpoint: dict[str, object] = torch.load(folder / "10.ckpt", weights_only=True)
        return checkpoint

    whole = trained(tmp_path / "whole")
    files = [tmp_path / "whole" / f"{count}.ckpt" for count in range(1, 10)]
    assert sum("facelightning_gradients" in torch.load(path, weights_only=True) for path in files) == 4
    # amid a step (1, 3, 6, 8), between two (4, 7), and where an epoch ends (5)
    for count in (1, 4, 5, 6, 8) if kind == "joint" else (3, 5, 7):
        path = files[count - 1]
        resumed = trained(tmp_path / f"from{count}", path)
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_same(resumed[part], whole[part])


def test_validations_counted_in_steps_fall_where_they_would_have(faces: Path, tmp_path: Path) -> None:
    """As the bundled configurations count them: across epochs, and up to the last step."""

    class Noting(L.Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.steps.append(trainer.global_step)

    def validated(resume: str | None) -> list[int]:
        task, data = make("single", faces, 0)
        noting = Noting()
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=12,
            check_val_every_n_epoch=None,
            val_check_interval=4,
            num_sanity_val_steps=0,
            callbacks=[noting, keep],
            logger=False,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(task, datamodule=data, ckpt_path=resume)
        return noting.steps

    assert validated(None) == [4, 8, 12]
    assert validated(str(tmp_path / "step=6.ckpt")) == [8, 12]
    assert validated(str(tmp_path / "step=7.ckpt")) == [8, 12]


def test_another_seed_trains_otherwise(faces: Path, tmp_path: Path) -> None:
    """What the test above compares does depend on order and augmentation."""
    weights = []
    for seed in (1, 2):
        task, data = make("single", faces, 0)
        assert isinstance(data, CelebADataModule)
        data.seed = seed
        L.Trainer(
            accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
        ).fit(task, datamodule=data)
        weights.append(torch.cat([p.detach().flatten() for p in task.network.parameters()]))
    assert not torch.equal(*weights)
