"""A user's own pooling, head, encoder and objective work in a task without a change to the library."""

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from facelightning.callbacks.report import score_table
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.blocks import ConvBlock
from facelightning.models.encoders import Encoder, Input, Tail
from facelightning.models.heads import Head, LinearHead
from facelightning.models.parser import ParserRegions
from facelightning.models.pooling import Pooled, Pooling
from facelightning.models.regions import Regions
from facelightning.objectives import Attributes, Batch, Objective, Output
from facelightning.tasks import AttributeNet, JointNet, SegNet, load_model
from tests.tasks.tiny import (
    FACTS,
    QUIET,
    SSP,
    Watch,
    assert_equal,
    loader,
    make_trainer,
    predictions,
    samples,
    save,
    training_loader,
)

pytestmark = QUIET


class MaxPooling(Pooling):
    """The largest value of a map above a floor; or within each region's cells."""

    def __init__(self, stride: int = 16, floor: float = 0.0, within: bool = False) -> None:
        super().__init__(stride)
        self.floor, self.needs_regions = floor, within

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        return regions if self.needs_regions else ("maximum",)

    def forward(self, features: Tensor, regions: Regions | None) -> Pooled:
        masks = torch.ones_like(features[:, :1])
        if self.needs_regions and regions is not None:
            masks = regions.at(self.stride)
        vectors = (features.unsqueeze(1) * masks.unsqueeze(2)).amax(dim=(3, 4)).clamp(min=self.floor)
        return Pooled(vectors, torch.ones_like(vectors[..., :1], dtype=torch.bool))


class DeepHead(Head):
    """Two layers instead of one, with dropout between them."""

    def __init__(self, channels: int, num_places: int, num_attributes: int, hidden: int = 5) -> None:
        super().__init__(channels, num_places, num_attributes)
        layers = nn.Linear(num_places * channels, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, num_attributes)
        self.layers = nn.Sequential(*layers)

    def forward(self, pooled: Pooled) -> dict[str, Tensor]:
        return {"logits": self.layers(pooled.vectors.flatten(1))}


