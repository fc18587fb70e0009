"""Image files that are none, that are damaged, or that promise too much: one sentence, and never a wait."""

import os
import re
import socket
import struct
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from facelightning.data.decoding import MAX_PIXELS, promised_size
from facelightning.data.files import list_images, read_image
from facelightning.errors import DataFormatError, DataNotFoundError, FacelightningError


def photograph(height: int = 60, width: int = 80) -> npt.NDArray[np.uint8]:
    """Smooth, with some noise, as compression expects it."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / (9 + channel) + y / 13) for channel in range(3)]
    noise = np.random.default_rng(0).integers(0, 12, (height, width, 3))
    return (np.stack(waves, axis=2) + noise).astype(np.uint8)


def encoded(suffix: str, image: npt.NDArray[np.uint8] | None = None, *options: int) -> bytes:
    """RGB in OpenCV's hands."""
    image = photograph() if image is None else image
    return cv2.imencode(suffix, image[..., ::-1], options)[1].tobytes()


def sentence(path: Path) -> str:
    with pytest.raises(FacelightningError) as caught:
        read_image(path)
    message = str(caught.value)
    assert path.name[-40:] in message
    assert len(message) <= 300
    assert "\n" not in message
    return message


def bind(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "it is a folder, not a file"),
        (lambda path: os.mkfifo(path), "it is a device, not a file"),
        (bind, "it is a device, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.symlink_to("nowhere.jpg"), "it is a link to nothing"),
    ],
    ids=["nothing", "folder", "pipe", "socket", "device", "circle of links", "link to nothing"],
)
def test_what_is_no_file_is_one_sentence(make: Callable[[Path], None], what: str, tmp_path: Path) -> None:
    make(tmp_path / "face.jpg")
    message = sentence(tmp_path / "face.jpg")
    assert what in message
    assert message.startswith("cannot read ")


def test_names_and_folders_that_no_system_takes_are_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / f"{'x' * 300}.jpg", tmp_path / f"{'long/' * 1000}a.jpg", tmp_path / "new\nline\udcff.jpg"):
        with pytest.raises(DataNotFoundError) as caught:
            read_image(path)
        assert len(str(caught.value)) <= 300
        assert str(caught.value).isprintable()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that another user may enter, in whose place root must be put: root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_no_permission_is_one_sentence(open_folder: Path) -> None:
    (open_folder / "face.jpg").write_bytes(encoded(".jpg"))
    (open_folder / "face.jpg").chmod(0)
    (open_folder / "closed").mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        assert "Permission denied" in sentence(open_folder / "face.jpg")
        assert "Permission denied" in sentence(open_folder / "closed" / "face.jpg")
        with pytest.raises(DataNotFoundError, match="Permission denied"):
            list_images(open_folder / "closed")
    finally:
        os.seteuid(user)


def with_size(suffix: str, width: int, height: int) -> bytes:
    """A small image whose header promises another size."""
    content = encoded(suffix)
    if suffix == ".jpg":
        place = content.index(b"\xff\xc0") + 5
        return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]
    if suffix == ".png":
        header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    if suffix == ".gif":
        return content[:6] + struct.pack("<HH", width, height) + content[10:]
    if suffix == ".bmp":
        return content[:18] + struct.pack("<ii", width, -height) + content[26:]
    if suffix == ".webp":  # extended
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + size + content[12:]
        return b"RIFF" + struct.pack("<I", len(body)) + body
    old = (80, 60) if suffix != ".tif" else (60, 80)
    if suffix == ".tif":
        for tag, value in ((256, width), (257, height)):
            place = re.search(struct.pack("<H", tag) + b"[\3\4]\0\1\0\0\0", content).start()  # type: ignore[union-attr]
            content = content[:place] + struct.pack("<HHII", tag, 4, 1, value) + content[place + 12 :]
        return content
    return content.replace(struct.pack(">II", *old), struct.pack(">II", width, height))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".webp", ".tif", ".jp2", ".avif"])
def test_an_image_that_promises_too_much_is_refused_at_once(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(with_size(suffix, 16000, 65500))
    before = time.perf_counter()
    message = sentence(path)
    assert time.perf_counter() - before < 0.5
    assert f"16000×65500 pixels are above the limit of {MAX_PIXELS // 10**6} megapixels; scale it down" in message


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_WEBP_QUALITY, 80)], ids=["lossless", "lossy"])
def test_a_large_webp_is_refused(options: tuple[int, ...], tmp_path: Path) -> None:
    content = encoded(".webp", np.zeros((16, 16383, 3), np.uint8), *options)
    assert promised_size(content) == (16383, 16)
    if options:
        content = content[:28] + struct.pack("<H", 16383) + content[30:]
    else:
        bits = int.from_bytes(content[21:25], "little") | 0x3FFF << 14
        content = content[:21] + bits.to_bytes(4, "little") + content[25:]
    (tmp_path / "bomb.webp").write_bytes(content)
    assert "pixels are above the limit" in sentence(tmp_path / "bomb.webp")


