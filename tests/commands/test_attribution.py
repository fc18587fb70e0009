"""The localization score, on models whose evidence is known, and on a tiny one of each kind."""

import json
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facelightning.commands.attribution import _with_and_without, attribution_scores, main
from facelightning.data.synthetic import draw_face
from facelightning.errors import ConfigurationError
from facelightning.labels import ATTRIBUTE_REGIONS, ATTRIBUTES, HELEN7
from facelightning.models.ensemble import EnsembleNetwork
from facelightning.tasks import AttributeNet, EnsembleNet, FaceTask, JointNet, SegNet

SIZE = (109, 89)
LOCAL = [name for name, regions in ATTRIBUTE_REGIONS.items() if regions]


class Spotlight(nn.Module):
    """Every logit is how much bluer than red the pixel at one landmark is, or all pixels if there is none."""

    def __init__(self, landmark: int | None) -> None:
        super().__init__()
        self.landmark = landmark
        self.scale = nn.Parameter(torch.ones(len(ATTRIBUTES)))

    def forward(self, images: Tensor, landmarks: Tensor) -> Tensor:
        blueness = images[:, 2] - images[:, 0]
        if self.landmark is not None:
            x, y = landmarks[:, self.landmark].round().long().T
            blueness = blueness[torch.arange(len(x)), y, x][:, None, None]
        return blueness.mean(dim=(1, 2))[:, None] * self.scale


class SpotlightTask(FaceTask):
    """A task around it, which weighs one region more than the others."""

    def __init__(self, landmark: int | None, region: str | None = None) -> None:
        super().__init__(None, True, "adagrad", 0.001, 0.0, "constant")
        self.network = Spotlight(landmark)
        self.region = region

    @property
    def regions(self) -> tuple[str, ...] | None:
        return None if self.region is None else HELEN7.classes

    def region_weights(self, batch: Any) -> Tensor:
        one = torch.eye(len(HELEN7))[HELEN7.index(str(self.region))]
        return one[None, :, None].expand(len(batch["image"]), -1, len(ATTRIBUTES))

    def predict_batch(self, batch: Any) -> Any:
        return {"attributes": self.network(batch["image"], batch["landmarks"])}, batch


@pytest.fixture(scope="module")
def nose() -> dict[str, Any]:
    """The scores of a model that sees the tip of the nose."""
    return attribution_scores(SpotlightTask(2, "nose"), faces=3, image_size=SIZE)


@pytest.fixture(scope="module")
def everywhere() -> dict[str, Any]:
    """The scores of a model that sees everything alike."""
    return attribution_scores(SpotlightTask(None), faces=3, image_size=SIZE)


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
    scores = attribution_scores(SpotlightTask(3, "mouth"), faces=4, image_size=(218, 178))
    mouth = [name for name in LOCAL if "mouth" in ATTRIBUTE_REGIONS[name]]
    assert scores["region_preference"] == pytest.approx(100 * len(mouth) / len(LOCAL))
    of = scores["per_attribute"]
    lips = ("Big_Lips", "Mouth_Slightly_Open", "Smiling", "Wearing_Lipstick")
    # a corner of the mouth is its very border: in one picture or another it is on skin
    assert np.mean([of[name]["evidence_inside"] for name in lips]) > 85
    assert of["Goatee"]["evidence_inside"] == pytest.approx(100, abs=1e-3)  # of mouth and skin
    assert of["Narrow_Eyes"]["evidence_inside"] == of["Bald"]["evidence_inside"] == 0


def test_evidence_is_the_mean_of_both_pictures() -> None:
    class OfThoseThatHaveIt(SpotlightTask):
        def predict_batch(self, batch: Any) -> Any:
            outputs, truth = super().predict_batch(batch)
            return {"attributes": outputs["attributes"] * batch["attributes"]}, truth

    of = attribution_scores(OfThoseThatHaveIt(2), faces=1, image_size=SIZE)["per_attribute"]
    assert of["Big_Nose"]["evidence_inside"] == pytest.approx(50, abs=1e-3)  # without it, there is evidence nowhere


