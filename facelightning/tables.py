"""The paper's tables: what is published, how ours are told apart from each other, and how they are printed."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

LOCALIZATION = {
    "region_preference": "right region %",
    "evidence_inside": "evidence in region %",
    "chance": "by chance %",
    "evidence_on_change": "evidence on the attribute %",
    "chance_on_change": "by chance %",
}
"""Scores of :func:`facelightning.localization.localization_scores`, and how they are headed."""


@dataclass(frozen=True)
class Row:
    """One row of a table that can be trained.

    Args:
        name: Of the row, and of the folder of its runs.
        title: As the paper prints it.
        config: The configuration that trains it.
        needs: What it starts from: names of rows for ``parser``, ``weights`` or ``members``.
        flags: Further settings of the model.
    """

    name: str
    title: str
    config: str
    needs: Mapping[str, str | list[str]] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parents(self) -> list[str]:
        """The rows that must be trained before."""
        return [name for value in self.needs.values() for name in ([value] if isinstance(value, str) else value)]


def read_tables() -> list[dict[str, Any]]:
    """The published tables: titles, sources, columns and rows."""
    tables: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text("utf-8"))
    return tables


def read_rows() -> dict[str, Row]:
    """Every row that can be trained, by its name."""
    keys = ("name", "title", "config", "needs", "flags")
    rows = [{"config": row["name"], **row} for table in read_tables() for row in table["rows"] if "name" in row]
    return {row["name"]: Row(**{key: row[key] for key in keys if key in row}) for row in rows}


def bootstrap_differences(
    pairs: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    truth: npt.NDArray[np.bool_],
    resamples: int = 1000,
    persons: npt.NDArray[np.int64] | None = None,
) -> dict[str, list[float]]:
    """How much better one method is than another on the same pictures, with a paired bootstrap interval.

    In each resample the persons of the test pictures are drawn anew with all their pictures, the same for both methods
    and all seeds; the difference is the mean over seeds. An attribute without positives in a resample is left out of
    its mean. The interval is the basic one, which undoes what a score is off in resamples: average precision is, for
    pictures that are drawn twice rank side by side. It tells how the difference varies with the test pictures, not
    with the trainings.

    Args:
        pairs: Probabilities of the method and of the baseline, a pair for each seed.
        truth: The labels.
        resamples: How often is drawn.
        persons: Whom each picture shows; if that is unknown, each another.

    Shape:
        - pairs: each ``(n, A)``.
        - truth: ``(n, A)``.
        - persons: ``(n,)``.

    Returns:
        For ``error`` and ``mean_ap`` the difference in percentage points and the ends of its 95 % interval.

    Example:
        >>> truth = np.array([[True], [False], [True], [False]])
        >>> perfect, useless = truth * 1.0, np.full((4, 1), 0.4)
        >>> bootstrap_differences([(perfect, useless)], truth)["error"][0]
        -50.0
    """
    count = len(truth)
    _, person = np.unique(np.arange(count) if persons is None else persons, return_inverse=True)
    people = int(person.max()) + 1
    draws = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=resamples)
    weights = np.vstack([np.ones((1, count)), draws[:, person]])  # the first is the test set itself
    differences = []
    for ours, theirs in pairs:
        scores = [np.stack([_errors(p, truth, weights), _mean_aps(p, truth, weights)]) for p in (ours, theirs)]
        differences.append(scores[0] - scores[1])
    average = np.mean(differences, axis=0)  # (2, 1 + resamples)
    result = {}
    for name, values in zip(("error", "mean_ap"), average, strict=True):
        low, high = 2 * values[0] - np.quantile(values[1:], (0.975, 0.025))
        result[name] = [float(values[0]), float(low), float(high)]
    return result


def _errors(
    probabilities: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Error in percent for each weighting of the pictures, ``(R, n)`` to ``(R,)``."""
    wrong = ((probabilities > 0.5) != truth).mean(axis=1)
    errors: npt.NDArray[np.float64] = 100 * (weights @ wrong) / weights.sum(axis=1)
    return errors


