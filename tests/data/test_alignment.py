"""A face with five points is turned, scaled and cut out as CelebA's authors did."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from facelightning.data.alignment import EYES_AND_MOUTH, HEIGHT, WIDTH, aligned_cut, alignment
from facelightning.data.synthetic.drawing import draw_face
from facelightning.labels import ATTRIBUTES

Points = npt.NDArray[np.float64]


def moved(points: Points, matrix: Points) -> Points:
    return points @ matrix[:, :2].T + matrix[:, 2]


def eyes_and_mouth(points: Points) -> Points:
    return np.vstack([points[:2], points[3:].mean(axis=0)])


def similarity(degrees: float, scale: float, shift: tuple[float, float]) -> Points:
    sine, cosine = scale * np.sin(np.deg2rad(degrees)), scale * np.cos(np.deg2rad(degrees))
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


def test_it_is_the_least_squares_solution() -> None:
    """Of the linear equations in a, b and a shift, from the template to the photograph, as MATLAB's ``cp2tform``."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = moved(
            np.array([[70, 112], [108, 112], [88, 136], [72, 152], [105, 152]]) + rng.normal(0, 4, (5, 2)),
            similarity(rng.uniform(-180, 180), rng.uniform(0.2, 5), (30, -40)),
        )
        rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in EYES_AND_MOUTH]
        a, b, x, y = np.linalg.lstsq(np.reshape(rows, (6, 4)), eyes_and_mouth(points).ravel())[0]
        found = alignment(points)
        assert found is not None
        np.testing.assert_allclose(found, [[a, -b, x], [b, a, y]], atol=1e-9)


@pytest.mark.parametrize("degrees", [30, -30, 75])
@pytest.mark.parametrize("scale", [0.6, 2.3])
def test_a_turned_face_is_seen_as_the_upright_one(degrees: float, scale: float) -> None:
    """Drawn faces are aligned. One that is turned and scaled comes back: its points, and its pixels."""
    for seed in range(3):
        face = draw_face(np.arange(len(ATTRIBUTES)) % 5 == seed, identity=seed, seed=seed)
        pose = similarity(degrees, scale, (0, 0))
        pose[:, 2] = (400, 350) - pose[:, :2] @ [WIDTH / 2, HEIGHT / 2]
        centred = pose.copy()
        centred[:, 2] += pose[:, :2].sum(axis=1) / 2 - 0.5
        photograph = cv2.warpAffine(face.image, centred, (800, 700), flags=cv2.INTER_CUBIC)
        points = moved(face.landmarks.astype(np.float64), pose)
        cut = aligned_cut(photograph, points)
        upright = aligned_cut(face.image, face.landmarks.astype(np.float64))
        assert cut is not None and upright is not None
        shown = [
            moved(each, one.turn) * [WIDTH / one.image.shape[1], HEIGHT / one.image.shape[0]]
            for each, one in ((points, cut), (face.landmarks, upright))
        ]
        assert np.abs(shown[0] - shown[1]).max() < 0.01
        assert np.abs(eyes_and_mouth(shown[0]) - EYES_AND_MOUTH).max() < 4  # drawn faces differ
        seen = [
            cv2.resize(one.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[40:190, 40:140].astype(float)
            for one in (cut, upright)
        ]
        assert np.abs(seen[0] - seen[1]).mean() < (12 if scale < 1 else 5)


def test_the_points_of_an_average_face_lie_on_the_template() -> None:
    """Rotated by 30 degrees, those of CelebA's mean landmarks come back to where they are, within a pixel."""
    mean = np.array([[69.5, 111.5], [108.5, 111.5], [88.5, 136.5], [72.5, 152.5], [105.5, 152.5]])
    cut = aligned_cut(np.zeros((900, 900, 3), np.uint8), moved(mean, similarity(30, 3, (300, 200))))
    assert cut is not None
    height, width = cut.image.shape[:2]
    assert height / width == pytest.approx(HEIGHT / WIDTH, rel=0.005) and height == pytest.approx(3 * HEIGHT, rel=0.03)
    found = moved(moved(mean, similarity(30, 3, (300, 200))), cut.turn) * [WIDTH / width, HEIGHT / height]
    assert np.abs(found - mean).max() < 1


def test_beyond_the_photograph_its_edge_goes_on() -> None:
    image = np.full((100, 80, 3), 200, np.uint8)
    image[:, 0] = 50
    cut = aligned_cut(image, np.array([[10.0, 50], [47, 50], [28, 75], [12, 91], [45, 91]]))
    assert cut is not None
    assert (cut.image[:, 0] == 50).all() and (cut.image[:, -1] == 200).all() and (cut.image[-1, -1] == 200).all()


@pytest.mark.parametrize(
    "points",
    [
        np.full((5, 2), np.nan),
        np.array([[70.0, 111], [108, 111], [np.nan, np.nan], [72, 152], [105, 152]]),
        np.full((5, 2), 40.0),
        np.array([[108.0, 111], [70, 111], [88, 136], [105, 152], [72, 152]]),  # left and right exchanged
        np.array([[7e4, 11e4], [11e4, 11e4], [9e4, 13e4], [7e4, 15e4], [10e4, 15e4]]),
        np.array([[7000.0, 11000], [7038, 11000], [9000, 13000], [7001, 11040], [7037, 11040]]),
    ],
    ids=["unknown", "no nose", "one place", "mirrored", "larger than any photograph", "elsewhere"],
)
def test_what_cannot_be_aligned(points: Points) -> None:
    assert aligned_cut(np.zeros((200, 200, 3), np.uint8), points) is None
