"""Photographs that a command line names, and what a network sees of each, read by processes of their own."""

import glob
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import cv2
from torch.utils.data import DataLoader, Dataset

from facelightning.data.files import SUFFIXES, read_lines, warn
from facelightning.data.folder import files_in
from facelightning.data.prediction import Failure
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError, ending, quoted
from facelightning.prediction import Seen, View
from facelightning.prediction.photographs import Image, as_image

Answer = TypeVar("Answer")

CHUNK = 32
"""Photographs that are predicted together. The same ones after an interruption, so that numbers are the same."""

HEIC = (".heic", ".heif")
"""Photographs that OpenCV does not decode: they are listed as failures, not taken for something else."""


def named_photographs(words: Sequence[str], lists: Sequence[str] = ()) -> list[str]:
    """The paths of all photographs that are named, each once, in the order of the words and sorted in each folder.

    Args:
        words: Files; folders, which are read with all their subfolders; patterns such as ``photos/**/*.jpg``;
            ``@list.txt``; or ``-`` for a list on standard input.
        lists: Files with a name on each line. A name that leads nowhere is kept: it is a failure of its own.

    Raises:
        DataNotFoundError: If a word leads nowhere, or there is no photograph at all.
    """
    found: list[str] = []
    for word in words:
        if word == "-":
            found += _listed(os.fsdecode(sys.stdin.buffer.read()).splitlines())
        elif word.startswith("@") and not os.path.exists(word):
            found += _listed(read_lines(Path(word[1:])))
        else:
            found += _expanded(word)
    for name in lists:
        found += _listed(read_lines(Path(name)))
    if not found:
        raise DataNotFoundError("there is no photograph to predict: name files, folders, patterns or lists")
    return list(dict.fromkeys(map(_plain, found)))


def _plain(name: str) -> str:
    """A path in its shortest spelling; one with ``..`` as it is, for that may lead through a link."""
    return name if os.pardir in Path(name).parts else os.path.normpath(name)


def without_output(names: Sequence[str], output: str) -> list[str]:
    """The names outside the folder that predictions go to: an earlier run may have put pictures into it.

    Raises:
        DataNotFoundError: If none is outside.
    """
    folder = os.path.realpath(output)
    found = [name for name in names if os.path.commonpath([folder, os.path.realpath(name)]) != folder]
    if not found:
        raise DataNotFoundError(f"all photographs lie in {quoted(output)}, where predictions go: name another --output")
    return found


def _listed(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if line.strip():
            yield from _in_folder(line) if os.path.isdir(line) else [line]


def _expanded(word: str) -> Iterator[str]:
    if os.path.isdir(word):
        yield from _in_folder(word)
    elif os.path.lexists(word):
        yield word
    else:
        matches = sorted(glob.glob(word, recursive=True))
        if not matches:
            raise DataNotFoundError(f"{quoted(word, 150)} is no file, no folder, and no pattern of any")
        for match in matches:
            if not os.path.isdir(match):  # a folder's own files match, too, or were not meant
                yield match


def _in_folder(folder: str) -> list[str]:
    files = sorted(files_in(Path(folder)))
    images = [path for path in files if path.suffix.lower() in (*SUFFIXES, *HEIC)]
    others = [str(path.relative_to(folder)) for path in files if path.suffix.lower() not in (*SUFFIXES, *HEIC)]
    if others:
        names = quoted(", ".join(others[:3]), 60)
        warn(f"{ending(Path(folder))}: {len(others)} of {len(files)} files are no images and left out ({names})")
    return [str(path) for path in images]


def unfinished(names: Sequence[str], done: Collection[str], size: int = CHUNK) -> list[list[int]]:
    """The chunks of photographs, by their indices, in which at least one is not done yet.

    Example:
        >>> unfinished(["a", "b", "c", "d", "e"], {"a", "c", "d"}, size=2)
        [[0, 1], [4]]
    """
    chunks = [range(len(names))[start : start + size] for start in range(0, len(names), size)]
    return [list(chunk) for chunk in chunks if not all(names[index] in done for index in chunk)]


class Looks(Dataset[Any]):
    """What a network sees of each photograph; a :class:`Failure` of one that cannot be read.

    Args:
        paths: The photographs.
        view: What the network sees.
        side: Longer side of the pictures to draw on, in pixels; 0 if nothing is drawn.
    """

    def __init__(self, paths: Sequence[str], view: View, side: int) -> None:
        self.paths, self.view, self.side = paths, view, side

    def __getitem__(self, index: int) -> Seen | Failure:
        path = self.paths[index]
        try:
            seen = self.view(as_image(path), path)
        except (DataNotFoundError, DataFormatError) as error:
            return Failure(path, str(error))
        return replace(seen, picture=_reduced(seen.picture, self.side))  # the photographs of a chunk may be large


def _reduced(picture: Image, side: int) -> Image:
    scale = max(1, side) / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(scale * length)) for length in picture.shape[:2])
    return cast(Image, cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def look(looks: Looks, chunks: list[list[int]], workers: int) -> DataLoader[list[Seen | Failure]]:
    """What is seen of the photographs of each chunk; a few chunks are read ahead by processes of their own."""
    return DataLoader(
        looks,
        batch_sampler=chunks,
        collate_fn=list,
        num_workers=workers,
        worker_init_fn=_single_threaded,
    )


def in_processes(
    looks: Looks,
    chunks: list[list[int]],
    answer: Callable[[list[Seen | Failure]], Iterator[Answer]],
    begin: Callable[[int], None],
    processes: int,
) -> DataLoader[list[Answer] | OSError]:
    """The answers to the photographs of each chunk, in order: processes look, and answer, each a chunk at a time.

    Args:
        looks: The photographs.
        chunks: Their indices.
        answer: What is answered; called in the processes, which have all that this one has.
        begin: Called first in each process, with its number.
        processes: How many they are.

    Returns:
        Answers; or what the operating system refused, which loses its words if it is raised in a process.

    Raises:
        ConfigurationError: If this system cannot start such processes.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ConfigurationError("--processes needs Linux or macOS: leave it out")

    def answers(chunk: list[Seen | Failure]) -> list[Answer] | OSError:
        try:
            return list(answer(chunk))
        except OSError as error:
            return error

    def start(process: int) -> None:
        _single_threaded(process)
        begin(process)

    return DataLoader(
        looks,
        batch_sampler=chunks,
        collate_fn=answers,
        num_workers=processes,
        worker_init_fn=start,
        multiprocessing_context="fork",
    )


def _single_threaded(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    cv2.setNumThreads(0)