def _mean_aps(
    probabilities: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean average precision in percent for each weighting of the pictures, ``(R, n)`` to ``(R,)``."""
    total, defined = np.zeros(len(weights)), np.zeros(len(weights))
    for scores, labels in zip(probabilities.T, truth.T, strict=True):
        order = np.argsort(-scores, kind="stable")
        last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores are one threshold
        for start in range(0, len(weights), 100):  # a hundred at a time: memory
            drawn = weights[start : start + 100, order]
            hits = (drawn * labels[order]).cumsum(axis=1)[:, last]
            precision = hits / np.maximum(drawn.cumsum(axis=1)[:, last], 1)
            gained = np.diff(hits, axis=1, prepend=0)
            some = hits[:, -1] > 0
            total[start : start + 100] += (gained * precision).sum(axis=1) / np.where(some, hits[:, -1], 1)
            defined[start : start + 100] += some
    return 100 * total / np.maximum(defined, 1)


def write_tables(folder: Path, records: Sequence[Mapping[str, Any]]) -> str:
    """Write ``tables.md``, ``tables.csv`` and ``tables.json``; the first is also returned.

    Args:
        folder: Where to write.
        records: One for each row of each table: ``table`` and ``row`` (its title), ``seeds``, ``published`` and
            ``original`` (column → number), ``ours`` (column → a score for each seed), ``finished`` (time and memory of
            each), ``localization`` (scores of each, ``None`` where not measured) and, against the baseline,
            ``difference`` of :func:`bootstrap_differences`.
    """
    text = "\n\n".join(
        _markdown(table, [record for record in records if record["table"] == table["name"]])
        for table in read_tables()
        if any(record["table"] == table["name"] and record["seeds"] for record in records)
    )
    (folder / "tables.md").write_text(text + "\n")
    (folder / "tables.json").write_text(json.dumps(list(records), indent=2) + "\n")
    with (folder / "tables.csv").open("w", newline="") as file:
        flat = [_flat(record) for record in records]
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in flat for key in row)))
        writer.writeheader()
        writer.writerows(flat)
    return text


def duration(seconds: float) -> str:
    """Whole minutes, and hours if there are any.

    Example:
        >>> duration(40), duration(3700)
        ('1 min', '1 h 02 min')
    """
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min" if minutes else "< 1 min"


def _markdown(table: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """A table as Markdown: published | ours, with differences where there are any."""
    columns = table["columns"]
    with_differences = table["part"] == "attributes"
    head = ["", *(f"{title}: published" for title in columns.values()), *(f"{t}: ours" for t in columns.values())]
    if with_differences:
        head += ["Δ error [95 %]", "Δ mean AP [95 %]"]
    measured = any(any(record.get("localization", ())) for record in records)
    head += [*(LOCALIZATION.values() if measured else ()), "time", "memory"]
    lines = [f"**{table['title']}** (published: {table['source']})", "", _line(head), _line(["---"] * len(head))]
    for record in records:
        cells = [record["row"]]
        for column in columns:
            original = record["original"].get(column)
            published = _number(record["published"].get(column))
            cells.append(f"{published} ({original:.2f})".strip() if original is not None else published)
        cells += [_spread(record["ours"][column]) for column in columns]
        if with_differences:
            difference = record.get("difference", {})
            cells += [_interval(difference.get(name)) for name in ("error", "mean_ap")]
        if measured:
            scores = [score for score in record.get("localization", ()) if score is not None]
            cells += [_spread([score[key] for score in scores]) for key in LOCALIZATION]
        whole = [finished for finished in record["finished"] if finished["attempts"] == 1]
        cells.append(duration(mean(f["seconds"] for f in whole)) if whole else "")
        cells.append(f"{max(f['peak_memory_mib'] for f in record['finished']):.0f} MiB" if record["finished"] else "")
        lines.append(_line(cells))
    seeds = sorted({seed for record in records for seed in record["seeds"]})
    lines += ["", f"Ours: mean ± standard deviation over seeds {', '.join(map(str, seeds))}, as far as they are done."]
    if with_differences:
        lines.append("Δ: to the baseline, with a bootstrap interval over the persons in the test, not over trainings.")
    lines.append("Time: from start to end, whatever else ran beside it. Memory: of the main process, without a GPU's.")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return _number(known[0]) if known else ""
    return f"{mean(known):.2f} ± {stdev(known):.2f}"


def _interval(difference: Sequence[float] | None) -> str:
    if difference is None:
        return ""
    value, low, high = difference
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one row of a CSV file."""
    row = {"table": record["table"], "row": record["row"], "seeds": " ".join(map(str, record["seeds"]))}
    for kind in ("published", "original"):
        row |= {f"{kind}_{column}": value for column, value in record[kind].items()}
    for column, values in record["ours"].items():
        row |= {f"{column}_seed_{seed}": value for seed, value in zip(record["seeds"], values, strict=True)}
    for seed, scores in zip(record["seeds"], record.get("localization", [None] * len(record["seeds"])), strict=True):
        row |= {f"{key}_seed_{seed}": value for key, value in (scores or {}).items()}
    for name, numbers in record.get("difference", {}).items():
        row |= dict(zip((f"{name}_difference", f"{name}_low", f"{name}_high"), numbers, strict=True))
    return row
