"""Image, mask and landmarks stay together: through the fit to one size, through augmentation, through the mirror."""

import random
import re
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import numpy.typing as npt
import pytest
import torch

import facelightning
from facelightning.data.files import Record
from facelightning.data.transforms import LANDMARKS_MIRRORED, FaceDataset, FaceTransform
from facelightning.errors import ConfigurationError
from facelightning.labels import HELEN7, HELEN11, IGNORE_INDEX, LabelSpace

LANDMARKS = np.array([[5, 8], [14, 8], [10, 12], [6, 17], [13, 17]], np.float32)
MIRROR_OF_HELEN11 = [0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10]


def record(height: int = 24, width: int = 20, classes: int = 11) -> Record:
    generator = np.random.default_rng(0)
    return Record(
        image=generator.integers(0, 256, (height, width, 3), np.uint8),
        mask=generator.integers(0, classes, (height, width), np.uint8),
        attributes=generator.integers(0, 2, 40).astype(np.float32),
        landmarks=LANDMARKS.copy(),
        identity=2937,
        name="000002.jpg",
    )


def transform(*augmentations: Any, space: LabelSpace = HELEN11, size: tuple[int, int] = (24, 20)) -> FaceTransform:
    return FaceTransform(size, space, augmentations)


def test_values_types_and_shapes() -> None:
    given = record()
    sample = transform()(given, 0)
    assert torch.equal(sample["image"], torch.from_numpy(given["image"]).permute(2, 0, 1))
    assert torch.equal(sample["mask"], torch.from_numpy(given["mask"]).long())
    np.testing.assert_array_equal(sample["landmarks"], given["landmarks"])
    np.testing.assert_array_equal(sample["attributes"], given["attributes"])
    assert (sample["identity"].item(), sample["name"]) == (2937, "000002.jpg")
    assert [sample[key].dtype for key in ("image", "mask", "landmarks", "attributes", "identity")] == [
        torch.uint8,
        torch.int64,
        torch.float32,
        torch.float32,
        torch.int64,
    ]


def test_only_the_keys_of_the_record() -> None:
    found = set(transform(A.HorizontalFlip(p=1))(Record(image=record()["image"]), 0))
    assert found == {"image", "size", "frame"}


@pytest.mark.parametrize("shape", [(24, 20), (50, 20), (13, 37), (100, 7), (1, 4)])
@pytest.mark.parametrize("size", [(24, 20), (32, 32)])
def test_the_frame_is_what_the_image_fills(shape: tuple[int, int], size: tuple[int, int]) -> None:
    white = Record(image=np.full((*shape, 3), 255, np.uint8))
    sample = transform(size=size)(white, 0)
    rows, columns = (sample["image"][0] > 127).nonzero(as_tuple=True)
    filled = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (sample["frame"] - filled).abs().max() <= 1
    assert sample["size"].tolist() == list(shape)


def test_the_record_itself_is_left_alone() -> None:
    given, before = record(), record()
    transform(A.HorizontalFlip(p=1), A.Affine(rotate=(20, 20), p=1), size=(30, 20))(given, 0)
    np.testing.assert_array_equal(given["image"], before["image"])
    np.testing.assert_array_equal(given["mask"], before["mask"])
    np.testing.assert_array_equal(given["landmarks"], before["landmarks"])
    np.testing.assert_array_equal(given["attributes"], before["attributes"])


