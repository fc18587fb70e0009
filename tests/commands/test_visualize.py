"""Looking into trained models: measures against loops, means face by face, and the command on tiny models."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

from facelightning.commands.visualize import activation_entropy, main, mean_over_faces, share_inside
from facelightning.data import CelebADataModule, JointDataModule
from facelightning.data.helen import HelenDataModule
from facelightning.errors import CheckpointError, ConfigurationError, DataNotFoundError
from facelightning.figures import channels_figure, region_weights_figure, strongest_channels
from facelightning.labels import ATTRIBUTES
from facelightning.tasks import AttributeNet, EnsembleNet, FaceTask, JointNet, SegNet, load_model
from tests.conftest import SIZE

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '\\w+' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found \\d+ module\\(s\\) in eval mode"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:`training_step` returned `None`"),
]


def data_of(task: FaceTask, faces: Path) -> L.LightningDataModule:
    helen = HelenDataModule(str(faces / "helen"), image_size=SIZE, batch_size=4, num_workers=0)
    celeba = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=4, num_workers=0)
    if isinstance(task, JointNet):
        return JointDataModule(parsing=helen, attributes=celeba)
    return helen if isinstance(task, SegNet) else celeba


@pytest.fixture(scope="module")
def runs(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of run folders, as training leaves them: of every kind of network, each trained for two steps."""
    root = tmp_path_factory.mktemp("runs")

    def train(name: str, task: FaceTask) -> str:
        run = root / name
        trainer = L.Trainer(
            max_steps=2,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(task, datamodule=data_of(task, faces))
        trainer.save_checkpoint(run / "checkpoints" / "best.ckpt")
        settings: dict[str, Any] = {"image_size": list(SIZE)}
        if isinstance(task, JointNet):
            settings = {part: {"init_args": settings} for part in ("parsing", "attributes")}
        (run / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": settings}}))
        return str(run / "checkpoints" / "best.ckpt")

    torch.manual_seed(0)
    parser = train("segnet", SegNet(width=2))
    members = [train("avg", AttributeNet(width=2)), train("ssp", AttributeNet("ssp", parser=parser, width=2))]
    train("bbox", AttributeNet("bbox", width=2))
    train("ssg", AttributeNet(gating="ssg", parser=parser, width=2))
    train("ensemble", EnsembleNet(members))
    train("jointnet", JointNet(width=2, pooling="ssp"))
    return root


def of(runs: Path, name: str) -> str:
    return str(runs / name / "checkpoints" / "best.ckpt")


def read(path: Path) -> npt.NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image.astype(np.uint8)


class TestMeasures:
    def test_entropy_is_that_of_a_loop(self) -> None:
        maps = np.random.default_rng(0).exponential(size=(5, 4, 3)).astype(np.float32)
        maps[1, :2] = 0
        maps[3] = 0  # has no distribution
        entropies = []
        for channel in (maps[i] for i in (0, 1, 2, 4)):
            total = sum(float(value) for value in channel.ravel())
            shares = [float(value) / total for value in channel.ravel() if value > 0]
            entropies.append(-sum(share * math.log2(share) for share in shares))
        assert activation_entropy(maps) == pytest.approx(sum(entropies) / 4, abs=1e-12)

    def test_share_inside_is_that_of_a_loop(self) -> None:
        rng = np.random.default_rng(0)
        maps, mask = rng.exponential(size=(5, 4, 3)).astype(np.float32), rng.random((4, 3))
        inside = total = 0.0
        for channel in maps:
            for y in range(4):
                for x in range(3):
                    inside += float(channel[y, x]) * float(mask[y, x])
                    total += float(channel[y, x])
        assert share_inside(maps, mask) == pytest.approx(inside / total, abs=1e-12)

    def test_extremes(self) -> None:
        uniform, point = np.full((3, 8, 4), 0.3), np.zeros((3, 8, 4))
        point[:, 5, 2] = 7
        left = np.zeros((8, 4))
        left[:, :1] = 1
        assert activation_entropy(uniform) == pytest.approx(5)
        assert activation_entropy(point) == 0
        assert share_inside(uniform, left) == pytest.approx(0.25)
        assert share_inside(point, left) == 0
        assert math.isnan(activation_entropy(0 * point))
        assert math.isnan(share_inside(0 * point, left))


@pytest.mark.parametrize("name", ["avg", "ssp", "bbox", "ssg", "jointnet"])
def test_features_are_what_the_network_pools(runs: Path, faces: Path, name: str) -> None:
    task = load_model(of(runs, name))
    assert isinstance(task, AttributeNet | JointNet)
    pooled: list[torch.Tensor] = []
    task.network.pooling.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    data = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=3, num_workers=0)
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        task.predict_batch(batch)
        features = task.network.features(batch["image"])
    assert features.shape == (3, 32, 3, 2)
    assert torch.equal(features, pooled[0])


@pytest.mark.parametrize("batch_size", [3, 20])
@pytest.mark.parametrize(
    ("names", "parser"), [(["avg", "ssp"], "ssp"), (["jointnet", "ssp"], "ssp"), (["jointnet", "avg"], "jointnet")]
)
def test_means_are_those_of_single_faces(
    runs: Path, faces: Path, names: list[str], parser: str, batch_size: int
) -> None:
    networks: dict[str, Any] = {name: load_model(of(runs, name)) for name in names}
    data = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=batch_size, num_workers=0)
    means = mean_over_faces(networks, data.test_dataloader(), 7)
    assert means.keys() == {*(f"channels of {name}" for name in names), "face", *(["weights"] * (names[-1] == "ssp"))}

    images = torch.stack([data.dataset("test")[index, 0]["image"] for index in range(7)])
    negative = False
    with torch.no_grad():
        for name, task in networks.items():
            total = np.zeros((32, 3, 2))
            for image in images:
                features = task.network.features(image[None])[0].double().numpy()
                negative |= bool((features < 0).any())
                total += np.where(features > 0, features, 0)
            np.testing.assert_allclose(means[f"channels of {name}"], total / 7, rtol=1e-5, atol=1e-6)
        network = networks[parser].network
        logits = network.parse(images)[-1] if parser == "jointnet" else network.parser(images, 4)[-1]
        foreground = 1 - logits.double().softmax(dim=1)[:, 0].mean(dim=0).numpy()
        cells = [[foreground[y : y + 16, x : x + 16].mean() for x in (0, 16)] for y in (0, 16, 32)]
        np.testing.assert_allclose(means["face"], cells, rtol=1e-5)
        if "weights" in means:
            expected = torch.stack([network.region_weights(image[None])[0] for image in images]).mean(dim=0)
            np.testing.assert_allclose(means["weights"], expected, rtol=1e-5, atol=1e-6)
    assert negative


