"""The published tables, whose rows define what trains them, and our scores printed beside them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from facelightning.configs import load_yaml

ATTRIBUTION = {
    "region_preference": "right region %",
    "evidence_inside": "evidence in region %",
    "chance": "by chance %",
    "evidence_on_change": "evidence on the attribute %",
    "chance_on_change": "by chance %",
}
"""Scores of :func:`facelightning.commands.attribution.attribution_scores`, and their column titles."""

DIFFERENCES = {"persons": "over persons", "persons_and_trainings": "over persons and trainings"}
"""What the intervals of :func:`~facelightning.metrics.statistics.bootstrap_differences` cover, and their titles."""

MOST_COLUMNS = 10
"""A table with more columns is printed transposed."""


@dataclass(frozen=True)
class Row:
    """One row of a table; ``published/kalayeh2017.yaml`` says what its keys mean."""

    title: str
    config: Sequence[str]
    data: Mapping[str, str]
    predicts: str | None
    name: str | None = None
    starts_from: Mapping[str, str | list[str]] = field(default_factory=dict)
    data_from: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    assembled: bool = False
    published: Mapping[str, float] = field(default_factory=dict)
    original: Mapping[str, float] = field(default_factory=dict)

    @property
    def data_sets(self) -> list[str]:
        """The data sets that it is given, whole or a folder of."""
        return list(dict.fromkeys(place.partition("/")[0] for place in self.data.values()))

    @property
    def parents(self) -> list[str]:
        """The rows that must be trained first."""
        values = (*self.starts_from.values(), *self.data_from.values())
        return list(dict.fromkeys(name for value in values for name in listed(value)))


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
    paths = sorted(Path(__file__).parent.glob("published/*.yaml"))
    return [_table(content) for path in paths for content in load_yaml(path.read_text("utf-8"))]


def _table(content: Mapping[str, Any]) -> Table:
    """A table as its file describes it."""
    columns, rows = content["columns"], []
    if isinstance(columns, list):
        columns = {name: name.replace("_", " ") for name in columns}
    for given in content["rows"]:
        row = {"data": content["data"], "predicts": content["part"], **given}
        row["config"] = listed(row.get("config", row.get("name", [])))
        if isinstance(published := row.get("published"), list):
            row["published"] = dict(zip(columns, published, strict=True))
        rows.append(Row(**row))
    return Table(**{**content, "columns": columns, "rows": rows})


def write_tables(
    folder: Path, tables: Sequence[Table], records: Sequence[Mapping[str, Any]], split: str = "test"
) -> str:
    """Write ``tables.md``, ``tables.csv`` and ``tables.json``, or ``tables_val.…``; the first is also returned.

    Args:
        folder: Where to write.
        tables: Those whose rows were scored.
        records: One for each row of each table: ``table`` and ``row`` (its title), ``seeds``, ``published`` and
            ``original`` (column → number), ``ours`` (column → a score for each seed), ``finished`` (time and memory of
            each), ``attribution`` (scores of each, ``None`` where not measured) and, against the baseline,
            ``difference`` of :func:`~facelightning.metrics.statistics.bootstrap_differences`.
        split: What was scored.
    """
    titles = {row.name: row.title for table in tables for row in table.rows}
    text = "\n\n".join(
        _markdown(table, [record for record in records if record["table"] == table.name], titles[table.baseline], split)
        for table in tables
        if any(record["table"] == table.name and record["seeds"] for record in records)
    )
    name = "tables" if split == "test" else f"tables_{split}"
    (folder / f"{name}.md").write_text(text + "\n")
    (folder / f"{name}.json").write_text(json.dumps(list(records), indent=2) + "\n")
    with (folder / f"{name}.csv").open("w", newline="") as file:
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


def _markdown(table: Table, records: Sequence[Mapping[str, Any]], baseline: str, split: str) -> str:
    """A table as Markdown: published | ours, with differences where there are any; transposed if it is wide."""
    titles = list(table.columns.values())
    published = [[_published(record, column) for column in table.columns] for record in records]
    ours = [[_spread(record["ours"][column]) for column in table.columns] for record in records]
    more, *others = _others(records)
    cells = list(zip([record["row"] for record in records], published, ours, others, strict=True))
    if len(titles) <= MOST_COLUMNS:
        lines = [["", *(f"{title}: {whose}" for whose in ("published", "ours") for title in titles), *more]]
        lines += [[name, *theirs, *mine, *other] for name, theirs, mine, other in cells]
    else:
        columns = [["", *titles, *more]]
        for name, theirs, mine, other in cells:
            both = {"published": [*theirs, *("" for _ in more)], "ours": [*mine, *other]}
            columns += [[f"{name}: {whose}", *column] for whose, column in both.items() if any(column)]
        lines = [list(line) for line in zip(*columns, strict=True)]
    head, *body = map(_line, lines)
    text = [f"**{table.title}** (published: {table.source})", "", head, _line(["---"] * len(lines[0])), *body]
    seeds = sorted({seed for record in records for seed in record["seeds"]})
    over = ", ".join(map(str, seeds))
    text += ["", f"Ours, on {split}: mean ± standard deviation (each), over seeds {over}, of finished runs."]
    if any("difference" in record for record in records):
        text.append(f"Δ: to {baseline}, with a bootstrap interval over the persons of {split}, or also over trainings.")
    text.append("Time: from start to end, perhaps beside other runs. Memory: of the main process, without a GPU's.")
    return "\n".join(text)


def _others(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What stands beside the scores: the titles, and the cells of each record."""
    differences = [record.get("difference", {}) for record in records]
    covered = [over for over in DIFFERENCES if any(over in difference for difference in differences)]
    measured = any(any(record["attribution"]) for record in records)
    titles = [f"Δ {score} {DIFFERENCES[over]} [95 %]" for over in covered for score in ("error", "mean AP")]
    lines = [[*titles, *(ATTRIBUTION.values() if measured else ()), "time", "memory"]]
    for record, difference in zip(records, differences, strict=True):
        cells = [_interval(difference.get(over, {}).get(name)) for over in covered for name in ("error", "mean_ap")]
        if measured:
            scores = [score for score in record["attribution"] if score is not None]
            cells += [_spread([score[key] for score in scores]) for key in ATTRIBUTION]
        whole = [finished["seconds"] for finished in record["finished"] if finished["attempts"] == 1]
        cells.append(duration(mean(whole)) if whole else "")
        cells.append(f"{max(f['peak_memory_mib'] for f in record['finished']):.0f} MiB" if record["finished"] else "")
        lines.append(cells)
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _published(record: Mapping[str, Any], column: str) -> str:
    """As printed in the paper; in parentheses on original images."""
    known = [printed(record[kind][column]) if column in record[kind] else "" for kind in ("published", "original")]
    return f"{known[0]} ({known[1]})".strip() if known[1] else known[0]


def printed(value: float) -> str:
    """A number as papers print it: two digits, or whole if it was given so.

    Example:
        >>> printed(9.1), printed(87)
        ('9.10', '87')
    """
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:.2f}" if known else ""
    return f"{mean(known):.2f} ± {stdev(known):.2f} ({', '.join(f'{value:.2f}' for value in known)})"


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
    for over, scores in record.get("difference", {}).items():
        for name, (value, low, high) in scores.items():
            row |= {f"{name}_difference": value, f"{name}_low_over_{over}": low, f"{name}_high_over_{over}": high}
    return row
