"""Training on several processes: as one would, resumed exactly, and ended together."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging

from facelightning.data.sampling import TrainSampler
from facelightning.errors import ConfigurationError
from facelightning.tasks.sharding import Sharded
from tests.processes import Command, check_sigterm_ends, run
from tests.tasks.tiny import make_task, training_loader
from tests.test_processes import group, run_on, training
from tests.test_resume import assert_same

OWN = """
import os, signal
from facelightning.tasks import AttributeNet, JointNet
from torch import nn

class Fixed(JointNet):
    def train(self, mode=True):
        for module in super().train(mode).modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

class Diverging(AttributeNet):
    def training_step(self, batch, batch_idx):
        if self.global_step == 1 and self.global_rank == 0:
            batch["attributes"] *= float("inf")
        return super().training_step(batch, batch_idx)

class Killed(AttributeNet):
    def training_step(self, batch, batch_idx):
        if self.global_step == 1 and self.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)
"""
"""Tasks of a user's own: batch statistics that do not change; one process that diverges; one that is killed."""

ON_THE_DEVICE = (
    "--data.augmentations={class_path: DeviceAugmentation, init_args: {color: {chance: 0.8, contrast: [0.5, 1.5]}}}"
)

MOVED = (
    "--data.augmentations.affine={chance: 0.8, scale: [0.7, 1.1], rotate: [-20, 20]}",
    "--data.augmentations.erasing={chance: 0.5, count: [0, 2]}",
)
"""Then processes ignore other numbers of pixels, so that the mean of their losses is not that of one."""

EPOCHS = ("--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1")


def overlay(path: Path) -> str:
    """A step of two batches, a validation after the third of five, and a checkpoint after each of both."""
    keep = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every = {"auto_insert_metric_name": False, "save_top_k": -1}
    callbacks = [
        {"init_args": every | {"filename": "step_{step}", "every_n_train_steps": 1}},
        {"init_args": every | {"filename": "validation_{step}", "save_on_train_epoch_end": False}},
    ]
    trainer = {"accumulate_grad_batches": 2, "callbacks": [keep | each for each in callbacks]}
    path.write_text(yaml.safe_dump({"trainer": trainer}))
    return f"--config={path}"


def checkpoint(run: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(f"runs/{run}/checkpoints/{name}.ckpt", weights_only=True)
    return content


def test_two_processes_train_resume_and_predict_as_one(
    command: Callable[..., None], faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    joint = [*training("quickstart", faces), *EPOCHS, "--data.faces=[20,11,13]", "--data.masks=[8,5,7]", ON_THE_DEVICE]
    root = tmp_path / "faces"
    joint = [word.replace(f"--data.root={faces}", f"--data.root={root}") for word in joint]
    fixed = [*joint, "--model=own.Fixed", "--model.width=2", "--model.optimizer=adagrad", "--model.learning_rate=0.001"]
    fixed += ["--model.pooling=AveragePooling", "--model.head=LinearHead"]
    halves = ["--data.batch_size=2", "--data.mask_batch_size=1"]
    command(*fixed, "--data.batch_size=4", "--data.mask_batch_size=2", "--trainer.logger.version=fixed")

    half = ["--model.rate_scaling=linear", "--model.learning_rate=0.0005"]
    whole = [*joint, *MOVED, *halves, overlay(tmp_path / "keep.yaml"), "--trainer.val_check_interval=3"]
    whole += ["--model.rate_scaling=square_root"]
    resumed = {
        name: f"runs/quickstart/whole/checkpoints/{name}.ckpt" for name in ("step_2", "validation_1", "validation_4")
    }
    # one image a batch, because batches of other sizes round differently
    predict = ["predict", f"--ckpt_path={resumed['step_2']}", "--data.batch_size=1", "--data.mask_batch_size=1"]
    run_on(
        2,
        [
            [*fixed, *halves, *half, "--trainer.logger.version=fixed_on_2"],
            [*whole, "--trainer.logger.version=whole"],
            *(["fit", f"--ckpt_path={path}", f"--trainer.logger.version={name}"] for name, path in resumed.items()),
            [*predict, "--trainer.logger.version=predicted_on_2"],
        ],
    )
    command(*predict, "--trainer.strategy=auto", "--trainer.devices=1", "--trainer.logger.version=predicted")

    ours, theirs = (checkpoint(f"quickstart/{name}", "last") for name in ("fixed_on_2", "fixed"))
    assert ours["global_step"] == theirs["global_step"] == 10
    for key, weight in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][key], weight, rtol=0, atol=1e-6)

    whole_rate = checkpoint("quickstart/whole", "step_2")["optimizer_states"][0]["param_groups"][0]["max_lr"]
    assert whole_rate == 2 * 0.02  # for four batches, of two processes and two accumulated
    assert "facelightning_gradients" not in checkpoint("quickstart/whole", "step_2")
    for name in ("validation_1", "validation_4"):
        pending = checkpoint("quickstart/whole", name)["facelightning_gradients"]
        assert any((first != second).any() for first, second in pending.values())  # of each process its own
    end = checkpoint("quickstart/whole", "step_6")
    for name in resumed:
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_same(checkpoint(f"quickstart/{name}", "step_6")[part], end[part])

    one, two = (Path(f"runs/quickstart/{name}/predictions") for name in ("predicted", "predicted_on_2"))
    tables = [sorted((folder / "attributes.csv").read_text().splitlines()) for folder in (one, two)]
    assert len(tables[0]) == 1 + 13 + 7
    assert tables[0] == tables[1]
    masks = [{path.name: path.read_bytes() for path in (folder / "parsing").iterdir()} for folder in (one, two)]
    assert masks[0] == masks[1]


