"""People: who it is, how old and of which race, from folders, from names and from tables; what is amiss is said."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from facelightning.data import (
    FaceTable,
    FaceTableDataModule,
    PersonFolders,
    PersonFoldersDataModule,
    SyntheticPeopleDataModule,
    UTKFace,
    UTKFaceDataModule,
)
from facelightning.data.people import People
from facelightning.data.synthetic import draw_face, write_people
from facelightning.data.synthetic.drawing import CartoonFace
from facelightning.data.synthetic.parameters import sample_identity, skin_tone
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError
from facelightning.labels import ATTRIBUTES

SPLITS = ("train", "val", "test")


def write(root: Path, names: Sequence[str]) -> None:
    """Small images, each as bright as its place."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.full((12, 10, 3), 5 * number, np.uint8))


def records(people: People) -> dict[str, dict[str, Any]]:
    """What is known of each image, by its name."""
    return {each.pop("name"): {**each} for each in (people[index] for index in range(len(people)))}  # type: ignore[misc]  # every record has a name


class TestPersonFolders:
    NAMES = tuple(f"n{person:02d}/{image}.jpg" for person in range(22) for image in range(1 + person % 3))

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        write(tmp_path, self.NAMES)
        return tmp_path

    def test_of_ten_persons_one_is_held_out_for_each(self, root: Path) -> None:
        parts = {split: PersonFolders(root, split) for split in SPLITS}  # type: ignore[arg-type]  # literals
        found = {name: split for split, part in parts.items() for name in part.names}
        assert found == {name: {8: "val", 9: "test"}.get(int(name[1:3]) % 10, "train") for name in self.NAMES}
        everything = records(PersonFolders(root, "all"))
        for number, name in enumerate(self.NAMES):
            assert everything[name]["identity"] == int(name[1:3])
            assert everything[name]["image"].mean() == pytest.approx(min(5 * number, 255), abs=3)

    def test_a_batch_has_identities_and_the_facts_those_of_the_training(self, root: Path) -> None:
        data = PersonFoldersDataModule(str(root), image_size=(8, 8), batch_size=4, num_workers=0, images_per_identity=2)
        data.setup("fit")
        assert data.facts.identities == tuple(person for person in range(22) if person % 10 < 8)
        batch = next(iter(data.train_dataloader()))
        assert batch["identity"].dtype == torch.int64
        assert sorted(Counter(batch["identity"].tolist()).values()) == [2, 2]
        assert [int(name[1:3]) for name in batch["name"]] == batch["identity"].tolist()
        with pytest.raises(ConfigurationError, match="images_per_identity 3 must divide batch_size 4"):
            PersonFoldersDataModule(str(root), batch_size=4, images_per_identity=3)

    def test_what_is_amiss_is_said(self, root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        (root / "n03/notes.txt").write_text("about him")
        (root / "nobody").mkdir()
        (root / "list.txt").write_text("of persons")
        write(root, [".hidden/1.jpg", "@eaDir/1.jpg"])
        with pytest.warns(UserWarning, match=r"no images \(n03/notes.txt\) and 1 folders without an image \(nobody\)"):
            assert records(PersonFolders(root, "all")).keys() == set(self.NAMES)
        (root / "a").symlink_to(root / "n07")
        (root / "everyone").symlink_to(root)
        with pytest.warns(UserWarning, match=r"and 2 links to other persons \(a, everyone\)"):
            assert records(PersonFolders(root, "all")).keys() == set(self.NAMES)
        few = tmp_path_factory.mktemp("few")
        with pytest.raises(DataFormatError, match="holds no folder with images; it must hold a folder of images for"):
            PersonFolders(few)
        write(few, ["train/n1/1.jpg", "test/n2/1.jpg"])
        with pytest.raises(DataFormatError, match="holds 2 persons, but of every ten, one is for validation and one"):
            PersonFolders(few)
        with pytest.raises(DataNotFoundError, match="PersonFolders: no data root given"):
            PersonFolders(None)


GOOD = {
    **{f"part1/{age}_1_{age % 5}_20170109142408{age:03d}.jpg.chip.jpg": (age, age % 5) for age in range(1, 117, 6)},
    "26_0_4_20170104023102422.png": (26, 4),
}
BAD = ("part1/39_1_20170116174525125.jpg.chip.jpg", "61_3_0_20170109150557335.jpg", "121_0_0_1.jpg", "x_0_0_1.jpg")


class TestUTKFace:
    def test_names_say_age_and_race(self, tmp_path: Path) -> None:
        write(tmp_path, [*GOOD, *BAD])
        with pytest.warns(
            UserWarning, match=r"4 images are left out, which are not named as AGE_.*\(121_0_0_1.jpg, 61"
        ):
            found = records(UTKFace(tmp_path, "all"))
        assert {name: (each["age"], each["category"]) for name, each in found.items()} == GOOD

    def test_every_split_has_all_ages(self, tmp_path: Path) -> None:
        write(tmp_path, list(GOOD))
        data = UTKFaceDataModule(str(tmp_path), image_size=(8, 8), batch_size=32, num_workers=0)
        data.setup("fit")
        assert data.facts.categories == ("White", "Black", "Asian", "Indian", "Other")
        assert data.facts.identities is None
        (batch,) = data.train_dataloader()
        assert batch["age"].dtype == torch.float32
        assert [GOOD[name] for name in batch["name"]] == list(zip(batch["age"], batch["category"], strict=True))
        names = sorted(GOOD)
        assert list(UTKFace(tmp_path, "val").names) == [names[8], names[18]]
        assert list(UTKFace(tmp_path, "test").names) == [names[9], names[19]]
        with pytest.raises(ConfigurationError, match="identities are unknown, but images_per_identity is 2"):
            UTKFaceDataModule(str(tmp_path), batch_size=4, images_per_identity=2).train_dataloader()

    def test_no_such_name_is_an_error(self, tmp_path: Path) -> None:
        write(tmp_path, ["face.jpg"])
        with pytest.raises(DataFormatError, match=r"holds no images named AGE_GENDER_RACE_DATE.jpg of up to 120"):
            UTKFace(tmp_path)


FAIRFACE = "file,age,gender,race,service_test\n" + "".join(
    f"train/{n}.jpg,{'3-9' if n % 2 else 'more than 70'},Male,{'Black' if n % 3 else 'East Asian'},True\n"
    for n in range(1, 12)
)
ROWS = ("file;identity;age;split", "a.jpg;Ann;31;train", "deep/b c.png;Bob;;val", "c.jpg;Ann;0.5;train", "")


class TestFaceTable:
    def write(self, root: Path, text: str, absent: Sequence[str] = ()) -> None:
        (root / "faces.csv").write_text(text, encoding="utf-8")
        names = [row[0] for row in csv.reader(text.splitlines(), delimiter=";" if ";" in text else ",") if row][1:]
        write(root, [name for name in names if name not in absent])

    def test_reads_what_it_has(self, tmp_path: Path) -> None:
        self.write(tmp_path, "\n".join(ROWS))
        train = records(FaceTable(tmp_path, "train"))
        assert {name: (each["identity"], each["age"]) for name, each in train.items()} == {
            "a.jpg": (0, 31.0), "c.jpg": (0, 0.5)
        }  # fmt: skip
        (other,) = records(FaceTable(tmp_path, "val")).values()
        assert other["identity"] == 1 and np.isnan(other["age"]) and "category" not in other
        assert len(FaceTable(tmp_path, "test")) == 0
        assert records(FaceTable(tmp_path, "val", columns=["identity"]))["deep/b c.png"].keys() == {"image", "identity"}
        data = FaceTableDataModule(str(tmp_path), image_size=(8, 8), batch_size=4, num_workers=0, augmentations=[])
        data.setup("fit")
        assert (data.facts.identities, data.facts.categories) == ((0,), None)
        (batch,) = data.val_dataloader()
        assert torch.isnan(batch["age"]).all()
        with pytest.raises(DataFormatError, match="FaceTableDataModule: the test split has no images"):
            data.setup("test")

    def test_ages_that_are_all_unknown_are_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path, "file,age,race,split\na.jpg,,x,train\nb.jpg,3,y,val\n")
        with pytest.raises(
            DataFormatError, match=r"faces.csv: no age of a training image is known; fill the column in"
        ):
            FaceTableDataModule(str(tmp_path)).setup("fit")
        assert FaceTableDataModule(str(tmp_path), columns=["race"]).records("train").categories == ("x", "y")

    def test_races_of_fairface_without_its_ranges_of_ages(self, tmp_path: Path) -> None:
        self.write(tmp_path, FAIRFACE)
        parts = {split: FaceTable(tmp_path, split, columns=["race"]) for split in SPLITS}  # type: ignore[arg-type]  # literals
        assert {split: len(part) for split, part in parts.items()} == {"train": 9, "val": 1, "test": 1}
        for part in parts.values():
            assert part.categories == ("Black", "East Asian")
            for name, each in records(part).items():
                assert each["category"] == (int(name[6:-4]) % 3 == 0)
                assert each.keys() == {"image", "category"}
        with pytest.raises(DataFormatError, match=r"line 2: expected an age of 0 to 120 years, .* found '3-9'"):
            FaceTable(tmp_path)

    def test_tabs_leave_cells_empty(self, tmp_path: Path) -> None:
        write(tmp_path, ["a b.jpg"])
        (tmp_path / "faces.TSV").write_text("file\tage\trace\tsplit\na b.jpg\t\tEast Asian\tval\n")
        (found,) = records(FaceTable(tmp_path, "val", table="faces.TSV")).values()
        assert np.isnan(found["age"]) and FaceTable(tmp_path, "val", table="faces.TSV").categories == ("East Asian",)

    def test_a_path_too_long_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "faces.csv").write_text(f"file,age\n{'/'.join(['a' * 250] * 20)}.jpg,3\n")
        with pytest.raises(DataNotFoundError, match=r"aaa.jpg: File name too long; check the file"):
            FaceTable(tmp_path)

    def test_persons_are_not_torn_apart(self, tmp_path: Path) -> None:
        lines = ["file,identity", *(f"{n}.jpg,person {n % 10}" for n in range(30))]
        self.write(tmp_path, "\n".join(lines))
        assert {name[:-4][-1] for name in FaceTable(tmp_path, "val").names} == {"8"}
        assert {name[:-4][-1] for name in FaceTable(tmp_path, "test").names} == {"9"}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("name,age\na.jpg,3\n", r"line 1: expected the names of the columns, file and age or race or"),
            ("file,gender\na.jpg,3\n", r"line 1: expected the names of the columns"),
            ("file,age,age\na.jpg,3,4\n", r"line 1: expected the names of the columns, .* each once, found 'file, age"),
            ("file,age\na.jpg\n", r"line 2: expected 2 cells, found 1"),
            ("file,age\na.jpg,121\n", r"line 2: expected an age of 0 to 120 years, .* found '121'"),
            ("file,age\na.jpg,-1\n", r"line 2: expected an age"),
            ("file,age\na.jpg,inf\n", r"line 2: expected an age"),
            ("file,age\n../a.jpg,3\n", r"line 2: expected a path within the data root, found '../a.jpg'"),
            ("file,age\n/etc/a.jpg,3\n", r"line 2: expected a path within the data root"),
            ("file,race\na.jpg,\n", r"line 2: expected the name of a race, found ''"),
            ("file,age,split\na.jpg,3,dev\n", r"line 2: expected a split, train or val or test, found 'dev'"),
            ("file,age\na.jpg,3\n\na.jpg,4\n", r"line 4: says something else of a.jpg than line 2"),
            ("file,age\n", r"faces.csv holds no row below the names of its columns"),
            ("file,age\nb.jpg,3\n", r"1 of its files \(such as b.jpg\) are not in .*, nor any other: its paths must"),
        ],
    )  # fmt: skip
    def test_what_is_amiss_is_said_with_its_line(self, text: str, said: str, tmp_path: Path) -> None:
        write(tmp_path, ["a.jpg"])
        (tmp_path / "faces.csv").write_text(text)
        with pytest.raises(DataFormatError, match=said) as found:
            FaceTable(tmp_path)
        assert "\n" not in str(found.value)

    def test_other_mistakes(self, tmp_path: Path) -> None:
        text = "\n".join(ROWS)
        self.write(tmp_path, text + "a.jpg;Ann;31;train\n", absent=["c.jpg"])  # a row that says the same is no other
        with pytest.warns(UserWarning, match=r"1 of its files \(such as c.jpg\) are not in .*; left out"):
            assert list(FaceTable(tmp_path, "all").names) == ["a.jpg", "deep/b c.png"]
        with pytest.raises(ConfigurationError, match="columns may name age, race, identity, not sex"):
            FaceTable(tmp_path, columns=["sex"])  # type: ignore[list-item]  # refused
        with pytest.raises(DataNotFoundError, match=r"other.csv"):
            FaceTable(tmp_path, table="other.csv")