@pytest.mark.parametrize("size", [(218, 178), (100, 200), (64, 64)])
@pytest.mark.parametrize(("height", "width"), [(218, 178), (109, 89), (40, 160), (300, 150), (33, 47), (50, 51)])
def test_the_fit_keeps_the_aspect_and_pads_with_ignore(height: int, width: int, size: tuple[int, int]) -> None:
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height], [width / 2, height / 2]], np.float32)
    white = np.full((height, width, 3), 200, np.uint8)
    given = Record(image=white, mask=np.ones((height, width), np.uint8), landmarks=corners)
    sample = FaceTransform(size, HELEN11)(given, 0)
    assert sample["image"].shape == (3, *size)
    assert sample["mask"].shape == size
    assert set(sample["mask"].flatten().tolist()) <= {1, IGNORE_INDEX}

    scale = min(size[0] / height, size[1] / width)
    rows, columns = (torch.where((sample["mask"] == 1).any(dim=other))[0] for other in (1, 0))
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    assert bottom - top == pytest.approx(height * scale, abs=0.51)
    assert right - left == pytest.approx(width * scale, abs=0.51)
    assert abs(top - (size[0] - bottom)) <= 1 and abs(left - (size[1] - right)) <= 1  # padded on both sides alike
    inside = sample["mask"] == 1
    assert (sample["image"][:, inside] == 200).all() and (sample["image"][:, ~inside] == 0).all()
    expected: list[list[float]] = [
        [left, top],
        [right, top],
        [left, bottom],
        [right, bottom],
        [(left + right) / 2, (top + bottom) / 2],
    ]
    np.testing.assert_allclose(sample["landmarks"], expected, atol=0.51)


def test_a_mask_of_the_fit_holds_no_new_classes() -> None:
    given = record(97, 61)
    given["mask"] = np.where(given["mask"] > 5, 10, 0).astype(np.uint8)
    assert set(transform(size=(50, 30))(given, 0)["mask"].flatten().tolist()) <= {0, 10, IGNORE_INDEX}


@pytest.mark.parametrize(
    ("augmentation", "mirrored"),
    [
        (A.HorizontalFlip(p=1), True),
        (A.VerticalFlip(p=1), True),
        (A.Transpose(p=1), True),
        (A.Sequential([A.HorizontalFlip(p=1), A.Rotate((30, 30), p=1)], p=1), True),
        (A.Sequential([A.Affine(rotate=(15, 15), shear=(5, 5), p=1), A.HorizontalFlip(p=1)], p=1), True),
        (A.HorizontalFlip(p=0), False),
        (A.Rotate((30, 30), p=1), False),
        (A.Affine(rotate=(180, 180), p=1), False),
        (A.Affine(scale=(0.7, 0.7), shear=(10, 10), p=1), False),
        (A.Sequential([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)], p=1), False),
        (A.Sequential([A.HorizontalFlip(p=1), A.HorizontalFlip(p=1)], p=1), False),
    ],
)
def test_left_and_right_change_places_if_and_only_if_mirrored(augmentation: Any, mirrored: bool) -> None:
    eyes = Record(
        image=np.zeros((24, 24, 3), np.uint8),
        mask=np.full((24, 24), HELEN11.index("left_eye"), np.uint8),
        landmarks=LANDMARKS,
    )
    sample = transform(augmentation, size=(24, 24))(eyes, 0)
    assert sample["mask"][12, 12] == HELEN11.index("right_eye" if mirrored else "left_eye")
    unswapped = A.Compose([augmentation], keypoint_params=A.KeypointParams("xy", remove_invisible=False))
    moved = unswapped(image=eyes["image"], keypoints=LANDMARKS)["keypoints"]
    expected = moved[[1, 0, 2, 4, 3]] if mirrored else moved
    np.testing.assert_allclose(sample["landmarks"], expected, atol=1e-4)


def test_the_horizontal_flip_of_eleven_classes() -> None:
    given = record()
    given["mask"][0, :3] = IGNORE_INDEX
    sample = transform(A.HorizontalFlip(p=1))(given, 0)
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0), given["image"][:, ::-1])
    table = {**dict(enumerate(MIRROR_OF_HELEN11)), IGNORE_INDEX: IGNORE_INDEX}
    expected = [[table[int(value)] for value in row[::-1]] for row in given["mask"]]
    np.testing.assert_array_equal(sample["mask"], expected)
    left_eye, right_eye, *_, right_corner = ([19 - x, y] for x, y in LANDMARKS[[1, 0, 2, 4, 3]].tolist())
    np.testing.assert_array_equal(sample["landmarks"][[0, 1, 4]], [left_eye, right_eye, right_corner])
    assert sample["landmarks"][0, 0] < sample["landmarks"][1, 0]  # the left eye is still the image's left
    np.testing.assert_array_equal(sample["attributes"], given["attributes"])


