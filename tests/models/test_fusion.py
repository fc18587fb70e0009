"""Fusion: maps of trained networks side by side, what stays frozen, and one file that holds all."""

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from facelightning.checkpoint import Checkpoint
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7
from facelightning.models.encoders import Input, MaskedInput, PlainInput
from facelightning.models.fusion import Fusion
from facelightning.models.gating import SemanticGating
from facelightning.models.heads import GroupHead
from facelightning.models.lnet import LNet
from facelightning.models.parser import ParserRegions
from facelightning.models.pooling import GridPooling
from facelightning.models.stored_maps import MapStore
from facelightning.models.transformer import SpatialTransformer
from facelightning.tasks import ANet, AttributeNet, FaceTask, JointNet, SegNet, SVMNet, load_model
from tests.tasks.tiny import FACTS, HEIGHT, QUIET, WIDTH, assert_equal, predictions, save, trained

pytestmark = QUIET

HEAD = {"pooling": partial(GridPooling, cells=2), "head": partial(GroupHead, filters=2, width=3)}
OTHER_SIZE = DataFacts((48, 30), HELEN7, ATTRIBUTES)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of networks with encoders of several kinds; the parser has images of another size."""
    folder = tmp_path_factory.mktemp("nets")
    lnet = partial(LNet, width=3, kernel_size=3, stride=4)
    tasks = {
        "lnet": AttributeNet(encoder=lnet).build(FACTS),
        "aligned": AttributeNet(width=2, image_input=partial(SpatialTransformer, width=2)).build(FACTS),
    }
    found = {name: save(task, folder / f"{name}.ckpt") for name, task in tasks.items()}
    task = JointNet(width=2).build(OTHER_SIZE)
    task.network(torch.rand(3, 3, 48, 30))  # statistics of BatchNorm
    found["joint"] = written(task, folder / "joint.ckpt")
    found["segnet"] = save(SegNet(width=2).build(FACTS), folder / "segnet.ckpt")
    return found


def written(task: FaceTask, path: Path) -> Path:
    """A checkpoint of a task as it is."""
    content: dict[str, object] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    torch.save(content, path)
    return path


def images(count: int = 2) -> torch.Tensor:
    return torch.randint(256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8)


def test_maps_are_those_of_the_networks(nets: dict[str, Path]) -> None:
    """Each as its own network computes it, at its own size, on the grid of the coarsest stride."""
    names = ("joint", "lnet", "aligned")
    fusion = Fusion(PlainInput(), frozen=[str(nets[name]) for name in names[:2]], tuned=[str(nets["aligned"])]).eval()
    assert fusion.channels == (16 + 8 + 16,) and fusion.strides == (16,)
    seen = images()
    (found,) = fusion(seen)
    assert found.shape == (2, 40, 3, 2)
    joint, lnet, aligned = (load_model(nets[name]).network.encoder for name in names)
    resized = interpolate(seen / 255, (48, 30), mode="bilinear", antialias=True).clamp(0, 1)
    (first, second, third) = (joint(resized)[-1], lnet(seen)[-1], aligned(seen)[-1])
    assert [tuple(each.shape[-2:]) for each in (first, second, third)] == [(6, 4), (3, 2), (5, 4)]
    first, third = (adaptive_avg_pool2d(each, (3, 2)) for each in (first, third))
    torch.testing.assert_close(found, torch.cat([first, second, third], dim=1))


def test_frozen_networks_stay_and_tuned_ones_learn(nets: dict[str, Path], tmp_path: Path) -> None:
    """Also their BatchNorm; and one file is enough to predict, and to train again."""
    copies = {name: tmp_path / f"{name}.ckpt" for name in ("segnet", "lnet")}
    for name, path in copies.items():
        path.write_bytes(nets[name].read_bytes())
    before = {name: load_model(path).network.encoder.state_dict() for name, path in copies.items()}
    encoder = partial(Fusion, frozen=[str(copies["segnet"])], tuned=[str(copies["lnet"])])
    task = AttributeNet(encoder=encoder, **HEAD).build(FACTS)
    trainer = trained(task, 2)
    frozen, tuned = task.network.encoder.nets
    assert tuned.training and not frozen.training
    assert_equal(frozen.encoder.state_dict(), before["segnet"])
    after = tuned.encoder.state_dict()
    moved = {key for key, value in before["lnet"].items() if not torch.equal(after[key], value)}
    assert moved == before["lnet"].keys() - {"input.normalize.mean", "input.normalize.std"}
    path = tmp_path / "fused.ckpt"
    trainer.save_checkpoint(path)
    for copy in copies.values():
        copy.unlink()
    again = load_model(path)
    assert_equal(predictions(again), predictions(task))
    assert not any(p.requires_grad for p in again.network.encoder.nets[0].parameters())
    kept = json.loads(Checkpoint.read(path).settings["encoder"]["init_args"]["frozen"][0])
    assert kept["facts"] == DataFacts((HEIGHT, WIDTH)).plain()  # no names, no identities


def test_what_is_fused_is_fused_again_fitted_and_tuned(nets: dict[str, Path], tmp_path: Path) -> None:
    encoder = partial(Fusion, frozen=[str(nets["lnet"]), str(nets["segnet"])])
    first = AttributeNet(encoder=encoder, **HEAD).build(FACTS)
    path = written(first, tmp_path / "first.ckpt")
    second = AttributeNet(encoder=encoder, **HEAD, weights=str(path)).build(FACTS)
    assert_equal(second.network.state_dict(), first.network.state_dict())
    nested = AttributeNet(encoder=partial(Fusion, frozen=[str(path)])).build(FACTS)
    seen = images()
    torch.testing.assert_close(nested.eval().network.encoder(seen)[-1], first.eval().network.encoder(seen)[-1])
    assert SVMNet(encoder=encoder).build(FACTS).settings["encoder"] == first.settings["encoder"]
    joint = JointNet(encoder=encoder).build(FACTS)
    assert joint.settings["encoder"] == first.settings["encoder"]


def test_a_gate_keeps_the_grid(nets: dict[str, Path]) -> None:
    encoder = partial(Fusion, frozen=[str(nets["segnet"]), str(nets["lnet"])])
    regions = partial(ParserRegions, checkpoint=str(nets["segnet"]))
    task = AttributeNet(encoder=encoder, gate=SemanticGating, regions=regions).build(FACTS)
    output = task(images())
    assert output["features"].shape == (2, 24, 3, 2)
    output["attributes"].sum().backward()
    learning = {name.split(".")[1] for name, p in task.network.named_parameters() if p.grad is not None}
    assert learning == {"gate", "classifier"}


def test_gradients_reach_the_image(nets: dict[str, Path], tmp_path: Path) -> None:
    """Evidence is measured by them; stored maps have none."""
    for store in (None, str(tmp_path / "maps.sqlite")):
        fusion = Fusion(PlainInput(), frozen=[str(nets["segnet"])], store=store)
        seen = (images() / 255).requires_grad_()
        fusion(seen.detach())  # stored now, if anywhere
        fusion(seen)[-1].sum().backward()
        assert seen.grad is not None and seen.grad.abs().sum() > 0


def test_stored_maps_are_what_was_computed(nets: dict[str, Path], tmp_path: Path) -> None:
    """To the bit; a flipped image and other weights have maps of their own; a checkpoint knows no store."""
    path = tmp_path / "new" / "maps.sqlite"
    encoder = partial(Fusion, frozen=[str(nets["segnet"]), str(nets["joint"])])
    plain = AttributeNet(encoder=encoder, **HEAD).build(FACTS).network.encoder
    task = AttributeNet(encoder=partial(encoder, store=str(path)), **HEAD).build(FACTS)
    stored, seen = task.network.encoder, images(3)
    expected, flipped = plain(seen)[-1], plain(seen.flip(3))[-1]
    first = stored(seen)[-1]
    assert_equal(first, expected)
    computed = []
    for net in stored.nets:
        net.encoder.register_forward_hook(lambda _, inputs, __: computed.append(len(inputs[0])))
    assert_equal(stored(seen[[2, 0, 2]])[-1], expected[[2, 0, 2]])
    assert not computed
    torch.testing.assert_close(stored(torch.cat([seen, seen.flip(3)]))[-1], torch.cat([expected, flipped]))
    assert computed == [3, 3]
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(stored(seen)[-1], plain(seen)[-1])
        assert_equal(stored(seen)[-1], plain(seen)[-1])
    assert_equal(stored(seen)[-1], expected)
    other = {name: value + 1 for name, value in plain.state_dict().items()}
    for fusion in (plain, stored):
        fusion.load_state_dict(other)
    assert_equal(stored(seen)[-1], plain(seen)[-1])
    again = load_model(written(task, tmp_path / "task.ckpt"))
    path.unlink()
    found = again.network.encoder(seen)[-1]
    assert not path.exists()
    assert_equal(found, stored(seen)[-1])
    wide, high = (MapStore(path).maps("", torch.zeros(1, 3, *size), torch.clone) for size in ((2, 4), (4, 2)))
    assert (wide.shape[-2:], high.shape[-2:]) == ((2, 4), (4, 2))  # the same bytes
    path.write_text("no such file" * 999)
    with pytest.raises(ConfigurationError, match=r"maps.sqlite cannot be used \(file is not a database\): delete it"):
        stored(seen)


@pytest.mark.parametrize(
    "damage",
    [
        "type = 'foo'",
        "type = 'int32'",
        "shape = '9 9'",
        "numbers = zeroblob(length(numbers))",
        "numbers = NULL",
        "digest = NULL",
    ],
)
def test_a_damaged_map_is_an_error(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store, seen = MapStore("~/maps.sqlite"), images()
    store.maps("", seen, torch.clone)
    with closing(sqlite3.connect(tmp_path / "maps.sqlite")) as file, file:
        file.execute(f"UPDATE maps SET {damage}")
    with pytest.raises(ConfigurationError, match=r"maps.sqlite cannot be used \(a map in it is damaged\): delete it"):
        store.maps("", seen, torch.clone)


def test_what_cannot_be_fused_is_refused(nets: dict[str, Path], tmp_path: Path) -> None:
    one = str(nets["lnet"])
    with pytest.raises(ConfigurationError, match="`frozen` and `tuned` must name"):
        Fusion(PlainInput())
    with pytest.raises(ConfigurationError, match="`frozen` and `tuned` must be lists"):
        Fusion(PlainInput(), frozen=one)
    other: Input
    for other in (MaskedInput(7), SpatialTransformer()):
        with pytest.raises(ConfigurationError, match="leave out `image_input`"):
            Fusion(other, frozen=[one])
    with pytest.raises(CheckpointError, match=r"Fusion: checkpoint none.ckpt does not exist; train one"):
        Fusion(PlainInput(), frozen=[one], tuned=["none.ckpt"])
    regions = partial(ParserRegions, checkpoint=str(nets["segnet"]))
    gated = AttributeNet(width=2, gate=SemanticGating, regions=regions).build(FACTS)
    with pytest.raises(CheckpointError, match=r"encoder of .*gated.ckpt may need regions"):
        Fusion(PlainInput(), frozen=[str(written(gated, tmp_path / "gated.ckpt"))])
    other_kind = ANet(width=1, cell=3).build(DataFacts((129, 129), attributes=ATTRIBUTES))
    with pytest.raises(CheckpointError, match=r"anet.ckpt holds ANet, whose network has no encoder"):
        Fusion(PlainInput(), tuned=[str(written(other_kind, tmp_path / "anet.ckpt"))])
