"""The benchmarks run, and are fair: no edge gives a photographed face away."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from facelightning.__main__ import main
from facelightning.commands.export import export
from facelightning.data import CelebA, CelebADataModule
from facelightning.data.celeba import read_celeba
from facelightning.data.files import SPLITS
from facelightning.data.synthetic import write_synthetic
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7
from facelightning.models import ParserRegions
from facelightning.models.lnet import LNet
from facelightning.tasks import AttributeNet, CascadeNet, FaceTask, SegNet
from tests.conftest import SIZE
from tests.tasks.tiny import make_task, make_trainer, save

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scale(faces: Path) -> None:
    scale = script("scale")
    average, semantic = (scale.sent(scale.NETWORKS[name]) for name in ("avg", "ssp"))
    assert semantic["parameters"] - average["parameters"] == 1024 * 40  # one more weight a channel and attribute
    assert average["gradient_bytes"] == 4 * average["parameters"]
    assert average["batch_norms"] == 12  # the basic network's layers
    read = scale.reading(faces / "celeba", SIZE, images=16, rounds=1)
    assert read["images"] == 16
    assert 3 * SIZE[0] * SIZE[1] < read["cached_bytes"] < 4 * SIZE[0] * SIZE[1]
    assert read["files_images_per_processor_second"] > 0 < read["cache_images_per_processor_second"]


def test_loading(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--size", "40", "32", "--workers", "0", "--rounds=3", "--rows=30", "--threads=1"]
    output = tmp_path / "loading.json"
    monkeypatch.setattr(sys, "argv", ["loading.py", f"--celeba={faces / 'celeba'}", *options, f"--output={output}"])
    benchmark = script("loading")
    monkeypatch.setattr(benchmark, "BATCH_SIZE", 4)
    benchmark.main()
    found = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert found["annotations"]["rows"] == 30
    (row,) = found["loading"]
    assert row["peer"]["ratio_spread"] == [1, 1]
    for way in ("files", "cache", "cache of JPEG"):
        low, high = row[way]["ratio_spread"]
        assert 0 < low <= row[way]["ratio"] <= high


def test_augmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "augmentation.json"
    options = ["--size", "40", "32", "--batch-size=4", "--rounds=3", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", ["augmentation.py", *options])
    script("augmentation").main()
    found = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert min(found["milliseconds_an_image"].values()) > 0
    assert found["ratio_spread"][0] <= found["ratio"] <= found["ratio_spread"][1]
    assert found["mean_difference"] < 0.5 and found["largest_difference"] < 6  # noise: no two neighbours are alike


def test_relations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also that nine heads are those of the group head, which it checks."""
    output = tmp_path / "relations.json"
    options = ["--width=2", "--size", "40", "32", "--batch-size=3", "--rounds=1", "--threads=1", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", ["relations.py", *options])
    script("relations").main()
    found = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == found
    times = found["relations"]["loss_alone"], found["relations"]["step"], found["group_heads"]
    for first, second in zip(times, (("plain", "related"), ("plain", "related"), ("separate", "grouped")), strict=True):
        low, middle, high = first["ratio_quartiles"]
        assert 0 < low <= middle <= high
        assert all(first[f"{name}_ms"] > 0 for name in second)


def test_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a CPU, and in this process: the parser, its row, and the hours that the paper's 40,000 batches would take."""
    output = tmp_path / "gpu.json"
    size = ["--faces=5", "--width=2", "--size", "40", "32", "--batch-size=4", "--steps=1", "--rounds=1"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--rows", "ssp", *size, "--accelerator=cpu", f"--output={output}"])
    benchmark = script("gpu")
    monkeypatch.setattr(benchmark, "facelightning", lambda *words: main(words))
    benchmark.main()
    found = json.loads(output.read_text())
    assert list(found) == ["ssp, plain", "ssp, auto"]
    row = found["ssp, plain"]
    assert row["spread"] == 2 * [row["images_a_second"]] and row["peak_memory_gigabytes"] > 0
    assert row["minutes_of_the_papers_training"] == pytest.approx(40_000 * 4 / row["images_a_second"] / 60)
    assert [benchmark.steps_of(row) for row in ("avg", "ssg", "segnet", "jointnet")] == [40_000, 40_000, 75_000, 75_000]


@pytest.fixture(scope="module")
def made() -> ModuleType:
    return script("photo_scenes")


@pytest.fixture
def write(made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, bytes]]:
    """Make scenes of eight drawn faces, with a parser that has learned nothing; returns the files."""
    write_synthetic(tmp_path / "faces", attributes=(4, 1, 3), parsing=(0, 0, 0), seed=0)
    torch.manual_seed(0)
    parser = SegNet(width=2).build(DataFacts(SIZE, HELEN7))
    content: dict[str, Any] = {"state_dict": parser.state_dict()}
    parser.on_save_checkpoint(content)
    torch.save(content, tmp_path / "segnet.ckpt")

    def run(output: str, *options: str, celeba: str = "faces/celeba") -> dict[str, bytes]:
        paths = [
            f"--celeba={tmp_path / celeba}",
            f"--parser={tmp_path / 'segnet.ckpt'}",
            f"--output={tmp_path / output}",
        ]
        monkeypatch.setattr(sys, "argv", ["photo_scenes.py", *paths, "--size", "64", "96", *options])
        made.main()
        root = tmp_path / output
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    return run


def test_photo_scenes(write: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    first = write("scenes")
    assert write("again") == first
    other = write("other", "--seed=1")
    same = {"Anno/list_attr_celeba.txt", "Anno/identity_CelebA.txt", "Eval/list_eval_partition.txt"}
    assert {path for path in first if first[path] == other[path]} == same
    for split, count in zip(SPLITS, (4, 1, 3), strict=True):
        found, photographs = CelebA(tmp_path / "scenes", split, "wild"), CelebA(tmp_path / "faces/celeba", split)
        assert len(found) == count and found[0]["image"].shape == (64, 96, 3)
        for column in ("names", "attributes", "identities"):
            np.testing.assert_array_equal(getattr(found, column), getattr(photographs, column))
        assert found.landmarks is None and found.boxes is not None
        assert (found.boxes >= 0).all() and (found.boxes <= (96, 64, 96, 64)).all()
    write("fewer", "--photographs", "2", "5", "0")
    assert [len(CelebA(tmp_path / "fewer", split, "wild")) for split in ("train", "val")] == [2, 1]


def test_photo_scenes_are_refused_in_one_sentence(write: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    write("scenes")
    (tmp_path / "empty").mkdir()
    for output, options, celeba, reason in (
        ("refused", ["--size", "64", "32"], "faces/celeba", "a scene's sides must be 64 pixels"),
        ("refused", ["--seed=-1"], "faces/celeba", "the seed and the counts not negative"),
        ("refused", [], "nowhere", "does not exist"),
        ("refused", [], "empty", "no list_attr_celeba"),
        ("refused", ["--parser=nothing.ckpt"], "faces/celeba", "nothing.ckpt does not exist"),
        ("scenes", ["--seed=1"], "faces/celeba", "choose another folder"),
    ):
        with pytest.raises(SystemExit, match=f"^photo_scenes: [^\n]*{reason}[^\n]*$"):
            write(output, *options, celeba=celeba)
    assert not (tmp_path / "refused").exists()


def ellipse(made: ModuleType, grey: int, alpha: float = 1) -> Any:
    """A head of one colour."""
    y, x = np.mgrid[:109, :89]
    inside = ((x - 40) / 25) ** 2 + ((y - 60) / 40) ** 2 < 1
    return made.Head(np.full((109, 89, 3), grey, np.uint8), np.float32(alpha * inside))


def test_the_box_is_that_of_the_head(made: ModuleType) -> None:
    sides = []
    for seed in range(30):
        (dark, box), (light, again) = (
            made.make_scene(ellipse(made, grey), [ellipse(made, 100)], (96, 128), np.random.default_rng(seed))
            for grey in (60, 160)  # noise reaches neither end
        )
        y, x = np.nonzero((light.astype(float) - dark).mean(axis=2) > 50)
        np.testing.assert_allclose(box, [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1)
        np.testing.assert_array_equal(box, again)
        sides.append(box[2:] - box[:2])
        assert box.min() >= 0 and box[2] <= 128 and box[3] <= 96
    tall = np.array(sides)[:, 1]
    assert 22 <= tall.min() < 30 and 55 < tall.max() < 0.7 * 96 * 1.05  # a tilted ellipse is less tall than its frame


def test_non_faces_are_cut_alike(made: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pasted = []
    monkeypatch.setattr(made, "paste", lambda *arguments: pasted.append(arguments) or (0, 0, 1, 1))
    face, others = ellipse(made, 60), [ellipse(made, 200, alpha=0.9)] * 40
    made.make_scene(face, others, (96, 128), np.random.default_rng(0))
    *filled, (_, photograph, alpha, *_) = pasted
    assert photograph is face.photograph and alpha is face.alpha
    assert all(each[2] is others[0].alpha and each[1].shape == (109, 89, 3) for each in filled)
    scrambled = [each for each in filled if each[1].std() == 0]  # of one colour, as the photograph
    assert 10 < len(scrambled) < 30


def test_scrambled_phases_keep_colours_and_frequencies(made: ModuleType) -> None:
    rng = np.random.default_rng(0)
    photograph = np.uint8(110 + 3 * np.sin(np.arange(40) / 2)[:, None, None] + rng.integers(0, 20, (40, 31, 3)))
    texture = made.phase_scrambled(photograph, rng)
    before, after = (np.abs(np.fft.rfft2(each, axes=(0, 1))) for each in (photograph, texture))
    np.testing.assert_allclose(after[0, 0] / 1240, before[0, 0] / 1240, atol=1)
    assert np.corrcoef(before[1:].ravel(), after[1:].ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(photograph.ravel(), texture.ravel())[0, 1]) < 0.5


def test_a_cut_is_one_piece_with_soft_edges(made: ModuleType) -> None:
    inside = np.zeros((100, 80), np.float32)
    inside[30:, 20:60], inside[5:10, 5:10] = 1, 1
    soft = made.feathered(inside)
    assert soft[:20].max() == 0 and soft[60, 40] == pytest.approx(1)
    edge = soft[60, 15:25]
    assert (np.diff(edge) >= 0).all() and edge[0] == 0 and 0.3 < edge[4:6].mean() < 0.7 and edge[-1] > 0.99
    assert soft[-1].max() == 0 and (np.diff(soft[94:, 40]) < 0).all()
    assert made.feathered(np.zeros((100, 80), np.float32)).max() == 0


def test_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = partial(LNet, width=3, kernel_size=7, stride=2)
    lnet = AttributeNet(width=2, encoder=encoder).build(DataFacts((64, 64), attributes=ATTRIBUTES))
    describer = AttributeNet(width=2).build(DataFacts(SIZE, attributes=ATTRIBUTES))
    for name, task in (("lnet", lnet), ("describer", describer)):
        written(task, tmp_path / f"{name}.ckpt")
    stages = [str(tmp_path / "lnet.ckpt")] * 2
    written(CascadeNet(stages, str(tmp_path / "describer.ckpt"), least=0.0), tmp_path / "cascade.ckpt")
    words = ["--images=2", "--batch-size=1", "--size=64", "--rounds=2", "--threads=1", "--widths", "2", "--cell=3"]
    output = tmp_path / "faces.json"
    monkeypatch.setattr(
        sys, "argv", ["faces.py", f"--cascade={tmp_path / 'cascade.ckpt'}", f"--output={output}", *words]
    )
    script("faces").main()
    found = json.loads(output.read_text())
    shares, rates = found["cascade"]["shares"], found["cascade"]["images_per_second"]
    assert list(shares) == ["LNet_o", "LNet_s", "describer", "the rest"]
    assert all(0 < share < 1 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1, abs=0.2)  # medians
    (row,) = found["placements"]
    low, high = row["ratio_spread"]
    assert low <= row["ratio"] <= high
    printed = capsys.readouterr().out
    assert f"{median(rates):.1f} images a second" in printed
    assert f"{row['cropping_ms']:.1f}" in printed


def written(task: FaceTask, path: Path) -> None:
    trainer = make_trainer()
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)


def test_exports(faces: Path, tmp_path: Path) -> None:
    """An export that is compared with its own network differs by rounding alone, however the images are batched."""
    benchmark = script("exports")
    task = AttributeNet(width=2).build(DataFacts(SIZE, attributes=ATTRIBUTES)).eval()
    checkpoint = save(task, tmp_path / "avg.ckpt")
    export(str(checkpoint), output=str(tmp_path / "model.onnx"))
    images = next(path for path in (faces / "celeba").rglob("*") if path.suffix in (".jpg", ".png")).parent
    found = benchmark.compare(checkpoint, tmp_path / "model.onnx", images, count=33, rounds=1, threads=1)
    assert list(found) == ["network", "model.onnx"]
    assert found["network"]["differences"] == {"probabilities": 0, "decisions that differ, %": 0}
    assert found["model.onnx"]["differences"]["probabilities"] < 1e-5


def test_predicting_writes_the_same_files_in_both_ways(tmp_path: Path) -> None:
    benchmark = script("predicting")
    checkpoint = save(make_task("jointnet-avg", tmp_path), tmp_path / "joint.ckpt")
    for folder in ("photographs", "plain", "library"):
        (tmp_path / folder).mkdir()
    benchmark.write_photographs(tmp_path / "photographs", 3, 0.5)
    benchmark.run_plain(str(checkpoint), tmp_path / "photographs", tmp_path / "plain", 0)
    benchmark.run_library(str(checkpoint), tmp_path / "photographs", tmp_path / "library", 0)
    assert len(list((tmp_path / "plain").glob("*.json"))) == 3
    with (tmp_path / "library/predictions/predictions.csv").open() as table:
        assert len(table.readlines()) == 4
    masks = [sorted((tmp_path / way).rglob("*.jpg.png")) for way in ("plain", "library")]
    for one, other in zip(*masks, strict=True):
        assert Image.open(one).size == Image.open(other).size == (89, 109)


def test_gating(tmp_path: Path) -> None:
    """All ways are timed, each in its own process, and both forms of SSG are one function."""
    output = tmp_path / "gating.json"
    small = ["--width=2", "--size", "40", "32", "--batch-size=2", "--rounds=2", f"--output={output}"]
    subprocess.run([sys.executable, BENCHMARKS / "gating.py", *small], check=True, capture_output=True)
    benchmark = script("gating")
    for found in json.loads(output.read_text()).values():
        assert list(found["steps"]) == list(found["peak_megabytes"]) == list(benchmark.WAYS)
        assert found["steps"]["Avg. Pooling"]["ratio_quartiles"] == [1, 1, 1]
        assert all(0 < low <= high for low, _, high in (way["ratio_quartiles"] for way in found["steps"].values()))
        assert 0 < found["peak_megabytes"]["Avg. Pooling"] <= found["peak_megabytes"]["SSG, parser run"] < 100
    case = benchmark.Case(tmp_path, 2, SIZE, 2, compiled=False)
    networks = [case.network(way) for way in benchmark.WAYS if way.startswith("SSG, masks stored")]
    networks[1].load_state_dict(networks[0].state_dict())
    first, second = (network(case.images)["attributes"] for network in networks)
    torch.testing.assert_close(first, second)
    subprocess.run([sys.executable, BENCHMARKS / "gating.py", *small, "--ways", "SSG, masks stored"], check=True)
    for found in json.loads(output.read_text()).values():
        assert list(found["steps"]) == ["Avg. Pooling", "SSG, masks stored"]


def test_parts_found(faces: Path, tmp_path: Path) -> None:
    parser = ParserRegions(str(script("gating").Case(tmp_path, 2, SIZE, 2, compiled=False).parser))
    data = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=3, num_workers=0)
    found = script("parts_found").found(parser, data)
    assert list(found) == [*script("parts_found").WINDOWS, "parts elsewhere", "of masks inside"]
    inside = in_all = 0.0
    for batch in data.val_dataloader():
        for masks in parser.parse(batch["image"]).at(1).double().numpy():
            for name in ("eyes", "eyebrows", "mouth", "nose"):
                index = HELEN7.index(name)
                inside += masks[index][masks.argmax(axis=0) == index].sum()
                in_all += masks[index].sum()
    assert found["of masks inside"] == pytest.approx(100 * inside / in_all, abs=0.06)


def test_landmarks_are_where_the_parts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    classes = torch.zeros(2, 109, 89, dtype=torch.long)  # half of CelebA's size; the second image has no parts
    classes[0, 50:60, 30:34] = HELEN7.index("eyes")
    classes[0, 52:56, 50:60] = HELEN7.index("eyes")
    classes[0, 56:64, 40:44] = HELEN7.index("nose")
    classes[0, 70:78, 36:52] = HELEN7.index("mouth")
    classes[0, :10, :10] = HELEN7.index("mouth")  # where no mouth can be
    points, found = script("landmarks").landmarks(classes, HELEN7)
    half = 4 * np.std(np.arange(16))  # two deviations of half pixels
    expected = [[64, 110], [110, 108], [84, 128], [88 - half, 148], [88 + half, 148]]
    np.testing.assert_allclose(points[0], expected)
    assert points[1].tolist() == [[69, 111], [108, 111], [88, 135], [73, 152], [105, 152]]
    assert {name: where.tolist() for name, where in found.items()} == {name: [True, False] for name in found}


def test_landmarks_are_written_for_celeba(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark, celeba = script("landmarks"), tmp_path / "celeba"
    shutil.copytree(faces / "celeba", celeba, ignore=shutil.ignore_patterns("list_landmarks*"))
    file = celeba / "Anno" / "list_landmarks_align_celeba.csv"
    parser = script("gating").Case(tmp_path, 2, SIZE, 2, compiled=False).parser
    words = [f"--celeba={celeba}", f"--parser={parser}", "--size", *map(str, SIZE), f"--output={file}"]
    monkeypatch.setattr(sys, "argv", ["landmarks.py", *words])
    monkeypatch.setattr(benchmark, "BATCH", 7)
    monkeypatch.setattr(benchmark, "landmarks", found_by_colour)
    benchmark.main()
    records = read_celeba(celeba)["all"]
    height, width, _ = records[0]["image"].shape
    assert records.landmarks is not None and len(records.landmarks) > benchmark.BATCH
    for number, five in enumerate(records.landmarks):
        share = share_of(parser, cv2.resize(records[number]["image"], SIZE[::-1], interpolation=cv2.INTER_AREA))
        expected = [100 * share * width / 178 - 0.5, 50 * height / 218 - 0.5]
        np.testing.assert_allclose(five, [expected] * 5, atol=0.051)  # they are written with one decimal
    assert json.loads(capsys.readouterr().out) == dict.fromkeys(benchmark.USUAL, 100.0)
    with pytest.raises(SystemExit, match="exists: remove it"):
        benchmark.main()


def found_by_colour(classes: torch.Tensor, label_space: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Five equal points, whose place tells how much of the image is of another class than the first."""
    shares = (classes != 0).double().mean(dim=(1, 2))
    points = torch.stack([100 * shares, torch.full_like(shares, 50)], dim=1)
    found = torch.ones(len(classes), dtype=torch.bool)
    return points.unsqueeze(1).expand(-1, 5, -1), dict.fromkeys(("left eye", "right eye", "nose", "mouth"), found)


def share_of(parser: Path, image: np.ndarray[Any, Any]) -> float:
    """How much of one image is of another class than the first."""
    masks = ParserRegions(str(parser)).parse(torch.from_numpy(image).movedim(2, 0).unsqueeze(0)).at(1)
    return float((masks.argmax(dim=1) != 0).double().mean())


def test_fast_paths(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "paths.json"
    options = [f"--celeba={faces / 'celeba'}", "--configs", "avg", "--width=2", "--size", "40", "32", "--steps=2"]
    monkeypatch.setattr(sys, "argv", ["fast_paths.py", *options, f"--output={output}"])
    benchmark = script("fast_paths")
    chosen = ("float32", "another seed", "cache")
    monkeypatch.setattr(benchmark, "PATHS", {"avg": {path: benchmark.PATHS["avg"][path] for path in chosen}})
    monkeypatch.setattr(benchmark, "facelightning", lambda words, threads: main(words))
    benchmark.main()
    plain, other, cached = (json.loads(output.read_text())[f"avg, {path}"] for path in chosen)
    assert all(found["resumed to the bit"] for found in (plain, other, cached))
    assert set(plain["difference of the loss"].values()) == {0} != set(other["difference of the loss"].values())
    assert cached == plain


def test_curves(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, picture = tmp_path / "curves.json", tmp_path / "curves.png"
    options = [f"--celeba={faces / 'celeba'}", "--axes", "batch size", "--values", "2", "--making", "2", "21"]
    options += ["--steps=1", "--rounds=1", "--grid", "--widths", "2", "--heights", "64", f"--picture={picture}"]
    monkeypatch.setattr(sys, "argv", ["curves.py", *options, f"--output={output}"])
    benchmark = script("curves")
    monkeypatch.setattr(benchmark, "BASE", benchmark.BASE | {"width": 2, "image height": 64})

    def here(first: str, *words: str) -> str:
        if first == "-m":
            main(words[1:])
            return ""
        _, root, folder, kind = words
        return json.dumps(benchmark.make_cache(Path(root), Path(folder), kind == "true" or kind))

    monkeypatch.setattr(benchmark, "apart", here)
    benchmark.main()
    found = json.loads(output.read_text())
    pixels, jpegs = found["making"]["true"], found["making"]["jpeg"]
    assert [row["images"] for row in pixels] == [2, 21, benchmark.CELEBA]
    assert pixels[1]["megabytes"] > 3 * 109 * 89 * 21 / 1e6 > 3 * jpegs[1]["megabytes"]
    slope = (pixels[1]["make_s"] - pixels[0]["make_s"]) / 19
    assert pixels[2]["make_s_extrapolated"] == pytest.approx(pixels[0]["make_s"] + slope * (benchmark.CELEBA - 2))
    (point,) = found["curves"]["batch size"]
    assert point["batch size"] == 2 and point["images_a_second"] > 0 < point["peak_memory_megabytes"]
    (cell,) = found["grid"]
    low, middle, high = cell["plain loop, OpenCV, channels-last"]
    assert 0 < low <= middle <= high
    assert cv2.imread(str(picture)) is not None
