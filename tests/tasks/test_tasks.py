"""The tasks with a real Trainer on tiny pictures: training, scores, checkpoints from anywhere, and clear refusals."""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adagrad, AdamW
from torch.utils.data import DataLoader

from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.labels import ATTRIBUTES, HELEN7, IGNORE_INDEX
from facelightning.models.attributes import Parser
from facelightning.tasks import AttributeNet, EnsembleNet, FaceTask, JointNet, SegNet, load_model
from facelightning.tasks.base import Outputs, Scoring

HEIGHT, WIDTH = 36, 28
NAN = float("nan")
pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The '\\w+' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found \\d+ module\\(s\\) in eval mode"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
]
VARIANTS: dict[str, dict[str, Any]] = {
    "avg": {},
    "spp": {"pooling": "spp"},
    "ssp": {"pooling": "ssp"},
    "ssg": {"gating": "ssg"},
    "symbiotic": {"gating": "symbiotic"},
    "naive": {"inputs": "rgb_masks"},
    "ssp+ssg": {"pooling": "ssp", "gating": "ssg"},
}
KINDS = ("segnet", *(f"attributenet-{name}" for name in VARIANTS), "jointnet-avg", "jointnet-ssp")

Sample = dict[str, Any]


def samples(*keys: str, count: int = 4, classes: int = 7) -> list[Sample]:
    """Random pictures whose truth can be seen: masks are quadrants of other colours, attributes are brightness."""
    generator = torch.Generator().manual_seed(count)
    made = []
    for number in range(count):
        mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
        top, left = (int(torch.randint(4, 20, (), generator=generator)) for _ in range(2))
        mask[top:], mask[:, left:] = 1 + number % (classes - 1), 2
        mask[:2] = IGNORE_INDEX
        image = torch.randint(40, (3, HEIGHT, WIDTH), generator=generator) + 30 * mask.clamp(max=classes)
        attributes = torch.randint(2, (40,), generator=generator).float()
        attributes[number] = NAN
        everything = {"image": image.to(torch.uint8), "mask": mask, "attributes": attributes, "name": f"{number}.jpg"}
        made.append({key: everything[key] for key in ("image", *keys, "name")})
    return made


def loader(of: list[Sample], batch_size: int = 4) -> DataLoader[Sample]:
    return DataLoader(of, batch_size=batch_size)  # type: ignore[arg-type]  # a list serves as a data set


def training_loader(task: FaceTask) -> DataLoader[Sample]:
    """One batch of what the task learns from."""
    parsing, attributes = samples("mask"), samples("attributes")
    if isinstance(task, JointNet):
        return loader([{"parsing": p, "attributes": a} for p, a in zip(parsing, attributes, strict=True)])
    return loader(parsing if isinstance(task, SegNet) else attributes)


class Watch(L.Callback):
    """Keeps the loss and the learning rate of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def make_trainer(steps: int = 1, *callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def trained(task: FaceTask, steps: int = 1) -> L.Trainer:
    trainer = make_trainer(steps)
    trainer.fit(task, training_loader(task))
    return trainer


def save(task: FaceTask, path: Path) -> Path:
    """Train a step, so that nothing has its initial value, and write a checkpoint."""
    trained(task).save_checkpoint(path)
    return path


def save_again(task: FaceTask, path: Path) -> Path:
    """Write a checkpoint of a task as it is."""
    trainer = make_trainer()
    trainer.validate(task, loader(samples("mask", "attributes")), verbose=False)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def parser(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return save(SegNet(width=2), tmp_path / "parser.ckpt")


def make_task(kind: str, parser: Path, **settings: Any) -> FaceTask:
    torch.manual_seed(0)
    name, _, variant = kind.partition("-")
    if name == "segnet":
        return SegNet(width=2, **settings)
    if name == "jointnet":
        return JointNet(pooling=variant, width=2, **settings)  # type: ignore[arg-type]
    checkpoint = None if variant in ("avg", "spp") else str(parser)
    return AttributeNet(**VARIANTS[variant], parser=checkpoint, width=2, **settings)


def regions(task: FaceTask) -> Parser:
    """The parser within an attribute network."""
    parser = task.network.get_submodule("parser")
    assert isinstance(parser, Parser)
    return parser


def predictions(task: FaceTask) -> list[Tensor]:
    """The network's raw outputs in evaluation mode."""
    images = torch.stack([sample["image"] for sample in samples("mask")])
    with torch.no_grad():
        output = task.eval().network(images)
    return [output] if isinstance(output, Tensor) else list(torch.utils._pytree.tree_leaves(output))


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


