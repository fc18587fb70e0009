"""The paper's tables: what is published, how ours are told apart from each other, and how they are printed."""

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
"""Scores of :func:`facelightning.commands.attribution.attribution_scores`, and how they are headed."""


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
    path = Path(__file__).parent / "published" / "kalayeh2017.yaml"
    tables: list[dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))
    return tables


def read_rows() -> dict[str, Row]:
    """Every row that can be trained, by its name."""
    keys = ("name", "title", "config", "needs", "flags")
    rows = [{"config": row["name"], **row} for table in read_tables() for row in table["rows"] if "name" in row]
    return {row["name"]: Row(**{key: row[key] for key in keys if key in row}) for row in rows}


def write_tables(folder: Path, records: Sequence[Mapping[str, Any]]) -> str:
    """Write ``tables.md``, ``tables.csv`` and ``tables.json``; the first is also returned.

    Args:
        folder: Where to write.
        records: One for each row of each table: ``table`` and ``row`` (its title), ``seeds``, ``published`` and
            ``original`` (column → number), ``ours`` (column → a score for each seed), ``finished`` (time and memory of
            each), ``attribution`` (scores of each, ``None`` where not measured) and, against the baseline,
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
    measured = any(any(record.get("attribution", ())) for record in records)
    head += [*(ATTRIBUTION.values() if measured else ()), "time", "memory"]
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
            scores = [score for score in record.get("attribution", ()) if score is not None]
            cells += [_spread([score[key] for score in scores]) for key in ATTRIBUTION]
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
    for seed, scores in zip(record["seeds"], record.get("attribution", [None] * len(record["seeds"])), strict=True):
        row |= {f"{key}_seed_{seed}": value for key, value in (scores or {}).items()}
    for name, numbers in record.get("difference", {}).items():
        row |= dict(zip((f"{name}_difference", f"{name}_low", f"{name}_high"), numbers, strict=True))
    return row
