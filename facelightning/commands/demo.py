"""``facelightning demo CHECKPOINT``: a page in the browser that shows what a trained network says of a photograph."""

import argparse
import socket
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from PIL import Image as Pillow

from facelightning.commands.predict import load
from facelightning.data.files import decode_image
from facelightning.errors import ConfigurationError, FacelightningError, quoted
from facelightning.figures import region_weights_figure
from facelightning.models.finding import Finder
from facelightning.prediction import Face
from facelightning.tasks import FaceTask

if TYPE_CHECKING:
    from starlette.applications import Starlette

HOST = "127.0.0.1"
"""This machine alone."""

LIMIT = 32
"""Megabytes of the largest upload."""

PAGE = Path(__file__).with_suffix(".html")

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
    ),
}
"""Browsers keep nothing, and load nothing from elsewhere."""

DESCRIPTION = """Serve a page to this machine's browser: drop a photograph, and see boxes, parsing, attributes, and how
much each region counts for each of them. Nothing is stored."""


class Page:
    """What the browser is shown.

    Args:
        task: The trained network, in evaluation mode.
        finder: Finds the faces; see :func:`~facelightning.commands.predict.find_by`.
        name: Its file, as the page names it.
    """

    def __init__(self, task: FaceTask, finder: Finder | None, name: str) -> None:
        self.predictor, self.task = task.predictor(finder), task
        self.searches = self.predictor.view.finder is not None
        way = "It takes a photograph for the cut around one face; started with --faces, it searches for faces."
        if self.searches:
            way = "It searches a photograph for faces."
        words = {"task": type(task).__name__, "checkpoint": name, "way": way, "limit": str(LIMIT)}
        self.html = Template(PAGE.read_text("utf-8")).substitute({key: escape(word) for key, word in words.items()})

    def answer(self, content: bytes) -> str:
        """What the network says of a photograph, given as the bytes of its file: a part of the page.

        Raises:
            DataFormatError: If they are no image, or too large a one.
        """
        image, damage = decode_image(content, Path("the file"), cv2.IMREAD_COLOR_RGB)
        seen = self.predictor.view(image, "photograph")
        (prediction,) = self.predictor.predict([seen])
        parts = [refusal(f"The file is damaged, and many pixels may be wrong: {quoted(damage)}")] if damage else []
        parts.append(_picture(prediction.plot(), "the photograph with what is predicted"))
        for number, face in enumerate(prediction.faces, start=1):
            parts.append(_table(face, f"Face {number}" if self.searches else "Attributes"))
        return "".join([*parts, *(part for face in prediction.faces[:1] for part in _region_weights(face))])


def _region_weights(face: Face) -> Iterator[str]:
    """How much each region counts for each attribute of a face, folded; nothing if none is weighed."""
    if face.region_weights:
        rows = [list(row.values()) for row in face.region_weights.values()]
        regions = list(next(iter(face.region_weights.values())))
        image = region_weights_figure(np.array(rows), list(face.region_weights), regions)
        head = "How much each region counts for each attribute of the first face"
        yield f"<details><summary>{head}</summary>{_picture(Pillow.fromarray(image), head)}</details>"


def refusal(sentence: str) -> str:
    """What is wrong, as a part of the page.

    Example:
        >>> refusal("<b> is no image")
        '<p class="refused" role="alert">&lt;b&gt; is no image</p>'
    """
    return f'<p class="refused" role="alert">{escape(sentence)}</p>'


def _picture(image: Pillow.Image, words: str) -> str:
    file = BytesIO()
    image.save(file, "PNG")
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{b64encode(file.getvalue()).decode()}">'


def _table(face: Face, head: str) -> str:
    """Each attribute with its probability, the most probable first; those that the face has stand out."""
    lines = [
        f"<li{' class=yes' * face.decisions[name]}><span>{escape(name.replace('_', ' '))}</span>"
        f'<i style="--share: {100 * likely:.0f}%"></i><span>{100 * likely:.0f} %</span></li>'
        for name, likely in sorted(face.attributes.items(), key=lambda item: -item[1])
    ]
    bold = "<p>Bold: the network decides that the face has it.</p>"
    return f"<h2>{head}</h2>{bold}<ul>{''.join(lines)}</ul>" if lines else ""


def application(page: Page) -> "Starlette":
    """The page as a web application, which answers only to this machine's own names."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    async def show(request: Request) -> HTMLResponse:
        return HTMLResponse(page.html, headers=HEADERS)

    async def predict(request: Request) -> HTMLResponse:
        if request.headers.get("origin") not in (None, str(request.base_url).rstrip("/")):
            return HTMLResponse(refusal("Another page has asked: use this one."), 403, HEADERS)
        content = bytearray()  # in memory alone: a form's files would be written to the disk
        try:
            async for part in request.stream():
                content += part
                if len(content) > LIMIT * 2**20:
                    sentence = f"The file is above the limit of {LIMIT} MB: scale the photograph down."
                    return HTMLResponse(refusal(sentence), 413, HEADERS)
        except ClientDisconnect:
            return HTMLResponse(refusal("The file was not sent to its end."), 400, HEADERS)
        try:
            return HTMLResponse(await run_in_threadpool(page.answer, bytes(content)), headers=HEADERS)
        except FacelightningError as error:
            sentence = str(error)
            return HTMLResponse(refusal(f"{sentence[:1].upper()}{sentence[1:]}."), 422, HEADERS)

    # other hosts' pages could reach this one by a name of theirs that leads here
    own = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return Starlette(routes=[Route("/", show), Route("/predict", predict, methods=["POST"])], middleware=[own])


def demo(checkpoint: str, port: int = 8000, faces: str | None = None) -> None:
    """Serve the page to this machine until it is interrupted.

    Args:
        checkpoint: The trained network.
        port: Of this machine; 0 for any that is free.
        faces: How faces are found; see :func:`~facelightning.commands.predict.predict`. No table of boxes.

    Raises:
        FacelightningError: If an argument is wrong, a library is missing, or the port is in use.
    """
    try:
        import uvicorn  # here, because only this needs it
    except ImportError:
        raise ConfigurationError(
            "demo needs starlette and uvicorn, which are not installed: pip install 'facelightning[demo]'"
        ) from None
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"--port must lie in 0...65535, not {port}")
    if (faces or "").startswith("boxes:"):
        raise ConfigurationError("a table of boxes names no photograph of the page: choose another --faces")
    task, finder = load(checkpoint, faces)
    app = application(Page(task.to("cuda" if torch.cuda.is_available() else "cpu"), finder, checkpoint))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(f"port {port}: {error.strerror}; choose another --port, or 0 for any") from None
        print(f"open http://{HOST}:{server.getsockname()[1]} in a browser; Ctrl+C ends the page", flush=True)
        with suppress(KeyboardInterrupt):  # the way to end it
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([server])


def main(args: Sequence[str]) -> None:
    """The command line of :func:`demo`."""
    parser = argparse.ArgumentParser(prog="facelightning demo", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the trained network: .../checkpoints/best.ckpt")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 for any that is free")
    how = "how faces are found: crop, cascade, yunet:FILE or lnet:CHECKPOINT, as `facelightning predict` does"
    parser.add_argument("--faces", metavar="KIND", help=how)
    demo(**vars(parser.parse_args(args)))
