"""From the bytes of an image file to pixels: what its header promises, what is wrong with it, what decoders print."""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from typing import IO, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

MAX_PIXELS = 128_000_000
"""More than most cameras give; a file of 600 bytes can promise a thousand million."""

_SIZES: tuple[tuple[bytes, bytes, Literal["big", "little", "text"]], ...] = (
    (rb"\x89PNG", rb"^.{16}(....)(....)", "big"),
    (rb"GIF8", rb"^.{6}(..)(..)", "little"),
    (rb"BM.{12}[^\x0c]", rb"^.{18}(....)(....)", "little"),
    (rb"RIFF.{4}WEBPVP8 ", rb"^.{26}(..)(..)", "little"),
    (rb"II\*", b"\0\1[\3\4]\0\1\0\0\0(....)\1\1[\3\4]\0\1\0\0\0(....)", "little"),
    (rb"MM\0", b"\1\0\0\4\0\0\0\1(....)\1\1\0\4\0\0\0\1(....)", "big"),
    (rb"MM\0", b"\1\0\0\3\0\0\0\1(..)..\1\1\0\3\0\0\0\1(..)", "big"),
    (rb"\xff\x4f\xff\x51|.{4}jP  ", rb"^.*?\xff\x4f\xff\x51.{4}(....)(....)", "big"),
    (rb".{4}ftyp", rb"ispe\0{4}(....)(....)", "big"),  # of the picture, of its tiles, of a thumbnail
    (rb"\x59\xa6\x6a\x95", rb"^.{4}(....)(....)", "big"),
    (rb"P[1-6Ff]\s", rb"^P.(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})", "text"),
    (rb"P7\s", rb"\sWIDTH\s+(\d{1,9})\s(?:[^W]*\s)?HEIGHT\s+(\d{1,9})", "text"),
    (rb"P7\s", rb"\s(?=HEIGHT\s+\d+\s(?:[^H]*\s)?WIDTH\s+(\d{1,9}))HEIGHT\s+(\d{1,9})", "text"),
    (rb"#\?R", rb"\n-Y (?=\d+ \+X (\d{1,9}))(\d{1,9})", "text"),
)
"""By a format's first bytes, where a header has width and height, and the order of their bytes; or their digits."""

_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND", b"GIF8": b"\x3b"}
"""By a format's first bytes, what it ends with."""

_DAMAGE = re.compile(r"^(?:Corrupt JPEG|Premature end|Inconsistent progression|\[ERROR).*\n?", re.MULTILINE)
_PRINTED = re.compile(rf"{_DAMAGE.pattern}|^(?:Invalid|Warning: unknown|libpng|\[ ?[A-Z]+:).*\n?", re.MULTILINE)

_decoding = threading.Lock()
if hasattr(os, "register_at_fork"):  # a loader's worker must not start while another thread decodes
    os.register_at_fork(before=_decoding.acquire, after_in_parent=_decoding.release, after_in_child=_decoding.release)


def promised_size(content: bytes) -> tuple[int, int]:
    """Width and height as an image file's header has them; zeros if the format is an unknown one."""
    if content.startswith(b"\xff\xd8"):
        for marker, begin, _ in _segments(content):  # the first frame header; a thumbnail's is within another segment
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                return int.from_bytes(content[begin + 3 : begin + 5]), int.from_bytes(content[begin + 1 : begin + 3])
        return 0, 0
    if content[12:16] == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if content[12:16] == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    sizes = [(0, 0)]
    for first, pattern, order in _SIZES:
        if re.match(first, content, re.DOTALL):
            for found in re.finditer(pattern, content, re.DOTALL):
                numbers = found.groups()
                width, height = (int(x) if order == "text" else int.from_bytes(x, order) for x in numbers)
                sizes.append((width, min(height, 2**32 - height)))  # a BMP's is negative from the top down
    return max(sizes, key=lambda size: size[0] * size[1])


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Of a JPEG, marker, begin and end of each segment; a scan's end is where its compressed pixels begin."""
    place = 2
    while (place := content.find(b"\xff", place)) >= 0 and place + 4 <= len(content):
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in (0x00, 0x01, *range(0xD0, 0xD9)):  # have no length, or are among compressed pixels
            place += 2
        else:
            begin, place = place + 4, place + 2 + int.from_bytes(content[place + 2 : place + 4])
            yield marker, begin, place


