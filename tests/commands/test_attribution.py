"""The attribution scores, on models whose evidence is known, and on a tiny one of each kind."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facelightning.checkpoint import FORMAT
from facelightning.commands import attribution
from facelightning.commands.attribution import _with_and_without, attribution_scores, main
from facelightning.data.synthetic import CartoonFace, draw_face
from facelightning.errors import ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTE_REGIONS, ATTRIBUTES, HELEN7, HELEN11
from facelightning.models.encoders import MaskedInput
from facelightning.models.gating import SemanticGating
from facelightning.models.heads import LocalizationHead
from facelightning.models.parser import ParserRegions
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import LandmarkBoxes
from facelightning.objectives import Attributes, Batch, Objective, Output
from facelightning.tasks import AttributeNet, EnsembleNet, FaceTask, JointNet, SegNet

SIZE = (109, 89)
FACTS = DataFacts(SIZE, HELEN7, ATTRIBUTES)
LOCAL = [name for name, regions in ATTRIBUTE_REGIONS.items() if regions]


class Spotlight(nn.Module):
    """Every logit is how much bluer than red the pixel at one landmark is, or all pixels if there is none.

    It weighs one region, if there is one, and no other.
    """

    def __init__(self, landmark: int | None, region: str | None) -> None:
        super().__init__()
        self.landmark, self.region = landmark, region
        self.places = () if region is None else HELEN7.classes
        self.scale = nn.Parameter(torch.ones(len(ATTRIBUTES)))

    def forward(self, images: Tensor, landmarks: Tensor) -> dict[str, Tensor]:
        blueness = images[:, 2] - images[:, 0]
        if self.landmark is not None:
            x, y = landmarks[:, self.landmark].round().long().T
            blueness = blueness[torch.arange(len(x)), y, x][:, None, None]
        output = {"attributes": blueness.mean(dim=(1, 2))[:, None] * self.scale}
        if self.region is not None:
            one = torch.eye(len(HELEN7))[HELEN7.index(self.region)]
            output["region_weights"] = one[None, :, None].expand(len(images), -1, len(ATTRIBUTES))
        return output


class SpotlightTask(FaceTask):
    """A task around it."""

    def __init__(self, landmark: int | None, region: str | None = None) -> None:
        super().__init__({"landmark": landmark, "region": region})
        self.build(DataFacts(SIZE, attributes=ATTRIBUTES))

    def make(self, facts: DataFacts) -> tuple[nn.Module, list[Objective]]:
        assert facts.attributes is not None
        return Spotlight(**self.settings), [Attributes(facts.attributes)]

    def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
        return self.network(batch["image"], batch["landmarks"]), batch


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """A face that has been drawn is there: all models are shown the same, and drawing takes most of the time."""
    drawn = dict[tuple[bytes, int, int], CartoonFace]()

    def remembered(attributes: NDArray[np.bool_], *, identity: int, seed: int) -> CartoonFace:
        key = (attributes.tobytes(), identity, seed)
        if key not in drawn:
            drawn[key] = draw_face(attributes, identity=identity, seed=seed)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution, "draw_face", remembered)
        yield


@pytest.fixture(scope="module")
def nose() -> dict[str, Any]:
    """The scores of a model that sees the tip of the nose."""
    return attribution_scores(SpotlightTask(2, "nose"), faces=1, image_size=SIZE)


@pytest.fixture(scope="module")
def everywhere() -> dict[str, Any]:
    """The scores of a model that sees everything alike."""
    return attribution_scores(SpotlightTask(None), faces=2, image_size=(218, 178), seed=5)


def test_evidence_is_where_the_model_looks(nose: dict[str, Any]) -> None:
    of = nose["per_attribute"]
    assert set(of) == set(ATTRIBUTES)
    for name in LOCAL:
        # the tip of the nose is in one region alone
        assert of[name]["evidence_inside"] == pytest.approx(100 * ("nose" in ATTRIBUTE_REGIONS[name]), abs=1e-3)
        assert of[name]["region"] == "nose"
    assert nose["evidence_inside"] == pytest.approx(100 * 2 / 35, abs=1e-3)
    assert nose["region_preference"] == pytest.approx(100 * 2 / 35)  # a big nose and a pointy one
    assert all(of[name]["evidence_inside"] is of[name]["chance"] is None for name in ATTRIBUTES if name not in LOCAL)


def test_a_model_that_looks_at_the_mouth() -> None:
    scores = attribution_scores(SpotlightTask(3, "mouth"), faces=2, image_size=(218, 178), seed=5)
    mouth = [name for name in LOCAL if "mouth" in ATTRIBUTE_REGIONS[name]]
    assert scores["region_preference"] == pytest.approx(100 * len(mouth) / len(LOCAL))
    of = scores["per_attribute"]
    lips = ("Big_Lips", "Mouth_Slightly_Open", "Smiling", "Wearing_Lipstick")
    # a corner of the mouth is its very border: in one image or another it is on skin
    assert np.mean([of[name]["evidence_inside"] for name in lips]) > 85
    assert of["Goatee"]["evidence_inside"] == pytest.approx(100, abs=1e-3)  # of mouth and skin
    assert of["Narrow_Eyes"]["evidence_inside"] == of["Bald"]["evidence_inside"] == 0


def test_evidence_is_the_mean_of_both_images() -> None:
    class OfThoseThatHaveIt(SpotlightTask):
        def predict_batch(self, batch: Batch) -> tuple[Output, Batch]:
            output, truth = super().predict_batch(batch)
            return {"attributes": output["attributes"] * batch["attributes"]}, truth

    of = attribution_scores(OfThoseThatHaveIt(2), faces=1, image_size=SIZE)["per_attribute"]
    assert of["Big_Nose"]["evidence_inside"] == pytest.approx(50, abs=1e-3)  # without it, there is evidence nowhere


def test_evidence_spread_evenly_scores_chance(everywhere: dict[str, Any]) -> None:
    for values in everywhere["per_attribute"].values():
        if values["chance"] is not None:
            assert values["evidence_inside"] == pytest.approx(values["chance"], rel=1e-4)
        assert values["evidence_on_change"] == pytest.approx(values["chance_on_change"], rel=1e-4)
    assert everywhere["evidence_inside"] == pytest.approx(everywhere["chance"], rel=1e-4)
    assert everywhere["region_preference"] is None  # it weighs none


def test_areas_are_those_of_the_drawings(everywhere: dict[str, Any]) -> None:
    for name, labels in {"Big_Nose": [6], "Bangs": [10], "Smiling": [7, 8, 9]}.items():
        regions, changes = [], []
        for number in range(2):
            person = 10**15 + 5 * 10**7 + (ATTRIBUTES.index(name) + 1) * 10**5 + number
            pair = _with_and_without(name, np.random.default_rng([person, 2]))
            faces = [draw_face(attributes, identity=person, seed=person) for attributes in pair]
            area = [face.masks[labels].sum(axis=0, dtype=int) > 127 for face in faces]
            regions.append((area[0] | area[1]).mean())
            changed = np.abs(faces[0].image.astype(int) - faces[1].image).sum(axis=2) > 8
            changes.append(cv2.dilate(changed.astype(np.uint8), np.ones((5, 5))).mean())
        found = everywhere["per_attribute"][name]
        assert found["chance"] == pytest.approx(100 * np.mean(regions), rel=0.02)  # soft edges lie between classes
        assert found["chance_on_change"] == pytest.approx(100 * np.mean(changes), rel=1e-3)


def test_switching_moves_only_what_the_model_sees(nose: dict[str, Any]) -> None:
    of = nose["per_attribute"]
    pale = of["Pale_Skin"]  # paler everywhere, on the nose too
    assert pale["evidence_on_change"] == pytest.approx(100, abs=1e-3)
    assert pale["switch_accuracy"] == 100 and pale["response"] > 0.02
    for name in ("Wearing_Necktie", "Wearing_Hat", "Narrow_Eyes", "Goatee", "Bald"):
        assert of[name]["evidence_on_change"] == of[name]["response"] == of[name]["switch_accuracy"] == 0, name
    assert all(0 < values["chance_on_change"] < 100 for values in of.values())
    assert of["Narrow_Eyes"]["chance_on_change"] < 6 < of["Wearing_Hat"]["chance_on_change"]
    for key in ("response", "switch_accuracy", "evidence_on_change", "chance_on_change"):
        assert nose[key] == pytest.approx(np.mean([values[key] for values in of.values()]))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_pairs_are_two_possible_faces_that_differ(name: str) -> None:
    for seed in range(5):
        has, lacks = _with_and_without(name, np.random.default_rng(seed))
        differ = {ATTRIBUTES[n] for n in np.flatnonzero(has != lacks)}
        flags = dict(zip(ATTRIBUTES, lacks.tolist(), strict=True))
        assert name in differ <= {name, "No_Beard"}
        # a beard that comes off must not leave one of another kind
        assert flags["No_Beard"] or name not in ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")
        assert flags["Male"] or (flags["No_Beard"] and not flags["Bald"] and not flags["Wearing_Necktie"])
    first, second = (draw_face(attributes, identity=1, seed=1).image.astype(int) for attributes in (has, lacks))
    assert (abs(first - second).sum(axis=2) > 8).sum() > 10


def test_the_seed_decides(nose: dict[str, Any]) -> None:
    again, other = (attribution_scores(SpotlightTask(2, "nose"), 1, SIZE, seed) for seed in (1, 5))
    assert nose == again
    assert list(nose) == list(again)
    assert nose["response"] != other["response"]


def description(task: FaceTask) -> str:
    """What a checkpoint keeps of a task that another is made of."""
    about = {"format": FORMAT, "task": type(task).__name__, "settings": task.settings, "facts": FACTS.plain()}
    return json.dumps(about)


def with_parser(**parts: Any) -> AttributeNet:
    """One with a parser inside."""
    regions = partial(ParserRegions, description(SegNet(width=2)))
    return AttributeNet(width=2, regions=regions, **parts).build(FACTS)


def bbox_and_average() -> EnsembleNet:
    bbox = AttributeNet(width=2, pooling=SemanticPooling, head=LocalizationHead, regions=LandmarkBoxes)
    return EnsembleNet([description(bbox), description(AttributeNet(width=2))])


def joint_net(facts: DataFacts) -> JointNet:
    return JointNet(width=2, pooling=SemanticPooling, head=LocalizationHead).build(facts)


@pytest.mark.parametrize(
    ("make", "weighs_the_seven"),
    [
        (partial(with_parser, gate=SemanticGating, pooling=SemanticPooling, head=LocalizationHead), True),
        (partial(with_parser, image_input=MaskedInput), False),
        (bbox_and_average, False),
        (partial(joint_net, FACTS), True),
        # eleven classes are not the seven regions in which attributes live
        (partial(joint_net, DataFacts(SIZE, HELEN11, ATTRIBUTES)), False),
    ],
    ids=["ssp and ssg", "naive", "ensemble", "joint", "joint of eleven classes"],
)
def test_every_model(make: Callable[[], FaceTask], weighs_the_seven: bool) -> None:
    task = make()
    scores = attribution_scores(task, faces=1, image_size=(40, 48))  # wider than the drawing: padded
    assert not task.training
    assert all(parameter.grad is None for parameter in task.parameters())
    assert 0 < scores["evidence_inside"] < 100
    assert 0 < scores["evidence_on_change"] < 100
    assert (scores["region_preference"] is not None) == weighs_the_seven


def test_what_cannot_be_scored() -> None:
    for task in (SegNet(width=2), AttributeNet(width=2)):
        few = DataFacts(SIZE, HELEN7, attributes=ATTRIBUTES[:5])
        with pytest.raises(ConfigurationError, match=f"{type(task).__name__} does not predict the 40 attributes"):
            attribution_scores(task.build(few))
    for wrong in ({"faces": 0}, {"seed": -1}, {"image_size": (0, 4)}):
        with pytest.raises(ConfigurationError, match="positive"):
            attribution_scores(SpotlightTask(None), **wrong)


@pytest.mark.parametrize("joint", [True, False], ids=["JointNet", "AttributeNet"])
def test_the_command_takes_the_size_from_the_checkpoint(
    joint: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = DataFacts((40, 32), HELEN7 if joint else None, ATTRIBUTES)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect((JointNet if joint else AttributeNet)(width=2).build(facts))
    checkpoint = tmp_path / "moved.ckpt"
    trainer.save_checkpoint(checkpoint)
    output = tmp_path / "scores" / "attribution.json"
    main([f"--ckpt_path={checkpoint}", "--faces=1", f"--output={output}"])
    written = json.loads(output.read_text())
    assert (written["image_size"], written["faces"], written["seed"]) == ([40, 32], 1, 1)
    assert written["checkpoint"] == str(checkpoint)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["in", *ATTRIBUTES, "mean"]
    assert f"{written['evidence_inside']:.1f} ({written['chance']:5.1f})" in lines[-1]
    if joint:  # what is asked for wins
        main([f"--ckpt_path={checkpoint}", "--faces=1", "--image_size=[24,20]", f"--output={output}"])
        assert json.loads(output.read_text())["image_size"] == [24, 20]
