"""Cartoon faces: the same bytes each time, every attribute visible where it lives, masks that fit the image."""

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facelightning.data.synthetic import CartoonFace, dataset, draw_face, sample_attributes, write_synthetic
from facelightning.data.synthetic.canvas import HEIGHT, WIDTH, Canvas, ellipse
from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.labels import ATTRIBUTE_REGIONS, ATTRIBUTES, HELEN11, HELEN11_TO_7

LOCAL = [name for name in ATTRIBUTES if ATTRIBUTE_REGIONS[name]]
GLOBAL = [name for name in ATTRIBUTES if not ATTRIBUTE_REGIONS[name]]
COLOURS = {"Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"}
BEARDS = {"5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns"}
PLAIN = {"Attractive", "Brown_Hair", "No_Beard", "Young"}


def face_with(names: set[str], identity: int = 0, seed: int = 0) -> CartoonFace:
    return draw_face(np.isin(ATTRIBUTES, list(names)), identity, seed)


@cache
def without_and_with(name: str, number: int) -> tuple[CartoonFace, CartoonFace]:
    """The same face twice, all else such that CelebA would allow both."""
    rest = set(PLAIN)
    if name in BEARDS | {"No_Beard", "Bald", "Receding_Hairline", "Wearing_Necktie"}:
        rest |= {"Male"}
    if name in BEARDS:  # a face that has another beard already
        rest = rest - {"No_Beard"} | {"Goatee" if name == "Mustache" else "Mustache"}
    if name in COLOURS:
        rest -= COLOURS
    rest -= {name}
    return face_with(rest, number, number + 50), face_with(rest | {name}, number, number + 50)


def coverage(face: CartoonFace, region: str) -> NDArray[np.int64]:
    """The summed alphas of one of the seven classes."""
    return sum(face.masks[HELEN11.index(name)].astype(np.int64) for name in HELEN11_TO_7[region])


@pytest.fixture(scope="module")
def sampled() -> list[tuple[dict[str, bool], CartoonFace]]:
    rng = np.random.default_rng(1)
    faces = []
    for number in range(60):
        attributes = sample_attributes(rng)
        faces.append((dict(zip(ATTRIBUTES, attributes.tolist(), strict=True)), draw_face(attributes, number, number)))
    return faces


def test_same_arguments_give_the_same_bytes() -> None:
    first, again = face_with(PLAIN, 3, 4), face_with(PLAIN, 3, 4)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.masks.tobytes() == again.masks.tobytes()
    assert first.landmarks.tobytes() == again.landmarks.tobytes()
    assert first.image.tobytes() != face_with(PLAIN, 3, 5).image.tobytes()
    assert first.image.tobytes() != face_with(PLAIN, 4, 4).image.tobytes()


def test_shapes_and_types() -> None:
    face = face_with(PLAIN)
    assert (face.image.shape, face.image.dtype) == ((218, 178, 3), np.uint8)
    assert (face.masks.shape, face.masks.dtype) == ((11, 218, 178), np.uint8)
    assert (face.landmarks.shape, face.landmarks.dtype) == ((5, 2), np.float32)


def test_wrong_number_of_attributes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(39,\)"):
        draw_face(np.zeros(39, bool), 0, 0)


