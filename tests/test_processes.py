"""Several processes give exactly the scores of one, whatever the numbers of samples divide by."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import SIZE
from tests.processes import Command, environment

SMALL = (
    f"--data.image_size={list(SIZE)}",
    "--data.batch_size=4",
    "--data.num_workers=0",
    "--model.width=2",
    "--model.optimizer=adamw",
    "--model.learning_rate=0.02",
    "--trainer.max_steps=-1",
    "--trainer.max_epochs=8",  # then it tells faces apart by more than roundings do
    "--trainer.check_val_every_n_epoch=8",
    "--trainer.val_check_interval=1.0",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--figures.num_images=0",
)


def training(name: str, faces: Path) -> list[str]:
    """The command that trains a bundled configuration for a few steps."""
    words = ["fit", f"--config={name}.yaml", *SMALL]
    if name == "jointnet":
        sizes = [word for word in words if word.startswith("--data.")]
        words = [word for word in words if word not in sizes]
        for part, folder in (("parsing", "helen"), ("attributes", "celeba")):
            words += [f"--data.{part}.root={faces / folder}"]
            words += [word.replace("--data.", f"--data.{part}.") for word in sizes]
        words += ["--model.encoder=TorchvisionEncoder", "--model.encoder.name=resnet18"]
        words += ["--trainer.max_epochs=12", "--trainer.check_val_every_n_epoch=12"]  # it learns later than others
    elif name == "quickstart":
        words += [f"--data.root={faces}", "--data.faces=[21,11,13]", "--data.masks=[9,5,7]", "--test_after_fit=false"]
    else:
        words += [f"--data.root={faces / ('helen' if name == 'segnet' else 'celeba')}"]
    if name == "avg":
        words += ["--model.objective=RelatedAttributes"]  # whose loss and scores sum over all images
    return words


def check(scores: dict[str, Any]) -> None:
    """They are of a network that tells one face from another."""
    if "attributes" in scores:
        assert scores["attributes"]["balanced_accuracy"] != 50  # as where all faces look alike
    if "parsing" in scores:
        assert sum(iou > 1 for iou in scores["parsing"]["iou"].values()) > 1


def best(name: str) -> str:
    return f"runs/{name}/version_0/checkpoints/best.ckpt"


def launched(launcher: str, count: int, rank: int) -> tuple[list[str], dict[str, str]]:
    """What a process of a group has on its command line and in its environment: with torchrun, each on its machine."""
    if launcher == "torchrun":
        words = [f"--trainer.num_nodes={count}", "--trainer.devices=1"]
        places = {"RANK": rank, "GROUP_RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": count, "TORCHELASTIC_RUN_ID": 0}
    elif launcher == "slurm":
        words = [f"--trainer.devices={count}"]
        places = {"NODEID": 0, "PROCID": rank, "LOCALID": rank, "NTASKS": count, "NTASKS_PER_NODE": count, "NNODES": 1}
        places = {f"SLURM_{key}": value for key, value in places.items()}
    else:
        words, places = [f"--trainer.devices={count}"], {"NODE_RANK": 0, "LOCAL_RANK": rank}
    return words, {key: str(value) for key, value in places.items()}


@contextmanager
def group(
    count: int, launcher: str, commands: list[list[str]], folders: Sequence[Path] = ()
) -> Iterator[list[Command]]:
    """Processes that a launcher starts at once; each runs the same commands in turn, in one folder or its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    with ExitStack() as stack:
        processes = []
        for rank in range(count):
            added, places = launched(launcher, count, rank)
            arguments = [[words[0], "--trainer.strategy=ddp", *words[1:], *added] for words in commands]
            folder = folders[rank] if folders else None
            command = Command(*arguments, folder=folder, variables=environment(**address, **places))
            processes.append(stack.enter_context(command))
        yield processes


def run_on(count: int, commands: list[list[str]], launcher: str = "lightning") -> None:
    """Run commands one after the other in each of a group of processes."""
    with group(count, launcher, commands) as processes:
        statuses = [process.wait() for process in processes]
    assert statuses == [0] * count, [process.err for process in processes]


def test_scores_do_not_depend_on_the_number_of_processes(command: Callable[..., None], faces: Path) -> None:
    """Of 13 images with attributes and 7 with masks, which neither two machines nor three processes share evenly."""
    names = ("avg", "ssp", "quickstart", "jointnet")
    for name in ("segnet", *names):
        command(*training(name, faces))
    tests = [["test", f"--ckpt_path={best(name)}", "--trainer.accelerator=cpu"] for name in names]
    members = f"--model.members=[{best('avg')},{best('ssp')}]"
    ensemble = ["test", "--config=ssp_ssg.yaml", members, f"--data.root={faces / 'celeba'}", "--data.num_workers=0"]
    tests.append([*ensemble, "--trainer.accelerator=cpu"])
    for count, launcher in {1: "", 2: "torchrun", 3: "slurm"}.items():
        commands = [[*words, f"--trainer.logger.version=on_{count}"] for words in tests]
        if count == 1:
            for words in commands:
                command(*words, "--trainer.devices=1")
        else:
            run_on(count, commands, launcher)
    for name in (*names, "ssp_ssg"):
        one, *others = (Path(f"runs/{name}/on_{count}/test_results.json").read_bytes() for count in (1, 2, 3))
        check(json.loads(one))
        assert len(json.loads(one)) == (3 if name in ("quickstart", "jointnet") else 2)
        assert others == [one, one], name

    machines = Path("first"), Path("second")  # which share no disk
    for machine in machines:
        machine.mkdir()
    predict = ["predict", f"--ckpt_path={Path(best('avg')).resolve()}", "--trainer.accelerator=cpu"]
    predict += ["--trainer.logger.save_dir=runs"]
    with group(2, "torchrun", [predict], machines) as processes:
        assert processes[1].wait() == 1
    assert "facelightning: runs/avg/version_0/predictions is another folder" in processes[1].err
    assert not list(machines[1].rglob("predictions"))


def test_a_training_on_two_processes_scores_as_one_does(command: Callable[..., None], faces: Path) -> None:
    """As a user starts it, by torchrun; and from one cache."""
    words = [word for word in training("quickstart", faces) if not word.startswith("--test_after_fit")]
    two = ["--test_after_fit=true", "--trainer.strategy=ddp", "--trainer.devices=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    cache = ["--data.cache=true", "--data.cache_folder=cache"]
    started = [*torchrun, "-m", "facelightning", *words, *two, *cache]
    done = subprocess.run(started, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test scores") == 1
    assert len(list(Path("cache").glob("*.npy"))) == 6
    alone = ["--trainer.strategy=auto", "--trainer.devices=1", "--data.cache=false"]
    command("test", f"--ckpt_path={best('quickstart')}", *alone)
    first, second = (Path(f"runs/quickstart/version_{n}/test_results.json").read_bytes() for n in (0, 1))
    check(json.loads(first))
    assert json.loads(first).keys() == {"parsing", "attributes", "weights"}
    assert first == second
