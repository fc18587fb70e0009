"""What a reproduction of the paper's tables consists of: runs, what each starts from, and its settings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from facelightning.configs import find_config, read_config
from facelightning.errors import ConfigurationError
from facelightning.reproduce.tables import ATTRIBUTION, Row, read_rows


@dataclass(frozen=True)
class Run:
    """One training of a row, with one seed.

    Args:
        row: What is trained.
        seed: Of everything random.
        folder: Of its configuration, checkpoints and results.
        command: The arguments of ``facelightning fit``.
    """

    row: Row
    seed: int
    folder: Path
    command: list[str]

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def best(self) -> Path:
        """The checkpoint that was best on the validation data."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / "checkpoints" / "last.ckpt"

    def finished(self) -> dict[str, Any] | None:
        """Time and memory of a finished run, else ``None``; the file is written last, and whole or not at all."""
        path = self.folder / "finished.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def results(self) -> dict[str, Any]:
        """The scores on the test data."""
        results: dict[str, Any] = json.loads((self.folder / "test_results.json").read_text())
        return results

    def attribution(self) -> dict[str, float | None] | None:
        """How far it looks in the right place, if that was measured."""
        path = self.folder / "attribution.json"
        if not path.is_file():
            return None
        scores = json.loads(path.read_text())
        return {key: scores[key] for key in ATTRIBUTION}


class Plan:
    """The runs that a reproduction consists of, each after those that it starts from.

    Args:
        roots: The folder of each data set that is given.
        overlays: Configurations that change the training of the rows "segnet" and "jointnet"; under "" of all others,
            and under "balanced" what changes fine-tuning after them.
        folder: Of all runs.
    """

    def __init__(self, roots: Mapping[str, str], overlays: Mapping[str, list[str]], folder: Path) -> None:
        self.roots, self.overlays, self.folder = roots, overlays, folder
        self.rows = read_rows()
        self.runs: dict[tuple[str, int], Run] = {}

    def possible(self, name: str) -> bool:
        """Whether the data of a row, and of those that it starts from, is given."""
        row = self.rows[name]
        return set(data_sets(row)) <= self.roots.keys() and all(map(self.possible, row.parents))

    def add(self, name: str, seed: int) -> Run:
        """Plan a run, and before it those that it starts from.

        Raises:
            ConfigurationError: If the folder of a data set is not given.
        """
        if (name, seed) in self.runs:
            return self.runs[name, seed]
        row = self.rows[name]
        missing = [data for data in data_sets(row) if data not in self.roots]
        if missing:
            raise ConfigurationError(f"row {name} is trained on {' and '.join(missing)}: give --{missing[0]}")
        flags: dict[str, Any] = dict(row.flags)
        for setting, parents in row.needs.items():
            paths = [str(self.add(one, seed).best) for one in ([parents] if isinstance(parents, str) else parents)]
            flags[setting] = paths[0] if isinstance(parents, str) else paths
        self.runs[name, seed] = Run(row, seed, self.folder / name / f"seed_{seed}", self._command(row, seed, flags))
        return self.runs[name, seed]

    def _command(self, row: Row, seed: int, flags: Mapping[str, Any]) -> list[str]:
        configs = [f"{row.config}.yaml"]
        if "members" not in row.needs:  # an ensemble trains nothing: what an overlay says of training is not for it
            configs += self.overlays.get(row.name, self.overlays[""])
        if row.config == "balanced":
            configs += self.overlays["balanced"]
        if row.name.startswith("lfwa_"):
            configs.append("overlays/lfwa.yaml")
        command = [f"--config={find_config(name, Path.cwd())}" for name in configs]
        places = {"": data_sets(row)[0]}
        if row.name == "jointnet":
            places = {"parsing.init_args.": "helen", "attributes.init_args.": "celeba"}
        command += [f"--data.init_args.{place}root={self.roots[data]}" for place, data in places.items()]
        command += [f"--model.init_args.{key}={_word(value)}" for key, value in flags.items()]
        logger = {"save_dir": str(self.folder), "name": row.name, "version": f"seed_{seed}"}
        command += [f"--trainer.logger.init_args.{key}={value}" for key, value in logger.items()]
        return [*command, f"--seed_everything={seed}"]


def data_sets(row: Row) -> list[str]:
    """The data sets that a row is trained on: names of arguments of :func:`facelightning.reproduce.reproduce`."""
    if row.name in ("segnet", "jointnet"):
        return ["helen"] if row.name == "segnet" else ["helen", "celeba"]
    return ["lfwa" if row.name.startswith("lfwa_") else "celeba"]


def _settings(run: Run) -> dict[str, Any]:
    """All that decides what a run becomes: its command, the content of its configurations, and what it starts from."""
    configs = [Path(word.removeprefix("--config=")) for word in run.command if word.startswith("--config=")]
    bases = [find_config(base, path.parent) for path in configs if (base := read_config(path).get("extends"))]
    parents = [run.folder.parents[1] / parent / run.folder.name / "settings.json" for parent in run.row.parents]
    return {
        "command": [word for word in run.command if not word.startswith("--config=")],
        "configs": [[path.name, _fingerprint(path)] for path in configs + bases],
        "starts_from": [[path.parts[-3], _fingerprint(path) if path.is_file() else None] for path in parents],
    }


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_settings(run: Run) -> None:
    """Refuse to go on with other settings than those that a run began with."""
    path = run.folder / "settings.json"
    if path.is_file() and json.loads(path.read_text()) != _settings(run):
        raise ConfigurationError(
            f"{run.folder} was begun with other settings (see {path.name} there): choose another --output, or delete "
            "that folder"
        )


def write_settings(run: Run) -> None:
    """Note what a run begins with."""
    path = run.folder / "settings.json"
    if not path.is_file():
        written = path.with_suffix(".part")
        written.write_text(json.dumps(_settings(run), indent=2) + "\n")
        written.rename(path)


def settings_of_members(run: Run) -> list[str]:
    """An ensemble sees its pictures as its members saw them, and reckons as they did."""
    if "members" not in run.row.needs:
        return []
    member = run.folder.parents[1] / run.row.parents[0] / run.folder.name
    config = yaml.safe_load((member / "config.yaml").read_text())
    data = config["data"]["init_args"]
    settings = {key: data[key] for key in ("image_size", "batch_size", "num_workers", "images") if key in data}
    command = [f"--data.init_args.{key}={_word(value)}" for key, value in settings.items()]
    return [*command, *(f"--trainer.{key}={_word(config['trainer'][key])}" for key in ("accelerator", "precision"))]


def _word(value: Any) -> str:
    """A value as the command line reads it."""
    return value if isinstance(value, str) else json.dumps(value)
