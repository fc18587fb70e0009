"""Looking into trained models: measures against loops, means face by face, and the command on tiny models."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

from facelightning.__main__ import main as facelightning
from facelightning.commands.channels import activation_entropy, mean_over_faces, parse, share_inside
from facelightning.commands.visualize import main
from facelightning.data import CelebADataModule
from facelightning.errors import DataNotFoundError
from facelightning.facts import DataFacts
from facelightning.figures import channels_figure, mean_masks_figure, region_weights_figure, strongest_channels
from facelightning.labels import ATTRIBUTES, HELEN7
from facelightning.models import KnownMasks, SemanticPooling
from facelightning.tasks import AttributeNet, JointNet, load_model
from tests.conftest import SIZE
from tests.test_configs import small_overlay

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '\\w+' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found \\d+ module\\(s\\) in eval mode"),
]


@pytest.fixture(scope="module")
def runs(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of every kind of network, each trained for two steps, or made of such."""
    root = tmp_path_factory.mktemp("visualize")
    semantic = ["--model.pooling=SemanticPooling", "--model.head=LocalizationHead"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in ("segnet", "avg", "ssp", "bbox", "ssg", "jointnet"):
            words = ["fit", f"--config={name}.yaml", f"--config={small_overlay(f'{name}.yaml', faces, root)}"]
            assert facelightning([*words, *(semantic if name == "jointnet" else [])]) == 0
        members = ",".join(of(root / "runs", name) for name in ("avg", "ssp"))
        data = [f"--data.root={faces / 'celeba'}", "--data.num_workers=0"]
        assert facelightning(["test", "--config=ssp_ssg.yaml", f"--model.members=[{members}]", *data]) == 0
    return root / "runs"


def of(runs: Path, name: str) -> str:
    return str(runs / name / "version_0" / "checkpoints" / "best.ckpt")


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
    with torch.no_grad():
        output, _ = task.predict_batch(next(iter(data.test_dataloader())))
    features = output["features"]
    assert features.shape == (3, 32, 3, 2)
    assert torch.equal(features, pooled[0])


@pytest.mark.parametrize(
    ("names", "parser", "batch_size"),
    [(["avg", "ssp"], "ssp", 3), (["jointnet", "ssp"], "ssp", 20), (["jointnet", "avg"], "jointnet", 3)],
)
def test_means_are_those_of_single_faces(
    runs: Path, faces: Path, names: list[str], parser: str, batch_size: int
) -> None:
    networks: dict[str, Any] = {name: load_model(of(runs, name)) for name in names}
    data = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=batch_size, num_workers=0)
    means = mean_over_faces(networks, data.test_dataloader(), 7)
    weighs = ["region_weights"] * (names[-1] == "ssp")
    assert means.keys() == {*(f"channels of {name}" for name in names), "masks", "face", *weighs}

    images = torch.stack([data.dataset("test")[index, 0]["image"] for index in range(7)])
    negative = False
    with torch.no_grad():
        for name, task in networks.items():
            total = np.zeros((32, 3, 2))
            for image in images:
                features = task.network(image[None])["features"][0].double().numpy()
                negative |= bool((features < 0).any())
                total += np.where(features > 0, features, 0)
            np.testing.assert_allclose(means[f"channels of {name}"], total / 7, rtol=1e-5, atol=1e-6)
        network = networks[parser].network
        logits = (network if parser == "jointnet" else network.regions.network)(images)["parsing"][-1]
        masks = logits.double().softmax(dim=1).mean(dim=0).numpy()
        np.testing.assert_allclose(means["masks"], masks, atol=1e-6)
        foreground = 1 - masks[0]
        cells = [[foreground[y : y + 16, x : x + 16].mean() for x in (0, 16)] for y in (0, 16, 32)]
        np.testing.assert_allclose(means["face"], cells, rtol=1e-5)
        if weighs:
            expected = torch.stack([network(image[None])["region_weights"][0] for image in images]).mean(dim=0)
            np.testing.assert_allclose(means["region_weights"], expected, rtol=1e-5, atol=1e-6)
    assert negative


def test_masks_of_the_data_are_no_parser(tmp_path: Path) -> None:
    task = AttributeNet(width=2, pooling=SemanticPooling, regions=KnownMasks).build(
        DataFacts(SIZE, attributes=ATTRIBUTES)
    )
    assert parse(task, torch.zeros(1, 3, *SIZE)) is None


