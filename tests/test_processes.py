"""Several processes give exactly the scores of one, whatever the numbers of samples divide by."""

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.conftest import SIZE
from tests.processes import Command, environment, run

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


def run_on(count: int, commands: list[list[str]]) -> None:
    """Run commands one after the other in each of a group of processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ddp = ["--trainer.strategy=ddp", f"--trainer.devices={count}"]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    with ExitStack() as stack:
        group = [
            stack.enter_context(
                Command(*([*words, *ddp] for words in commands), variables=environment(**address, LOCAL_RANK=str(rank)))
            )
            for rank in range(count)
        ]
        statuses = [command.wait() for command in group]
    assert statuses == [0] * count, [command.err for command in group]


def test_scores_do_not_depend_on_the_number_of_processes(command: Callable[..., None], faces: Path) -> None:
    """Of 13 images with attributes and 7 with masks, which neither two nor three processes share evenly."""
    names = ("avg", "ssp", "quickstart", "jointnet")
    for name in ("segnet", *names):
        command(*training(name, faces))
    tests = [["test", f"--ckpt_path={best(name)}", "--trainer.accelerator=cpu"] for name in names]
    members = f"--model.members=[{best('avg')},{best('ssp')}]"
    ensemble = ["test", "--config=ssp_ssg.yaml", members, f"--data.root={faces / 'celeba'}", "--data.num_workers=0"]
    tests.append([*ensemble, "--trainer.accelerator=cpu"])
    for count in (1, 2, 3):
        commands = [[*words, f"--trainer.logger.version=on_{count}"] for words in tests]
        if count == 1:
            for words in commands:
                command(*words, "--trainer.devices=1")
        else:
            run_on(count, commands)
    for name in (*names, "ssp_ssg"):
        one, *others = (Path(f"runs/{name}/on_{count}/test_results.json").read_bytes() for count in (1, 2, 3))
        check(json.loads(one))
        assert len(json.loads(one)) == (3 if name in ("quickstart", "jointnet") else 2)
        assert others == [one, one], name


def test_a_training_on_two_processes_scores_as_one_does(command: Callable[..., None], faces: Path) -> None:
    """As a user starts it: one command, which starts the other process; and from one cache."""
    words = [word for word in training("quickstart", faces) if not word.startswith("--test_after_fit")]
    two = ["--test_after_fit=true", "--trainer.strategy=ddp", "--trainer.devices=2"]
    done = run([*words, *two, "--data.cache=true", "--data.cache_folder=cache"])
    assert done.poll() == 0, done.err
    assert len(list(Path("cache").glob("*.npy"))) == 6
    alone = ["--trainer.strategy=auto", "--trainer.devices=1", "--data.cache=false"]
    command("test", f"--ckpt_path={best('quickstart')}", *alone)
    first, second = (Path(f"runs/quickstart/version_{n}/test_results.json").read_bytes() for n in (0, 1))
    check(json.loads(first))
    assert json.loads(first).keys() == {"parsing", "attributes", "weights"}
    assert first == second
