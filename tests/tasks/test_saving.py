"""Checkpoints are whole or not there, and every changed byte is found."""

import pickle
import resource
import signal
import zipfile
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from facelightning.checkpoint import Checkpoint, read_file
from facelightning.errors import CheckpointError
from facelightning.tasks import AttributeNet, SegNet, load_model
from facelightning.tasks.saving import AtomicCheckpoints
from tests.processes import FORKS
from tests.tasks.tiny import FACTS, QUIET, loader, samples, save

pytestmark = QUIET


def fill(path: Path) -> None:
    """Save where the disk gets full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    AtomicCheckpoints().save_checkpoint({"new": torch.zeros(100_000)}, path)


def keep_saving(path: Path, saved: Semaphore) -> None:
    for number in range(10_000):
        AtomicCheckpoints().save_checkpoint({"number": number, "weight": torch.full((1_000_000,), number)}, path)
        saved.release()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(AttributeNet(width=2).build(FACTS), tmp_path_factory.mktemp("trained") / "net.ckpt")


def test_the_old_file_survives_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"old": 1}, path)
    process = FORKS.Process(target=fill, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert read_file(path) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    saved = FORKS.Semaphore(0)
    process = FORKS.Process(target=keep_saving, args=(path, saved))
    process.start()
    for _ in range(3):
        assert saved.acquire(timeout=60)
    process.kill()
    process.join()
    content = read_file(path)
    assert (content["weight"] == content["number"]).all()
    AtomicCheckpoints().save_checkpoint({}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]  # what the killed one left is gone


def test_any_trainer_writes_so(tmp_path: Path) -> None:
    task = AttributeNet(width=2).build(FACTS)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(task, loader(samples("attributes")))
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpoints)


def test_every_changed_byte_is_found_or_changes_nothing(trained: Path, tmp_path: Path) -> None:
    good, content = Checkpoint.read(trained), bytearray(trained.read_bytes())
    path, refused = tmp_path / "changed.ckpt", 0
    for place in torch.randint(len(content), (300,), generator=torch.Generator().manual_seed(0)).tolist():
        content[place] ^= 16
        path.write_bytes(content)
        content[place] ^= 16
        try:
            found = Checkpoint.read(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert found.description == good.description
            assert all(torch.equal(found.weights[key], value) for key, value in good.weights.items())
    assert refused > 200


def test_a_compressed_file_is_refused(trained: Path, tmp_path: Path) -> None:
    """It could unpack to more than the memory holds."""
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(trained) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item))
    with pytest.raises(CheckpointError, match="is not as it was written"):
        Checkpoint.read(path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("address", ["evil.ckpt", "http://127.0.0.1:9/evil.ckpt", "file:///evil.ckpt"])
def test_nothing_is_executed_and_nothing_fetched(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.ckpt").write_bytes(pickle.dumps(Evil()))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    task, data = AttributeNet(width=2).build(FACTS), loader(samples("attributes"))
    for read in (
        lambda: load_model(address),
        lambda: AttributeNet.load_from_checkpoint(address),
        lambda: trainer.validate(task, data, ckpt_path=address),
        lambda: trainer.fit(task, data, ckpt_path=address, weights_only=False),
    ):
        with pytest.raises(CheckpointError, match=r"evil.ckpt (does not exist|cannot be read)"):
            read()


def test_a_task_loads_its_own_checkpoints_alone(trained: Path) -> None:
    images = torch.randint(256, (2, 3, 36, 28), dtype=torch.uint8)
    task = AttributeNet.load_from_checkpoint(trained)
    assert torch.equal(task(images)["attributes"], load_model(trained)(images)["attributes"])
    with pytest.raises(CheckpointError, match="holds AttributeNet, not SegNet"):
        SegNet.load_from_checkpoint(trained)


def test_weights_that_are_not_finite_are_refused(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained, weights_only=True)
    content["state_dict"]["network.encoder.conv1.0.0.weight"][0] = float("nan")
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(CheckpointError, match=r"not finite \(network\.encoder\.conv1.*diverged"):
        load_model(tmp_path / "nan.ckpt")