class WeightedPooling(Pooling):
    """A mean with a weight for each quarter of the channels; the argument is no name of initial weights."""

    def __init__(self, stride: int = 16, weights: list[float] | str = "equal") -> None:
        super().__init__(stride)
        named = {"equal": [1.0] * 4, "rising": [1.0, 2.0, 3.0, 4.0]}
        self.weights = named[weights] if isinstance(weights, str) else weights

    def places(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        return ("image",)

    def forward(self, features: Tensor, regions: Regions | None) -> Pooled:
        quarters = features.mean(dim=(2, 3)).chunk(4, dim=1)
        vectors = torch.cat([w * x for w, x in zip(self.weights, quarters, strict=True)], dim=1).unsqueeze(1)
        return Pooled(vectors, torch.ones_like(vectors[..., :1], dtype=torch.bool))


class ShortEncoder(Encoder):
    """Two maps, of strides 2 and 4."""

    strides = (2, 4)

    def __init__(self, image_input: Input, width: int = 3) -> None:
        super().__init__()
        self.channels = (width, 2 * width)
        self.input = image_input
        self.first, self.second = ConvBlock(image_input.channels, width), ConvBlock(width, 2 * width)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def tail(self) -> Tail:
        return Tail(channels=self.channels[-1], stride=self.strides[-1])

    def forward(self, images: Tensor, regions: Regions | None = None) -> list[Tensor]:
        first = self.first(self.pool(self.input(images, regions)))
        return [first, self.second(self.pool(first))]


OWN: dict[str, dict[str, Any]] = {
    "pooling": {"pooling": MaxPooling},
    "pooling with arguments": {"pooling": partial(MaxPooling, floor=0.25)},
    "head": {"head": partial(DeepHead, hidden=3)},
    "encoder": {"encoder": ShortEncoder},
    "all": {"pooling": partial(MaxPooling, floor=-1.0), "head": DeepHead, "encoder": partial(ShortEncoder, width=2)},
}


def check(task: AttributeNet | JointNet, folder: Path) -> Any:
    """Train a few steps, save, load, and compare all that it says and scores."""
    torch.manual_seed(0)
    watch, batches = Watch(), loader(samples("mask", "attributes"))
    trainer = make_trainer(20, watch)
    trainer.fit(task.build(FACTS), training_loader(task))
    assert watch.losses[-1] < 0.9 * watch.losses[0]
    trainer.save_checkpoint(folder / "own.ckpt")
    loaded = load_model(folder / "own.ckpt")
    assert_equal(predictions(loaded), predictions(task))
    for each in (task, loaded):
        make_trainer().test(each, batches, verbose=False)
    assert repr(loaded.results["test"]) == repr(task.results["test"])
    return loaded


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("kind", [AttributeNet, JointNet])
def test_an_own_part(kind: Any, name: str, tmp_path: Path) -> None:
    loaded = check(kind(width=2, learning_rate=0.05, **OWN[name]), tmp_path)
    assert isinstance(loaded.network.pooling, MaxPooling) == ("pooling" in OWN[name])
    if name == "pooling with arguments":
        assert (loaded.network.pooling.floor, loaded.places) == (0.25, ("maximum",))
        assert predictions(loaded)["attributes"].shape == (4, 40)


def test_an_own_pooling_within_regions(parser: Path, tmp_path: Path) -> None:
    """Those of a frozen parser, or of a joint network's own."""
    pooling = partial(MaxPooling, within=True)
    regions = partial(ParserRegions, checkpoint=str(parser))
    for task in (
        AttributeNet(width=2, pooling=pooling, regions=regions, learning_rate=0.05),
        JointNet(width=2, pooling=pooling, learning_rate=0.05),
    ):
        assert check(task, tmp_path).places == FACTS.label_space.classes  # type: ignore[union-attr]  # has one


def test_an_own_encoder_in_a_parser(tmp_path: Path) -> None:
    """Which then finds the regions of another network: only its own file knows of the encoder."""
    segnet = save(SegNet(width=2, encoder=ShortEncoder).build(FACTS), tmp_path / "segnet.ckpt")
    task = AttributeNet(width=2, learning_rate=0.05, **SSP, regions=partial(ParserRegions, checkpoint=str(segnet)))
    assert isinstance(check(task, tmp_path).network.regions.network.encoder, ShortEncoder)


def test_an_own_part_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(AttributeNet(width=2, pooling=MaxPooling).build(FACTS), tmp_path / "own.ckpt")
    monkeypatch.delattr(f"{__name__}.MaxPooling")
    with pytest.raises(
        CheckpointError, match=r"a part .*test_own_parts\.MaxPooling, which is not known: import it first"
    ):
        load_model(path)


def make_pooling(stride: int) -> Pooling:
    return MaxPooling(stride)


@pytest.mark.parametrize("part", [make_pooling, lambda stride: MaxPooling(stride), partial(make_pooling), MaxPooling()])
def test_what_no_checkpoint_could_name_is_refused_before_training(part: Any) -> None:
    """A part is a class, or a partial of one: else nobody could load what was trained."""
    with pytest.raises(ConfigurationError, match="pooling"):
        AttributeNet(width=2, pooling=part).build(FACTS)


class Spread(MeanMetric):
    """The mean squared distance as a score."""

    def compute(self) -> dict[str, float]:  # type: ignore[override]  # an objective's scores are named
        return {"spread": float(super().compute())}


class Compactness(Objective):
    """All faces have like features: near a centre, which follows them."""

    key, truth = "features", "image"
    centre: Tensor

    def __init__(self, channels: int, weight: float) -> None:
        super().__init__(weight)
        self.register_buffer("centre", torch.zeros(channels))

    def prepare(self, facts: DataFacts) -> None:
        self.centre.fill_(1.0)

    def distances(self, output: Output) -> Tensor:
        return (output["features"].mean(dim=(2, 3)) - self.centre).square().sum(dim=1)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        loss = self.distances(output).mean()
        with torch.no_grad():
            self.centre.lerp_(output["features"].mean(dim=(0, 2, 3)), 0.5)
        return loss

    def sample_loss(self, output: Output, batch: Batch) -> Tensor:
        return self.distances(output)

    def scores(self) -> Metric:
        return Spread()

    def count(self, scores: Metric, output: Output, batch: Batch) -> None:
        scores.update(self.distances(output))

    def scalars(self, scores: Mapping[str, Any]) -> dict[str, float]:
        return {"spread": scores["spread"]}

    def report(self, scores: Mapping[str, Any]) -> list[str]:
        return [f"  features     spread {scores['spread']:.3f}"]

    def predict(self, output: Output) -> Tensor:
        return self.distances(output).unsqueeze(1)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("distance",)


class CompactNet(AttributeNet):
    """An attribute network that learns one thing more."""

    def make(self, facts: DataFacts) -> tuple[AttributeNetwork, list[Objective]]:
        network, objectives = super().make(facts)
        return network, [*objectives, Compactness(network.tail.channels, weight=0.1)]


def test_an_own_objective(tmp_path: Path) -> None:
    """Its loss is in the sum, its scores in the results and the report, its buffer in the checkpoint."""
    torch.manual_seed(0)
    task, watch, batches = CompactNet(width=2, head=LinearHead).build(FACTS), Watch(), loader(samples("attributes"))
    trainer = make_trainer(5, watch)
    trainer.fit(task, batches)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    expected = logged["train/loss_attributes"] + 0.1 * logged["train/loss_features"]
    assert watch.losses[-1] == pytest.approx(expected, rel=1e-6)
    objective = task.objectives["features"]
    assert isinstance(objective, Compactness)
    assert len(objective.centre.unique()) > 3

    tester = make_trainer()
    tester.test(task, batches, verbose=False)
    spread = task.results["test"]["features"]["spread"]
    distances = (predictions(task)["features"].mean(dim=(2, 3)) - objective.centre).square().sum(dim=1)
    assert spread == pytest.approx(float(distances.mean()), rel=1e-5)
    assert float(tester.callback_metrics["test/spread"]) == pytest.approx(spread)
    assert f"spread {spread:.3f}" in score_table("test", task, task.results["test"])
    (predicted,) = make_trainer().predict(task, batches) or []
    torch.testing.assert_close(predicted["features"], distances.unsqueeze(1))  # type: ignore[call-overload]  # a dictionary

    trainer.save_checkpoint(tmp_path / "own.ckpt")
    other = CompactNet(width=2, head=LinearHead).build(FACTS)
    make_trainer().test(other, batches, ckpt_path=tmp_path / "own.ckpt", verbose=False)
    assert repr(other.results) == repr(task.results)
    with pytest.raises(CheckpointError, match="holds CompactNet, which this version does not know"):
        load_model(tmp_path / "own.ckpt")


@pytest.mark.parametrize("weights", [[0.5, 2.0, 3.0, 4.0], "rising"])
def test_an_argument_named_weights_is_kept(weights: Any, tmp_path: Path) -> None:
    pooling = partial(WeightedPooling, weights=weights)
    task = AttributeNet(width=2, pooling=pooling).build(FACTS)
    loaded = load_model(save(task, tmp_path / "task.ckpt"))
    assert_equal(predictions(loaded), predictions(task))


class Options(Attributes):
    """Has options that a checkpoint can hold, or cannot."""

    def __init__(self, names: Sequence[str], weight: float = 1.0, options: Any = None) -> None:
        super().__init__(names, weight)
        self.options = options


def test_nested_arguments_are_kept(tmp_path: Path) -> None:
    options = {"weights": "hello", "sizes": [1, 2]}
    task = AttributeNet(width=2, objective=partial(Options, options=options)).build(FACTS)
    loaded = load_model(save(task, tmp_path / "task.ckpt"))
    assert loaded.objectives["attributes"].options == options


class OptionalHead(DeepHead):
    """Passes on what it does not name itself."""

    def __init__(self, *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, **options)


def test_keywords_that_a_part_only_passes_on_are_kept(tmp_path: Path) -> None:
    task = AttributeNet(width=2, head=partial(OptionalHead, hidden=3)).build(FACTS)
    loaded = load_model(save(task, tmp_path / "task.ckpt"))
    assert loaded.network.head.layers[0].out_features == 3


def test_an_argument_that_no_checkpoint_can_hold_is_refused_before_the_training() -> None:
    with pytest.raises(ConfigurationError, match=r"no checkpoint can hold the setting <Mode\.SOFT: 1>"):
        AttributeNet(width=2, objective=partial(Options, options=Enum("Mode", ["SOFT"]).SOFT))


def test_weights_of_an_objective_and_of_the_joint_task_are_multiplied() -> None:
    task = JointNet(width=2, objective=partial(Attributes, weight=3.0), attribute_weight=2.0).build(FACTS)
    assert task.objectives["attributes"].weight == 6
    with pytest.raises(ConfigurationError, match="must not be negative: -1"):
        Attributes(["Bald"], weight=-1)
