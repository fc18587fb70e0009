"""The measurement measures what it says: peers compute one network, shares are shares, and nothing else is written."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from facelightning.callbacks.fast import Speed
from facelightning.commands import bench
from facelightning.commands.bench import planned
from facelightning.commands.measuring import WARM, Clock, loading_rate, matrix_peak
from facelightning.commands.peers import CarefulImages, PILImages, plain_network
from facelightning.data import CelebADataModule, datamodule
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES
from facelightning.tasks import AttributeNet
from tests.conftest import SIZE
from tests.test_configs import small_overlay


def test_all_of_it(
    command: Callable[..., None],
    faces: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, choose = list[int](), bench.choose

    def recorded(task: AttributeNet, batch: dict[str, Any], batches: float, idle: int | None) -> Speed:
        sizes.append(len(batch["image"]))
        assert idle is None  # nor are threads tried that would not be set
        return choose(task, batch, batches, idle)

    monkeypatch.setattr(bench, "choose", recorded)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = small_overlay("avg.yaml", faces, tmp_path)
    words = ["--compare=true", "--batch_sizes=[6,2]", "--workers=[0]", "--steps=2", "--rounds=2"]
    command("bench", "avg.yaml", f"--config={small}", "--speed=auto", *words)
    (run,) = Path("runs/avg").iterdir()
    assert {path.name for path in run.rglob("*") if path.is_file()} == {"bench.json", "bench.png"}
    with Image.open(run / "figures/bench.png") as picture:
        assert min(picture.size) > 300
    found = json.loads((run / "bench.json").read_text())
    rates = found["images_a_second"]
    assert len(rates) == 6 and all(len(rounds) == 2 and min(rounds) > 0 for rounds in rates.values())
    assert sizes == [4, 2, 6, 2, 6]  # each is computed as its training would be
    assert list(found["tried"]) == ["2 images, 0 workers", "6 images, 0 workers"]
    assert found["images_a_step"] == 4 and found["speed"] == "32-true, not compiled, 1 thread"
    assert all(0 <= share < 100 for share in found["waiting_percent"])
    step = sum(rates["step alone"]) / 2  # the median of two
    assert found["flop_a_second"] == pytest.approx(found["flop_an_image"] * step)
    assert 0 < found["share_of_peak_percent"] < 100
    printed = capsys.readouterr().out
    assert printed.count("facelightning is ") == 3
    assert "recommended: " in printed


def test_images_are_decoded_once_where_the_training_would(
    command: Callable[..., None], faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = list[int]()
    monkeypatch.setattr(datamodule, "MANY", 2)
    monkeypatch.setattr(datamodule, "decoded_once", lambda images: decoded.append(len(images)))
    small = small_overlay("avg.yaml", faces, tmp_path)
    for epochs in (1, 2):
        words = [f"--trainer.max_epochs={epochs}", "--trainer.max_steps=-1", "--steps=1", "--rounds=1"]
        command("bench", "avg.yaml", f"--config={small}", "--data.num_workers=0", *words)
    assert decoded == [21]


def test_a_step_alone_learns_from_an_augmented_batch(
    command: Callable[..., None], faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which a task insists on."""
    small = small_overlay("quickstart.yaml", faces, tmp_path)
    words = ["--data.augmentations=DeviceAugmentation", "--speed=auto", "--steps=1", "--rounds=1"]
    command("bench", "quickstart.yaml", f"--config={small}", *words)
    assert "step alone" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch_sizes=[2,4000]"], "no batch can have 4000 images, because the training data has 2"),
        (["--compare=true", "--model.objective=FocalAttributes"], "leave out other objectives and augmentations"),
        (["--compare=true", "--data.augmentations=[]"], "leave out other objectives and augmentations"),
        (["--trainer.accumulate_grad_batches=2"], "bench measures one process and whole steps"),
    ],
)
def test_what_it_cannot_measure_is_refused(words: list[str], message: str, faces: Path, tmp_path: Path) -> None:
    small = small_overlay("avg.yaml", faces, tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        bench.main(["avg.yaml", f"--config={small}", f"--trainer.logger.save_dir={tmp_path}", *words])


def test_both_are_one_network() -> None:
    torch.manual_seed(0)
    task = AttributeNet(width=3).build(DataFacts(SIZE, attributes=ATTRIBUTES)).train()
    images = torch.randint(256, (4, 3, *SIZE), dtype=torch.uint8)
    task.network(images)  # moves the statistics of BatchNorm
    plain = plain_network(3)
    # the layers come in one order; the normalisation of images is no layer of the plain loop's
    weights = [value for name, value in task.network.state_dict().items() if not name.startswith("encoder.input.")]
    plain.load_state_dict(dict(zip(plain.state_dict(), weights, strict=True)))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        found = plain.eval()((images / 255 - mean) / std)
        torch.testing.assert_close(found, task.eval().network(images)["attributes"], rtol=1e-4, atol=1e-5)


def test_peers_see_the_same_images(faces: Path) -> None:
    """But for how they shrink them: mirrored or not, with their attributes."""
    data = CelebADataModule(str(faces / "celeba"), image_size=SIZE, augmentations=[])
    records = data.records("train")
    ours = data.dataset("train")[3, 0]
    careful = CarefulImages(records, SIZE)
    image, labels = careful[3]
    same, other = ([(each.float() - careful[n][0]).abs().mean() for each in (image, image.flip(2))] for n in (3, 4))
    assert min(same) == 0 < min(other)  # it is mirrored at random
    distances = [(each.float() - ours["image"]).abs().mean() for each in (image, image.flip(2))]
    assert min(distances) < max(distances) / 2  # the same face, shrunk otherwise
    assert torch.equal(labels, ours["attributes"])
    floats, labels = PILImages(records, SIZE)[3]
    assert floats.shape == (3, *SIZE) and torch.equal(labels, ours["attributes"])


def test_what_is_not_timed_is_not_counted() -> None:
    """By hand: the first steps are left out, and a pause before a step is waiting."""
    clock = Clock()
    clock.images, clock.starts, clock.ends = [9, 9, 4, 2], [0, 5, 11, 13], [5, 10, 12, 14]
    assert clock.first == 5 and clock.rate == 6 / 4 and clock.waiting == 100 * (1 + 1) / 4
    read = list[float]()

    class Loader:
        def __iter__(self) -> Any:
            for _ in range(3):
                read.append(time.perf_counter())
                time.sleep(0.01)
                yield {"image": torch.zeros(5, 3, 1, 1)}

    assert loading_rate(Loader(), steps=4, ahead=1) == pytest.approx(500, rel=0.5)
    assert len(read) == WARM + 1 + 4
    product = matrix_peak(torch.device("cpu"), torch.float32, seconds=0)
    assert 1e8 < product < 1e14


def test_the_length_of_a_training() -> None:
    class Trainer:
        max_steps, max_epochs, accumulate_grad_batches = 10, None, 2

    assert planned(Trainer, 7) == 20
    Trainer.max_steps, Trainer.max_epochs = -1, 3
    assert planned(Trainer, 7) == 21
    Trainer.max_epochs = -1
    assert planned(Trainer, 7) == float("inf")


def test_mistakes_are_one_sentence(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from facelightning.__main__ import main

    monkeypatch.chdir(tmp_path)
    small = small_overlay("segnet.yaml", faces, tmp_path)
    for words, reason in (
        ([], "bench needs a configuration"),
        (["segnet.yaml", f"--config={small}", "--compare=true"], "take avg.yaml"),
        (["segnet.yaml", f"--config={small}", "--steps=0"], "must be positive"),
        (["segnet.yaml", f"--config={small}", "--trainer.logger=false"], "leave out --trainer.logger"),
        (["segnet.yaml", "--data.root=nowhere"], "does not exist"),
    ):
        assert main(["bench", *words]) == 1
        assert reason in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists() and bench.ENOUGH < 1
