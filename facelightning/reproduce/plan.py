"""The plan of a reproduction of the tables: its runs, what each starts from, and its settings."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal, get_args

from facelightning.configs import chain, config_folder, find_config, find_recipe, read_config, recipe_folder
from facelightning.errors import ConfigurationError
from facelightning.reproduce.tables import ATTRIBUTION, Row, listed, read_tables
from facelightning.runs import RunFolder

Split = Literal["val", "test"]
"""What a run is scored on: to choose by, and at the end."""

COMPUTING = ("accelerator", "precision")
"""Trainer settings that a score may depend on."""


@dataclass(frozen=True, eq=False)
class Run:
    """One row with one seed.

    Args:
        row: The row to train or assemble.
        seed: Seed of all randomness.
        files: Paths of its configuration, checkpoints and results.
        parents: The runs that it starts from.
        configs: Its configuration files, and all that they extend.
        command: Arguments of ``facelightning``: ``fit``, or ``test`` for an assembled row, and its options.
        prediction: The same for its predictions.
        choice: The same for predictions of the validation images, by which one chooses.
        minutes: How long it took when the recipe was measured.
    """

    row: Row
    seed: int
    files: RunFolder
    parents: Sequence["Run"]
    configs: Sequence[Path]
    command: Sequence[str]
    prediction: Sequence[str]
    choice: Sequence[str]
    minutes: float | None

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The folder of all its files."""
        return self.files.path

    def predictions(self, split: Split = "test") -> Path:
        """The table of its predictions of a split."""
        return RunFolder(self.folder / split).predictions / f"{self.row.predicts}.csv"

    @property
    def state(self) -> str:
        """Its progress, in words."""
        return "finished" if self.finished() else "to be continued" if self.files.last.is_file() else "to be trained"

    def finished(self) -> dict[str, Any] | None:
        """Time and memory of a finished run, else ``None``; the file is written last and atomically."""
        path = self.folder / "finished.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def scored(self, split: Split) -> bool:
        """Whether there are scores of a split; of val only of attributes."""
        if split == "val":
            return self.row.predicts == "attributes" and (self.folder / "val" / "finished").is_file()
        return self.finished() is not None

    def results(self) -> dict[str, Any]:
        """The scores on the test data."""
        results: dict[str, Any] = json.loads(self.files.results.read_text())
        return results

    def attribution(self) -> dict[str, float | None] | None:
        """Its attribution scores, if measured."""
        if not self.files.attribution.is_file():
            return None
        scores = json.loads(self.files.attribution.read_text())
        return {key: scores[key] for key in ATTRIBUTION}

    def estimate(self) -> tuple[float, str] | None:
        """The seconds that such a run takes, and where they were measured; ``None`` if nowhere."""
        records = [json.loads(path.read_text()) for path in self.folder.parent.glob("seed_*/finished.json")]
        # an interrupted run does not know its total time
        if times := [record["seconds"] for record in records if record["attempts"] == 1]:
            return mean(times), "here"
        return None if self.minutes is None else (60 * self.minutes, "when the recipe was measured")