def test_the_horizontal_flip_of_seven_classes_swaps_none() -> None:
    given = record(classes=7)
    sample = transform(A.HorizontalFlip(p=1), space=HELEN7)(given, 0)
    np.testing.assert_array_equal(sample["mask"], given["mask"][:, ::-1])


def test_mirroring_twice_is_nothing() -> None:
    assert [LANDMARKS_MIRRORED[place] for place in LANDMARKS_MIRRORED] == list(range(5))


def centre(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()])


@pytest.mark.parametrize("seed", range(5))
def test_a_landmark_stays_on_its_spot_of_image_and_mask(seed: int) -> None:
    points = np.array([[40, 50], [85, 52], [60, 80], [45, 100], [80, 103]], np.float32)
    image, mask = np.zeros((170, 140, 3), np.uint8), np.zeros((170, 140), np.uint8)
    for label, (x, y) in enumerate(points.astype(int), start=1):
        image[y - 3 : y + 4, x - 3 : x + 4] = 50 * label
        mask[y - 3 : y + 4, x - 3 : x + 4] = label
    affine = A.Affine(scale=(0.8, 1.2), rotate=(-30, 30), translate_percent=(-0.05, 0.05), shear=(-8, 8), p=1)
    spots = LabelSpace("spots", tuple("abcdef"), ((0, 0, 0),) * 6, ())
    augment = transform(A.HorizontalFlip(p=0.5), affine, space=spots, size=(170, 140))
    sample = augment(Record(image=image, mask=mask, landmarks=points), seed)
    landmarks = sample["landmarks"].numpy()
    moved = sample["mask"].numpy()
    mirrored = np.allclose(centre(moved == 1), landmarks[1], atol=2)
    for label in range(1, 6):
        landmark = landmarks[LANDMARKS_MIRRORED[label - 1] if mirrored else label - 1]
        np.testing.assert_allclose(centre(moved == label), landmark, atol=0.6)
        x, y = landmark.round().astype(int)
        assert sample["image"][0, y, x].item() == pytest.approx(50 * label, abs=2)


def test_what_an_augmentation_moves_in_can_be_ignored() -> None:
    affine = A.Affine(scale=(0.5, 0.5), fill_mask=IGNORE_INDEX, p=1)
    mask = transform(A.HorizontalFlip(p=1), affine)(record(), 0)["mask"]
    assert (mask[[0, 0, -1, -1], [0, -1, 0, -1]] == IGNORE_INDEX).all()


def test_the_seed_alone_decides() -> None:
    augmentations = (A.HorizontalFlip(p=0.5), A.Affine(rotate=(-40, 40), scale=(0.7, 1.3), p=1), A.ColorJitter(p=1))
    first = transform(*augmentations)
    images = [first(record(), seed)["image"] for seed in range(8)]
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    second = transform(*augmentations)
    for seed in reversed(range(8)):  # another history, another state of every global generator
        assert torch.equal(second(record(), seed)["image"], images[seed])
    assert all(not torch.equal(images[i], images[j]) for i in range(8) for j in range(i))


def test_seeds_as_large_as_the_sampler_yields() -> None:
    flips = transform(A.HorizontalFlip(p=0.5))
    seeds = [2**62 - 1 - k for k in range(32)]
    unchanged = torch.from_numpy(record()["image"]).permute(2, 0, 1)
    kept = sum(torch.equal(flips(record(), seed)["image"], unchanged) for seed in seeds)
    assert 6 <= kept <= 26  # about half