class TestTraining:
    @pytest.mark.parametrize("kind", KINDS)
    def test_loss_falls_on_one_batch(self, kind: str, parser: Path) -> None:
        task, watch = make_task(kind, parser, learning_rate=0.01), Watch()
        make_trainer(20, watch).fit(task, training_loader(task))
        assert len(watch.losses) == 20
        assert watch.losses[-1] < 0.8 * watch.losses[0]

    @pytest.mark.parametrize("kind", KINDS)
    def test_logs_the_weighted_sum(self, kind: str, parser: Path) -> None:
        weights = {"parsing_weight": 0.5, "attribute_weight": 3.0} if "jointnet" in kind else {}
        task = make_task(kind, parser, **weights)
        logged = {name: float(value) for name, value in trained(task).callback_metrics.items()}
        total = sum(
            weight * logged.pop(f"train/loss_{part}", 0.0)
            for part, weight in zip(("parsing", "attributes"), weights.values() or (1, 1), strict=True)
        )
        assert logged == {"train/loss": pytest.approx(total, rel=1e-6)}

    def test_parser_is_untouched(self, parser: Path) -> None:
        task = make_task("attributenet-ssp", parser, learning_rate=1.0, weight_decay=1.0)
        before = [value.clone() for value in regions(task).state_dict().values()]
        trained(task, steps=3)
        assert_equal(list(regions(task).state_dict().values()), before)

    def test_parser_is_the_trained_segnet(self, parser: Path) -> None:
        task, segnet = make_task("attributenet-ssp", parser), load_model(parser)
        assert_equal(list(regions(task).network.state_dict().values()), list(segnet.network.state_dict().values()))

    def test_what_the_data_lacks_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match=r"SegNet cannot learn parsing.*image, attributes"):
            make_trainer().fit(SegNet(width=2), loader(samples("attributes")))

    def test_jointnet_refuses_a_single_data_set(self) -> None:
        with pytest.raises(ConfigurationError, match="JointDataModule"):
            make_trainer().fit(JointNet(width=2), loader(samples("mask", "attributes")))

    def test_masks_of_another_label_space_are_an_error(self) -> None:
        class Helen11(L.LightningDataModule):
            labels = "helen11"

            def train_dataloader(self) -> DataLoader[Sample]:
                return loader(samples("mask", classes=11))

        with pytest.raises(ConfigurationError, match=r"parses helen7.*Helen11 gives masks of helen11"):
            make_trainer().fit(SegNet(labels="helen7", width=2), datamodule=Helen11())
        make_trainer().fit(SegNet(labels="helen11", width=2), datamodule=Helen11())

    def test_ssp_needs_a_parser(self) -> None:
        with pytest.raises(ConfigurationError, match=r"pooling ssp needs a trained parser.*SegNet"):
            AttributeNet("ssp", width=2)

    def test_avg_refuses_a_parser(self, parser: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"pooling avg uses no parser.*parser\.ckpt"):
            AttributeNet("avg", parser=str(parser), width=2)