@pytest.mark.parametrize("name", LOCAL)
def test_attribute_changes_the_image_where_it_lives(name: str) -> None:
    for number in range(3):
        faces = without_and_with(name, number)
        change = np.abs(faces[0].image.astype(np.int64) - faces[1].image).sum(axis=2)
        region = np.any([coverage(face, part) > 127 for face in faces for part in ATTRIBUTE_REGIONS[name]], axis=0)
        near = cv2.dilate(region.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert change[near].sum() >= 0.75 * change.sum()


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute_is_visible_at_half_resolution(name: str) -> None:
    for number in range(3):
        small = [
            cv2.resize(face.image, (89, 109), interpolation=cv2.INTER_AREA) for face in without_and_with(name, number)
        ]
        change = np.abs(small[0].astype(np.int64) - small[1]).max(axis=2)
        assert (change > 12).sum() >= 25


def test_global_attributes_do_what_they_say() -> None:
    def sharpness(face: CartoonFace) -> float:
        return float(cv2.Laplacian(face.image, cv2.CV_64F).var())

    def jaw_width(face: CartoonFace) -> int:
        return int((coverage(face, "face_skin")[150] > 127).sum() + (coverage(face, "mouth")[150] > 127).sum())

    def lopsidedness(face: CartoonFace) -> float:
        eyes, mouth = np.diff(face.landmarks[:2], axis=0)[0], np.diff(face.landmarks[3:], axis=0)[0]
        return float(abs(np.arctan2(mouth[1], mouth[0]) - np.arctan2(eyes[1], eyes[0])))

    for number in range(3):
        sharp, blurry = without_and_with("Blurry", number)
        assert sharpness(blurry) < sharpness(sharp)
        slim, chubby = without_and_with("Chubby", number)
        assert jaw_width(chubby) >= jaw_width(slim) + 8
        plain, attractive = without_and_with("Attractive", number)
        assert lopsidedness(attractive) < 1e-3 < lopsidedness(plain)
    assert set(GLOBAL) == {"Attractive", "Blurry", "Chubby", "Male", "Young"}


def test_masks_partition_every_image(sampled: list[tuple[dict[str, bool], CartoonFace]]) -> None:
    for _, face in sampled:
        assert (face.masks.sum(axis=0, dtype=np.int64) == 255).all()


def test_masks_hold_what_the_attributes_promise(sampled: list[tuple[dict[str, bool], CartoonFace]]) -> None:
    for has, face in sampled:
        area = dict(zip(HELEN11.classes, (face.masks > 127).sum(axis=(1, 2)).tolist(), strict=True))
        assert (face.masks[HELEN11.index("hair")].max() == 0) == has["Bald"]
        assert (face.masks[HELEN11.index("inner_mouth")].max() == 0) == (not has["Mouth_Slightly_Open"])
        expected = {"background": 8000, "face_skin": 3000, "nose": 150, "upper_lip": 20, "lower_lip": 40}
        expected |= {"left_eye": 40, "right_eye": 40}
        if has["Mouth_Slightly_Open"]:
            expected["inner_mouth"] = 80
        if not has["Bald"]:
            expected["hair"] = 400
        if not (has["Bangs"] or has["Wearing_Hat"]):
            expected |= {"left_eyebrow": 40, "right_eyebrow": 40}
        for name, least in expected.items():
            assert area[name] >= least, (name, area[name])


def test_occlusion() -> None:
    forehead = slice(80, 88), slice(80, 98)
    plain, bangs, hat = (face_with(PLAIN | extra) for extra in (set(), {"Bangs"}, {"Wearing_Hat"}))
    assert plain.masks[HELEN11.index("face_skin")][forehead].mean() > 250
    assert bangs.masks[HELEN11.index("hair")][forehead].mean() > 250
    assert hat.masks[0][slice(55, 65), slice(80, 98)].min() == 255
    beard = face_with(PLAIN - {"No_Beard"} | {"Male", "Goatee", "Mustache"})
    assert beard.masks[HELEN11.index("face_skin")][168:174, 84:94].mean() > 250


def test_left_is_the_left_of_the_image() -> None:
    face = face_with(PLAIN)
    for part in ("eye", "eyebrow"):
        left, right = (np.argwhere(face.masks[HELEN11.index(f"{side}_{part}")] > 127) for side in ("left", "right"))
        assert left[:, 1].max() < right[:, 1].min()
    assert face.landmarks[0, 0] < face.landmarks[1, 0]
    assert face.landmarks[3, 0] < face.landmarks[4, 0]


def test_landmarks_lie_on_their_parts(sampled: list[tuple[dict[str, bool], CartoonFace]]) -> None:
    for _, face in sampled:
        classes = face.masks.argmax(axis=0)
        points = face.landmarks.round().astype(int)
        for (x, y), name in zip(points[:3], ("left_eye", "right_eye", "nose"), strict=True):
            assert HELEN11.classes[classes[y, x]] == name
        lips = np.argwhere(coverage(face, "mouth") > 127)[:, ::-1]
        for corner in face.landmarks[3:]:
            assert np.linalg.norm(lips - corner, axis=1).min() < 4


def test_faces_are_aligned_as_in_celeba(sampled: list[tuple[dict[str, bool], CartoonFace]]) -> None:
    landmarks = np.array([face.landmarks for _, face in sampled])
    np.testing.assert_allclose(landmarks[:, :2], np.broadcast_to([(69, 112), (109, 112)], (60, 2, 2)), atol=9)
    np.testing.assert_allclose(landmarks.mean(axis=0)[:2], [(69, 112), (109, 112)], atol=1.5)


def test_canvas_agrees_with_painting_pixel_by_pixel() -> None:
    canvas = Canvas(np.full((3, HEIGHT, WIDTH), 90, np.float32), np.array([[1.0, 0.0, 89.3], [0.0, 1.0, 112.6]]))
    layers = [
        (ellipse(0, 0, 40, 60), (200, 150, 120), "face_skin", 1.0, 0.0),
        (ellipse(10, 20, 30, 9), (120, 20, 40), "upper_lip", 1.0, 1.0),
        (ellipse(5, 8, 20, 30), (0, 0, 0), None, 0.4, 3.0),
        (ellipse(80, -100, 40, 40), (60, 30, 10), "hair", 1.0, 0.0),
    ]
    image = np.full((3, HEIGHT, WIDTH), 90.0)
    masks = np.zeros((11, HEIGHT, WIDTH))
    masks[0] = 255
    for outline, colour, label, opacity, blur in layers:
        stencil = canvas.stencil(outline, blur=blur)
        canvas.paint(stencil, np.array(colour, np.float32), label, opacity)
        alpha = np.zeros((HEIGHT, WIDTH))
        alpha[stencil.area] = stencil.alpha / 255
        image += (np.array(colour)[:, None, None] - image) * alpha * opacity
        if label is not None:
            masks *= 1 - alpha
            masks[HELEN11.index(label)] += 255 * alpha
    np.testing.assert_allclose(canvas.image, image, atol=1e-3)
    found, person = canvas.masks()
    np.testing.assert_allclose(found, masks, atol=2)
    np.testing.assert_allclose(person, masks[1:].sum(axis=0), atol=2)
    assert (canvas.stencil(ellipse(500, 500, 3, 3))).alpha.size == 0


@pytest.fixture(scope="module")
def population() -> dict[str, NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    rows = np.array([sample_attributes(rng) for _ in range(6000)])
    return dict(zip(ATTRIBUTES, rows.T, strict=True))


def test_attributes_exclude_each_other_as_in_life(population: dict[str, NDArray[np.bool_]]) -> None:
    has = population
    beard = np.any([has[name] for name in sorted(BEARDS)], axis=0)
    assert (has["No_Beard"] == ~beard).all()
    for name in (*sorted(BEARDS), "Bald", "Wearing_Necktie"):
        assert has["Male"][has[name]].all(), name
    for name in ("Heavy_Makeup", "Wearing_Lipstick"):
        assert not has["Male"][has[name]].any(), name
    for name in (*sorted(COLOURS), "Bangs", "Receding_Hairline", "Straight_Hair", "Wavy_Hair", "Wearing_Hat"):
        assert not (has[name] & has["Bald"]).any(), name
    assert np.sum([has[name] for name in sorted(COLOURS)], axis=0).max() == 1
    assert not (has["Straight_Hair"] & has["Wavy_Hair"]).any()
    for name in ("Gray_Hair", "Bald", "Receding_Hairline"):
        assert has[name][has["Young"]].mean() < has[name][~has["Young"]].mean()
    assert has["Wearing_Lipstick"][has["Heavy_Makeup"]].mean() > 0.85
    assert has["Mouth_Slightly_Open"][has["Smiling"]].mean() > has["Mouth_Slightly_Open"][~has["Smiling"]].mean() + 0.2


def test_base_rates(population: dict[str, NDArray[np.bool_]]) -> None:
    rates = {name: values.mean() for name, values in population.items()}
    assert min(rates.values()) > 0.06
    celeba = {"Male": 0.42, "Young": 0.77, "Smiling": 0.48, "No_Beard": 0.83, "Attractive": 0.51, "Heavy_Makeup": 0.39}
    celeba |= {"Black_Hair": 0.24, "Wavy_Hair": 0.32, "Bangs": 0.15, "Wearing_Earrings": 0.19, "Big_Nose": 0.24}
    for name, rate in celeba.items():
        assert abs(rates[name] - rate) < 0.05, name


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "deep" / "faces"
    write_synthetic(root, attributes=(10, 5, 5), parsing=(3, 2, 1), seed=7)
    return root


def test_celeba_layout(written: Path) -> None:
    celeba = written / "celeba"
    names = [f"{number:06d}.jpg" for number in range(1, 21)]
    assert sorted(path.name for path in (celeba / "Img" / "img_align_celeba").iterdir()) == names
    assert cv2.imread(str(celeba / "Img" / "img_align_celeba" / names[0])).shape == (218, 178, 3)

    count, header, *rows = (celeba / "Anno" / "list_attr_celeba.txt").read_text().splitlines()
    assert (count, header.split()) == ("20", list(ATTRIBUTES))
    assert [row.split()[0] for row in rows] == names
    assert all(len(row.split()) == 41 and set(row.split()[1:]) <= {"-1", "1"} for row in rows)
    assert rows[0].startswith("000001.jpg -1 ") or rows[0].startswith("000001.jpg  1 ")

    count, header, *rows = (celeba / "Anno" / "list_landmarks_align_celeba.txt").read_text().splitlines()
    assert (count, header.split()[0], header.split()[-1]) == ("20", "lefteye_x", "rightmouth_y")
    points = np.array([[int(value) for value in row.split()[1:]] for row in rows])
    np.testing.assert_allclose(points[:, :4].mean(axis=0), (69, 112, 109, 112), atol=4)

    partition = dict(line.split() for line in (celeba / "Eval" / "list_eval_partition.txt").read_text().splitlines())
    assert list(partition) == names
    assert list(partition.values()) == ["0"] * 10 + ["1"] * 5 + ["2"] * 5
    identity = dict(line.split() for line in (celeba / "Anno" / "identity_CelebA.txt").read_text().splitlines())
    assert list(identity) == names
    splits = [{identity[name] for name in names if partition[name] == split} for split in "012"]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 7  # four images an identity, none in two splits


def test_as_many_images_of_an_identity_as_asked_for(tmp_path: Path) -> None:
    """The last one of a split has what is left; other numbers are other data sets."""
    write_synthetic(tmp_path / "faces", attributes=(5, 3, 0), parsing=(0, 0, 0), seed=7, images_per_identity=3)
    lines = (tmp_path / "faces/celeba/Anno/identity_CelebA.txt").read_text().split()
    assert lines[1::2] == ["1", "1", "1", "2", "2", "3", "3", "3"]
    with pytest.raises(DataFormatError, match='"images_per_identity": 3'):
        write_synthetic(tmp_path / "faces", attributes=(5, 3, 0), parsing=(0, 0, 0), seed=7)
    with pytest.raises(ConfigurationError, match="an identity must have at least one image, not 0"):
        write_synthetic(tmp_path / "other", attributes=(1, 1, 1), parsing=(1, 1, 1), seed=0, images_per_identity=0)


def test_helen_layout(written: Path) -> None:
    helen = written / "helen"
    ids = []
    for name, count in (("exemplars.txt", 3), ("tuning.txt", 2), ("testing.txt", 1)):
        lines = (helen / name).read_text().splitlines()
        assert len(lines) == count
        ids += [line.split(" , ")[1] for line in lines]
    assert len(set(ids)) == 6
    for identifier in ids:
        assert cv2.imread(str(helen / "images" / f"{identifier}.jpg")).shape == (218, 178, 3)
        labels = helen / "labels" / identifier
        assert sorted(path.name for path in labels.iterdir()) == [f"{identifier}_lbl{i:02d}.png" for i in range(11)]
        masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(labels.iterdir())]
        assert (np.sum(masks, axis=0, dtype=np.int64) == 255).all()


def test_same_seed_writes_the_same_files(written: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "again", attributes=(10, 5, 5), parsing=(3, 2, 1), seed=7)
    write_synthetic(tmp_path / "other", attributes=(10, 5, 5), parsing=(3, 2, 1), seed=8)
    files = {path.relative_to(written): path.read_bytes() for path in written.rglob("*") if path.is_file()}
    again = tmp_path / "again"
    assert files == {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    first = Path("celeba/Img/img_align_celeba/000001.jpg")
    assert files[first] != (tmp_path / "other" / first).read_bytes()


def test_writing_prints_nothing_but_its_progress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_synthetic(tmp_path / "faces", attributes=(1, 1, 1), parsing=(1, 1, 1), seed=0)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line for line in err.replace("\r", "\n").splitlines() if line and "drawing faces" not in line] == []


def test_complete_set_is_left_alone_and_others_are_refused(written: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_synthetic(written, attributes=(10, 5, 5), parsing=(3, 2, 1), seed=7)
    with pytest.raises(DataFormatError, match='"seed": 7'):
        write_synthetic(written, attributes=(10, 5, 5), parsing=(3, 2, 1), seed=8)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataFormatError, match="choose another folder"):
        write_synthetic(tmp_path, attributes=(1, 1, 1), parsing=(1, 1, 1), seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="negative"):
        write_synthetic(tmp_path / "new", attributes=(-1, 1, 1), parsing=(1, 1, 1), seed=0)


def test_interrupted_writing_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pull_the_plug(attributes: NDArray[np.bool_], identity: int, seed: int) -> CartoonFace:
        if seed == 3:
            raise KeyboardInterrupt
        return draw_face(attributes, identity, seed)

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "draw_face", pull_the_plug)
        with pytest.raises(KeyboardInterrupt):
            write_synthetic(tmp_path / "faces", attributes=(4, 1, 1), parsing=(1, 1, 1), seed=0)
    assert list(tmp_path.iterdir()) == []
    write_synthetic(tmp_path / "faces", attributes=(4, 1, 1), parsing=(1, 1, 1), seed=0)
    assert json.loads((tmp_path / "faces" / "synthetic.json").read_text())["attributes"] == [4, 1, 1]