def test_all_that_a_joint_network_allows(
    runs: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"--celeba={faces / 'celeba'}", f"--helen={faces / 'helen'}"]
    main([of(runs, "jointnet"), *data, f"--against={of(runs, 'avg')}", f"--output={tmp_path}", "--faces=7"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [f"written: {tmp_path / name}" for name in ("parsing.png", "region_weights.png")]
    assert printed[2].startswith(f"AttributeNet, pooling avg: {of(runs, 'avg')}")
    assert printed[4].startswith(f"JointNet, pooling ssp: {of(runs, 'jointnet')}")
    assert printed[6:] == [f"written: {tmp_path / 'channels.png'}"]

    networks: dict[str, Any] = {name: load_model(of(runs, name)) for name in ("avg", "jointnet")}
    module = CelebADataModule(str(faces / "celeba"), image_size=SIZE, num_workers=0)
    means = mean_over_faces(networks, module.test_dataloader(), 7)
    weights = means["weights"].T
    assert np.array_equal(
        read(tmp_path / "region_weights.png"), region_weights_figure(weights, ATTRIBUTES, networks["jointnet"].regions)
    )
    shown = [strongest_channels(means[f"channels of {name}"]) for name in networks]
    titles = ["\n".join(printed[2:4]), "\n".join(printed[4:6])]
    assert np.array_equal(read(tmp_path / "channels.png"), channels_figure(dict(zip(titles, shown, strict=True))))
    for maps, measures in zip(shown, printed[3:6:2], strict=True):
        share, area = 100 * share_inside(maps, means["face"]), 100 * means["face"].mean()
        assert measures == (
            f"mean entropy {activation_entropy(maps):.2f} of at most 2.58 bits; {share:.0f} % of the activation on "
            f"face and hair ({area:.0f} % of the picture)"
        )


@pytest.mark.parametrize(
    ("name", "expected", "measured"),
    [
        ("segnet", ["parsing.png"], None),
        ("avg", ["channels.png"], False),
        ("ssg", ["channels.png"], True),
        ("ssp", ["channels.png", "region_weights.png"], True),
        ("bbox", ["channels.png", "region_weights.png"], False),
    ],
)
def test_each_network_is_drawn_as_far_as_it_goes(
    runs: Path,
    faces: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    expected: list[str],
    measured: bool | None,
) -> None:
    data = [f"--celeba={faces / 'celeba'}", f"--helen={faces / 'helen'}", "--split=val"]
    main([of(runs, name), *data, f"--output={tmp_path}"])
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    printed = capsys.readouterr().out
    assert ("mean entropy" in printed) == (measured is not None)
    assert ("face and hair" in printed) == bool(measured)


def test_pictures_go_to_the_run_folder_and_have_its_size(
    faces: Path, command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a real training, whose configuration is as the command line writes it."""
    command(
        "fit",
        "--config=quickstart.yaml",
        f"--data.init_args.root={faces}",
        "--data.init_args.faces=[21,11,13]",
        "--data.init_args.masks=[9,5,7]",
        f"--data.init_args.image_size={list(SIZE)}",
        "--model.init_args.width=2",
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.enable_progress_bar=false",
        "--test_after_fit=false",
    )
    run = Path("runs/quickstart/version_0")
    capsys.readouterr()
    main([f"{run}/checkpoints/best.ckpt", f"--celeba={faces / 'celeba'}", f"--helen={faces / 'helen'}"])
    assert "of at most 2.58 bits" in capsys.readouterr().out  # 3 × 2 cells
    names = ("parsing", "region_weights", "channels")
    assert all((tmp_path / run / "figures" / f"{name}.png").is_file() for name in names)
    main([f"{run}/checkpoints/best.ckpt", f"--celeba={faces / 'celeba'}", "--image_size=[64,32]"])
    assert "of at most 3.00 bits" in capsys.readouterr().out  # 4 × 2 cells


def test_a_checkpoint_without_its_run_folder(
    runs: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.ckpt").write_bytes(Path(of(runs, "avg")).read_bytes())
    main(["mine.ckpt", f"--celeba={faces / 'celeba'}", "--faces=1"])
    assert "of at most 7.39 bits" in capsys.readouterr().out  # 14 × 12 cells: the paper's size
    assert Path("figures/channels.png").is_file()


def test_a_network_of_photographs_in_the_wild_sees_such(runs: Path, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    checkpoint.write_bytes(Path(of(runs, "avg")).read_bytes())
    (tmp_path / "config.yaml").write_text("data: {init_args: {images: wild, image_size: [40, 32]}}")
    with pytest.raises(DataNotFoundError, match="no folder with the wild pictures"):
        main([str(checkpoint), f"--celeba={faces / 'celeba'}"])
    (tmp_path / "config.yaml").write_text("data: {")
    with pytest.raises(ConfigurationError, match="is not YAML"):
        main([str(checkpoint), f"--celeba={faces / 'celeba'}"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["missing.ckpt"], CheckpointError, "missing.ckpt does not exist"),
        (["RUNS/avg"], ConfigurationError, "nothing to draw for AttributeNet .*avg.*--celeba"),
        (["RUNS/segnet", "--celeba=FACES/celeba"], ConfigurationError, "nothing to draw for SegNet.*--helen"),
        (["RUNS/ensemble", "--celeba=FACES/celeba"], ConfigurationError, "nothing to draw for EnsembleNet.*members"),
        (["RUNS/avg", "--celeba=nowhere"], DataNotFoundError, "data root nowhere does not exist"),
        (["RUNS/segnet", "--helen=nowhere"], DataNotFoundError, "data root nowhere does not exist"),
        (["RUNS/avg", "--celeba=FACES/celeba", "--faces=0"], ConfigurationError, "faces must be positive, not 0"),
        (["RUNS/avg", "--celeba=FACES/celeba", "--batch_size=0"], ConfigurationError, "batch_size 0 must be positive"),
        (
            ["RUNS/avg", "--celeba=FACES/celeba", "--against=RUNS/segnet"],
            ConfigurationError,
            r"SegNet \(.*segnet.*and AttributeNet",
        ),
        (["RUNS/avg", "--celeba=FACES/celeba", "--against=large.ckpt"], ConfigurationError, "large.ckpt sees 218×178"),
        (["RUNS/avg", "--celeba=FACES/celeba", "--output=file"], ConfigurationError, "cannot write file.channels.png"),
    ],
)
def test_mistakes_are_one_sentence(
    runs: Path,
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("large.ckpt").write_bytes(Path(of(runs, "ssp")).read_bytes())
    arguments = [argument.replace("FACES", str(faces)) for argument in arguments]
    arguments = [
        argument.replace("RUNS", str(runs)) + "/checkpoints/best.ckpt" * ("RUNS" in argument) for argument in arguments
    ]
    with pytest.raises(error, match=message):
        main(arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "large.ckpt"]