class TestOptimizer:
    @pytest.mark.parametrize("kind", KINDS)
    def test_defaults_are_the_papers(self, kind: str, parser: Path) -> None:
        optimizer = make_task(kind, parser).configure_optimizers()
        assert isinstance(optimizer, Adagrad)
        assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.001, 0.0005)]

    def test_adamw(self, parser: Path) -> None:
        task = make_task("segnet", parser, optimizer="adamw", learning_rate=0.003, weight_decay=0.02)
        optimizer = task.configure_optimizers()
        assert isinstance(optimizer, AdamW)
        assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.003, 0.02)]

    @pytest.mark.parametrize("kind", KINDS)
    def test_has_all_but_the_frozen_parameters(self, kind: str, parser: Path) -> None:
        task = make_task(kind, parser)
        optimizer = task.configure_optimizers()
        assert isinstance(optimizer, Adagrad)
        optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
        names = {name for name, p in task.network.named_parameters() if id(p) not in optimized}
        assert names == {name for name, _ in task.network.named_parameters() if name.startswith("parser.")}
        assert bool(names) == (kind.startswith("attributenet") and not kind.endswith(("avg", "spp")))

    @pytest.mark.parametrize("optimizer", ["adagrad", "adamw"])
    def test_one_cycle_spans_the_training(self, optimizer: str, parser: Path) -> None:
        settings = {"optimizer": optimizer, "schedule": "one_cycle", "learning_rate": 0.01}
        task, watch = make_task("segnet", parser, **settings), Watch()
        make_trainer(20, watch).fit(task, training_loader(task))
        assert watch.rates[0] == pytest.approx(0.01 / 25)
        assert watch.rates[round(0.3 * 20) - 1] == max(watch.rates) == pytest.approx(0.01)
        assert watch.rates[-1] < 1e-6


