"""Detectors in place of LNet: a real face, a network that OpenCV reads, a table; boxes lie where the photograph is."""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.data import astronaut
from torch import Tensor

from facelightning.boxes import POINTS, overlap
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError
from facelightning.models import FrontalCascade, TableFinder, YuNet
from facelightning.models.detectors import PhotographDetector
from facelightning.models.finding import Finder

FACE = np.array([[40.0, 34, 86, 80]])
"""The astronaut's face in ``portrait``, by eye."""


def portrait() -> Tensor:
    """A photograph with one face, ``(3, 120, 120)``."""
    return torch.from_numpy(astronaut()[:240:2, 100:340:2].copy()).permute(2, 0, 1)


def padded(photograph: Tensor, left: int, top: int, height: int = 160, width: int = 200) -> Tensor:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, top : top + photograph.shape[1], left : left + photograph.shape[2]] = photograph
    return image


def whole(images: Tensor) -> npt.NDArray[np.float64]:
    return np.tile([0.0, 0, images.shape[3], images.shape[2]], (len(images), 1))


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protocol buffer: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def red_network() -> bytes:
    """An .onnx file with YuNet's outputs, which takes each red cell of 8×8 pixels for a face of that size.

    Its points are 0, 2, … pixels right of the cell's corner, and 1, 3, … below it. YuNet itself cannot be bundled.
    OpenCV decodes these outputs as it does YuNet's: the centre is the corner of a cell.
    """

    def shaped(name: str, *shape: int | str) -> bytes:
        dims = b"".join(field(1, field(1, n) if isinstance(n, int) else field(2, n)) for n in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    def tensor(name: str, array: npt.NDArray[np.generic]) -> bytes:
        kind = 1 if array.dtype == np.float32 else 7  # float or int64
        dims = b"".join(field(1, n) for n in array.shape)
        return field(5, dims + field(2, kind) + field(8, name) + field(9, array.tobytes()))

    def node(kind: str, inputs: list[str], output: str, **lists: list[int]) -> bytes:
        given = [field(1, key) + b"".join(field(8, n) for n in ints) + field(20, 7) for key, ints in lists.items()]
        names = b"".join(field(1, name) for name in inputs) + field(2, output)
        return field(1, names + field(4, kind) + b"".join(field(5, one) for one in given))

    graph = [field(2, "red"), field(11, shaped("input", 1, 3, "h", "w"))]
    for stride in (8, 16, 32):
        for key, channels in {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}.items():
            name, weights = f"{key}_{stride}", np.zeros((channels, 3, stride, stride), np.float32)
            if channels == 1 and stride == 8:
                weights[:, 2] = 1 / 255 / stride**2  # of blue, green, red
            cells = {"strides": [stride] * 2, "kernel_shape": [stride] * 2}
            graph += [
                tensor(f"{name}_weights", weights),
                tensor(f"{name}_bias", np.arange(channels, dtype=np.float32) / stride * (key == "kps")),
                tensor(f"{name}_shape", np.array([1, -1, channels])),
                node("Conv", ["input", f"{name}_weights", f"{name}_bias"], f"{name}_map", **cells),
                node("Transpose", [f"{name}_map"], f"{name}_last", perm=[0, 2, 3, 1]),
                node("Reshape", [f"{name}_last", f"{name}_shape"], name),
                field(12, shaped(name, 1, "cells", channels)),
            ]
    return field(1, 8) + field(7, b"".join(graph)) + field(8, field(1, "") + field(2, 13))


@pytest.fixture
def yunet(tmp_path: Path) -> str:
    path = tmp_path / "red.onnx"
    path.write_bytes(red_network())
    return str(path)


def table(folder: Path, *rows: str, columns: str = "name,x0,y0,x1,y1,response") -> str:
    path = folder / "faces.csv"
    path.write_text("\n".join((columns, *rows)) + "\n")
    return str(path)


class Outside(PhotographDetector):
    """Finds one face in the photograph, and one right of it, in what a network adds to it."""

    def detect(self, photograph: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        width = photograph.shape[1]
        return np.array([[width, 0.0, width + 9, 9, 2], [0, 0, 9, 9, 1]])


def test_a_face_outside_the_photograph_is_none() -> None:
    found = Outside()(torch.zeros(1, 3, 64, 96), np.array([[20.0, 10, 60, 40]]))
    assert found.boxes.tolist() == [[20, 10, 29, 19]]
    assert found.responses.tolist() == [1]


class TestFrontalCascade:
    def test_finds_a_face(self) -> None:
        found = FrontalCascade()(portrait()[None], whole(portrait()[None]))
        assert overlap(found.boxes, FACE).max() > 0.6
        assert (found.responses == 1).all()
        floats = FrontalCascade()(portrait()[None] / 255, whole(portrait()[None]))
        assert np.array_equal(floats.boxes, found.boxes)

    def test_boxes_are_in_pixels_of_the_padded_image(self) -> None:
        images = torch.stack([padded(portrait(), 80, 0), torch.zeros(3, 160, 200), padded(portrait(), 0, 40)]).byte()
        frames = np.array([[80.0, 0, 200, 120], [0, 0, 200, 160], [0, 40, 120, 160]])
        found = FrontalCascade()(images, frames)
        (alone,) = FrontalCascade()(portrait()[None], whole(portrait()[None])).boxes
        assert found.image.tolist() == [0, 2]
        assert found.images == 3
        assert (found.boxes == [alone + [80, 0, 80, 0], alone + [0, 40, 0, 40]]).all()

    def test_nothing_is_found_in_the_padding(self) -> None:
        assert not len(FrontalCascade()(padded(portrait(), 0, 0)[None], np.array([[120.0, 0, 200, 160]])).boxes)

    def test_larger_faces_come_first(self) -> None:
        images = padded(portrait(), 80, 0)
        images[:, :60, :60] = portrait()[:, ::2, ::2]
        found = FrontalCascade()(images[None], whole(images[None]))
        assert len(found.boxes) == 2
        assert (overlap(found.boxes, np.vstack([FACE + [80, 0, 80, 0], FACE / 2])).diagonal() > 0.5).all()

    def test_its_settings_reach_it(self) -> None:
        images = portrait()[None]
        assert not len(FrontalCascade(min_size=100)(images, whole(images)).boxes)
        assert not len(FrontalCascade(scale_factor=4)(images, whole(images)).boxes)  # faces of 24 and 96 pixels
        with pytest.raises(ConfigurationError, match="scale_factor must be above 1 and under 10"):
            FrontalCascade(scale_factor=1.0)

    def test_a_photograph_smaller_than_a_face(self) -> None:
        assert not len(FrontalCascade()(portrait()[None], np.array([[0.0, 0, 10, 10]])).boxes)

    def test_needs_scikit_image(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "skimage.feature", None)
        with pytest.raises(ConfigurationError, match=r"scikit-image's, which is not installed: .*\[detectors\]"):
            FrontalCascade()
        TableFinder(table(tmp_path))


class TestYuNet:
    """OpenCV's own code runs; only the network is a stand-in."""

    def test_boxes_and_scores(self, yunet: str) -> None:
        image = torch.zeros(3, 64, 96, dtype=torch.uint8)
        image[0, 8:16, 8:16] = 200
        image[0, 16:24, 32:40] = 250
        image[2, 40:48, 64:72] = 250  # blue
        found = YuNet(yunet)(image[None], whole(image[None]))
        assert found.boxes.tolist() == [[28, 12, 36, 20], [4, 4, 12, 12]]
        assert found.responses == pytest.approx([250 / 255, 200 / 255])
        assert found.points is not None
        assert found.points[1].tolist() == [[8, 9], [10, 11], [12, 13], [14, 15], [16, 17]]
        assert len(YuNet(yunet, least=0.9)(image[None], whole(image[None])).boxes) == 1

    def test_photographs_of_different_sizes(self, yunet: str) -> None:
        images = torch.zeros(3, 3, 64, 96, dtype=torch.uint8)
        images[:, 0, 32:40, 48:56] = 250
        frames = np.array([[0.0, 0, 96, 64], [40, 8, 64, 64], [0, 0, 48, 64]])
        found = YuNet(yunet)(images, frames)
        assert found.image.tolist() == [0, 1]
        assert found.boxes.tolist() == [[44, 28, 52, 36]] * 2
        assert found.points is not None and found.points[:, 0].tolist() == [[48, 33]] * 2

    def test_boxes_are_cut_to_the_photograph(self, yunet: str) -> None:
        images = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
        images[:, 0, 16:24, 32:40] = 250
        found = YuNet(yunet)(images, np.array([[32.0, 16, 96, 64]]))
        assert found.boxes.tolist() == [[32, 16, 36, 20]]
        found = YuNet(yunet, least=0.1)(images, np.array([[0.0, 0, 35, 19]]))  # not all of the cell
        assert found.boxes.tolist() == [[28, 12, 35, 19]]

    def test_needs_a_file_that_opencv_reads(self, tmp_path: Path) -> None:
        for missing in (tmp_path / "none.onnx", tmp_path):
            with pytest.raises(DataNotFoundError, match=r"cannot read .*; check the file"):
                YuNet(str(missing))
        for content in (b"", b"<html>", red_network()[:300]):
            (tmp_path / "broken.onnx").write_bytes(content)
            with pytest.raises(DataFormatError, match=r"broken\.onnx is no network that OpenCV reads"):
                YuNet(str(tmp_path / "broken.onnx"))


class TestTableFinder:
    FRAMES = np.array([[0.0, 40, 100, 60], [25, 0, 75, 100], [0, 0, 100, 100]])
    SIZES = np.array([[40.0, 200], [400, 200], [50, 50]])
    IMAGES = torch.zeros(3, 3, 100, 100, dtype=torch.uint8)

    def test_boxes_by_hand(self, tmp_path: Path) -> None:
        """At half the size, 40 pixels down; at a quarter, 25 to the right; at twice the size."""
        path = table(tmp_path, "c,5,10,15,20,3", "a,20,10,60,30,1", "b,,,,,", "a,0,0,200,40,2", "c,0,0,1,1,")
        found = TableFinder(path)(self.IMAGES, self.FRAMES, self.SIZES, ["a", "b", "c"])
        assert found.image.tolist() == [0, 0, 2, 2]
        assert found.boxes.tolist() == [[10, 45, 30, 55], [0, 40, 100, 60], [10, 20, 30, 40], [0, 0, 2, 2]]
        assert found.responses.tolist() == [1, 2, 3, 1]
        assert found.images == 3
        again = TableFinder(path)(self.IMAGES, self.FRAMES, self.SIZES, ["a", "b", "c"])
        assert np.array_equal(again.boxes, found.boxes)

    def test_points_by_hand(self, tmp_path: Path) -> None:
        columns = ",".join(("name,x0,y0,x1,y1", *reversed(POINTS)))
        path = table(tmp_path, "a,20,10,60,30,9,8,7,6,5,4,3,2,1,0", "a,0,0,9,9" + 10 * ",", columns=columns)
        finder = TableFinder(path)
        found = finder(self.IMAGES[:1], self.FRAMES[:1], self.SIZES[:1], ["a"])
        assert finder.knows_points and not TableFinder(table(tmp_path, "a,20,10,60,30,1")).knows_points
        assert found.points is not None and np.isnan(found.points[1]).all()
        assert found.points[0].tolist() == [[0, 40.5], [1, 41.5], [2, 42.5], [3, 43.5], [4, 44.5]]
        for last in ("high", "inf"):
            path = table(tmp_path, f"a,0,0,9,9,0,1,2,3,4,5,6,7,8,{last}", columns=columns)
            with pytest.raises(DataFormatError, match=r"line 2: expected a box .*, and numbers as points"):
                TableFinder(path)

    def test_the_table_is_not_changed(self, tmp_path: Path) -> None:
        finder = TableFinder(table(tmp_path, "b,100,100,200,300", columns="name,x0,y0,x1,y1"))
        for _ in range(2):
            found = finder(self.IMAGES[:1], self.FRAMES[1:2], self.SIZES[1:2], ["b"])
            assert found.boxes.tolist() == [[50, 25, 75, 75]]
            assert found.responses.tolist() == [1]

    def test_an_image_without_a_row_is_warned_of(self, tmp_path: Path) -> None:
        finder = TableFinder(table(tmp_path, "a,0,0,1,1,1", "b,,,,,"))
        with pytest.warns(UserWarning, match=r"faces\.csv has no row for some images: they have no face"):
            found = finder(self.IMAGES, self.FRAMES, self.SIZES, ["a", "b", "c"])
        assert found.image.tolist() == [0]

    def test_what_is_refused(self, tmp_path: Path) -> None:
        finder: Finder = TableFinder(table(tmp_path, "a,0,0,1,1,1"))
        with pytest.raises(ConfigurationError, match="looks images up by their names, and these have none"):
            finder(self.IMAGES, self.FRAMES, self.SIZES, ())
        with pytest.raises(DataNotFoundError, match=r"cannot read .*none"):
            TableFinder(str(tmp_path / "none.csv"))
        for row in ("a,0,0,1,1,high", "a,0,0,1,1,inf", "a,3,0,1,1,1"):
            with pytest.raises(DataFormatError, match=r"line 2: expected a box .*, and a number as response"):
                TableFinder(table(tmp_path, row))