class Plan:
    """The runs of a reproduction, each after those that it starts from.

    Args:
        roots: The folder of each given data set.
        recipe: Changes size, optimiser and length of every training.
        overlays: Configurations applied to every training after the recipe. An assembled row takes from them only the
            data settings, but not the image size, which its members know; and, like every prediction, accelerator
            and precision.
        folder: Folder of all runs.
    """

    def __init__(self, roots: Mapping[str, str], recipe: str | None, overlays: Sequence[str], folder: Path) -> None:
        self.roots, self.recipe, self.folder = roots, recipe, folder
        self.overlays = [find_config(name, Path.cwd()) for name in overlays]
        contents = [content for path in self.overlays for _, content in chain(path)]
        data = {key: value for content in contents for key, value in _section(content, "data", "init_args").items()}
        trainer = {key: value for content in contents for key, value in _section(content, "trainer").items()}
        self._seen = _options("data", {key: value for key, value in data.items() if key != "image_size"})
        self._computing = _options("trainer", {key: trainer[key] for key in COMPUTING if key in trainer})
        minutes = recipe_folder(recipe) / "minutes.yaml" if recipe else None
        self._minutes = read_config(minutes) if minutes is not None and minutes.exists() else {}
        self.rows = {row.name: row for table in read_tables() for row in table.rows if row.name}
        self._in_full = {name for row in self.rows.values() for name in row.data_from.values()}
        self.runs: dict[tuple[str, int], Run] = {}

    def obstacle(self, name: str) -> str | None:
        """Why a row, or one that it starts from, cannot be trained; ``None`` if it can."""
        row = self.rows[name]
        missing = [data for data in row.data_sets if data not in self.roots]
        if missing:
            return f"row {name} needs {' and '.join(missing)}: give --{missing[0]}"
        for path in (Path(self._place(place)) for place in row.data.values() if "/" in place):
            if path.is_absolute() and not path.exists():  # a relative one stands for data that is not given
                return f"row {name} needs the folder {path}, which does not exist"
        if self.recipe and not row.assembled and self._recipe(row) is None:
            return f"recipe {self.recipe} has nothing for row {name}"
        return next((found for parent in row.parents if (found := self.obstacle(parent))), None)

    def add(self, name: str, seed: int) -> Run:
        """Plan a run, after those that it starts from."""
        if (name, seed) not in self.runs:
            parents = {parent: self.add(parent, seed) for parent in self.rows[name].parents}
            self.runs[name, seed] = self._run(name, seed, parents)
        return self.runs[name, seed]

    def _run(self, name: str, seed: int, parents: Mapping[str, Run]) -> Run:
        row, files = self.rows[name], RunFolder(self.folder / name / f"seed_{seed}")
        model = dict(row.flags)
        for key, value in row.starts_from.items():
            paths = [str(parents[parent].files.best) for parent in listed(value)]
            model[key] = paths[0] if isinstance(value, str) else paths
        given = {key: self._place(place) for key, place in row.data.items()}
        given |= {key: str(parents[parent].predictions()) for key, parent in row.data_from.items()}
        data = _options("data", given)
        logger = {"save_dir": str(self.folder), "name": name, "version": files.path.name}
        configs = [*self._configs(row), *([] if row.assembled else self.overlays)]
        recipe = None if row.assembled else self._recipe(row)
        command = ["test" if row.assembled else "fit", *(f"--config={path}" for path in configs)]
        command += [f"--recipe={self.recipe}"] if recipe else []
        command += [*self._seen, *self._computing] if row.assembled else ["--test_after_fit=true"]
        command += [*data, *_options("model", model), *_options("trainer.logger", logger), f"--seed_everything={seed}"]
        predict = ["predict", f"--ckpt_path={files.best}", *data, *self._computing]
        val, test = ({**logger, "version": f"{files.path.name}/{split}"} for split in get_args(Split))
        choice = [*predict, "--data.predicted=val", *_options("trainer.logger", val)]
        prediction = [*predict, *(["--data.predicted=all"] if name in self._in_full else [])]
        prediction += _options("trainer.logger", test)
        every = [file for path in (*configs, *filter(None, [recipe])) for file, _ in chain(path)]
        minutes = self._minutes.get(name)
        return Run(row, seed, files, [*parents.values()], every, command, prediction, choice, minutes)

    def _place(self, place: str) -> str:
        """The path of a data set, or of a folder in it."""
        data, *folders = place.split("/")
        return "/".join([self.roots.get(data, data), *folders])

    def _configs(self, row: Row) -> list[Path]:
        return [find_config(name, config_folder()) for name in row.config]

    def _recipe(self, row: Row) -> Path | None:
        return find_recipe(self.recipe, self._configs(row)[0]) if self.recipe else None


def _section(content: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        content = content.get(key) or {}
    return content


def _options(section: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings as command-line options."""
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return [f"--{section}.{key}={word}" for key, word in words.items()]


def _settings(run: Run) -> dict[str, Any]:
    """Everything that determines a run: its command, the content of its configurations, and what it starts from."""
    parents = [(parent.row.name, parent.folder / "settings.json") for parent in run.parents]
    return {
        "command": [word for word in run.command if not word.startswith("--config=")],
        "configs": [[f"{path.parent.name}/{path.name}", _fingerprint(path)] for path in run.configs],
        "starts_from": [[name, _fingerprint(path) if path.is_file() else None] for name, path in parents],
    }


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_settings(run: Run) -> None:
    """Refuse to resume a run with settings other than those it began with."""
    path = run.folder / "settings.json"
    if path.is_file() and json.loads(path.read_text()) != _settings(run):
        raise ConfigurationError(
            f"{run.folder} was begun with other settings (see {path.name} there): choose another --output, or delete "
            "that folder"
        )


def write_settings(run: Run) -> None:
    """Record the settings that a run begins with."""
    path = run.folder / "settings.json"
    if not path.is_file():
        written = path.with_suffix(".part")
        written.write_text(json.dumps(_settings(run), indent=2) + "\n")
        written.rename(path)
