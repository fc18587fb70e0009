"""Augmentation of batches: images, masks and points move together, as Albumentations moves them, by the seeds alone."""

from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import ks_2samp

from facelightning.data.batch_augmentation import Affine, BatchAugmentation, Color, Erasing, moved, uniform
from facelightning.data.files import Record
from facelightning.data.transforms import LANDMARKS_MIRRORED, FaceDataset, FaceTransform
from facelightning.errors import ConfigurationError
from facelightning.labels import HELEN7, LabelSpace

ALL = BatchAugmentation(
    affine=Affine(0.8, (0.4, 1.1), (-0.15, 0.15), (-15, 15)),
    color=Color(0.8, (0.6, 1.4), (0.6, 1.4), (0.4, 1.6)),
    erasing=Erasing(0.5, (1, 6), (0.1, 0.4), (0.1, 0.4)),
    outside=0,
)
THE_SAME = [
    A.HorizontalFlip(),
    A.Affine(scale=(0.4, 1.1), translate_percent=(-0.15, 0.15), rotate=(-15, 15), fill_mask=0, p=0.8),
    A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.4, 1.6), (0, 0), p=0.8),
    A.CoarseDropout((1, 6), (0.1, 0.4), (0.1, 0.4), fill="random_uniform", fill_mask=0),
]
SIZE = (109, 89)
SPOTS = np.array([[30, 40], [58, 42], [44, 55], [34, 70], [56, 71]], np.float32)
COUNT = 500
BOX = np.array([20, 25, 68, 85], np.float32)
SPACE = LabelSpace("spots", tuple("abcdef"), ((0, 0, 0),) * 6, (), (("b", "c"), ("e", "f")))


def photograph() -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def spots() -> Record:
    """A photograph with a square of a class around each landmark."""
    image, mask = photograph(), np.zeros(SIZE, np.uint8)
    for label, (x, y) in enumerate(SPOTS.astype(int), start=1):
        mask[y - 4 : y + 5, x - 4 : x + 5] = label
        image[y - 4 : y + 5, x - 4 : x + 5] = 50 * label
    return Record(image=image, mask=mask, landmarks=SPOTS.copy(), box=BOX.copy(), name="spots")


def batch(augmentation: Any, seeds: list[int], record: Record | None = None) -> Any:
    faces = FaceDataset([record or spots()], FaceTransform(SIZE, SPACE, augmentation))
    return faces.__getitems__([(0, seed) for seed in seeds])


def test_numbers_are_those_of_splitmix64() -> None:
    def reference(seed: int, place: int) -> float:
        bits = (seed + (place + 1) * 0x9E3779B97F4A7C15) % 2**64
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
        return ((bits ^ bits >> 31) >> 11) / 2**53

    seeds = [0, 1, 2**62 - 1, 2**64 - 1, *np.random.default_rng(0).integers(2**62, size=50).tolist()]
    expected = [[reference(seed, place) for seed in seeds] for place in range(300, 320)]
    assert uniform(seeds, 300, 20).tolist() == expected
    many = uniform(list(range(20_000)), 0, 8)
    assert abs(many.mean(axis=1) - 0.5).max() < 0.01 and abs(many.var(axis=1) - 1 / 12).max() < 0.002
    assert abs(np.corrcoef(many) - np.eye(8)).max() < 0.03