def both(faces: Path, folder: Path) -> list[str]:
    """Masks and attributes, whatever the checkpoint saw."""
    parts = {
        part: {"class_path": name, "init_args": {"root": str(faces / root), "batch_size": 4, "num_workers": 0}}
        for part, name, root in (
            ("parsing", "HelenDataModule", "helen"),
            ("attributes", "CelebADataModule", "celeba"),
        )
    }
    content = {"data": {"class_path": "JointDataModule", "init_args": parts}}
    (folder / "both.yaml").write_text(yaml.safe_dump(content))
    return [f"--config={folder / 'both.yaml'}"]


def test_all_that_a_joint_network_allows(
    runs: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = [f"--ckpt_path={of(runs, 'jointnet')}", f"--against={of(runs, 'avg')}"]
    main([*checkpoints, f"--output={tmp_path}", "--faces=7"])
    printed = capsys.readouterr().out.splitlines()
    written = ("parsing.png", "region_weights.png", "mean_masks.png")
    assert printed[:3] == [f"written: {tmp_path / name}" for name in written]
    assert printed[3].startswith(f"AttributeNet, AveragePooling: {of(runs, 'avg')}")
    assert printed[5].startswith(f"JointNet, SemanticPooling: {of(runs, 'jointnet')}")
    assert printed[7:] == [f"written: {tmp_path / 'channels.png'}"]

    networks: dict[str, Any] = {name: load_model(of(runs, name)) for name in ("avg", "jointnet")}
    module = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=4, num_workers=0)
    means = mean_over_faces(networks, module.test_dataloader(), 7)
    weights = means["region_weights"].T
    assert np.array_equal(
        read(tmp_path / "region_weights.png"), region_weights_figure(weights, ATTRIBUTES, networks["jointnet"].places)
    )
    shown = [strongest_channels(means[f"channels of {name}"]) for name in networks]
    assert np.array_equal(read(tmp_path / "mean_masks.png"), mean_masks_figure(means["masks"], HELEN7))
    titles = ["\n".join(printed[3:5]), "\n".join(printed[5:7])]
    assert np.array_equal(read(tmp_path / "channels.png"), channels_figure(dict(zip(titles, shown, strict=True))))
    for maps, measures in zip(shown, printed[4:7:2], strict=True):
        share, area = 100 * share_inside(maps, means["face"]), 100 * means["face"].mean()
        assert measures == (
            f"mean entropy {activation_entropy(maps):.2f} of at most 2.58 bits; {share:.0f} % of the activation on "
            f"face and hair ({area:.0f} % of the image)"
        )


