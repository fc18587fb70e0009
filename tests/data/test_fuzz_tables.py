"""Whatever an annotation file holds, it is read right or refused in one short sentence: no traceback, hang or flood.

Right means: as a few plain lines of this file read it. ``HYPOTHESIS_PROFILE=long`` tries many more files.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from string import ascii_letters
from typing import Any
from zlib import crc32

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from facelightning.data.celeba import read_celeba
from facelightning.data.face_table import read_face_table
from facelightning.data.files import SUFFIXES
from facelightning.data.helen import read_lists
from facelightning.data.lfwa import read_lfwa
from facelightning.data.tables import AnnotationTable, AttributeDataset
from facelightning.errors import FacelightningError
from facelightning.labels import ATTRIBUTES
from tests.conftest import bounded, write_lfwa


def attempt(read: Callable[[], Any], *files: Path) -> Any:
    """What a reader returns, or nothing if it refuses in one sentence that names a file; soon, and in little memory.

    Where names fit no image any more, the sentence may name the folder. The folder's own length is not counted.
    """
    try:
        with bounded(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # about what is left out; others are errors
            result = read()
        event("read")
        return result
    except FacelightningError as error:
        event("refused")
        message = str(error)
        assert len(message.replace(str(files[0].parent), "/data")) <= 300
        assert message.isprintable(), repr(message)
        assert any(str(file) in message for file in files) or "no image" in message, message
        return None


PIECES = [
    *(b"\0", b"\0" * 3000, b"\xff\xfe", b"\xef\xbb\xbf", b"\xff", b"\n", b"\r", b"\r\n", b" ", b"\t", b",", b";", b'"'),
    *(b"-1", b"0", b"1", b"2", b"0.5", b"nan", b"inf", b"1e999", b"1e300", b"-", b"_", b"1_0", "\u0661".encode(), b"x"),
    *(b"../", b"..", b"..\\", b"/", b"\\", b"C:", b".jpg", b".png", b"a.jpg 1\n", b"000001.jpg", b"<html>"),
    *("é".encode(), "\u2028".encode(), b"\x1b[2J", b"\x0c", b"\x1c", b"Bald", b"Bald Bald", b"image_id", b"x" * 3000),
]


@st.composite
def damaged(draw: st.DrawFn, content: bytes, kinds: str = "piece bytes cut twice end line") -> bytes:
    """The content after one to four accidents of the given kinds; of one that is named twice there are more."""
    for _ in range(draw(st.integers(1, 4))):
        first, last = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        last = min(last, first + draw(st.sampled_from([1, 1, 2, 8, 10**6])))
        match draw(st.sampled_from(kinds.split())):
            case "piece":
                content = content[:first] + draw(st.sampled_from(PIECES)) + content[first:]
            case "bytes":
                new = draw(st.binary(min_size=1, max_size=4))
                content = content[:first] + new + content[first + len(new) :]
            case "cut":
                content = content[:first] + content[last:]
            case "twice":
                content = content[:last] + content[first:]
            case "end":
                content = content[:first]
            case "line":
                lines = content.splitlines(keepends=True) or [b""]
                line, place = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
                content = b"".join([*lines[:place], lines[line], *lines[place:]])
    return content


# ------------------------------------------------------------------------------------------------- annotation tables

LAST = "abcdefghijklmnopqrstuvwxyz0123456789"
STEM = st.tuples(st.text(f"{LAST}_.", max_size=8), st.sampled_from(LAST)).map("".join)
STEMS = st.lists(STEM, min_size=1, max_size=6, unique=True)
COLUMN = st.text(f"{ascii_letters}_", min_size=1, max_size=9)
NUMBERS = st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False))


def column_twice(rows: list[list[str]]) -> None:
    rows[0][1] = rows[0][2]


def row_twice(rows: list[list[str]]) -> None:
    rows.append([rows[1][0], *(str(float(cell) / 2 + 1e9) for cell in rows[1][1:])])


def path_for_name(rows: list[list[str]]) -> None:
    rows[-1][0] = f"../{rows[-1][0]}"


def no_number(rows: list[list[str]]) -> None:
    rows[-1][-1] = "one"


def infinite(rows: list[list[str]]) -> None:
    rows[-1][1] = "-inf"


def nul(rows: list[list[str]]) -> None:
    rows[-1][0] = f"\0{rows[-1][0]}"


def text_between(rows: list[list[str]]) -> None:
    rows.append(["end", *rows[-1][1:]])


DEFECTS = [
    *(column_twice, row_twice, path_for_name, no_number, infinite, nul, text_between),
    lambda rows: rows[-1].pop(),
    lambda rows: rows[-1].append("1"),
    lambda rows: rows[-1].insert(0, "x"),
]


@given(data=st.data())
def test_tables_of_every_spelling(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A table is written in any spelling, perhaps with a defect: what was written is read, or the defect refused."""
    draw = data.draw
    stems = draw(STEMS)
    columns = draw(st.lists(COLUMN, min_size=2, max_size=4, unique=True))
    values = draw(st.lists(st.tuples(*[NUMBERS] * len(columns)), min_size=len(stems), max_size=len(stems)))
    csv = draw(st.booleans())
    first = draw(st.sampled_from(["image_id", "", "photo", "a name, of a file"])) if csv else "image_id"
    suffix = st.sampled_from([".jpg", ".JPG", ".png"])
    names = [f"{stem}{draw(suffix)}" for stem in stems]
    rows = [[first, *columns], *([n, *map(str, row)] for n, row in zip(names, values, strict=True))]
    defect = draw(st.sampled_from([None, *DEFECTS]))
    if defect is not None:
        defect(rows)
    quote = '"' if csv and draw(st.booleans()) else ""
    rows[0] = [f'"{cell}"' if "," in cell and not quote else cell for cell in rows[0]]
    separator = draw(st.sampled_from([",", ";", "\t", ", "])) if csv else draw(st.sampled_from([" ", "  ", "\t"]))
    if "a name, of a file" in first:
        separator = ","  # the separator that a header shows most
    count = [] if csv else draw(st.sampled_from([[], ["3"], ["0"]]))
    lines = count + [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
    end = (
        draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n"]))
        if not csv
        else draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    )
    path = tmp_path_factory.getbasetemp() / f"table.{'csv' if csv else 'txt'}"
    path.write_bytes((draw(st.sampled_from(["", "\ufeff"])) + end.join(lines)).encode())
    table = attempt(lambda: AnnotationTable.read(path, "numbers"), path)
    assert (table is None) == (defect is not None)
    if table is not None:
        assert (table.names, table.columns) == (stems, columns)
        np.testing.assert_array_equal(table.values, np.array(values, float))


def plain_rows(path: Path) -> dict[str, list[float]]:
    """The numbers of each row of a text table, by the image's name without suffix."""
    lines = path.read_text("utf-8-sig").splitlines()
    rows = [line.split() for line in lines if line.strip() and line.split()[0].lower().endswith(SUFFIXES)]
    return {cells[0].rpartition(".")[0]: [float(cell) for cell in cells[1:]] for cells in rows}


def plain_columns(path: Path) -> list[str]:
    lines = path.read_text("utf-8-sig").splitlines()
    images = [bool(line.split()) and line.split()[0].lower().endswith(SUFFIXES) for line in lines]
    return next(line.split() for line in reversed(lines[: images.index(True)]) if len(line.split()) > 1)


TABLE = "3\nBald Big_Nose Young \n000001.jpg -1  1  1\n000002.jpg  1 -1  1\n000003.png  1  1  1\n"


@given(content=damaged(TABLE.encode()))
def test_damaged_tables(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.txt"
    path.write_bytes(content)
    table = attempt(lambda: AnnotationTable.read(path, "numbers"), path)
    if table is not None:
        expected = plain_rows(path)
        assert list(expected) == table.names
        assert [column for column in plain_columns(path) if column != "image_id"] == table.columns
        np.testing.assert_array_equal(table.values, list(expected.values()))


@given(content=damaged(TABLE.replace("  ", " ").replace(" \n", "\n").replace(" ", ",")[2:].encode()))
def test_damaged_csv(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    path.write_bytes(content)
    table = attempt(lambda: AnnotationTable.read(path, "numbers", 3), path)
    if table is not None:
        assert np.isfinite(table.values).all()
        assert len(set(table.names)) == len(table.names) == len(table.values) == len(table.lines)
        lines = content.decode("utf-8-sig").splitlines()
        for name, row, line in zip(table.names, table.values, table.lines, strict=True):
            if '"' not in lines[line - 1]:
                separator = next(sign for sign in ",;\t" if sign in lines[line - 1])
                cells = lines[line - 1].split(separator)
                assert cells[0].strip().rpartition(".")[0] == name
                assert [float(cell) for cell in cells[1:]] == row.tolist()


# -------------------------------------------------------------------------------------------------------------- CelebA

RANDOM = np.random.default_rng(0)
NAMES = [f"{number:06d}.jpg" for number in range(1, 7)]


def text(*columns: Any) -> str:
    return "".join(f"{' '.join(map(str, row))}\n" for row in zip(NAMES, *columns, strict=True))


CELEBA = {
    "list_attr_celeba.txt": f"6\n{' '.join(ATTRIBUTES)} \n" + text(*(2 * RANDOM.integers(2, size=(40, 6)) - 1)),
    "list_eval_partition.txt": text([0, 0, 1, 1, 2, 2]),
    "list_landmarks_align_celeba.txt": f"6\n{' '.join('abcdefghij')} \n" + text(*RANDOM.integers(99, size=(10, 6))),
    "identity_CelebA.txt": text([5, 5, 6, 7, 8, 8]),
}


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("celeba")
    (root / "img_align_celeba").mkdir()
    for name in NAMES:
        cv2.imwrite(str(root / "img_align_celeba" / name), np.zeros((4, 4, 3), np.uint8))
    return root


@pytest.mark.parametrize("name", CELEBA)
@given(data=st.data())
def test_damaged_celeba(data: st.DataObject, name: str, celeba: Path) -> None:
    for other, content in CELEBA.items():
        (celeba / other).write_text(content)
    (celeba / name).write_bytes(data.draw(damaged(CELEBA[name].encode())))
    splits = attempt(lambda: read_celeba(celeba), celeba / name)
    if splits is None:
        return
    every = splits.pop("all").names.tolist()
    attributes, partition, landmarks, identities = (plain_rows(celeba / file) for file in CELEBA)
    columns = plain_columns(celeba / "list_attr_celeba.txt")
    columns = columns[columns[0] == "image_id" :]
    joined = [name[:-4] for name in NAMES if name[:-4] in attributes and name[:-4] in partition]
    assert sorted(every) == [f"{name}.jpg" for name in joined]
    assert sorted(str(image) for faces in splits.values() for image in faces.names) == sorted(every)
    for number, faces in enumerate(splits.values()):
        for index, image in enumerate(faces.names):
            row = dict(zip(columns, attributes[image[:-4]], strict=True))
            assert partition[image[:-4]] == [number]
            assert [float(row[attribute] == 1) for attribute in ATTRIBUTES] == faces.attributes[index].tolist()
            if faces.identities is not None:
                assert identities[image[:-4]] == [faces.identities[index]]
            if faces.landmarks is not None:
                np.testing.assert_allclose(faces.landmarks[index].ravel(), landmarks[image[:-4]], rtol=1e-6)
    assert (faces.identities is None) == (not set(joined) <= set(identities))
    assert (faces.landmarks is None) == (not set(joined) <= set(landmarks))


# --------------------------------------------------------------------------------------------------------------- Helen

LISTS = {
    "exemplars.txt": "1 , 100_1\n2 , 200.b_1\n3 ,300_1  \n",
    "tuning.txt": "1 , 400_1\n2 , 500_1\n",
    "testing.txt": "600_1\n700_1\n",
}


@pytest.mark.parametrize("name", LISTS)
@given(data=st.data())
def test_damaged_helen(data: st.DataObject, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.getbasetemp()
    for other, content in LISTS.items():
        (root / other).write_text(content)
    (root / name).write_bytes(data.draw(damaged(LISTS[name].encode())))
    # an id may come twice in the lists, and the later line is named
    lists = attempt(lambda: read_lists(root), *(root / file for file in LISTS))
    if lists is None:
        return
    for file, ids in zip(LISTS, lists.values(), strict=True):
        lines = (root / file).read_text("utf-8-sig").splitlines()
        assert list(ids) == [line.rpartition(",")[2].strip() for line in lines if line.strip()]
        assert list(ids.values()) == [number for number, line in enumerate(lines, start=1) if line.strip()]
    everything = [name for ids in lists.values() for name in ids]
    assert len(set(everything)) == len(everything)
    assert all((root / "images" / name).resolve().parent == (root / "images").resolve() for name in everything)


# ---------------------------------------------------------------------------------------------------------------- LFWA

FILES = ("lfw_att_40.mat", "indices_train_test.mat")


@pytest.fixture(scope="module")
def lfwa(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Six images, and the two files as they should be."""
    root = tmp_path_factory.mktemp("lfwa")
    write_lfwa(root, 6)
    return root, {file: (root / file).read_bytes() for file in FILES}


def check_lfwa(root: Path, splits: dict[str, AttributeDataset] | None) -> None:
    """What was read, against the files read without any question."""
    if splits is None:
        return
    with h5py.File(root / FILES[0]) as file:
        names, columns = (
            ["".join(chr(code) for code in file[cell][()].ravel()) for cell in file[key][()].ravel()]
            for key in ("name", "AttrName")
        )
        label = np.asarray(file["label"][()], float)
    label = label.T if label.shape == (len(columns), len(names)) else label
    columns = ["".join(letter for letter in column.lower() if letter.isalnum()) for column in columns]
    order = [columns.index(name.lower().replace("_", "")) for name in ATTRIBUTES]
    with h5py.File(root / FILES[1]) as file:
        train, test = (set(file[f"indices_img_{split}"][()].ravel().tolist()) for split in ("train", "test"))
    expected: dict[str, dict[str, list[float]]] = {"train": {}, "val": {}, "test": {}, "all": {}}
    for number, name in enumerate(names, start=1):
        person, image = name.replace("\\", "/").rpartition("/")[::2]
        if (root / "lfw" / person / f"{image.rpartition('.')[0]}.jpg").is_file():
            held_out = crc32(person.encode()) % 100 < 10
            split = "test" if number in test else ("val" if held_out else "train") if number in train else None
            if split is not None:
                row = [float(label[number - 1, column] > 0) for column in order]
                for part in (split, "all"):
                    expected[part][f"{person}/{image.rpartition('.')[0]}.jpg"] = row
    found = {
        split: dict(zip(faces.names.tolist(), faces.attributes.tolist(), strict=True))
        for split, faces in splits.items()
    }
    assert found == expected


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_damaged_lfwa(data: st.DataObject, name: str, lfwa: tuple[Path, dict[str, bytes]]) -> None:
    root, contents = lfwa
    for file, content in contents.items():
        (root / file).write_bytes(content)
    (root / name).write_bytes(data.draw(damaged(contents[name], "bytes bytes bytes bytes bytes bytes piece cut end")))
    check_lfwa(root, attempt(lambda: read_lfwa(root), root / name))


TYPES = ["i1", "u1", "f2", "f4", "f8", "g", "c8", "?", "i2", "u2", "u4", "u8", "S7", "V9", h5py.string_dtype()]
TYPES += [h5py.vlen_dtype(np.int32), h5py.ref_dtype, h5py.regionref_dtype, np.dtype([("a", "f8")])]
TYPES += [np.dtype(("f8", (3,))), h5py.enum_dtype({"no": 0, "yes": 1}, "i1")]


def mutate_type(mat: h5py.File, key: str, draw: st.DrawFn) -> None:
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    shape, old = mat[key].shape, mat[key][()]
    del mat[key]
    numeric = dtype.kind in "iufc?b" and old.dtype.kind in "iuf"
    mat.create_dataset(key, shape, dtype, data=old.astype(dtype) if numeric else None)


def mutate_shape(mat: h5py.File, key: str, draw: st.DrawFn) -> None:
    old = mat[key][()]
    shapes = [
        old.T,
        old.ravel(),
        old[None],
        old[:, :-1],
        old[:-1],
        old[:0],
        old[:, :0],
        old.ravel()[0],
        h5py.Empty("f8"),
    ]
    new = draw(st.sampled_from(shapes))
    dtype = mat[key].dtype
    del mat[key]
    if isinstance(new, h5py.Empty):
        mat[key] = new
    else:
        mat.create_dataset(key, data=new, dtype=dtype)


def mutate_claim(mat: h5py.File, key: str, draw: st.DrawFn) -> None:
    dtype = mat[key].dtype
    del mat[key]
    shape = draw(st.sampled_from([(200_000, 200_000), (40, 10**9), (10**18,), (1, 101_000), (6, 40, 10**6)]))
    chunks = draw(
        st.sampled_from([None, tuple(min(side, 1000) for side in shape), tuple(min(side, 20) for side in shape)])
    )
    compression = "gzip" if chunks and dtype.kind in "uif" and draw(st.booleans()) else None
    mat.create_dataset(key, shape, dtype, chunks=chunks, compression=compression)


def mutate_link(mat: h5py.File, key: str, draw: st.DrawFn) -> None:
    del mat[key]
    match draw(st.sampled_from("missing group soft loop external type".split())):
        case "group":
            mat.create_group(key)
        case "soft":
            mat[key] = h5py.SoftLink("/#refs#")
        case "loop":
            mat[key] = h5py.SoftLink(f"/{key}")
        case "external":
            mat[key] = h5py.ExternalLink(draw(st.sampled_from([FILES[0], "gone", "/", "."])), f"/{key}")
        case "type":
            mat[key] = np.dtype("f8")


def mutate_reference(mat: h5py.File, key: str, draw: st.DrawFn) -> None:
    if mat[key].dtype != h5py.ref_dtype:
        return
    cells = mat[key][()]
    targets = [mat["/"].ref, mat[key].ref, mat["#refs#"].ref, mat["label"].ref, h5py.Reference(), cells.ravel()[-1]]
    cells[0, draw(st.integers(0, cells.size - 1))] = draw(st.sampled_from(targets))
    mat[key][...] = cells


LETTERS = st.sampled_from([*"ab/\\.:_ \0\x1b\n\uffff\ud800é", "Person_00\\Person_00_0001", ".jpg", ".png", "..", "C:"])


def mutate_text(mat: h5py.File, key: str, draw: st.DrawFn) -> None:
    if mat[key].dtype != h5py.ref_dtype:
        return
    written = "".join(draw(st.lists(LETTERS, max_size=6))) * draw(st.sampled_from([1, 1, 1, 300]))
    codes = np.array([[ord(letter)] for letter in written], np.uint16).reshape(-1, 1)
    cells = mat[key][()]
    cells[0, draw(st.integers(0, cells.size - 1))] = mat.create_dataset(f"text{key}", data=codes).ref
    mat[key][...] = cells


def mutate_numbers(mat: h5py.File, key: str, draw: st.DrawFn) -> None:
    if mat[key].dtype.kind != "f":
        return
    values = mat[key][()]
    numbers = st.sampled_from([-1.0, 0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 0.5, np.nan, np.inf, -np.inf, 1e300, 2.0**31])
    values.ravel()[draw(st.integers(0, values.size - 1))] = draw(numbers)
    mat[key][...] = values


MUTATIONS = [mutate_type, mutate_shape, mutate_claim, mutate_link, mutate_reference, mutate_text, mutate_numbers]
KEYS = {"label": FILES[0], "name": FILES[0], "AttrName": FILES[0]} | dict.fromkeys(
    ("indices_img_train", "indices_img_test"), FILES[1]
)


@given(data=st.data())
def test_strange_lfwa(data: st.DataObject, lfwa: tuple[Path, dict[str, bytes]]) -> None:
    """Files that HDF5 finds in order, of other types, shapes, references, texts and numbers."""
    root, contents = lfwa
    for file, content in contents.items():
        (root / file).write_bytes(content)
    key = data.draw(st.sampled_from(sorted(KEYS)))
    with h5py.File(root / KEYS[key], "r+") as mat:
        data.draw(st.sampled_from(MUTATIONS))(mat, key, data.draw)
    check_lfwa(root, attempt(lambda: read_lfwa(root), root / KEYS[key]))


# ------------------------------------------------------------------------------------------------- tables of people

PEOPLE = "file,age,race,split\na.jpg,31,Black,train\nb/c.jpg,,White,val\nb/d.png,80.5,Black,test\n"


@given(content=damaged(PEOPLE.encode()))
def test_damaged_tables_of_people(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.getbasetemp() / "people"
    (root / "b").mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "b/c.jpg", "b/d.png"):
        (root / name).touch()  # reading a table opens no image
    path = root / "faces.csv"
    path.write_bytes(content)
    found = attempt(lambda: read_face_table(root, "faces.csv", ("age", "race")), path, root)
    if found is not None:
        people = found["all"]
        assert set(people.names) <= {"a.jpg", "b/c.jpg", "b/d.png"} and len(set(people.names)) == len(people)
        ages = np.zeros(1) if people.ages is None else people.ages[~np.isnan(people.ages)]
        assert ((ages >= 0) & (ages <= 120)).all()
        if b'"' not in content and content.count(b",") == PEOPLE.count(","):
            lines = content.decode("utf-8-sig").splitlines()
            said = {line.split(",")[0].strip(): line.split(",") for line in lines if line.count(",") == 3}
            for name, number in zip(people.names, people.numbers if people.numbers is not None else (), strict=False):
                assert people.categories[number] in [cell.strip() for cell in said[name]]
