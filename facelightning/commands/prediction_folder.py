"""The folder that ``facelightning predict`` writes: one photograph after another, so that it can go on later."""

import csv
import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO, cast

from PIL import Image as Pillow

from facelightning.callbacks.predictions import relative_path
from facelightning.data.prediction import Failure
from facelightning.errors import ConfigurationError, DataFormatError, ending, quoted
from facelightning.figures import color_mask, legend_figure, save_image
from facelightning.labels import IGNORE_INDEX, LabelSpace
from facelightning.prediction import Prediction
from facelightning.prediction.results import DIGITS, columns, rows_of

Overlays = Literal["jpg", "png", "none"]


class Line(NamedTuple):
    """What ``predictions.jsonl`` says of one photograph."""

    name: str
    record: str


class PredictionFolder:
    """Writes predictions, and knows which photographs are done.

    - ``predictions.jsonl``: a line for each photograph, written when all else of it is.
    - ``predictions.csv``: a row for each face, written at the end.
    - ``region_weights.csv``, if asked for: a row for each face and attribute, with the weight of each region.
    - ``parsing/NAME.png``: class indices in the photograph's own pixels, with a palette of colours;
      ``legend.json`` and ``legend.png`` say what they mean.
    - ``overlays/NAME.jpg``: the photograph under its classes, boxes and words.
    - ``failures.csv``: ``image`` and ``reason`` of each photograph without a prediction, if there are any.
    - ``about.json``: what predicted, so that nothing else adds to it.

    NAME is the photograph's path as it was given; see :func:`~facelightning.callbacks.predictions.relative_path`.

    Args:
        path: The folder.
        about: What predicts: a folder of something else is refused.
        overlays: Format of the overlays; none are drawn if it is ``none``.
        places: Names of the regions whose weights are written; none if they are not asked for.

    Raises:
        ConfigurationError: If the folder holds other files, or what something else predicted.
        DataFormatError: If ``predictions.jsonl`` is damaged.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], overlays: Overlays, places: Sequence[str] = ()) -> None:
        self.path, self.overlays, self.places = path, overlays, places
        self.failures: list[Failure] = []
        self._states: dict[str, Any] = {}
        known, lines = path / "about.json", path / "predictions.jsonl"
        if not known.exists():
            if path.exists() and any(file.suffix != ".part" for file in path.iterdir()):
                raise ConfigurationError(f"{ending(path)} holds other files: name an empty or new folder as --output")
            path.mkdir(parents=True, exist_ok=True)
            part = known.with_suffix(".part")  # whole or not there
            part.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            part.replace(known)
        elif (other := _difference(known, about)) is not None:
            raise ConfigurationError(f"{ending(path)} holds predictions of another {other}: name another --output")
        _drop_unfinished(lines)
        self.done = {record["image"] for record in read_records(lines)}
        """The names of the photographs that are predicted."""
        (path / "failures.csv").unlink(missing_ok=True)  # these are tried again

    def forget_replaced(self, names: Sequence[str]) -> int:
        """Take photographs whose file has another size or time of change than when it was predicted for undone.

        Their lines and pictures are removed. A file that is gone keeps what was predicted for it.

        Args:
            names: The photographs that are predicted now.

        Returns:
            How many they are.
        """
        self._states = {name: state for name in names if (state := file_state(name)) is not None}
        lines = self.path / "predictions.jsonl"
        replaced = {
            record["image"]
            for record in read_records(lines)
            if record["image"] in self._states and record.get("file") != self._states[record["image"]]
        }
        if replaced:
            for kind, suffix in (("parsing", "png"), ("overlays", "jpg"), ("overlays", "png")):
                for name in replaced:
                    (self.path / kind / relative_path(name, suffix)).unlink(missing_ok=True)
            part = lines.with_suffix(".part")  # whole or not there
            with lines.open("rb") as old, part.open("wb") as new:
                new.writelines(line for line in old if json.loads(line)["image"] not in replaced)
            part.replace(lines)
            self.done -= replaced
        return len(replaced)

    def write_legend(self, labels: LabelSpace) -> None:
        """Say what the indices of the masks mean."""
        classes = [
            {"index": index, "name": name, "color": list(color)}
            for index, (name, color) in enumerate(zip(labels.classes, labels.colors, strict=True))
        ]
        content = {"label_space": labels.name, "classes": classes}
        (self.path / "legend.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        save_image(self.path / "legend.png", legend_figure(labels))

    def draw(self, prediction: Prediction) -> Line | Failure:
        """Write a photograph's pictures.

        Returns:
            Its line; or why it has no prediction.
        """
        name = prediction.name
        try:
            if prediction.parsing is not None and prediction.label_space is not None:
                mask = Pillow.fromarray(prediction.parsing)
                mask.putpalette(_palette(prediction.label_space))
                mask.save(self._place("parsing", name, "png"), compress_level=1)
            if self.overlays != "none":
                prediction.plot().save(self._place("overlays", name, self.overlays), quality=92)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return Failure(name, "the names of its pictures would be too long; give it a shorter name")
        record = prediction.to_dict() | {"file": self._states.get(name)}
        if self.places:
            for said, face in zip(record["faces"], prediction.faces, strict=True):
                said["region_weights"] = {
                    attribute: {place: round(weight, DIGITS) for place, weight in weights.items()}
                    for attribute, weights in face.region_weights.items()
                }
        return Line(name, json.dumps(record, ensure_ascii=False, allow_nan=False))

    def add(self, line: Line) -> None:
        """Write the line of a photograph whose pictures are drawn: it is done."""
        with self._open("predictions.jsonl", "a") as file:
            file.write(line.record + "\n")
        self.done.add(line.name)

    def fail(self, failure: Failure) -> None:
        """List a photograph that has no prediction."""
        with self._open("failures.csv", "a") as file:
            csv.writer(file).writerows([failure] if self.failures else [("image", "reason"), failure])
        self.failures.append(failure)

    def finish(self, attributes: Sequence[str], points: bool = False) -> None:
        """Write the tables of all faces, with columns of five points if these are known.

        Raises:
            DataFormatError: If photographs lack predictions.
        """
        with self._open("predictions.csv", "w") as file:
            writer = csv.writer(file)
            writer.writerow(header := columns(attributes, points))
            for record in read_records(self.path / "predictions.jsonl"):
                for row in rows_of(record):
                    cells = (row.get(column) for column in header)
                    writer.writerow(int(cell) if isinstance(cell, bool) else cell for cell in cells)
        if self.places:
            with self._open("region_weights.csv", "w") as file:
                csv.writer(file).writerow(["image", "face", "attribute", *self.places])
                for record in read_records(self.path / "predictions.jsonl"):
                    csv.writer(file).writerows(_weights_of(record))
        if self.failures:
            names = quoted(", ".join(failure.name for failure in self.failures[:3]))
            where = ending(self.path / "failures.csv")
            raise DataFormatError(f"{len(self.failures)} images lack predictions ({names}); {where} says why")

    def _place(self, kind: str, name: str, suffix: str) -> Path:
        path = self.path / kind / relative_path(name, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _open(self, name: str, mode: str) -> TextIO:
        # a file name may hold bytes that are not UTF-8; \udcff is what JSON calls such a byte
        return cast(TextIO, (self.path / name).open(mode, newline="", encoding="utf-8", errors="backslashreplace"))


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of ``predictions.jsonl``, none if there is no such file.

    Raises:
        DataFormatError: If one is damaged.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                if not isinstance(record["image"], str):
                    raise TypeError
                yield record
            except (ValueError, KeyError, TypeError):
                raise DataFormatError(
                    f"{ending(path)}, line {number}: it is damaged; delete the line, and its image is predicted again"
                ) from None


def _weights_of(record: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The rows of a photograph in ``region_weights.csv``."""
    for number, face in enumerate(record["faces"], start=1):
        for attribute, weights in face["region_weights"].items():
            yield [record["image"], number, attribute, *weights.values()]


def file_state(name: str) -> dict[str, float] | None:
    """What tells a file from another that takes its place, without reading it; ``None`` if it is gone.

    Example:
        >>> file_state("missing.jpg")
    """
    try:
        found = Path(name).stat()
    except OSError:
        return None
    return {"bytes": found.st_size, "changed": round(found.st_mtime_ns / 1e9, 6)}


def _drop_unfinished(path: Path) -> None:
    """Cut off a last line that was not written to its end."""
    if path.exists():
        with path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def _difference(path: Path, about: Mapping[str, Any]) -> str | None:
    """The first thing in which what predicted differs from what predicts now, in words."""
    try:
        known = json.loads(path.read_text("utf-8"))
    except ValueError:
        known = None
    found = known if isinstance(known, dict) else {}
    return next((key.replace("_", " ") for key, value in about.items() if found.get(key) != value), None)


def _palette(labels: LabelSpace) -> bytes:
    """An entry for each index, also for those that do not occur: Pillow would write fewer bits for a shorter one."""
    import numpy as np

    indices = np.minimum(np.arange(256), IGNORE_INDEX)
    return color_mask(np.where(indices < len(labels), indices, IGNORE_INDEX), labels).tobytes()