@pytest.mark.parametrize(
    ("name", "expected", "measured"),
    [
        ("segnet", ["parsing.png"], None),
        ("avg", ["channels.png"], False),
        ("ssg", ["channels.png", "mean_masks.png"], True),
        ("ssp", ["channels.png", "mean_masks.png", "region_weights.png"], True),
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
    main([f"--ckpt_path={of(runs, name)}", *both(faces, tmp_path), "--split=val", f"--output={tmp_path / 'made'}"])
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == expected
    printed = capsys.readouterr().out
    assert ("mean entropy" in printed) == (measured is not None)
    assert ("face and hair" in printed) == bool(measured)


def test_images_go_to_the_run_folder_and_have_its_size(
    faces: Path, command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From synthetic data, which the checkpoint alone names; what the command line says wins."""
    small = small_overlay("quickstart.yaml", faces, tmp_path)
    drawn = "--figures.num_images=1"
    command("fit", "--config=quickstart.yaml", f"--config={small}", "--test_after_fit=false", drawn)
    run = Path("runs/quickstart/version_0")
    checkpoint = f"--ckpt_path={run}/checkpoints/best.ckpt"
    before = sorted(Path("runs").rglob("*"))
    figures = {path: path.read_bytes() for path in (run / "figures").iterdir()}
    assert {path.stem for path in figures} == {"parsing", "region_weights", "attributes", "faces"}
    capsys.readouterr()
    command("visualize", checkpoint)
    printed = capsys.readouterr().out
    assert "of at most 2.58 bits" in printed  # 3 × 2 cells
    names = ("parsing", "region_weights", "mean_masks", "channels")
    for name in names:
        assert f"written: {tmp_path / run / 'figures' / 'visualize_test' / name}.png" in printed
    made = run / "figures" / "visualize_test"
    drawn = [made / f"{name}.png" for name in names]
    assert sorted(Path("runs").rglob("*")) == sorted([*before, made, *drawn])  # and no new run
    assert {path: path.read_bytes() for path in figures} == figures  # of the training
    command("visualize", checkpoint, "--data=CelebADataModule", f"--data.root={faces / 'celeba'}", "--faces=3")
    printed = capsys.readouterr().out
    assert "of at most 2.58 bits" in printed
    assert f"replaced: {tmp_path / made}/channels.png" in printed
    command("visualize", checkpoint, "--split=val", "--faces=3", "--data.image_size=[64,32]")
    printed = capsys.readouterr().out
    assert f"written: {tmp_path / run}/figures/visualize_val/channels.png" in printed
    assert "of at most 3.00 bits" in printed  # 4 × 2 cells


def test_a_checkpoint_without_its_run_folder(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.ckpt").write_bytes(Path(of(runs, "avg")).read_bytes())
    main(["--ckpt_path=mine.ckpt", "--faces=1"])
    assert "of at most 2.58 bits" in capsys.readouterr().out  # it knows its size
    assert [path.as_posix() for path in sorted(Path().rglob("*.*"))] == [
        "figures/visualize_test/channels.png",
        "mine.ckpt",
    ]


def test_a_network_of_photographs_in_the_wild_sees_such(runs: Path, tmp_path: Path) -> None:
    content = torch.load(of(runs, "avg"), weights_only=True)
    content["facelightning_config"]["data"]["init_args"]["images"] = "wild"
    torch.save(content, tmp_path / "wild.ckpt")
    with pytest.raises(DataNotFoundError, match="no folder with the wild images"):
        main([f"--ckpt_path={tmp_path / 'wild.ckpt'}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ckpt_path=missing.ckpt"], "missing.ckpt does not exist"),
        (["RUNS/avg", "HELEN"], "nothing to draw for AttributeNet .*avg.*data with attributes"),
        (["RUNS/segnet", "CELEBA"], "nothing to draw for SegNet.*data with masks"),
        (["RUNS/ssp_ssg"], "nothing to draw for EnsembleNet.*members"),
        (
            ["RUNS/avg", "--kinds=[channels,layers]"],
            "layers cannot be drawn for AttributeNet .*possible: channels, neurons",
        ),
        (["RUNS/avg", "--data.root=nowhere"], "data root nowhere does not exist"),
        (["RUNS/segnet", "--data.root=nowhere"], "data root nowhere does not exist"),
        (["RUNS/avg", "--faces=0"], "faces must be positive, not 0"),
        (["RUNS/avg", "--data.batch_size=0"], "batch_size 0 must be positive"),
        (["RUNS/avg", "--against=SEGNET"], r"SegNet \(.*segnet.*and AttributeNet"),
        (["RUNS/avg", "--against=large.ckpt"], "large.ckpt sees 64×48, not 40×32"),
        (["RUNS/avg", "--model.width=3"], "the model is that of .*leave out --model.width=3"),
        (["RUNS/avg", "--output=file"], "cannot write file.channels.png"),
        (["RUNS/segnet", "HELEN", "--data.label_space=helen11"], "helen7.*helen11"),
    ],
)
def test_mistakes_are_one_sentence(
    runs: Path,
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    content = torch.load(of(runs, "ssp"), weights_only=True)
    content["facelightning"]["facts"]["image_size"] = [64, 48]
    torch.save(content, "large.ckpt")
    words = {
        "HELEN": ["--data=HelenDataModule", f"--data.root={faces / 'helen'}", "--data.num_workers=0"],
        "CELEBA": ["--data=CelebADataModule", f"--data.root={faces / 'celeba'}", "--data.num_workers=0"],
        "--against=SEGNET": [f"--against={of(runs, 'segnet')}"],
    }
    words |= {f"RUNS/{name}": [f"--ckpt_path={of(runs, name)}"] for name in ("avg", "segnet", "ssp_ssg")}
    capsys.readouterr()
    line = [word for argument in arguments for word in words.get(argument, [argument])]
    assert facelightning(["visualize", *line]) == 1
    mistake = capsys.readouterr().err.splitlines()[-1]
    assert re.search(f"^facelightning: .*{message}", mistake)
    assert len(mistake) <= len("facelightning: ") + 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "large.ckpt"]