def test_one_module_imports_albumentations() -> None:
    package = Path(facelightning.__file__).parent
    texts = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    found = [name for name, text in texts.items() if re.search(r"^\s*(import|from) albumentations", text, re.MULTILINE)]
    assert found == ["data/transforms.py"]


BOX = np.array([5, 8, 15, 18], np.float32)


@pytest.mark.parametrize("size", [(218, 178), (100, 200), (12, 10)])
@pytest.mark.parametrize("landmarks", [True, False])
def test_a_box_follows_the_fit_and_the_flip(size: tuple[int, int], landmarks: bool) -> None:
    given = record() | {"box": BOX}
    if not landmarks:
        del given["landmarks"]
    scale = min(size[0] / 24, size[1] / 20)
    left, top = ((size[1] - 20 * scale) // 2, (size[0] - 24 * scale) // 2)
    x0, y0, x1, y1 = (BOX * scale + [left, top, left, top]).tolist()
    fitted, flipped = transform(size=size)(given, 0), transform(A.HorizontalFlip(p=1), size=size)(given, 0)
    assert (fitted["box"].dtype, "landmarks" in fitted) == (torch.float32, landmarks)
    np.testing.assert_allclose(fitted["box"], [x0, y0, x1, y1], atol=0.51)  # whole pixels of padding
    x0, y0, x1, y1 = fitted["box"].tolist()
    np.testing.assert_allclose(flipped["box"], [size[1] - x1, y0, size[1] - x0, y1], atol=1e-4)
    if landmarks:  # as without a box
        assert torch.equal(fitted["landmarks"], transform(size=size)(record(), 0)["landmarks"])
        without = transform(A.HorizontalFlip(p=1), size=size)(record(), 0)
        assert torch.equal(flipped["landmarks"], without["landmarks"])


@pytest.mark.parametrize("seed", range(5))
def test_a_turned_box_is_the_one_around_it(seed: int) -> None:
    image = np.zeros((80, 90, 3), np.uint8)
    image[20:50, 30:70] = 255
    box = np.array([30, 20, 70, 50], np.float32)
    affine = A.Affine(scale=(0.9, 1.1), rotate=(-20, 20), p=1)
    sample = transform(A.HorizontalFlip(p=0.5), affine, size=(80, 90))(Record(image=image, box=box), seed)
    y, x = np.nonzero(sample["image"][0].numpy() > 127)
    np.testing.assert_allclose(sample["box"], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.1)
    assert box.tolist() == [30, 20, 70, 50]


def test_an_unknown_box_stays_unknown() -> None:
    given = record() | {"box": np.full(4, np.nan, np.float32)}
    sample = transform(A.HorizontalFlip(p=1), A.Perspective(p=1), size=(30, 20))(given, 0)
    assert sample["box"].isnan().all() and not sample["landmarks"].isnan().any()


def test_an_augmentation_that_drops_points_is_refused() -> None:
    given = record() | {"box": np.array([-30, -30, 90, 90], np.float32)}
    with pytest.raises(ConfigurationError, match="drops points near or beyond the image's edge"):
        transform(A.ElasticTransform(p=1))(given, 0)


@pytest.mark.parametrize("change", [A.RandomScale((0.5, 1), p=1), A.ToGray(num_output_channels=1, p=1)])
def test_images_of_different_shapes_are_no_batch(change: Any) -> None:
    dataset = FaceDataset([record()] * 8, transform(change))
    with pytest.raises(ConfigurationError, match=r"colour images of one shape, but augmentations make \(\d+, \d+"):
        dataset.__getitems__([(place, place) for place in range(8)])


def test_transforms_of_a_list_are_independent() -> None:
    """Of two that are done every other time, both are done, or either, or none."""
    twice = transform(A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5))
    first = [tuple(twice(record(), seed)["landmarks"][2].tolist()) for seed in range(40)]
    assert {first.count(each) > 3 for each in set(first)} == {True} and len(set(first)) == 4
