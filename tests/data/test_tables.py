"""Annotation tables in every spelling that programs give them, and the sentences about those that are damaged."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelightning.data import tables
from facelightning.data.files import read_lines
from facelightning.data.tables import AnnotationTable
from facelightning.errors import DataFormatError, DataNotFoundError, FacelightningError, quoted

NAMES = ["a", "b.c", "d"]
VALUES = [[1.0, -1.0], [0.0, 2.5], [-1.0, 1e3]]
COLUMNS = ["Bald", "Big Nose"]


def csv(first: str = "image_id", separator: str = ",", quote: str = "", end: str = "\n") -> str:
    rows = [[first, *COLUMNS], *([f"{name}.jpg", *map(str, row)] for name, row in zip(NAMES, VALUES, strict=True))]
    return "".join(separator.join(f"{quote}{cell}{quote}" for cell in row) + end for row in rows)


def read(tmp_path: Path, content: str | bytes, name: str = "table.csv", count: int | None = None) -> AnnotationTable:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return AnnotationTable.read(tmp_path / name, "labels", count)


def refused(tmp_path: Path, content: str | bytes, name: str = "table.csv", count: int | None = None) -> str:
    """The sentence that refuses the content; it is short and names the file."""
    with pytest.raises(FacelightningError) as caught:
        read(tmp_path, content, name, count)
    message = str(caught.value)
    assert len(message) - len(str(tmp_path)) <= 200
    assert str(tmp_path / name) in message
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(csv(), id="commas"),
        pytest.param(csv(separator=";"), id="semicolons"),
        pytest.param(csv(separator="\t"), id="tabs"),
        pytest.param(csv(separator=", "), id="spaces after commas"),
        pytest.param(csv(quote='"'), id="quoted"),
        pytest.param(csv(quote='"', separator=";"), id="quoted, semicolons"),
        pytest.param(csv(quote='"', separator=", "), id="quoted, spaces after commas"),
        pytest.param(csv(end="\r\n"), id="CRLF"),
        pytest.param(csv().rstrip(), id="no last line end"),
        pytest.param("\n" + csv() + ",,\n  \n", id="empty rows"),
        pytest.param("\ufeff" + csv(), id="byte order mark"),
        pytest.param("sep=;\n" + csv(separator=";"), id="a spreadsheet's note of the separator"),
        pytest.param(csv(first=""), id="first column without a name"),
        pytest.param(csv(first="Dateiname"), id="first column of another name"),
        pytest.param(csv(first='"name, of the image"'), id="a comma in a quoted cell"),
    ],
)
def test_every_csv_is_read_alike(content: str, tmp_path: Path) -> None:
    table = read(tmp_path, content)
    assert table.columns == COLUMNS
    assert table.names == NAMES
    np.testing.assert_array_equal(table.values, VALUES)
    assert [content.splitlines()[line - 1].lstrip('"')[0] for line in table.lines] == ["a", "b", "d"]


def test_a_csv_without_a_header_needs_a_count(tmp_path: Path) -> None:
    content = csv().partition("\n")[2]
    np.testing.assert_array_equal(read(tmp_path, content, count=2).values, VALUES)
    assert "line 1: expected the names of the columns" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("table.csv", "image_id,Bald,Bald\na.jpg,1,0\n", id="different values"),
        pytest.param("table.csv", "image_id,Bald,Bald\na.jpg,1,1\n", id="equal values"),
        pytest.param("table.csv", 'image_id;"Bald"; Bald\na.jpg;1;1\n', id="quotes and spaces"),
        pytest.param("table.txt", "\nBald Bald\na.jpg 1 0\n", id="text"),
        pytest.param("table.txt", "\nimage_id Bald Bald\na.jpg 1 0\n", id="text, first column named"),
    ],
)
@pytest.mark.parametrize("count", [None, 2])
def test_two_columns_of_one_name_are_refused(name: str, content: str, count: int | None, tmp_path: Path) -> None:
    line = 2 if name == "table.txt" else 1
    assert f"line {line}: two columns are named 'Bald'" in refused(tmp_path, content, name, count)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["table.csv", "table.txt"])
def test_utf_16_is_named(encoding: str, name: str, tmp_path: Path) -> None:
    assert "is UTF-16: save it as UTF-8" in refused(tmp_path, csv().encode(encoding), name)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param("/etc/a.jpg", id="absolute"),
        pytest.param("../a.jpg", id="above"),
        pytest.param("..\\a.jpg", id="above, as Windows writes it"),
        pytest.param("C:a.jpg", id="a drive"),
        pytest.param("folder/a.jpg", id="a folder"),
        pytest.param("a\x1b[2J.jpg", id="an order to the terminal"),
        pytest.param(f"{'a' * 252}.jpg", id="longer than a file's name can be"),
    ],
)
@pytest.mark.parametrize(("name", "separator"), [("table.csv", ","), ("table.txt", " ")])
def test_an_image_s_name_is_no_path(image: str, name: str, separator: str, tmp_path: Path) -> None:
    content = f"ok.jpg{separator}0\n{image}{separator}1\n"
    assert "line 2: expected an image's name without a folder, found" in refused(tmp_path, content, name, 1)


MUCH = "x" * 400_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(f"a.jpg,0\n{MUCH[:100_000]},1\n", "line 2: expected an image's name, found 'xxxx", id="name"),
        pytest.param(f"a.jpg,{MUCH[:100_000]}\n", "line 1: labels must be numbers, found 'xxxx", id="cell"),
        pytest.param(f"a.jpg,{MUCH}\n", "line 1: field larger than field limit", id="cell beyond the limit"),
        pytest.param(
            f"n,{MUCH[:100_000]},{MUCH[:100_000]}\na.jpg,0,0\n", "line 1: two columns are named 'xxxx", id="column"
        ),
        pytest.param('a.jpg,0\nb.jpg,"1\nc.jpg,0\n', "line 3: unexpected end of data; is a quotation", id="no end"),
        pytest.param('a.jpg,0\nb.jpg,"1"0\n', "line 2: ',' expected after '\"'", id="quotation mark within"),
        pytest.param(b"a.jpg,0\n" + b"\0" * 400_000, "line 2: it holds NUL bytes", id="a tail of NULs"),
        pytest.param(b"\0" * 400_000, "line 1: it holds NUL bytes", id="only NULs"),
        pytest.param("a.jpg,1e999\n", "line 1: labels must be finite, found inf", id="infinite"),
        pytest.param("\ufeff<!DOCTYPE html>", "it is a web page", id="web page with a byte order mark"),
    ],
)
def test_damage_is_one_short_sentence(content: str | bytes, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, content, count=1)


def test_text_is_shown_short_and_printable() -> None:
    assert quoted("Bald") == "Bald"
    assert quoted("x" * 80) == "x" * 80
    assert quoted("x" * 81) == "x" * 79 + "…"
    assert quoted("a\0\x1b\n\ud800ö 🙂") == "a����ö 🙂"
    assert quoted("", 5) == ""
    assert quoted("123456", 5) == "1234…"


def as_folder(path: Path) -> None:
    path.mkdir()


def as_dangling_link(path: Path) -> None:
    path.symlink_to("gone.csv")


def as_loop(path: Path) -> None:
    path.symlink_to(path)


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(as_folder, "it is a folder, not a file", id="folder"),
        pytest.param(as_dangling_link, "it is a link to nothing", id="dangling link"),
        pytest.param(as_loop, "symbolic links", id="a link to itself"),
        pytest.param(as_pipe, "device, not a file", id="pipe"),
        pytest.param(lambda path: None, "No such file or directory", id="nothing"),
    ],
)
def test_what_is_no_file_is_said(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    make(path)
    with pytest.raises(DataNotFoundError, match=message) as caught:
        read_lines(path)
    assert f"cannot read {path}: " in str(caught.value)


def test_a_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"cannot read .*: File name too long"):
        read_lines(tmp_path / ("x" * 300))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_operating_system_refuses_is_said(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(csv())

    def fail(self: Path, *_: Any) -> bytes:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataNotFoundError, match=os.strerror(number)) as caught:
        AnnotationTable.read(path, "labels")
    assert f"cannot read {path}: " in str(caught.value)


def test_errors_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="it is empty"):
        read(tmp_path, "")


ROW = "000001.jpg 1 -1\n"


@pytest.mark.parametrize(
    ("content", "is_regular"),
    [
        (ROW + "000002.png  -1\t1 \n", True),
        ("2\nA B\n" + ROW + "b.jpg 1e3 .5", True),
        (ROW + "000002.jpg 1_0 1\n", False),
        (ROW + "000002.jpg nan 1\n", True),
        (ROW + "000002.jpg 1\n1\n", False),
        (ROW + "000002.jpg 1 1 1\n", False),
        (ROW + "\n000002.jpg 1 1\n", False),
        (ROW + ROW, False),
        (ROW + "000001.jpg 1 1\n", False),
        (ROW + "000001.png 1 1\n", False),
        (ROW + "1 2 3\n", False),
        (ROW + "a/b.jpg 1 1\n", False),
        (ROW + f"{'a' * 14}.jpgx.jpg 1 1\n", False),  # at 18 letters it would end like an image's name
        (ROW + f"{'a' * 30}.jpg 1 1\n", False),
        (ROW + "000002.jpg 1 #1\n", False),
        (ROW + '"000002.jpg" 1 1\n', False),
        (ROW + "ä.jpg 1 1\n", False),
        (ROW + "000002.jpg 1 0x1\n", False),
    ],
)
def test_regular_tables_are_read_as_all_others(
    content: str, is_regular: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, used, quick = list[Any](), list[bool](), tables._regular_rows

    def watched(*args: Any) -> Any:
        used.append((rows := quick(*args)) is not None)
        return rows

    for regular_rows in (watched, lambda *_: None):
        monkeypatch.setattr(tables, "_regular_rows", regular_rows)
        try:
            table = read(tmp_path, content, "table.txt", 2)
            found.append((table.columns, table.names, table.values.tolist(), table.lines))
        except DataFormatError as error:
            found.append(str(error))
    assert used == [is_regular]
    assert found[0] == found[1]