def _has_blank_pixels(content: bytes) -> bool:
    """Whether zeros have taken the place of a JPEG's compressed pixels, which its decoder often does not see.

    Zeros are flat pixels, and may be right, only if zero bits are the code for "no change" in all tables of the scan.
    """
    zeros = bytes(64)
    if zeros not in content:
        return False
    code: dict[int, int] = {}  # what zero bits mean in each table: the low half is the size of a change
    for marker, begin, end in _segments(content):
        if marker == 0xC4:
            while begin + 17 < end <= len(content):
                code[content[begin]] = content[begin + 17]
                begin += 17 + sum(content[begin + 1 : begin + 17])
        elif marker == 0xDA:
            next_marker = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]").search(content, end)
            if zeros in content[end : next_marker.start() if next_marker else len(content)]:
                *components, first, last, bits = content[begin:end]
                tables = {table & 15 | 16 for table in components[2::2]} if last else set()
                if first == 0 and bits < 16:  # not the later bits of a progressive scan
                    tables |= {table >> 4 for table in components[2::2]}
                if any(code.get(table, 0) & 15 for table in tables):
                    return True
    return False


def fault(content: bytes) -> str:
    """What is wrong with bytes that no decoder takes."""
    if not content:
        return "it is empty: copy or download it again"
    if content[4:8] == b"ftyp" and content[8:12] != b"avif":
        return "it is HEIC or a film: convert it to JPEG"
    for first, last in _ENDS.items():
        if content.startswith(first):
            complete = last in content.rstrip(b"\0")[-16:]
            return f"it is {'damaged' if complete else 'cut short'}: copy or download it again"
    if content[8:12] == b"WEBP" and len(content) < 8 + int.from_bytes(content[4:8], "little"):
        return "it is cut short: copy or download it again"
    if any(re.match(first, content, re.DOTALL) for first, *_ in _SIZES):
        return "it is cut short or damaged: copy or download it again"
    return f"its {len(content)} bytes are not an image"


def decode(content: bytes, flags: int) -> tuple[Image | None, str]:
    """The image, if there is one, and the damage in it: what its decoder, written in C, prints without a name.

    Threads decode one after another, because a process has one ``stderr``.

    Raises:
        cv2.error: If OpenCV refuses it.
    """
    encoded = np.frombuffer(content, np.uint8)
    with _decoding:
        try:
            caught, stderr = _caught(os.getpid()), os.dup(2)
        except OSError:  # no folder for temporary files, or no stderr
            return cast(Image | None, cv2.imdecode(encoded, flags)), ""
        os.dup2(caught.fileno(), 2)
        try:
            image = cast(Image | None, cv2.imdecode(encoded, flags))
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            printed = _taken_from(caught)
    foreign = _PRINTED.sub("", printed)  # another thread's
    if foreign.strip() and image is not None:
        sys.stderr.write(foreign)
    if damage := _DAMAGE.search(printed):
        return image, damage[0].strip()
    blank = image is not None and content.startswith(b"\xff\xd8") and _has_blank_pixels(content)
    return image, "zeros in place of pixels" if blank else ""


@cache
def _caught(process: int) -> IO[bytes]:
    """Each process catches in a file of its own. A pipe could be full, and then decoding would wait for ever."""
    return tempfile.TemporaryFile(buffering=0)


def _taken_from(file: IO[bytes]) -> str:
    if not os.fstat(file.fileno()).st_size:
        return ""
    file.seek(0)
    text = file.read(100_000).decode(errors="replace")
    file.seek(0)
    file.truncate()
    return text