def test_a_sharded_training_is_that_of_ddp(command: Callable[..., None], faces: Path) -> None:
    """Also resumed and tested, on numbers of images that two processes do not share evenly."""
    fit = [*training("avg", faces), *EPOCHS, "--data.batch_size=3", "--model.optimizer=adagrad", "--model.width=4"]
    commands = []
    for name in ("ddp", "fsdp2"):
        words = [f"--trainer.strategy={name}", "--test_after_fit=true"]
        commands += [[*fit, *words, f"--trainer.logger.version={name}"]]
        last = f"--ckpt_path=runs/avg/{name}/checkpoints/last.ckpt"
        commands += [["fit", last, *words, "--trainer.max_epochs=3", f"--trainer.logger.version={name}_resumed"]]
    run_on(2, commands)
    for part in ("", "_resumed"):
        ours, theirs = (checkpoint(f"avg/{name}{part}", "last") for name in ("fsdp2", "ddp"))
        for key in ("state_dict", "optimizer_states", "global_step"):
            assert_same(ours[key], theirs[key])
        for file in ("metrics.csv", "test_results.json"):  # the former also has scores by each process's own statistics
            one, two = (Path(f"runs/avg/{name}{part}/{file}").read_bytes() for name in ("fsdp2", "ddp"))
            assert one == two
    command(
        "test", "--ckpt_path=runs/avg/fsdp2/checkpoints/last.ckpt", "--trainer.devices=1", "--trainer.strategy=auto"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 2}, r"leave out trainer\.accumulate_grad_batches"),
        ({"sync_batchnorm": True}, r"add --trainer\.sync_batchnorm=false"),
        ({"callbacks": EMAWeightAveraging()}, r"leave out overlays/ema\.yaml"),
    ],
)
def test_what_a_sharded_training_cannot_do(options: dict[str, Any], message: str) -> None:
    trainer = L.Trainer(accelerator="cpu", strategy=Sharded(), max_steps=1, logger=False, **options)
    task = make_task("attributenet-avg", Path())
    with pytest.raises(ConfigurationError, match=message):
        trainer.fit(task, training_loader(task))


def ended(folder: Path, celeba: Path, *words: str) -> Command:
    """A training on two processes that must fail, as a user starts it."""
    (folder / "own.py").write_text(OWN)
    arguments = [*training("avg", celeba.parent), *EPOCHS, "--trainer.strategy=ddp", "--trainer.devices=2"]
    done = run([*arguments, *words], folder=folder)
    assert done.poll() != 0
    assert "Traceback" not in done.err
    return done


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=own.Diverging"], "facelightning: the attributes loss is not finite in epoch 0, step 1"),
        (["--model=own.Killed"], "facelightning: process 1 was ended by SIGKILL"),
    ],
    ids=["diverging", "killed"],
)
def test_all_processes_end_with_one(words: list[str], message: str, faces: Path, tmp_path: Path) -> None:
    done = ended(tmp_path, faces / "celeba", *words, "--model.width=2")
    assert done.err.count(message) == done.err.count("facelightning: ") == 1, done.err


def test_an_image_that_one_process_cannot_read_ends_all(faces: Path, tmp_path: Path) -> None:
    shutil.copytree(faces / "celeba", tmp_path / "celeba")
    index, _ = next(iter(TrainSampler(21, seed=0, rank=1, world_size=2)))
    image = next((tmp_path / "celeba").rglob(f"{index + 1:06d}.jpg"))
    image.write_bytes(b"no image")
    done = ended(tmp_path, tmp_path / "celeba")
    assert done.err.count("facelightning: ") == done.err.count(image.name) == 1, done.err


def test_sigterm_ends_the_processes_of_slurm(faces: Path, tmp_path: Path) -> None:
    """Wherever it finds them; a queue sends it to all. No signal writes a checkpoint that none has asked for."""
    words = [*training("avg", faces), *EPOCHS[1:], "--trainer.max_epochs=10000"]
    with group(2, "slurm", [words], [tmp_path, tmp_path]) as processes:
        while not any(tmp_path.rglob("last.ckpt")):
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.01)
        for process in processes:
            os.kill(process.pid, signal.SIGTERM)
        assert [process.wait(60) for process in processes] == [143, 143]
    assert "auto-requeueing" not in processes[0].err
    assert not any("Traceback" in process.err for process in processes)


def test_sigterm_ends_all_processes(faces: Path, tmp_path: Path) -> None:
    words = [*training("avg", faces), *EPOCHS[1:], "--trainer.strategy=ddp", "--trainer.devices=2"]
    with Command([*words, "--trainer.max_epochs=10000"], folder=tmp_path) as training_on_two:
        check_sigterm_ends(training_on_two, lambda: any(tmp_path.rglob("last.ckpt")))