class TestScoring:
    @staticmethod
    def outputs_and_truth(count: int = 7) -> tuple[Outputs, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        parsing = [torch.randn(count, 7, *size, generator=generator) for size in ((2, 2), (4, 3), (8, 6))]
        mask = torch.randint(7, (count, 8, 6), generator=generator)
        for number in range(count):
            mask[number, :number] = IGNORE_INDEX  # another count of pixels in every picture
        attributes = torch.randint(2, (count, 40), generator=generator).float()
        attributes[torch.rand(count, 40, generator=generator) < 0.3] = NAN
        logits = torch.randn(count, 40, generator=generator)
        return Outputs(parsing=parsing, attributes=logits), {"mask": mask, "attributes": attributes}

    @staticmethod
    def part(outputs: Outputs, truth: Mapping[str, Tensor], chosen: slice) -> tuple[Outputs, dict[str, Tensor]]:
        parsing = [logits[chosen] for logits in outputs["parsing"]]
        return Outputs(parsing=parsing, attributes=outputs["attributes"][chosen]), {
            key: value[chosen] for key, value in truth.items()
        }

    def test_does_not_depend_on_batches(self) -> None:
        everything = self.outputs_and_truth()
        whole, parts = Scoring(HELEN7, True), Scoring(HELEN7, True)
        whole.update(*everything)
        parts.update(*self.part(*everything, slice(0, 3)))
        parts.update(*self.part(*everything, slice(3, 7)))
        (losses, scores), (other_losses, other_scores) = whole.compute(), parts.compute()
        assert losses == pytest.approx(other_losses, rel=0, abs=1e-6)
        assert losses.keys() == {"parsing", "attributes"}
        assert flat(scores) == pytest.approx(flat(other_scores), rel=0, abs=1e-6, nan_ok=True)

    def test_losses_are_the_means_of_the_samples_own(self) -> None:
        outputs, truth = self.outputs_and_truth()
        scoring = Scoring(HELEN7, True)
        scoring.update(outputs, truth)
        parsing, attributes = [], []
        for mask, targets, logits, *scales in zip(
            truth["mask"], truth["attributes"], outputs["attributes"].double(), *outputs["parsing"], strict=True
        ):
            loss = 0.0
            for scale in scales:
                resized = F.interpolate(mask[None, None].double(), scale.shape[-2:], mode="nearest-exact")[0, 0].long()
                log_probabilities = scale.double().log_softmax(dim=0)
                pixels = [
                    -float(log_probabilities[label, i, j])
                    for i, row in enumerate(resized.tolist())
                    for j, label in enumerate(row)
                    if label != IGNORE_INDEX
                ]
                loss += sum(pixels) / len(pixels)
            parsing.append(loss)
            entries = [
                math.log1p(math.exp(-score if target else score))
                for score, target in zip(logits.tolist(), targets.tolist(), strict=True)
                if target == target
            ]
            attributes.append(sum(entries) / len(entries))
        losses, _ = scoring.compute()
        assert losses == pytest.approx({"parsing": sum(parsing) / 7, "attributes": sum(attributes) / 7}, abs=1e-6)

    def test_starts_afresh(self) -> None:
        everything = self.outputs_and_truth()
        scoring = Scoring(HELEN7, True)
        scoring.update(*everything)
        scoring.compute()
        scoring.update(*self.part(*everything, slice(0, 3)))
        other = Scoring(HELEN7, True)
        other.update(*self.part(*everything, slice(0, 3)))
        assert flat(scoring.compute()[1]) == pytest.approx(flat(other.compute()[1]), nan_ok=True)

    @pytest.mark.parametrize("kind", KINDS)
    def test_evaluation_does_not_depend_on_batches(self, kind: str, parser: Path) -> None:
        task = make_task(kind, parser)
        trained(task, steps=5)
        task.double()  # else scores that are nearly equal change places with the rounding of a CPU
        logged = []
        for batch_size in (7, 3):
            trainer = make_trainer()
            trainer.validate(task, loader(samples("mask", "attributes", count=7), batch_size), verbose=False)
            logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        assert logged[0] == pytest.approx(logged[1], rel=0, abs=1e-5)
        parsing = {"val/loss_parsing", "val/mean_iou", "val/mean_f1", "val/overall_f1", "val/iou_background"}
        attributes = {"val/loss_attributes", "val/error", "val/mean_ap", "val/balanced_accuracy"}
        expected = {"segnet": parsing, "attributenet": attributes, "jointnet": parsing | attributes}[kind.split("-")[0]]
        assert logged[0].keys() - {f"val/iou_{name}" for name in HELEN7.classes[1:]} == expected | {"val/loss"}

    def test_total_is_weighted(self, parser: Path) -> None:
        task, trainer = make_task("jointnet-avg", parser, parsing_weight=0.5, attribute_weight=3.0), make_trainer()
        trainer.validate(task, loader(samples("mask", "attributes")), verbose=False)
        losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
        expected = 0.5 * losses["val/loss_parsing"] + 3 * losses["val/loss_attributes"]
        assert losses["val/loss"] == pytest.approx(expected, rel=1e-6)

    def test_jointnet_scores_each_data_set_by_what_it_knows(self, parser: Path) -> None:
        task, trainer = make_task("jointnet-ssp", parser), make_trainer()
        trainer.test(task, [loader(samples("mask", count=5)), loader(samples("attributes", count=6))], verbose=False)
        apart = dict(task.results["test"])
        trainer.test(task, loader(samples("mask", count=5)), verbose=False)
        assert flat(task.results["test"]) == pytest.approx(flat({"parsing": apart["parsing"]}), nan_ok=True)
        trainer.test(task, loader(samples("attributes", count=6)), verbose=False)
        assert flat(task.results["test"]) == pytest.approx(flat({"attributes": apart["attributes"]}), nan_ok=True)

    def test_nothing_to_score_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match="val data has nothing"):
            make_trainer().validate(SegNet(width=2), loader(samples("attributes")), verbose=False)