RAW = [".ppm", ".pam", ".pfm", ".hdr", ".ras"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".webp", ".tif", ".jp2", ".avif", *RAW])
def test_the_promised_size_is_that_of_the_pixels(suffix: str) -> None:
    for height, width in ((60, 80), (7, 300), (1, 1)):
        if suffix != ".jp2" or height > 50:  # OpenCV writes no smaller ones
            assert promised_size(encoded(suffix, photograph(height, width))) == (width, height)


@pytest.mark.parametrize(
    "header",
    [
        b"P6\n65500 16000\n255\n",
        b"P5 # a comment\n65500\t16000\n255\n",
        b"P7\nWIDTH 65500\nHEIGHT 16000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
        b"P7\nDEPTH 3\nHEIGHT 16000\nMAXVAL 255\nWIDTH 65500\nENDHDR\n",
        b"PF\n65500 16000\n-1\n",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 16000 +X 65500\n",
        b"\x59\xa6\x6a\x95" + struct.pack(">IIIIIII", 65500, 16000, 24, 0, 1, 0, 0),
    ],
)
def test_an_uncompressed_image_that_promises_too_much_is_refused(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "bomb.ppm").write_bytes(header + bytes(100))
    assert "65500×16000 pixels are above the limit" in sentence(tmp_path / "bomb.ppm")


def test_the_size_of_a_photograph_is_not_that_of_its_thumbnail() -> None:
    """As cameras write it: a whole JPEG in a segment before the frame's header."""
    thumbnail, content = with_size(".jpg", 65000, 65000), encoded(".jpg")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert promised_size(content[:2] + segment + content[2:]) == (80, 60)


def test_a_file_of_any_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(10**12)
    assert "1000000000000 bytes are above the limit" in sentence(tmp_path / "sparse.jpg")


SUFFIXES = [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".avif", ".jp2", ".ppm"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_an_image_cut_short_says_so(
    suffix: str, share: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, path = encoded(suffix), tmp_path / f"face{suffix}"
    path.write_bytes(content[: int(share * len(content))])
    message = sentence(path)
    assert "cut short" in message or suffix == ".ppm"
    assert capfd.readouterr().err == ""  # what decoders print has no name


def test_a_download_that_ends_in_zeros_is_cut_short(tmp_path: Path) -> None:
    content = encoded(".png")
    (tmp_path / "face.png").write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    assert "face.png: it is " in sentence(tmp_path / "face.png")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"hello", "its 5 bytes are not an image"),
        (b"<html>", "it is a web page"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "it is HEIC or a film: convert it to JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50) + b"IEND\xaeB`\x82", "it is damaged"),
    ],
)
def test_what_is_no_image_says_why(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "face.jpg").write_bytes(content)
    with pytest.raises(DataFormatError):
        read_image(tmp_path / "face.jpg")
    assert what in sentence(tmp_path / "face.jpg")


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_OPTIMIZE, 1)])
@pytest.mark.parametrize("junk", [bytes(100), bytes(range(250, 200, -1))], ids=["zeros", "noise"])
def test_damage_is_one_warning_with_the_name(
    options: tuple[int, ...], junk: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = encoded(".jpg", photograph(120, 160), *options)
    place = len(content) // 2
    (tmp_path / "hurt.jpg").write_bytes(content[:place] + junk + content[place + len(junk) :])
    with pytest.warns(UserWarning, match=r"hurt\.jpg is damaged, .* may be wrong: (Corrupt|Incons|zeros)") as caught:
        damaged = read_image(tmp_path / "hurt.jpg")
    assert len(caught) == 1
    assert capfd.readouterr().err == ""
    (tmp_path / "whole.jpg").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = read_image(tmp_path / "whole.jpg")
    assert (damaged != whole).any()


def test_flat_and_padded_images_are_no_false_alarm(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Runs of zeros in what is compressed, and bytes behind the end, as phones append a film."""
    for number, options in enumerate([(), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)]):
        image = np.full((400, 300, 3), 255, np.uint8)
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(encoded(".jpg", image, *options) + bytes(5000))
        assert np.array_equal(read_image(path), image)
    assert not recwarn.list


def test_what_others_print_meanwhile_is_not_lost(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "face.jpg").write_bytes(encoded(".jpg", photograph(1500, 2000)))
    done = threading.Event()

    def read() -> None:
        for _ in range(5):
            read_image(tmp_path / "face.jpg")
        done.set()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    count = 0
    while not done.wait(0.002):
        os.write(2, f"line {count}\n".encode())
        count += 1
    for thread in threads:
        thread.join()
    lines = capfd.readouterr().err.split("\n")
    assert count > 5
    assert sorted(filter(None, lines)) == sorted(f"line {number}" for number in range(count))


def test_an_image_is_read_without_stderr(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(encoded(".png"))
    saved = os.dup(2)
    os.close(2)
    try:
        image = read_image(tmp_path / "face.png")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert np.array_equal(image, photograph())


def test_of_two_images_with_one_stem_the_usual_format_is_taken(tmp_path: Path) -> None:
    for name in ("a.avif", "a.png", "a.JPG", "a.gif", "b.webp", "b.gif", ".a.jpg", "c.txt"):
        (tmp_path / name).touch()
    assert list_images(tmp_path) == {"a": "a.JPG", "b": "b.webp"}
