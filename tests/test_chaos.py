"""A short form of ``python -m tests.chaos``: a training that is killed twice ends as an unbroken one does."""

from pathlib import Path

from tests.chaos.__main__ import chaos, table


def test_kills_change_nothing(tmp_path: Path) -> None:
    records = chaos(tmp_path / "chaos", kills=2, seed=3, names=["jointnet"], epochs=5)
    assert sum(records["jointnet"].kills.values()) == 2
    assert records["jointnet"].endings >= 1
    assert not records["jointnet"].faults, table(records)
