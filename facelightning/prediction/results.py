"""What was predicted for a photograph: to read, to draw, to put into a table."""

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from facelightning.boxes import POINTS
from facelightning.errors import ConfigurationError
from facelightning.figures import Image, prediction_figure
from facelightning.labels import LabelSpace

SIDES = ("x0", "y0", "x1", "y1")

DIGITS = 6
"""Of a probability, after the point; more would depend on the machine."""


@dataclass(frozen=True)
class Face:
    """A face and what it is like.

    Args:
        box: x0, y0, x1, y1 in pixels of the photograph; x1 and y1 are exclusive.
        score: How certain its finder is, on that one's own scale; ``None`` if nothing was searched.
        attributes: The probability of each attribute, in [0, 1].
        decisions: Whether it has each attribute.
        region_weights: How much each place counts for each attribute, in [0, 1], by the names of both; empty if the
            network weighs none.
        points: x and y of left eye, right eye, nose tip, left and right mouth corner, in pixels of the photograph; left
            is the image's left. Empty if they are unknown.
    """

    box: tuple[float, float, float, float]
    score: float | None = None
    attributes: dict[str, float] = field(default_factory=dict)
    decisions: dict[str, bool] = field(default_factory=dict)
    region_weights: dict[str, dict[str, float]] = field(default_factory=dict)
    points: tuple[tuple[float, float], ...] = ()

    @property
    def words(self) -> list[str]:
        """The attributes that it has, the most probable first, as a picture shows them."""
        likely = sorted((name for name, has in self.decisions.items() if has), key=lambda name: -self.attributes[name])
        return [f"{name.replace('_', ' ')} {100 * self.attributes[name]:.0f} %" for name in likely]


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one photograph; a notebook shows it as a picture and a table.

    Args:
        name: The photograph's name.
        size: Its height and width in pixels.
        faces: Its faces, the most certain first; one, the whole, if nothing was searched.
        parsing: The class of each of its pixels, ``(H, W)``, uint8; ``None`` if the network parses nothing.
        label_space: The classes.
        picture: The photograph, ``(h, w, 3)``, uint8 RGB, or a smaller copy.

    Example:
        >>> face = Face((0, 0, 4, 8), None, {"Male": 0.9, "Bald": 0.2}, {"Male": True, "Bald": False})
        >>> found = Prediction("a.jpg", (8, 4), [face], None, None, np.zeros((8, 4, 3), np.uint8))
        >>> found.attributes["Male"], face.words
        (0.9, ['Male 90 %'])
        >>> found.to_rows()[0]["Male_decision"]
        True
    """

    name: str
    size: tuple[int, int]
    faces: list[Face]
    parsing: npt.NDArray[np.uint8] | None
    label_space: LabelSpace | None
    picture: Image = field(repr=False)

    @property
    def boxes(self) -> npt.NDArray[np.float64]:
        """The boxes of the faces, ``(F, 4)``: x0, y0, x1, y1 in pixels."""
        return np.array([face.box for face in self.faces], np.float64).reshape(-1, 4)

    @property
    def attributes(self) -> dict[str, float]:
        """The probabilities of the most certain face; empty without a face."""
        return self.faces[0].attributes if self.faces else {}

    @property
    def decisions(self) -> dict[str, bool]:
        """The decisions about the most certain face; empty without a face."""
        return self.faces[0].decisions if self.faces else {}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and names, as a line of ``predictions.jsonl`` has them; all but the mask and the weights."""
        faces = [
            {
                "box": [round(side, 2) for side in face.box],
                "score": None if face.score is None else round(face.score, DIGITS),
                **({"points": [[round(x, 2), round(y, 2)] for x, y in face.points]} if face.points else {}),
                "attributes": {
                    name: {"probability": round(share, DIGITS), "decision": face.decisions[name]}
                    for name, share in face.attributes.items()
                },
            }
            for face in self.faces
        ]
        return {"image": self.name, "width": self.size[1], "height": self.size[0], "faces": faces}

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each face, as ``predictions.csv`` has them; one with empty cells if there is no face."""
        return list(rows_of(self.to_dict()))

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``; raises :class:`ConfigurationError` if pandas is not installed."""
        try:
            import pandas  # type: ignore[import-untyped]  # here, because only this needs it
        except ImportError:
            raise ConfigurationError(
                "to_pandas needs pandas, which is not installed: pip install pandas, or call to_rows()"
            ) from None
        return pandas.DataFrame(self.to_rows())

    def plot(self) -> Pillow.Image:
        """The photograph with its classes in colours and a box around each face; beside it what each face is like."""
        return Pillow.fromarray(self._figure)

    @cached_property
    def _figure(self) -> Image:
        whole = np.array([[0, 0, *self.size[::-1]]])
        boxes = None if np.array_equal(self.boxes, whole) else self.boxes
        words = [face.words for face in self.faces]
        return prediction_figure(self.picture, self.size, words, boxes, self.parsing, self.label_space)

    def _repr_html_(self) -> str:
        image = cv2.imencode(".jpg", cv2.cvtColor(self._figure, cv2.COLOR_RGB2BGR))[1].tobytes()
        picture = f'<img alt="prediction" src="data:image/jpeg;base64,{base64.b64encode(image).decode()}">'
        lines = [
            f"<tr><td>{number}</td><td>{', '.join(f'{side:.0f}' for side in face.box)}</td>"
            f"<td>{html.escape(', '.join(face.words))}</td></tr>"
            for number, face in enumerate(self.faces, start=1)
        ]
        head = "<tr><th>face</th><th>box</th><th>attributes</th></tr>"
        return f"<p>{html.escape(self.name)}</p>{picture}<table>{head}{''.join(lines)}</table>"


def columns(attributes: Sequence[str], points: bool = False) -> tuple[str, ...]:
    """The columns of ``predictions.csv``; those of five points only if they are known of faces.

    Example:
        >>> columns(["Male"])
        ('image', 'face', 'x0', 'y0', 'x1', 'y1', 'score', 'Male', 'Male_decision')
        >>> columns([], points=True)[7:9]
        ('lefteye_x', 'lefteye_y')
    """
    five = POINTS if points else ()
    return ("image", "face", *SIDES, "score", *five, *attributes, *(f"{name}_decision" for name in attributes))


def rows_of(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a line of ``predictions.jsonl``: numbers of the faces, boxes, probabilities, decisions.

    Example:
        >>> list(rows_of({"image": "a.jpg", "faces": []}))
        [{'image': 'a.jpg', 'face': None, 'x0': None, 'y0': None, 'x1': None, 'y1': None, 'score': None}]
    """
    for number, face in enumerate(record["faces"], start=1):
        row = {"image": record["image"], "face": number, **dict(zip(SIDES, face["box"], strict=True))}
        row["score"] = face["score"]
        row |= dict(zip(POINTS, (side for point in face.get("points", ()) for side in point), strict=False))
        row |= {name: each["probability"] for name, each in face["attributes"].items()}
        yield row | {f"{name}_decision": each["decision"] for name, each in face["attributes"].items()}
    if not record["faces"]:
        yield {"image": record["image"], **dict.fromkeys(("face", *SIDES, "score"))}
