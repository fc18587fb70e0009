"""Photographs in CelebA's frame: against faces that were moved out of it, and a regression of complex numbers."""

from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from facelightning.data import HelenDataModule
from facelightning.data.aligned_masks import TEMPLATE, AlignedRecords
from facelightning.data.alignment import HEIGHT, WIDTH, similarity
from facelightning.data.files import Record, Records
from facelightning.errors import DataFormatError, DataNotFoundError
from facelightning.labels import HELEN7, HELEN11, LabelSpace

PLACES = {"eyes": (89, 111), "nose": (89, 127), "mouth": (89, 153)}
"""By hand, in the middle of a frame of 178×218."""


def face(label_space: LabelSpace, scale: float, turn: float, without: tuple[str, ...] = ()) -> Record:
    """Discs around the places, of a grey for each class, turned and larger: an image whose mask says what it shows."""
    height, width = round(300 * scale), round(260 * scale)
    mask = np.zeros((height, width), np.uint8)
    discs = {"eyes": [(70, 111), (108, 111)], "nose": [(89, 127)], "mouth": [(89, 153)]}
    if label_space is HELEN11:
        discs = {"left_eye": [(70, 111)], "right_eye": [(108, 111)], "nose": [(89, 127)], "upper_lip": [(89, 153)]}
    for name in discs.keys() - set(without):
        for x, y in discs[name]:
            place = scale * np.exp(1j * turn) * complex(x - 89, y - 109)
            centre = (round(16 * (width / 2 + place.real - 0.5)), round(16 * (height / 2 + place.imag - 0.5)))
            cv2.circle(mask, centre, round(16 * 5 * scale), label_space.index(name), cv2.FILLED, shift=4)
    return Record(image=np.repeat(20 * mask[..., None], 3, axis=2), mask=mask, name="a")


def aligned(record: Record, label_space: LabelSpace) -> Record:
    return AlignedRecords(cast(Records, [record]), label_space)[0]


class TestSimilarity:
    def test_is_a_regression_of_complex_numbers(self) -> None:
        rng = np.random.default_rng(0)
        points, targets = rng.normal(size=(2, 5, 2))
        before, after = (each[:, 0] + 1j * each[:, 1] for each in (points, targets))
        turn, shift = np.linalg.lstsq(np.stack([before, np.ones(5)], axis=1), after, rcond=None)[0]
        found = points @ similarity(points, targets)[:, :2].T + similarity(points, targets)[:, 2]
        np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], turn * before + shift)


class TestAlignedRecords:
    @pytest.mark.parametrize("label_space", [HELEN7, HELEN11], ids=str)
    @pytest.mark.parametrize(("scale", "turn"), [(1, 0.3), (0.6, 0), (3.4, -0.2)])
    def test_bring_a_face_where_celebas_are(self, scale: float, turn: float, label_space: LabelSpace) -> None:
        record = aligned(face(label_space, scale, turn), label_space)
        image, mask = record["image"], record["mask"]
        assert mask.shape == image.shape[:2] == (HEIGHT, WIDTH)
        for (_, *names), (x, y) in zip(((n, *n) for n in TEMPLATE), TEMPLATE.values(), strict=True):
            classes = [label_space.index(name) for name in names if name in label_space.classes]
            rows, columns = np.nonzero(np.isin(mask, classes))
            assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=0.75)
        shown, (down, across) = image[141:168, 75:104, 0] / 1.0, np.mgrid[141.5:168, 75.5:104]
        centre = [(shown * along).sum() / shown.sum() for along in (across, down)]
        assert centre == pytest.approx(PLACES["mouth"], abs=0.3)  # no pixel's half is lost
        inside = cv2.erode((mask > 0).astype(np.uint8), np.ones((5, 5))).astype(bool) & (mask != 255)
        np.testing.assert_allclose(image[..., 0][inside], 20.0 * mask[inside], atol=10)  # image and mask go together
        assert inside.sum() > 60

    def test_of_a_large_image_are_means_of_its_pixels(self) -> None:
        """Stripes of one pixel become grey, not other stripes."""
        record = face(HELEN7, 3.4, 0)
        stripes = np.zeros_like(record["image"])
        stripes[:, ::2] = 200
        image = aligned(Record(**{**record, "image": stripes}), HELEN7)["image"]
        np.testing.assert_allclose(image[20:-20, 20:-20], 100, atol=40)

    def test_go_on_with_their_edge_beyond_the_image(self) -> None:
        record = face(HELEN7, 1, 0)
        image, mask = record["image"][60:] + 9, record["mask"][60:]
        mask[:3, : mask.shape[1] // 2], image[:3, : mask.shape[1] // 2] = 1, 99  # hair
        found = aligned(Record(**{**record, "image": image, "mask": mask}), HELEN7)
        hair = found["mask"] == 1
        beyond = 12  # rows, at least
        assert 0 < hair[0].sum() < hair.shape[1]
        assert (found["mask"][:beyond] == found["mask"][0]).all()
        assert (found["image"][:beyond][hair[:beyond]] == 99).mean() > 0.95
        assert (found["name"], found["is_cut"]) == ("a", True)

    def test_two_places_are_enough_and_one_is_not(self) -> None:
        for name in PLACES:
            found = aligned(face(HELEN7, 1.5, 0.2, without=(name,)), HELEN7)["mask"]
            for other in PLACES.keys() - {name}:
                rows, columns = np.nonzero(found == HELEN7.index(other))
                assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(PLACES[other], abs=0.5)
        with pytest.raises(DataFormatError, match=r"^a cannot be aligned: its mask has only 1 of eyes, nose and"):
            aligned(face(HELEN7, 1, 0, without=("eyes", "mouth")), HELEN7)


class TestHelenDataModule:
    def test_aligns_and_learns_all(self, faces: Path) -> None:
        options = {"batch_size": 4, "num_workers": 0, "image_size": (109, 89)}
        data = HelenDataModule(str(faces / "helen"), aligned=True, trained="all", **options)  # type: ignore[arg-type]  # of several types
        data.setup("fit")
        assert (len(data.dataset("train")), len(data.dataset("val"))) == (9 + 5 + 7, 5)
        masks = next(iter(data.val_dataloader()))["mask"]
        for name, y in (("eyes", 55.5), ("mouth", 76.5)):
            rows, columns = (masks == HELEN7.index(name)).nonzero()[:, 1:].float().mean(dim=0).tolist()
            assert (columns, rows) == pytest.approx((44.5, y), abs=1.5)

    def test_all_need_every_list(self, faces: Path, tmp_path: Path) -> None:
        for name in ("images", "labels", "exemplars.txt", "testing.txt"):
            (tmp_path / name).symlink_to(faces / "helen" / name)
        with pytest.raises(DataNotFoundError, match=r"no tuning\.txt"):
            HelenDataModule(str(tmp_path), trained="all").dataset("train")
