"""SVMs on a trained network's features: fitted once, on the validation split, and kept in one file."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from facelightning.checkpoint import Checkpoint
from facelightning.errors import CheckpointError, ConfigurationError, DivergenceError
from facelightning.facts import DataFacts
from facelightning.labels import HELEN7
from facelightning.metrics import average_precision
from facelightning.models.facetracer import FaceTracer
from facelightning.models.parser import ParserRegions
from facelightning.models.parts import PartCrops
from facelightning.models.pooling import GridPooling, SemanticPooling
from facelightning.models.regions import FaceParts
from facelightning.models.segmentation import Decoder
from facelightning.models.svm_fitting import fit_svms
from facelightning.objectives import DecidedAttributes
from facelightning.tasks import ANet, AttributeNet, EmbeddingNet, FaceTask, IdentityNet, JointNet, SVMNet, load_model
from tests.tasks.tiny import (
    BACKBONE,
    HEIGHT,
    JOINT,
    PARSED,
    QUIET,
    VARIANTS,
    WIDTH,
    Sample,
    assert_equal,
    loader,
    make_trainer,
    predictions,
    samples,
)

pytestmark = QUIET

NAMES = ("Bald", "Male", "Young")
FACTS = DataFacts((HEIGHT, WIDTH), HELEN7, NAMES)


def write(task: FaceTask, path: Path) -> str:
    """A checkpoint of a task as it is."""
    trainer = make_trainer()
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return str(path)


@pytest.fixture
def network(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return write(AttributeNet(width=2).build(FACTS), tmp_path / "avg.ckpt")


class Splits(L.LightningDataModule):
    """Other images to validate than to test, each readable once its stage is set up."""

    def __init__(self, facts: DataFacts = FACTS, *keys: str) -> None:
        super().__init__()
        self.facts, self.keys = facts, keys or ("attributes",)
        self.stages = list[str]()
        self.read = 0

    def setup(self, stage: str) -> None:
        self.stages.append(stage)

    def images(self, count: int) -> list[Sample]:
        return samples(*self.keys, count=count, attributes=3)

    def val_dataloader(self) -> Any:
        assert "validate" in self.stages
        self.read += 1
        return loader(self.images(23))

    def test_dataloader(self) -> DataLoader[Sample]:
        return loader(self.images(14))


def validation(task: FaceTask) -> tuple[Tensor, Tensor]:
    """Features and attributes of the images to validate, from the network itself, as one batch."""
    batch = next(iter(loader(Splits().images(23), 23)))
    with torch.no_grad():
        output, _ = task.eval().predict_batch(batch)
    return output["features"].mean(dim=(2, 3)), batch["attributes"]


@pytest.fixture
def fitted(network: str) -> SVMNet:
    task = SVMNet(network)
    make_trainer().test(task, datamodule=Splits(), verbose=False)
    return task


def test_fits_on_the_validation_split_once(network: str, tmp_path: Path) -> None:
    """And scores the test split; its checkpoint is not fitted again, needs no other file, and scores the same."""
    task, data, trainer = SVMNet(network), Splits(), make_trainer()
    trainer.test(task, datamodule=data, verbose=False)
    assert data.read == 1
    expected = fit_svms(*validation(load_model(network)))
    torch.testing.assert_close(task.network.svms.coefficients, expected.coefficients, rtol=1e-3, atol=1e-5)
    results, path = task.results["test"], tmp_path / "svm.ckpt"
    trainer.save_checkpoint(path)
    Path(network).unlink()

    loaded = load_model(path)
    assert isinstance(loaded, SVMNet)
    assert loaded.settings == task.settings
    assert_equal(predictions(loaded), predictions(task))
    data = Splits()
    trainer.test(loaded, datamodule=data, verbose=False)
    assert (data.read, data.stages) == (0, ["test"])
    assert str(loaded.results["test"]) == str(results)  # an undefined score equals nothing
    assert torch.equal(loaded.network.svms.coefficients, task.network.svms.coefficients)


def test_a_checkpoint_is_restored_before_it_is_fitted(fitted: SVMNet, network: str, tmp_path: Path) -> None:
    path, other, data = write(fitted, tmp_path / "svm.ckpt"), SVMNet(network), Splits()
    make_trainer().test(other, datamodule=data, ckpt_path=path, verbose=False)
    assert data.read == 0
    assert torch.equal(other.network.svms.coefficients, fitted.network.svms.coefficients)
    make_trainer().validate(other, datamodule=data, verbose=False)
    assert other.results["val"]["attributes"]["error"] <= 50


KINDS = [*(("avg", name) for name in ("avg", "bbox", "naive", "ssp+ssg")), ("joint", "ssp")]


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_any_networks_features(kind: tuple[str, str], parser: Path, tmp_path: Path) -> None:
    """The mean of its last map; in a file that is checked before a network is made, as the command line does."""
    torch.manual_seed(0)
    make, parts = {"avg": (AttributeNet, VARIANTS), "joint": (JointNet, JOINT)}[kind[0]]
    settings = dict(parts[kind[1]])
    if kind[0] == "avg" and kind[1] in PARSED:
        settings["regions"] = partial(ParserRegions, checkpoint=str(parser))
    source = write(make(width=2, **settings).build(FACTS), tmp_path / "network.ckpt")
    task = SVMNet(source).build(FACTS)
    batch = next(iter(loader(samples())))
    found = task.network.features(batch["image"], batch["landmarks"])
    expected = predictions(load_model(source))["features"].mean(dim=(2, 3))
    torch.testing.assert_close(found, expected)
    task.network.svms.coefficients = torch.rand(3, expected.shape[1] + 3).double()
    path = write(task, tmp_path / "svm.ckpt")
    SVMNet.check_shapes(Checkpoint.read(path))
    assert_equal(predictions(load_model(path)), predictions(task))


def test_a_vector_of_features_is_taken_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    facts = DataFacts((129, 129), None, NAMES)
    path = write(ANet(width=2, cell=3, views=5).build(facts), tmp_path / "anet.ckpt")
    task, images = SVMNet(path).build(facts), torch.rand(2, 3, 129, 129)
    with torch.no_grad():
        assert torch.equal(task.network.features(images), load_model(path).eval()(images)["features"])
    assert task.network.svms.coefficients.shape == (3, 5 * 16 + 3)


@pytest.mark.parametrize("level", [0, 2])
def test_a_middle_map_in_cells(level: int, tmp_path: Path) -> None:
    """Zhong et al.: what a network that learned identities sees before its last layer; places stay apart."""
    torch.manual_seed(0)
    facts = DataFacts((HEIGHT, WIDTH), identities=(3, 12, 40))
    path = write(EmbeddingNet(width=2, num_features=5).build(facts), tmp_path / "identities.ckpt")
    task = SVMNet(path, level=level, pooling=partial(GridPooling, cells=2))
    trainer = make_trainer()
    data = Splits()
    trainer.test(task, datamodule=data, verbose=False)
    trained = EmbeddingNet.load_from_checkpoint(path)
    given = torch.cat([batch["image"] for batch in data.val_dataloader()])
    with torch.no_grad():
        seen = trained.network.encoder(given)[level].double()
    cells = [part.mean(dim=(2, 3)) for rows in halves(seen, 2) for part in halves(rows, 3)]
    expected = torch.stack(cells, dim=1).flatten(1)
    torch.testing.assert_close(task.network.features(given).double(), expected, rtol=1e-4, atol=1e-5)
    assert task.network.svms.coefficients.shape == (3, 4 * trained.network.encoder.channels[level] + 3)
    trainer.save_checkpoint(tmp_path / "svms.ckpt")
    again = load_model(tmp_path / "svms.ckpt")
    with torch.no_grad():
        assert_equal(again.network(given), task.network(given))
    assert not trained.network.encoder._forward_hooks and not task.network.network.encoder._forward_hooks


def halves(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The two halves of a map, which share the middle line of an odd one, as adaptive pooling has them."""
    size = x.shape[axis]
    return x.narrow(axis, 0, (size + 1) // 2), x.narrow(axis, size // 2, (size + 1) // 2)


def test_only_maps_that_are_there(network: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no level 4: AttributeNetwork has 4 maps, from 0 on"):
        SVMNet(network, level=4).build(FACTS)
    with pytest.raises(ConfigurationError, match="no level -1"):
        SVMNet(network, level=-1).build(FACTS)
    anet = write(ANet(width=2, cell=3).build(DataFacts((129, 129), attributes=NAMES)), tmp_path / "anet.ckpt")
    with pytest.raises(ConfigurationError, match="no level 0: ANetwork has no encoder"):
        SVMNet(anet, level=0).build(DataFacts((129, 129), attributes=NAMES))
    with pytest.raises(ConfigurationError, match="features of ANetwork are a vector, which has no pooling"):
        SVMNet(anet, pooling=GridPooling).build(DataFacts((129, 129), attributes=NAMES))
    with pytest.raises(ConfigurationError, match="SemanticPooling needs regions, which SVMs have not"):
        SVMNet(network, pooling=SemanticPooling).build(FACTS)


def test_svms_are_of_the_data_s_attributes(tmp_path: Path) -> None:
    """Whatever the network has learned: other attributes, or identities; the file knows which they are."""
    torch.manual_seed(0)
    few = write(AttributeNet(width=2).build(replace(FACTS, attributes=("Bald",))), tmp_path / "few.ckpt")
    task = SVMNet(few)
    make_trainer().test(task, datamodule=Splits(), verbose=False)
    assert task.results["test"]["attributes"]["per_attribute"].keys() == set(NAMES)
    loaded = load_model(write(task, tmp_path / "svm.ckpt"))
    assert loaded.facts is not None and loaded.facts.attributes == NAMES
    assert_equal(predictions(loaded), predictions(task))
    identities = IdentityNet(width=2, cell=3).build(DataFacts((129, 129), identities=(3, 12)))
    other = SVMNet(write(identities, tmp_path / "identity.ckpt")).build(DataFacts((129, 129), None, NAMES))
    assert other.network.svms.coefficients.shape == (3, 16 + 3)


def test_a_network_that_also_parses_does_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And batches of masks, which such data has beside the others, are no validation images."""

    class Joint(Splits):
        def val_dataloader(self) -> dict[str, Any]:
            return {"parsing": loader(samples("mask")), "attributes": super().val_dataloader()}

    source = write(JointNet(width=2).build(FACTS), tmp_path / "joint.ckpt")
    monkeypatch.setattr(Decoder, "forward", None)
    task = SVMNet(source)
    make_trainer().test(task, datamodule=Joint(), verbose=False)
    assert task.network.svms.fitted


def test_an_encoder_off_the_shelf(tmp_path: Path) -> None:
    """Built for the data, with weights that travel in the file."""
    torch.manual_seed(0)
    task, data = SVMNet(encoder=BACKBONE), Splits()
    assert task.facts is None
    make_trainer().test(task, datamodule=data, verbose=False)
    loaded = load_model(write(task, tmp_path / "svm.ckpt"))
    assert loaded.facts == task.facts == FACTS
    assert_equal(predictions(loaded), predictions(task))
    make_trainer().test(loaded, datamodule=data, verbose=False)
    assert (data.read, str(loaded.results)) == (1, str(task.results))


@pytest.mark.parametrize("regions", ["landmarks", "parser"])
def test_hand_crafted_features(regions: str, parser: Path, tmp_path: Path) -> None:
    """Of parts around landmarks, or in a parser's regions; the parser travels in the file."""
    source = FaceParts if regions == "landmarks" else partial(ParserRegions, checkpoint=str(parser))
    facts = DataFacts((HEIGHT, WIDTH), attributes=NAMES)
    task = SVMNet(encoder=FaceTracer, image_input=partial(PartCrops, size=8), regions=source)
    make_trainer().test(task, datamodule=Splits(facts), verbose=False)
    parser.unlink()
    path = write(task, tmp_path / "svm.ckpt")
    SVMNet.check_shapes(Checkpoint.read(path))  # without an image
    assert_equal(predictions(load_model(path)), predictions(task))
    batch = next(iter(loader(Splits().images(23), 23)))
    features = task.network.features(batch["image"], batch["landmarks"])
    assert features.shape == (23, 168 * (11 if regions == "landmarks" else 7))
    expected = fit_svms(features, batch["attributes"])
    torch.testing.assert_close(task.network.svms.coefficients, expected.coefficients, rtol=1e-3, atol=1e-5)


def test_nothing_but_the_svms_has_changed(network: str) -> None:
    task = SVMNet(network).build(FACTS)
    before = {name: value.clone() for name, value in task.network.network.state_dict().items()}
    make_trainer().test(task, datamodule=Splits(), verbose=False)
    assert_equal(dict(task.network.network.state_dict()), before)
    assert not any(module.training for module in task.train().network.modules())
    assert not any(parameter.requires_grad for parameter in task.parameters())


def test_scores_are_of_decisions_and_predictions_of_probabilities(fitted: SVMNet) -> None:
    """Where the two disagree about an image."""
    fitted.network.svms.coefficients[:, -2:] = torch.tensor([-2.0, -5.0])  # improbable, and turned around
    batch = next(iter(loader(Splits().images(14), 14)))
    with torch.no_grad():
        output, _ = fitted.predict_batch(batch)
    decisions = output["decisions"]
    expected = (-2 * decisions - 5).sigmoid()
    assert 0 < (decisions > 0).float().mean() < 1
    torch.testing.assert_close(fitted.predict_step(batch, 0)["attributes"], expected)
    objective = fitted.objectives["attributes"]
    assert isinstance(objective, DecidedAttributes)
    known = ~batch["attributes"].isnan()
    losses = nn.functional.binary_cross_entropy(expected[known], batch["attributes"][known])
    torch.testing.assert_close(objective.loss(output, batch), losses)
    make_trainer().test(fitted, datamodule=Splits(), verbose=False)
    for n, name in enumerate(NAMES):
        wrong = ((decisions > 0) != (batch["attributes"] == 1))[known[:, n], n]
        scores = fitted.results["test"]["attributes"]["per_attribute"][name]
        assert scores["error"] == pytest.approx(100 * float(wrong.float().mean()))
        expected_ap = average_precision(decisions[:, n], batch["attributes"][:, n])
        assert scores["ap"] == pytest.approx(100 * float(expected_ap), nan_ok=True)


def test_gradients_pass_through_fitted_svms(fitted: SVMNet) -> None:
    """What was fitted within Lightning's inference mode is a tensor like any other."""
    features = torch.rand(2, 32, requires_grad=True)
    fitted.network.svms(features).sum().backward()
    assert features.grad is not None


@pytest.mark.parametrize("arguments", [{}, {"network": "some.ckpt", "encoder": BACKBONE}])
def test_needs_a_network_or_an_encoder(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="SVMNet needs the checkpoint of a `network`, or an `encoder`"):
        SVMNet(**arguments)


def test_a_network_has_its_own_parts(network: str) -> None:
    for part in ({"regions": FaceParts}, {"image_input": PartCrops}):
        with pytest.raises(ConfigurationError, match="image_input and regions belong to an `encoder`"):
            SVMNet(network, **part)  # type: ignore[arg-type]


def test_refuses_other_tasks(parser: Path) -> None:
    with pytest.raises(CheckpointError, match=r"SVMNet's network: .*parser\.ckpt holds SegNet, not ANet or Attr"):
        SVMNet(str(parser))


def test_what_is_not_fitted_neither_validates_nor_predicts(network: str) -> None:
    trainer, images = make_trainer(), loader(samples("attributes", attributes=3))
    for run in (trainer.validate, trainer.predict):
        with pytest.raises(ConfigurationError, match="the SVMs are not fitted yet: `facelightning test` fits them"):
            run(SVMNet(network).build(FACTS), images)  # type: ignore[operator]  # of two signatures


def test_needs_the_validation_split(network: str) -> None:
    with pytest.raises(ConfigurationError, match="fitted on the validation split: test it with a data module"):
        make_trainer().test(SVMNet(network).build(FACTS), Splits().test_dataloader())
    with pytest.raises(ConfigurationError, match="SVMNet cannot be fitted: the data has no attributes"):
        make_trainer().test(SVMNet(network), datamodule=Splits(DataFacts((HEIGHT, WIDTH), HELEN7), "mask"))
    with pytest.raises(ConfigurationError, match="AttributeNet is built for image size 36×28, but the data has 20×18"):
        make_trainer().test(SVMNet(network), datamodule=Splits(DataFacts((20, 18), None, NAMES)))


def test_needs_scikit_learn_to_fit_alone(fitted: SVMNet, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "facelightning.models.svm_fitting")
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ConfigurationError, match=r"scikit-learn, which is not installed: pip install .*\[svm\]"):
        make_trainer().test(SVMNet(network), datamodule=Splits())
    make_trainer().test(fitted, datamodule=Splits(), verbose=False)


def test_features_that_are_not_finite_are_refused(network: str) -> None:
    task = SVMNet(network).build(FACTS)
    next(task.network.parameters()).fill_(torch.inf)
    with pytest.raises(DivergenceError, match="features of the validation data are not finite"):
        make_trainer().test(task, datamodule=Splits())


def test_fit_is_refused(fitted: SVMNet) -> None:
    with pytest.raises(ConfigurationError, match=r"SVMNet has nothing to learn.*test"):
        make_trainer(2).fit(fitted, loader(samples("attributes", attributes=3)))
