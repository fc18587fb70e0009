"""Whatever bytes an image file holds: the right pixels, or one sentence that names the file."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facelightning.data.files import read_image
from facelightning.errors import FacelightningError
from tests.data.test_images import encoded, photograph

IMAGE = photograph(24, 40)
FILES = {
    "jpg": encoded(".jpg", IMAGE),
    "progressive jpg": encoded(".jpg", IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "png": encoded(".png", IMAGE),
    "webp": encoded(".webp", IMAGE),
    "lossy webp": encoded(".webp", IMAGE, cv2.IMWRITE_WEBP_QUALITY, 80),
    "gif": encoded(".gif", IMAGE),
    "tif": encoded(".tif", IMAGE),
    "bmp": encoded(".bmp", IMAGE),
    "avif": encoded(".avif", IMAGE),
}
WHOLE = {kind: cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) for kind, content in FILES.items()}
CHECKED = {"png"}
"""Formats with a checksum: there damage to pixels is never read."""

kinds = st.sampled_from(sorted(FILES))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written anew for each example."""
    return tmp_path_factory.mktemp("fuzz") / "face.jpg"


def outcome(content: bytes, path: Path) -> tuple[npt.NDArray[np.uint8] | None, list[str]]:
    """The pixels, or none after a proper sentence; and the warnings."""
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image = read_image(path)
        except FacelightningError as error:
            assert "face.jpg: " in str(error)
            assert len(str(error)) <= 300
            assert str(error).isprintable()
            return None, []
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    messages = [str(warning.message) for warning in caught]
    assert len(messages) <= 1
    assert all("face.jpg is damaged" in message and len(message) <= 300 for message in messages)
    return image, messages


@given(st.binary(max_size=400), kinds, st.integers(0, 60))
def test_random_bytes(path: Path, noise: bytes, kind: str, begin: int) -> None:
    """Also behind the beginning of a real file."""
    outcome(noise, path)
    outcome(FILES[kind][:begin] + noise, path)


@given(kinds, st.floats(0, 1))
def test_cut_short(path: Path, kind: str, share: float) -> None:
    content = FILES[kind]
    image, _ = outcome(content[: int(share * len(content))], path)
    assert image is None or np.array_equal(image, WHOLE[kind])


@given(kinds, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=5))
def test_flipped_bytes(path: Path, kind: str, flips: list[tuple[float, int]]) -> None:
    content = bytearray(FILES[kind])
    for share, mask in flips:
        content[int(share * len(content))] ^= mask
    image, _ = outcome(bytes(content), path)
    if kind in CHECKED and image is not None:
        assert np.array_equal(image, WHOLE[kind])


@given(kinds, st.floats(0, 1), st.integers(0, 500), st.binary(min_size=1, max_size=4))
def test_a_part_overwritten_or_cut_out(path: Path, kind: str, share: float, length: int, pattern: bytes) -> None:
    content = FILES[kind]
    begin = int(share * len(content))
    for junk in (pattern * (length // len(pattern)), b""):
        image, _ = outcome(content[:begin] + junk + content[begin + length :], path)
        if kind in CHECKED and image is not None:
            assert np.array_equal(image, WHOLE[kind])


@given(st.integers(0, 2**32 - 1), st.sampled_from([(), (cv2.IMWRITE_JPEG_OPTIMIZE, 1)]), st.floats(0.2, 0.8))
def test_zeros_amid_a_photograph_are_never_silent(
    path: Path, seed: int, options: tuple[int, ...], share: float
) -> None:
    """Of a photograph that has detail everywhere, 200 bytes are not only flat pixels."""
    random = np.random.default_rng(seed)
    image = cv2.resize(random.integers(0, 256, (16, 20, 3), dtype=np.uint8), (160, 128))
    content = encoded(".jpg", (image // 2 + random.integers(0, 60, image.shape)).astype(np.uint8), *options)
    begin = 700 + int(share * (len(content) - 1000))
    right, none = outcome(content, path)
    damaged, messages = outcome(content[:begin] + bytes(200) + content[begin + 200 :], path)
    assert not none
    assert damaged is None or np.array_equal(damaged, right) or messages  # type: ignore[arg-type]
