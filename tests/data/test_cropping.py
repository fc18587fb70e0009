"""Cuts around faces: the right pixels, black beyond the image, landmarks and box that move along."""

from pathlib import Path

import numpy as np
import pytest

from facelightning.boxes import read_boxes_table
from facelightning.data import CelebADataModule, SyntheticScenesDataModule
from facelightning.data.cropping import CroppedRecords, FaceCrop
from facelightning.data.files import Record
from facelightning.data.transforms import FaceTransform
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError

BOX = np.array([10.0, 20, 30, 60], np.float32)


class Known:
    """Images that are known; each pixel tells its place: red its column, green its row."""

    names = ("a.jpg", "b.jpg")

    def __init__(self, box: object = BOX) -> None:
        self.box = box

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int, /) -> Record:
        rows, columns = np.mgrid[1:101, 1:81].astype(np.uint8)
        image = np.stack([columns, rows, np.full_like(rows, index)], axis=2)
        landmarks = np.array([[15, 30]] * 5, np.float32)
        return Record(image=image, name=self.names[index], landmarks=landmarks, identity=7, box=self.box)  # type: ignore[typeddict-item]


def test_a_cut_by_hand() -> None:
    """The box is 20×40, so the square's side is 80: rows 0 to 80, columns -20 to 60."""
    record = CroppedRecords(Known(), FaceCrop(2.0), (50, 50))[1]
    assert record["image"].shape == (80, 80, 3)
    assert (record["image"][:, :20] == 0).all()
    assert record["image"][0, 20].tolist() == [1, 1, 1]
    assert record["image"][79, 79].tolist() == [60, 80, 1]
    assert record["box"].tolist() == [30, 20, 50, 60]
    assert record["landmarks"].tolist() == [[35, 30]] * 5
    assert (record["identity"], record["name"]) == (7, "b.jpg")


def test_it_has_the_shape_of_the_network() -> None:
    record = CroppedRecords(Known(), FaceCrop(1.0), (100, 50))[0]
    assert record["image"].shape == (80, 40, 3)
    wide = CroppedRecords(Known(), FaceCrop(1.0), (50, 100))[0]
    assert wide["image"].shape == (40, 80, 3)


def test_without_a_known_face_the_image_is_seen_whole() -> None:
    record = CroppedRecords(Known(np.full(4, np.nan, np.float32)), FaceCrop(2.0), (50, 40))[0]
    assert (record["image"] == Known()[0]["image"]).all()


def test_found_boxes_count_more_than_true_ones(tmp_path: Path) -> None:
    table = tmp_path / "faces.csv"
    table.write_text("name,response,x0,y0,x1,y1\nb.jpg,9,0,0,10,10\nb.jpg,8,50,50,70,70\n")
    with pytest.warns(UserWarning, match="has no box for 1 of 2 images: they are seen whole"):
        records = CroppedRecords(Known(), FaceCrop(1.0, str(table)), (50, 50))
    assert records[1]["image"][..., 0].tolist() == [list(range(1, 11))] * 10
    assert records[0]["image"].shape == (100, 100, 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,x0,y0,x1\na.jpg,1,2,3\n", "expected the columns name, x0, y0, x1, y1"),
        ("", "expected the columns name"),
        ("name,x0,y0,x1,y1\na.jpg,1,2,3,4\nb.jpg,5,5,5,9\n", "line 3: expected a box x0 < x1"),
        ("name,x0,y0,x1,y1\na.jpg,1,2,x,4\n", "line 2: expected a box"),
        ("name,x0,y0,x1,y1\na.jpg,1,2\n", "line 2: expected a box"),
        ("name,x0,y0,x1,y1\na.jpg,1,2,inf,4\n", "line 2: expected a box"),
        ("name,x0,y0,x1,y1\nc.jpg,1,2,3,4\n", "has a box for none of the 2 images"),
    ],
)
def test_a_table_that_is_none(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text(text)
    with pytest.raises(DataFormatError, match=sentence):
        CroppedRecords(Known(), FaceCrop(1.0, str(tmp_path / "faces.csv")), (50, 50))


def test_a_table_with_images_without_a_face(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("name,x0,y0,x1,y1\na.jpg,,,,\n")
    assert np.isnan(read_boxes_table(tmp_path / "faces.csv")["a.jpg"][:, :4]).all()
    with pytest.raises(DataNotFoundError, match="cannot read"):
        read_boxes_table(tmp_path / "none.csv")


def test_what_cannot_be_cut_is_refused(faces: Path) -> None:
    with pytest.raises(ConfigurationError, match="margin must lie in 0"):
        FaceCrop(0.0)
    data = CelebADataModule(str(faces / "celeba"), crop=FaceCrop(1.5), num_workers=0)
    with pytest.raises(DataFormatError, match="the data set has no boxes; name a table"):
        next(iter(data.val_dataloader()))


def test_the_face_fills_the_cut_of_a_scene(tmp_path: Path) -> None:
    data = SyntheticScenesDataModule(str(tmp_path / "scenes"), (4, 4, 4), (0, 0, 0), crop=FaceCrop(1.25), num_workers=0)
    data.prepare_data()
    batch = next(iter(data.val_dataloader()))
    sides = batch["box"][:, 2:] - batch["box"][:, :2]
    assert (sides.amax(dim=1) - 128 / 1.25).abs().max() < 6  # whole pixels of small scenes
    centre = (batch["box"][:, 2:] + batch["box"][:, :2]) / 2
    assert (centre - 64).abs().max() < 4


def test_a_box_beyond_its_image_is_refused(tmp_path: Path) -> None:
    records = CroppedRecords(Known(np.array([500.0, 5, 510, 15], np.float32)), FaceCrop(1.0), (50, 50))
    with pytest.raises(
        DataFormatError, match=r"the box of a\.jpg lies outside its image: correct the data set's boxes"
    ):
        records[0]
    huge = CroppedRecords(Known(np.array([0, 0, 1e9, 1e9], np.float32)), FaceCrop(1.0), (50, 50))
    assert huge[0]["image"].shape == (100, 100, 3)


def test_a_cut_does_not_say_where_its_image_lies() -> None:
    """Its places are not those of the file."""
    sample = FaceTransform((50, 50))(CroppedRecords(Known(), FaceCrop(1.0), (50, 50))[0], 0)
    assert not {"size", "frame"} & sample.keys()