COUNTS = ((12, 3, 4), 3)


class TestDrawnPeople:
    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("people") / "people"
        write_people(folder, *COUNTS, seed=7)
        return folder

    def test_the_same_seed_gives_the_same_bytes(self, root: Path, tmp_path: Path) -> None:
        def files(folder: Path) -> dict[str, bytes]:
            return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*.*")}

        write_people(tmp_path / "same", *COUNTS, seed=7)
        assert files(tmp_path / "same") == files(root)
        assert len(set(files(root).values())) == 19 * 3 + 2
        write_people(root, *COUNTS, seed=7)  # is left alone
        with pytest.raises(DataFormatError, match='"seed": 7'):
            write_people(root, *COUNTS, seed=8)
        for wrong in (((-1, 1, 1), 2, 0), ((1, 1, 1), 0, 0), ((1, 1, 1), 2, -1)):
            with pytest.raises(ConfigurationError, match="must not be negative"):
                write_people(tmp_path / "new", *wrong)

    def test_what_the_table_says_is_drawn(self, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        drawn: list[tuple[int, float]] = []

        def draw(attributes: Any, identity: int, seed: int, ageing: float) -> CartoonFace:
            assert not attributes[ATTRIBUTES.index("Pale_Skin")]
            drawn.append((identity, ageing))
            return draw_face(attributes, identity, seed, ageing)

        monkeypatch.setattr("facelightning.data.synthetic.people.draw_face", draw)
        write_people(tmp_path / "again", *COUNTS, seed=7)
        people = FaceTable(root, "all")
        assert people.categories == tuple(sorted(("light", "medium", "dark")))
        assert people.ages is not None and people.numbers is not None and people.identities is not None
        found = zip(drawn, people.ages, people.numbers, people.identities, strict=True)
        for (identity, ageing), age, number, person in found:
            assert age == pytest.approx(15 + 65 * ageing) and 15 <= age <= 80
            tone = ("light", "medium", "dark")[int(skin_tone(sample_identity(identity)))]
            assert people.categories[number] == tone
            assert person == identity % 10**7 - 1
        assert max(np.ptp(people.ages[people.identities == person]) for person in range(19)) <= 4
        data = SyntheticPeopleDataModule(str(root), persons=COUNTS[0], faces_per_person=3, drawing_seed=7)
        data.prepare_data()
        data.setup("fit")
        assert data.facts.identities == tuple(range(12))

    def test_age_deepens_wrinkles_and_nothing_else_moves(self) -> None:
        faces = [draw_face(np.zeros(40, bool), 1, 2, ageing).image.astype(int) for ageing in (0.0, 0.3, 0.6, 1.0)]
        steps = [np.abs(face - faces[0]).sum() for face in faces]
        assert steps == sorted(steps) and 0.15 * steps[3] < steps[1] < 0.5 * steps[3] < steps[2]
        assert np.array_equal(faces[3], draw_face(np.zeros(40, bool), 1, 2).image)
        assert (np.abs(faces[3] - faces[0]).max(axis=2) > 0).mean() < 0.35