def bilinear(image: npt.NDArray[np.uint8], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The image, black around it, at points ``(N, 2)``."""
    padded = np.pad(image.astype(float), ((2, 2), (2, 2), (0, 0)))
    x, y = np.clip(at + 2, 0, np.array(padded.shape[1::-1]) - 1.001).T
    column, row = x.astype(int), y.astype(int)
    right, down = (x - column)[:, None], (y - row)[:, None]
    above = (1 - right) * padded[row, column] + right * padded[row, column + 1]
    below = (1 - right) * padded[row + 1, column] + right * padded[row + 1, column + 1]
    found: npt.NDArray[np.float64] = (1 - down) * above + down * below
    return found


def test_pixels_masks_and_points_move_as_in_float64() -> None:
    augmentation = BatchAugmentation(affine=Affine(1, (0.6, 1.3), (-0.2, 0.2), (-40, 40)))
    given, seeds = spots(), list(range(20))
    images = np.repeat(given["image"][None], 20, axis=0)
    masks = np.repeat(given["mask"][None], 20, axis=0)
    (warped, classes), moves = augmentation(images, masks, seeds), augmentation.moves(seeds, SIZE)
    assert classes is not None
    y, x = np.indices(SIZE).reshape(2, -1)
    middle = 44 + 54j
    for seed in range(20):
        mirror, (across, along, right, down, turn) = uniform([seed], 0, 1)[0, 0], uniform([seed], 101, 5)[:, 0]
        away = SPOTS[:, 0] + 1j * SPOTS[:, 1] - middle
        away = (-1 if mirror < 0.5 else 1) * (0.6 + 0.7 * across) * away.real + 1j * (0.6 + 0.7 * along) * away.imag
        shift = (0.4 * right - 0.2) * 89 + 1j * (0.4 * down - 0.2) * 109
        ahead = away * np.exp(-1j * np.deg2rad(80 * turn - 40)) + middle + shift  # y points down
        ahead = np.column_stack([ahead.real, ahead.imag])
        np.testing.assert_allclose(moved(SPOTS[None], moves[[seed]])[0], ahead, atol=1e-9)
        inverse = np.linalg.inv(np.vstack([moves[seed], [0, 0, 1]]))
        source = (inverse @ [x, y, np.ones_like(x)])[:2].T
        expected = bilinear(given["image"], source)
        assert abs(warped[seed].reshape(-1, 3) - expected).max() < 6  # OpenCV's steps are of 1/32 pixel
        near = np.round(source).astype(int)
        known = abs(source - near).max(axis=1) < 0.46  # elsewhere the two may round differently
        inside = ((near >= 0) & (near < SIZE[::-1])).all(axis=1)
        truth = np.full(len(near), 255)
        truth[inside] = given["mask"][near[inside, 1], near[inside, 0]]
        assert (classes[seed].reshape(-1)[known] == truth[known]).all()


def centre(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()])


def test_a_landmark_stays_on_its_spot_and_left_becomes_right() -> None:
    found = batch(BatchAugmentation(affine=Affine(1, (0.7, 1.1), (-0.1, 0.1), (-20, 20))), list(range(20)))
    mirrored = uniform(list(range(20)), 0, 1)[0] < 0.5
    assert 4 < mirrored.sum() < 16
    for image, mask, landmarks, mirror in zip(
        *(found[key].numpy() for key in ("image", "mask", "landmarks")), mirrored, strict=True
    ):
        swapped = (0, 2, 1, 3, 5, 4)  # of SPACE
        for place in range(5):
            label = LANDMARKS_MIRRORED[place] + 1 if mirror else place + 1
            seen = swapped[label] if mirror else label
            np.testing.assert_allclose(centre(mask == seen), landmarks[place], atol=0.6)
            x, y = landmarks[place].round().astype(int)
            assert abs(int(image[0, y, x]) - 50 * label) <= 2


@pytest.mark.parametrize(("ours", "theirs"), [(0.0, []), (1.0, [A.HorizontalFlip(p=1)])])
def test_mirroring_alone_is_exact(ours: float, theirs: list[Any]) -> None:
    record = spots()
    found, expected = batch(BatchAugmentation(mirror=ours), [3, 4], record), batch(theirs, [3, 4], record)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key] == value if key == "name" else torch.equal(found[key], value), key


def test_a_box_is_the_one_around_its_corners_and_an_unknown_one_stays_unknown() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    image[25:85, 20:68] = 255
    turning = BatchAugmentation(affine=Affine(1, (0.7, 0.9), (-0.1, 0.1), (-20, 20)))
    found = batch(turning, list(range(10)), Record(image=image, box=BOX))
    for moved_image, box in zip(found["image"].numpy(), found["box"].numpy(), strict=True):
        y, x = np.nonzero(moved_image[0] > 127)
        np.testing.assert_allclose(box, [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.1)
    unknown = batch(turning, [1], Record(image=image, box=np.full(4, np.nan, np.float32)))
    assert unknown["box"].isnan().all()


@pytest.mark.parametrize("factors", [(0.7, 1, 1), (1, 0.6, 1), (1, 1, 0.4), (1, 1, 1.6), (0.8, 1.3, 0.5), (2, 0.5, 1)])
def test_colours_change_as_albumentations_changes_them(factors: tuple[float, float, float]) -> None:
    brightness, contrast, saturation = ((factor, factor) for factor in factors)
    record = spots()
    record["image"] = (record["image"] // 3 + 40).astype(np.uint8)  # nothing is clipped
    ours = batch(BatchAugmentation(0, color=Color(1, brightness, contrast, saturation)), [0], record)["image"]
    theirs = batch([A.ColorJitter(brightness, contrast, saturation, (0, 0), p=1)], [0], record)["image"]
    assert (ours.int() - theirs.int()).abs().max() <= 3  # they round three times
    grey = record["image"] @ [0.299, 0.587, 0.114]
    expected = (grey + factors[2] * (record["image"] - grey[..., None]).transpose(2, 0, 1)) * factors[0]
    mean = factors[0] * grey.mean()
    expected = np.clip((expected - mean) * factors[1] + mean, 0, 255)
    assert abs(ours[0].numpy() - expected).max() < 0.7  # OpenCV's products are short ones
    assert (ours != torch.from_numpy(record["image"]).permute(2, 0, 1)).any()


def test_a_patch_has_one_colour_and_nothing_else_changes() -> None:
    augmentation = BatchAugmentation(0, erasing=Erasing(0.7, (1, 1), (0.1, 0.4), (0.2, 0.3)), outside=255)
    given, seeds = spots(), list(range(40))
    found = batch(augmentation, seeds)
    erased = uniform(seeds, 300, 1)[0] < 0.7
    for image, mask, done in zip(found["image"].numpy(), found["mask"].numpy(), erased, strict=True):
        (rows, columns) = np.nonzero(mask == 255)
        assert (len(rows) > 0) == done
        untouched = mask != 255
        assert (given["image"][untouched] == image[:, untouched].T).all()
        assert (mask[untouched] == given["mask"][untouched]).all()
        if done:
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(rows) == height * width
            assert 10 <= height <= 43 and 17 <= width <= 26
            assert (np.ptp(image[:, rows, columns], axis=1) == 0).all()


def test_distributions_are_those_of_albumentations() -> None:
    """Of colours, classes and landmarks, by Kolmogorov and Smirnov: equal ones differ so much once in 1,000 times."""

    def statistics(augmentation: Any) -> npt.NDArray[np.float64]:
        found = batch(augmentation, [seed * 7919 for seed in range(COUNT)])
        pixels = found["image"].double().flatten(2)
        classes = torch.stack([(found["mask"] == label).double().mean(dim=(1, 2)) for label in range(6)], dim=1)
        color = torch.cat([pixels.mean(-1), pixels.std(-1), (pixels[:, 0] - pixels[:, 2]).std(-1)[:, None]], dim=1)
        together: npt.NDArray[np.float64] = torch.cat([color, classes, found["landmarks"].flatten(1)], 1).numpy()
        return together

    ours, theirs = statistics(ALL), statistics(THE_SAME)
    distances = [ks_2samp(one, other).statistic for one, other in zip(ours.T, theirs.T, strict=True)]
    assert max(distances) < 1.95 * (2 / COUNT) ** 0.5, distances


def test_a_sample_is_a_function_of_its_seed_alone() -> None:
    seeds = [5, 2**62 - 1, 0, 77]
    together, backwards = batch(ALL, seeds), batch(ALL, seeds[::-1])
    np.random.seed(3)
    torch.manual_seed(3)
    for place, seed in enumerate(seeds):
        alone, single = batch(ALL, [seed]), FaceTransform(SIZE, SPACE, ALL)(spots(), seed)
        for key in ("image", "mask", "landmarks", "box"):
            for other in (backwards[key][-1 - place], alone[key][0], single[key]):
                assert torch.equal(together[key][place], other), key
    assert not torch.equal(together["image"][0], together["image"][2])
    with_less = batch(BatchAugmentation(affine=ALL.affine, color=ALL.color), seeds)
    assert torch.equal(with_less["landmarks"], together["landmarks"])  # numbers of one part are not another's


def test_the_record_is_left_alone() -> None:
    record = spots()
    batch(ALL, list(range(8)), record)
    before = spots()
    for key in ("image", "mask", "landmarks", "box"):
        np.testing.assert_array_equal(record[key], before[key])  # type: ignore[literal-required]  # keys of both


def test_patches_reach_every_edge_and_every_count() -> None:
    seeds, counts, reached = range(300), set(), set()
    for patches in Erasing(count=(0, 2), height=(0.2, 0.2), width=(0.2, 0.2)).patches(seeds, (10, 20)):
        counts.add(len(patches))
        for rows, columns, _ in patches:
            reached |= {("top", rows.start), ("bottom", rows.stop), ("left", columns.start), ("right", columns.stop)}
    assert counts == {0, 1, 2}
    assert {("top", 0), ("bottom", 10), ("left", 0), ("right", 20)} <= reached
    assert max(end for _, end in reached) == 20


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (
            BatchAugmentation(affine=Affine(scale=(1.2, 0.8))),
            r"Affine: scale must be \[lowest, highest\] within 0\.01\.\.\.100, not",
        ),
        (BatchAugmentation(affine=Affine(scale=(0, 1))), "scale"),
        (BatchAugmentation(affine=Affine(rotate=(float("nan"), 1))), "rotate"),
        (BatchAugmentation(affine=Affine(shift=(-2, 0))), "shift"),
        (BatchAugmentation(color=Color(saturation=(-1, 1))), "Color: saturation"),
        (BatchAugmentation(erasing=Erasing(height=(0.5, 1.5))), "Erasing: height"),
        (BatchAugmentation(erasing=Erasing(count=(2, 1))), "Erasing: count"),
        (BatchAugmentation(color=Color(chance=1.5)), r"Color: chance must lie in 0\.\.\.1, not 1\.5"),
        (BatchAugmentation(mirror=-1), "mirror"),
        (BatchAugmentation(outside=7), "outside must be one of 7 classes or 255, not 7"),
    ],
)
def test_ranges_that_are_none_are_refused(augmentation: BatchAugmentation, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FaceTransform(SIZE, HELEN7, augmentation)


def test_images_of_numbers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="images of bytes, not of float32"):
        ALL(np.zeros((1, 4, 4, 3), np.float32), None, [0])  # type: ignore[arg-type]  # that is the mistake
