"""The published tables, whose rows define what trains them, and our scores printed beside them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

ATTRIBUTION = {
    "region_preference": "right region %",
    "evidence_inside": "evidence in region %",
    "chance": "by chance %",
    "evidence_on_change": "evidence on the attribute %",
    "chance_on_change": "by chance %",
}
"""Scores of :func:`facelightning.commands.attribution.attribution_scores`, and their column titles."""


@dataclass(frozen=True)
class Row:
    """One row of a table; ``published/kalayeh2017.yaml`` says what its keys mean."""

    title: str
    config: Sequence[str]
    data: Mapping[str, str]
    predicts: str | None
    name: str | None = None
    starts_from: Mapping[str, str | list[str]] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    assembled: bool = False
    published: Mapping[str, float] = field(default_factory=dict)
    original: Mapping[str, float] = field(default_factory=dict)

    @property
    def parents(self) -> list[str]:
        """The rows that must be trained first."""
        return [name for value in self.starts_from.values() for name in listed(value)]


@dataclass(frozen=True)
class Table:
    """One table; the same file says what its keys mean."""

    name: str
    title: str
    source: str
    part: str
    data: Mapping[str, str]
    baseline: str
    columns: Mapping[str, str]
    rows: Sequence[Row]


def listed(value: str | list[str]) -> list[str]:
    """The value itself if it is a list, else a list of it."""
    return [value] if isinstance(value, str) else value


def read_tables() -> list[Table]:
    """The tables of every paper."""
    tables = []
    for path in sorted(Path(__file__).parent.glob("published/*.yaml")):
        for table in yaml.safe_load(path.read_text("utf-8")):
            rows = [{"data": table["data"], "predicts": table["part"], **row} for row in table["rows"]]
            for row in rows:
                row["config"] = listed(row.get("config", row.get("name", [])))
            tables.append(Table(**{**table, "rows": [Row(**row) for row in rows]}))
    return tables


def write_tables(folder: Path, records: Sequence[Mapping[str, Any]]) -> str:
    """Write ``tables.md``, ``tables.csv`` and ``tables.json``; the first is also returned.

    Args:
        folder: Where to write.
        records: One for each row of each table: ``table`` and ``row`` (its title), ``seeds``, ``published`` and
            ``original`` (column → number), ``ours`` (column → a score for each seed), ``finished`` (time and memory of
            each), ``attribution`` (scores of each, ``None`` where not measured) and, against the baseline,
            ``difference`` of :func:`~facelightning.statistics.bootstrap_differences`.
    """
    text = "\n\n".join(
        _markdown(table, [record for record in records if record["table"] == table.name])
        for table in read_tables()
        if any(record["table"] == table.name and record["seeds"] for record in records)
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


def _markdown(table: Table, records: Sequence[Mapping[str, Any]]) -> str:
    """A table as Markdown: published | ours, with differences where there are any."""
    titles = table.columns.values()
    with_differences = any("difference" in record for record in records)
    measured = any(any(record["attribution"]) for record in records)
    head = ["", *(f"{title}: published" for title in titles), *(f"{title}: ours" for title in titles)]
    head += ["Δ error [95 %]", "Δ mean AP [95 %]"] if with_differences else []
    head += [*(ATTRIBUTION.values() if measured else ()), "time", "memory"]
    lines = [f"**{table.title}** (published: {table.source})", "", _line(head), _line(["---"] * len(head))]
    for record in records:
        cells = [record["row"]]
        for column in table.columns:
            original = record["original"].get(column)
            published = _number(record["published"].get(column))
            cells.append(f"{published} ({original:.2f})".strip() if original is not None else published)
        cells += [_spread(record["ours"][column]) for column in table.columns]
        if with_differences:
            cells += [_interval(record.get("difference", {}).get(name)) for name in ("error", "mean_ap")]
        if measured:
            scores = [score for score in record["attribution"] if score is not None]
            cells += [_spread([score[key] for score in scores]) for key in ATTRIBUTION]
        whole = [finished["seconds"] for finished in record["finished"] if finished["attempts"] == 1]
        cells.append(duration(mean(whole)) if whole else "")
        cells.append(f"{max(f['peak_memory_mib'] for f in record['finished']):.0f} MiB" if record["finished"] else "")
        lines.append(_line(cells))
    seeds = sorted({seed for record in records for seed in record["seeds"]})
    lines += ["", f"Ours: mean ± standard deviation over seeds {', '.join(map(str, seeds))}, of finished runs."]
    if with_differences:
        lines.append("Δ: to the baseline, with a bootstrap interval over the test's identities, not over trainings.")
    lines.append("Time: from start to end, perhaps beside other runs. Memory: of the main process, without a GPU's.")
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
    return "" if difference is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*difference)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one row of a CSV file."""
    row = {"table": record["table"], "row": record["row"], "seeds": " ".join(map(str, record["seeds"]))}
    for kind in ("published", "original"):
        row |= {f"{kind}_{column}": value for column, value in record[kind].items()}
    for column, values in record["ours"].items():
        row |= {f"{column}_seed_{seed}": value for seed, value in zip(record["seeds"], values, strict=True)}
    for seed, scores in zip(record["seeds"], record["attribution"], strict=True):
        row |= {f"{key}_seed_{seed}": value for key, value in (scores or {}).items()}
    for name, numbers in record.get("difference", {}).items():
        row |= dict(zip((f"{name}_difference", f"{name}_low", f"{name}_high"), numbers, strict=True))
    return row