def test_evidence_spread_evenly_scores_chance(everywhere: dict[str, Any]) -> None:
    for values in everywhere["per_attribute"].values():
        if values["chance"] is not None:
            assert values["evidence_inside"] == pytest.approx(values["chance"], rel=1e-4)
        assert values["evidence_on_change"] == pytest.approx(values["chance_on_change"], rel=1e-4)
    assert everywhere["evidence_inside"] == pytest.approx(everywhere["chance"], rel=1e-4)
    assert everywhere["region_preference"] is None  # it weighs none


def test_areas_are_those_of_the_drawings() -> None:
    scores = attribution_scores(SpotlightTask(None), faces=2, image_size=(218, 178), seed=5)
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
        found = scores["per_attribute"][name]
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


def test_the_seed_decides() -> None:
    task = SpotlightTask(2)
    first, again, other = (attribution_scores(task, faces=1, image_size=SIZE, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert list(first) == list(again)
    assert first["response"] != other["response"]


def bbox_and_average() -> FaceTask:
    settings = {"width": 2, "pooling": "bbox"}
    members = [AttributeNet(**settings).network, AttributeNet(width=2).network]
    task = EnsembleNet(member_settings=[settings, {"width": 2}])
    task.network = EnsembleNetwork(members)
    return task


@pytest.mark.parametrize(
    "make",
    [
        lambda: AttributeNet(width=2, gating="ssg", pooling="ssp", parser_config={"labels": "helen7", "width": 2}),
        lambda: AttributeNet(width=2, inputs="rgb_masks", parser_config={"labels": "helen7", "width": 2}),
        bbox_and_average,
        lambda: JointNet(width=2, pooling="ssp", labels="helen11"),
    ],
    ids=["ssp and ssg", "naive", "ensemble", "joint"],
)
def test_every_model(make: Any) -> None:
    task = make()
    scores = attribution_scores(task, faces=1, image_size=(40, 48))  # wider than the drawing: padded
    assert not task.training
    assert all(parameter.grad is None for parameter in task.parameters())
    assert 0 < scores["evidence_inside"] < 100
    assert 0 < scores["evidence_on_change"] < 100
    # eleven classes and boxes are not the seven regions in which attributes live
    assert (scores["region_preference"] is None) != (task.regions == HELEN7.classes)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ConfigurationError, match="SegNet predicts no attributes"):
        attribution_scores(SegNet(width=2))
    for wrong in ({"faces": 0}, {"seed": -1}, {"image_size": (0, 4)}):
        with pytest.raises(ConfigurationError, match="positive"):
            attribution_scores(SpotlightTask(None), **wrong)


@pytest.mark.parametrize("joint", [True, False], ids=["joint data", "one data set"])
def test_the_command_knows_the_size_of_the_pictures(
    joint: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(AttributeNet(width=2))
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    trainer.save_checkpoint(checkpoint)
    sizes = "{init_args: {image_size: [40, 32]}}"
    settings = f"{{attributes: {sizes}}}" if joint else "{image_size: [40, 32]}"
    (tmp_path / "run" / "config.yaml").write_text(f"data: {{init_args: {settings}}}\n")
    output = tmp_path / "scores" / "localization.json"
    main([str(checkpoint), "--faces=1", f"--output={output}"])
    written = json.loads(output.read_text())
    assert (written["image_size"], written["faces"], written["seed"]) == ([40, 32], 1, 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["in", *ATTRIBUTES, "mean"]
    assert f"{written['evidence_inside']:.1f} ({written['chance']:5.1f})" in lines[-1]
    if joint:  # what is asked for wins
        main([str(checkpoint), "--faces=1", "--image_size=[24,20]", f"--output={output}"])
        assert json.loads(output.read_text())["image_size"] == [24, 20]