class TestPrediction:
    @pytest.mark.parametrize("kind", KINDS)
    def test_says_what_the_task_knows(self, kind: str, parser: Path) -> None:
        """Also what the batch, here with masks alone, holds no truth for."""
        task = make_task(kind, parser)
        trained(task, steps=5)
        (batch,) = make_trainer().predict(task, loader(samples("mask"))) or []
        assert isinstance(batch, dict)
        assert batch.pop("name") == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
        raw = predictions(task)
        expected = {}
        if "attributenet" not in kind:
            finest = [logits for logits in raw if logits.ndim == 4][-1]
            expected["parsing"] = finest.argmax(dim=1)
            assert expected["parsing"].shape == (4, HEIGHT, WIDTH)
        if "segnet" not in kind:
            expected["attributes"] = 1 / (1 + (-raw[-1]).exp())
            assert expected["attributes"].shape == (4, len(ATTRIBUTES))
        torch.testing.assert_close(batch, expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_weighs_regions_with_semantic_pooling_alone(self, kind: str, parser: Path) -> None:
        task, images = make_task(kind, parser).eval(), torch.rand(2, 3, HEIGHT, WIDTH)
        if "ssp" in kind:
            assert task.regions == HELEN7.classes
            torch.testing.assert_close(
                task.region_weights({"image": images}).sum(dim=1), torch.ones(2, len(ATTRIBUTES))
            )
        else:
            assert task.regions is None


class TestCheckpoint:
    @pytest.mark.parametrize("kind", KINDS)
    def test_one_file_is_enough(self, kind: str, parser: Path, tmp_path: Path) -> None:
        """Saved, loaded, saved and loaded again, after the parser's own file is gone."""
        task = make_task(kind, parser)
        first = save(task, tmp_path / "first.ckpt")
        parser.unlink()
        loaded = load_model(first)
        assert type(loaded) is type(task)
        assert not any(module.training for module in loaded.modules())
        assert_equal(predictions(loaded), predictions(task))
        again = load_model(save_again(loaded, tmp_path / "second.ckpt"))
        assert_equal(predictions(again), predictions(task))
        assert dict(again.hparams) == dict(task.hparams)

    def test_weights_alone_are_enough(self, parser: Path, tmp_path: Path) -> None:
        """As ``ModelCheckpoint(save_weights_only=True)`` writes them."""
        task, path = make_task("attributenet-ssp", parser), tmp_path / "weights.ckpt"
        trained(task).save_checkpoint(path, weights_only=True)
        assert_equal(predictions(load_model(path)), predictions(task))

    @pytest.mark.parametrize("kind", KINDS)
    def test_hyperparameters_are_plain(self, kind: str, parser: Path, tmp_path: Path) -> None:
        path = save(make_task(kind, parser), tmp_path / "task.ckpt")
        checkpoint = torch.load(path, weights_only=True)
        assert_plain(checkpoint["hyper_parameters"])
        assert checkpoint["hyper_parameters"]["width"] == 2

    @pytest.mark.parametrize("kind", KINDS)
    def test_loaded_task_learns_on(self, kind: str, parser: Path, tmp_path: Path) -> None:
        loaded = load_model(save(make_task(kind, parser), tmp_path / "task.ckpt"))
        before = [p.clone() for p in loaded.network.parameters() if p.requires_grad]
        statistics = {name: value.clone() for name, value in loaded.network.named_buffers() if "running" in name}
        trained(loaded)
        after = [p for p in loaded.network.parameters() if p.requires_grad]
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        still = {
            name for name, value in loaded.network.named_buffers() if torch.equal(value, statistics.get(name, value))
        }
        assert {name for name in still & statistics.keys() if not name.startswith("parser.")} == set()

    @pytest.mark.parametrize("kind", KINDS)
    def test_trainer_loads_it(self, kind: str, parser: Path, tmp_path: Path) -> None:
        task = make_task(kind, parser)
        path = save(task, tmp_path / "task.ckpt")
        other = make_task(kind, parser)
        make_trainer().validate(other, loader(samples("mask", "attributes")), ckpt_path=path, verbose=False)
        assert_equal(predictions(other), predictions(task))

    def test_another_tasks_checkpoint_as_parser(self, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-avg", parser), tmp_path / "attributes.ckpt")
        with pytest.raises(CheckpointError, match=r"attributes\.ckpt holds a AttributeNet, not a SegNet"):
            AttributeNet("ssp", parser=str(path), width=2)


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def write_missing(path: Path, good: Path) -> None:
    path.unlink(missing_ok=True)


def write_folder(path: Path, good: Path) -> None:
    path.mkdir()


def write_empty(path: Path, good: Path) -> None:
    path.touch()


def write_text(path: Path, good: Path) -> None:
    path.write_text("<html>\nquota exceeded\n")


def write_truncated(path: Path, good: Path) -> None:
    path.write_bytes(good.read_bytes()[:-2000])


def write_half(path: Path, good: Path) -> None:
    content = good.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_malicious(path: Path, good: Path) -> None:
    torch.save({"facelightning_task": "SegNet", "state_dict": Malicious(path.parent / "owned")}, path)


def write_malicious_pickle(path: Path, good: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious(path.parent / "owned")))


def write_other_library(path: Path, good: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "hyper_parameters": {}, "epoch": 3}, path)


