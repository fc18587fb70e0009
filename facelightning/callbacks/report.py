"""The scores of a run: printed, and written to a file."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from tqdm import tqdm

from facelightning.callbacks.dashboards import show_tables
from facelightning.checkpoint import weights_digest
from facelightning.errors import ConfigurationError
from facelightning.figures import save_image, subgroups_figure
from facelightning.metrics import SubgroupScores
from facelightning.runs import RunFolder
from facelightning.tasks import FaceTask


def score_table(title: str, task: FaceTask, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores as lines of text, in percent; ``nan`` where undefined.

    Args:
        title: The first line.
        task: The task whose objectives were scored.
        results: The scores of one evaluation, by objective key.

    Example:
        >>> from facelightning import AttributeNet, DataFacts
        >>> task = AttributeNet(width=4).build(DataFacts((109, 89), attributes=("Bald", "Male")))
        >>> print(score_table("test", task, {"attributes": {"error": 8.33, "mean_ap": 81.02,
        ...                                                 "balanced_accuracy": 88.24, "undefined": ["Bald"]}}))
        test
          attributes   error 8.33 %   mean AP 81.02 %   balanced accuracy 88.24 %
                       left out of a mean, for want of positives or negatives: Bald
    """
    lines = (line for key, scores in results.items() for line in task.objectives[key].report(scores))
    return "\n".join([title, *lines])


class Report(Callback):
    """Prints what is trained, and the scores after training, validation and test; a test writes ``test_results.json``.

    Weights & Biases, if used, gets the scores of each attribute and class of each validation and test as tables.

    The file holds, each if it was scored, the results of :class:`~facelightning.metrics.AttributeScores` as
    ``"attributes"``, of :class:`~facelightning.metrics.ParsingScores` as ``"parsing"``, of
    :class:`~facelightning.metrics.LocalizationScores` as ``"faces"``, of
    :class:`~facelightning.metrics.CategoryScores` as ``"category"``, of
    :class:`~facelightning.metrics.retrieval.RetrievalScores` as ``"identity"``, and of
    :class:`~facelightning.objectives.ages.AgeScores` as ``"age"``: in percent, ``null`` where undefined, but for years
    and losses. Its ``"weights"`` are a digest of those that were tested: see
    :func:`~facelightning.checkpoint.weights_digest`. Without a logger nothing is written.

    Args:
        subgroups: Attributes, or products of them such as ``Male*Young``, by which a test also scores the attributes:
            in ``test_results.json`` as ``"subgroups"``, see :class:`~facelightning.metrics.SubgroupScores`, as a table,
            and as ``figures/subgroups.png``.

    Raises:
        ConfigurationError: If a test has subgroups of what is no attribute of the data.
    """

    def __init__(self, subgroups: list[str] | None = None) -> None:
        self.subgroups = subgroups or []
        self._by_group: SubgroupScores | None = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare the scores of subgroups."""
        self._by_group = None
        if self.subgroups and isinstance(pl_module, FaceTask):
            names = pl_module.facts.attributes if pl_module.facts else None
            if names is None or "attributes" not in pl_module.objectives:
                raise ConfigurationError(f"report.subgroups: {type(pl_module).__name__} predicts no attributes")
            self._by_group = SubgroupScores(names, self.subgroups).to(pl_module.device)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: int
    ) -> None:
        """Count a batch in its subgroups."""
        if self._by_group is not None and "attributes" in batch:
            self._by_group.update(outputs.get("decisions", outputs["attributes"]), batch["attributes"])

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Discard the scores of Lightning's sanity check before training."""
        if isinstance(pl_module, FaceTask):
            pl_module.results.pop("val", None)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print what is trained, and where the run writes."""
        total = sum(each.numel() for each in pl_module.parameters())
        frozen = sum(each.numel() for each in pl_module.parameters() if not each.requires_grad)
        note = f", {frozen:,} of them frozen" if frozen else ""
        rank_zero_info(f"{type(pl_module).__name__}: {total:,} parameters{note}")
        self._print_folder(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print where the run wrote, and the scores of the last validation."""
        self._print_folder(trainer)
        self._print("scores of the last validation", "val", pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the scores, unless this validation is part of a training; show tables of them on a dashboard."""
        if isinstance(pl_module, FaceTask) and not trainer.sanity_checking:
            show_tables(trainer, "val", pl_module.results["val"], max(trainer.global_step - 1, 0))  # beside the scores
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._print("validation scores", "val", pl_module)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the scores and write the file."""
        folder = RunFolder.of(trainer)
        if self._by_group is not None and isinstance(pl_module, FaceTask):
            pl_module.results["test"]["attributes"]["subgroups"] = self._by_group.compute()
        self._print("test scores", "test", pl_module)
        if isinstance(pl_module, FaceTask):
            show_tables(trainer, "test", pl_module.results["test"], trainer.global_step)
        weights = trainer.strategy.lightning_module_state_dict()  # a collective call
        if folder is not None and trainer.is_global_zero and isinstance(pl_module, FaceTask):
            folder.path.mkdir(parents=True, exist_ok=True)
            content = {**pl_module.results["test"], "weights": weights_digest(weights)}
            results = json.dumps(_without_nan(content), indent=2, allow_nan=False)
            part = folder.results.with_suffix(".part")  # whole or not there
            part.write_text(results + "\n", encoding="utf-8")
            part.replace(folder.results)
            rank_zero_info(f"written: {folder.results}")
            if self._by_group is not None:
                picture = folder.figures / "subgroups.png"
                save_image(picture, subgroups_figure(pl_module.results["test"]["attributes"]["subgroups"]))
                rank_zero_info(f"written: {picture}")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the line of the progress bar, so that the error begins its own."""
        if trainer.progress_bar_callback is not None and trainer.is_global_zero:
            print(file=sys.stderr)

    def _print_folder(self, trainer: L.Trainer) -> None:
        if (folder := RunFolder.of(trainer)) is not None:
            rank_zero_info(f"run folder: {folder.path}")

    def _print(self, title: str, name: str, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, FaceTask) and name in pl_module.results:
            rank_zero_only(tqdm.write)(score_table(title, pl_module, pl_module.results[name]))


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: an undefined score is null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if value != value else value
