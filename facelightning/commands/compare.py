"""``facelightning compare``: scores of finished runs side by side, and against the number of training images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from jsonargparse import auto_cli

from facelightning.cli import FaceParser
from facelightning.configs import read_config, suggestion
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError, quoted
from facelightning.figures import save_image, training_size_figure
from facelightning.runs import RunFolder

PerAttribute = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class TestedRun:
    """A run that was tested on attributes.

    Args:
        folder: Its folder.
        images: The number of its training images, if its configuration says one.
        scores: Attribute → ``error`` and ``ap`` in percent; ``None`` where undefined.
    """

    folder: Path
    images: int | None
    scores: PerAttribute

    @classmethod
    def read(cls, folder: str | Path) -> "TestedRun":
        """Read a run folder.

        Raises:
            DataNotFoundError: If it has no results.
            DataFormatError: If its results have no attributes.
        """
        files = RunFolder(Path(folder))
        if not files.results.is_file():
            raise DataNotFoundError(f"{folder} has no {files.results.name}: test the run, then name its folder")
        try:
            found = json.loads(files.results.read_text("utf-8"))["attributes"]["per_attribute"]
            scores = {name: {key: _percent(each[key]) for key in ("error", "ap")} for name, each in found.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataFormatError(f"{files.results} has no scores of attributes: name a run that has") from None
        data: Any = read_config(files.config).get("data") if files.config.is_file() else None
        options = data.get("init_args") if isinstance(data, dict) else None
        images = options.get("train_images") if isinstance(options, dict) else None
        return cls(files.path, images if isinstance(images, int) else None, scores)

    def mean(self, names: Sequence[str]) -> dict[str, float]:
        """The mean ``accuracy`` and ``ap`` of some attributes, in percent, over those where each is defined.

        Example:
            >>> scores = {"Bald": {"error": 2.0, "ap": None}, "Male": {"error": 4.0, "ap": 90.0}}
            >>> TestedRun(Path("run"), None, scores).mean(["Bald", "Male"])
            {'accuracy': 97.0, 'ap': 90.0}
        """
        found = {key: [self.scores[name][key] for name in names] for key in ("error", "ap")}
        known = {key: [value for value in values if value is not None] for key, values in found.items()}
        errors, aps = (mean(values) if values else float("nan") for values in known.values())
        return {"accuracy": 100 - errors, "ap": aps}


def _percent(value: Any) -> float | None:
    if value is None or (isinstance(value, int | float) and 0 <= value <= 100):
        return value
    raise ValueError(value)


def comparison(runs: Sequence[TestedRun], attributes: Sequence[str] = ()) -> str:
    """Accuracy and average precision of runs as lines of text: means over the attributes that all of them predict.

    Args:
        runs: At least one.
        attributes: Those whose mean stands in columns of their own, such as those that a training left out.

    Raises:
        ConfigurationError: If a run does not predict one of the attributes, or no attribute is predicted by all.
    """
    shared = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
    for name in attributes:
        if name not in shared:
            run = next(run for run in runs if name not in run.scores)
            hint = suggestion(name, run.scores)
            raise ConfigurationError(f"{run.folder} does not predict {quoted(name)}; {hint}")
    if not shared:
        raise ConfigurationError("the runs have no attribute in common: compare others")
    others = [name for name in shared if name not in attributes]
    columns = {f"{len(names)} {what}": names for what, names in (("given", attributes), ("others", others)) if names}
    if not attributes:
        columns = {f"{len(shared)} attributes": shared}
    width = max(len(str(run.folder)) for run in runs)
    head = "".join(f"   {f'accuracy, {title}':>22}   {f'mean AP, {title}':>22}" for title in columns)
    lines = [f"{'in %':{width}}   {'training images':>15}{head}"]
    for run in runs:
        means = [run.mean(names) for names in columns.values()]
        cells = "".join(f"   {each['accuracy']:22.2f}   {each['ap']:22.2f}" for each in means)
        lines.append(f"{run.folder!s:{width}}   {run.images or 'all':>15}{cells}")
    return "\n".join(lines)


def compare(runs: list[str], attributes: list[str] | None = None, output: str | None = None) -> None:
    """Print the accuracy and average precision of tested runs side by side.

    If two or more of them had ``data.train_images``, training_size.png draws their accuracy against it, as in Liu et
    al. (ICCV 2015), Figure 13. Runs in folders beside one another make one curve, which has the name of their parent.

    Args:
        runs: Folders of runs, each with test_results.json.
        attributes: Attributes whose means are printed apart, such as those that a training left out.
        output: Folder of the image; here if not given.
    """
    if not runs:
        raise ConfigurationError("--runs must name folders, such as --runs=[runs/avg/version_0]")
    found = [TestedRun.read(folder) for folder in runs]
    print(comparison(found, attributes or []))
    curves: dict[str, list[tuple[int, float]]] = {}
    names = attributes or [name for name in found[0].scores if all(name in run.scores for run in found)]
    for run in found:
        if run.images is not None:
            curve = curves.setdefault(_name(run, found), [])
            curve.append((run.images, run.mean(names)["accuracy"]))
    if len({size for curve in curves.values() for size, _ in curve}) > 1:
        path = Path(output or "") / "training_size.png"
        save_image(path, training_size_figure(curves))
        print(f"written: {path}")


def _name(run: TestedRun, runs: Sequence[TestedRun]) -> str:
    """The name of a run's parent folder; with as much of its path as tells it from the parents of other runs."""
    parents = {each.folder.absolute().parent for each in runs}
    own = run.folder.absolute().parent
    for count in range(1, len(own.parts)):
        name = Path(*own.parts[-count:])
        if sum(parent.parts[-count:] == own.parts[-count:] for parent in parents) == 1:
            break
    return name.as_posix()


def main(args: Sequence[str]) -> None:
    """The command line of :func:`compare`."""
    prog = "facelightning compare"
    auto_cli(compare, args=list(args), as_positional=False, parser_class=FaceParser, prog=prog)