def write_list(path: Path, good: Path) -> None:
    torch.save([torch.zeros(2)], path)


def write_unknown_task(path: Path, good: Path) -> None:
    torch.save(torch.load(good, weights_only=True) | {"facelightning_task": "LandmarkNet"}, path)


def write_without_settings(path: Path, good: Path) -> None:
    torch.save({"facelightning_task": "SegNet"}, path)


def write_unknown_setting(path: Path, good: Path) -> None:
    checkpoint = torch.load(good, weights_only=True)
    checkpoint["hyper_parameters"]["dropout"] = 0.5
    torch.save(checkpoint, path)


def write_other_weights(path: Path, good: Path) -> None:
    checkpoint = torch.load(good, weights_only=True)
    checkpoint["state_dict"].popitem()
    torch.save(checkpoint, path)


BROKEN = (
    write_missing,
    write_folder,
    write_empty,
    write_text,
    write_truncated,
    write_half,
    write_malicious,
    write_malicious_pickle,
    write_other_library,
    write_list,
    write_unknown_task,
    write_without_settings,
)


@pytest.mark.parametrize("write", [*BROKEN, write_unknown_setting, write_other_weights])
def test_load_model_refuses(write: Any, parser: Path, tmp_path: Path) -> None:
    check_refused(write, parser, tmp_path, lambda path: load_model(path))


@pytest.mark.parametrize("write", [*BROKEN, write_other_weights])
def test_parser_refuses(write: Any, parser: Path, tmp_path: Path) -> None:
    check_refused(write, parser, tmp_path, lambda path: AttributeNet("ssp", parser=str(path), width=2))


def check_refused(write: Any, good: Path, folder: Path, load: Any) -> None:
    """One sentence that names the file and gives no dangerous advice; nothing in the file was executed."""
    path = folder / "bad.ckpt"
    write(path, good)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch recommends to switch it off
    assert not (folder / "owned").exists()


def assert_plain(value: Any) -> None:
    assert value is None or type(value) in (bool, int, float, str, list, dict), type(value)
    for inner in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_plain(inner)


def flat(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested scores as one dictionary of numbers."""
    numbers: dict[str, float] = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}{key}/")
        elif isinstance(value, float):
            numbers[prefix + key] = value
    return numbers


def test_a_misspelt_choice_is_an_error() -> None:
    for settings in ({"pooling": "SSP"}, {"optimizer": "adam"}, {"schedule": "onecycle"}):
        with pytest.raises(ConfigurationError, match=r"must be .* or .*, not"):
            JointNet(width=2, **settings)  # type: ignore[arg-type]


def test_a_parser_without_weights_is_an_error_in_training() -> None:
    task = AttributeNet(pooling="ssp", parser="missing.ckpt", parser_config={"labels": "helen7", "width": 2}, width=2)
    with pytest.raises(ConfigurationError, match="the parser has no weights"):
        make_trainer().fit(task, loader(samples("attributes")))


def test_an_interrupted_evaluation_is_forgotten() -> None:
    task = AttributeNet(width=2).eval()
    trainer, batches = make_trainer(), loader(samples("attributes"))
    trainer.validate(task, batches, verbose=False)
    expected = repr(task.results["val"])  # as text, in which one NaN is like another
    with torch.inference_mode():
        task.validation.update(*task.predict_batch(next(iter(loader(samples("attributes", count=3))))))
    trainer.validate(task, batches, verbose=False)
    assert repr(task.results["val"]) == expected


class TestEnsembleNet:
    @pytest.fixture
    def members(self, parser: Path, tmp_path: Path) -> list[Path]:
        kinds = ("avg", "ssp+ssg")
        return [save(make_task(f"attributenet-{kind}", parser), tmp_path / f"{kind}.ckpt") for kind in kinds]

    def test_is_the_mean_of_its_members_probabilities(self, members: list[Path]) -> None:
        ensemble = EnsembleNet([str(path) for path in members]).eval()
        each = [predictions(load_model(path))[0].double().sigmoid() for path in members]
        torch.testing.assert_close(predictions(ensemble)[0].double().sigmoid(), (each[0] + each[1]) / 2)

    def test_extreme_predictions_stay_finite(self, members: list[Path]) -> None:
        ensemble = EnsembleNet([str(path) for path in members])
        for number, member in enumerate(ensemble.network.members):
            classifier = next(module for module in member.modules() if isinstance(module, torch.nn.Linear))
            torch.nn.init.constant_(classifier.bias, 1e4 * (-1) ** number)
        (logits,) = predictions(ensemble)
        assert logits.isfinite().all()

    def test_one_file_is_enough(self, members: list[Path], tmp_path: Path) -> None:
        ensemble = EnsembleNet([str(path) for path in members])
        expected = predictions(ensemble)
        path = save_again(ensemble, tmp_path / "ensemble.ckpt")
        for member in members:
            member.unlink()
        loaded = load_model(path)
        assert isinstance(loaded, EnsembleNet)
        assert_equal(predictions(loaded), expected)

    def test_fit_changes_nothing(self, members: list[Path]) -> None:
        ensemble = EnsembleNet([str(path) for path in members])
        before = [value.clone() for value in ensemble.network.state_dict().values()]
        make_trainer(2).fit(ensemble, loader(samples("attributes")))
        assert_equal(list(ensemble.network.state_dict().values()), before)

    def test_refuses_what_is_no_attributenet(self, parser: Path) -> None:
        with pytest.raises(CheckpointError, match=r"member.*parser\.ckpt holds a SegNet, not a AttributeNet"):
            EnsembleNet([str(parser)])
        with pytest.raises(ConfigurationError, match="members"):
            EnsembleNet()


class TestFineTuning:
    def test_starts_from_the_weights(self, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-ssp", parser), tmp_path / "trained.ckpt")
        tuned = AttributeNet("ssp", parser=str(parser), weights=str(path), width=2)
        assert_equal(predictions(tuned), predictions(load_model(path)))
        again = save_again(tuned, tmp_path / "tuned.ckpt")
        path.unlink()
        assert_equal(predictions(load_model(again)), predictions(tuned))

    def test_other_settings_are_refused(self, parser: Path, tmp_path: Path) -> None:
        path = save(make_task("attributenet-avg", parser), tmp_path / "trained.ckpt")
        with pytest.raises(CheckpointError, match=r"trained\.ckpt"):
            AttributeNet("avg", weights=str(path), width=3)

    def test_balanced_needs_to_count(self) -> None:
        with pytest.raises(ConfigurationError, match="balanced"):
            make_trainer().fit(AttributeNet(width=2, balanced=True), loader(samples("attributes")))
