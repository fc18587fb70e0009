"""``facelightning demo CHECKPOINT``: a photograph in, a page out; what is no photograph is refused by a sentence."""

import re
import socket
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

import facelightning as fl
from facelightning.__main__ import main
from facelightning.commands import demo
from facelightning.errors import DataFormatError
from facelightning.models import FrontalCascade
from tests.commands.browser import BROWSER, Browser
from tests.tasks.tiny import make_task, save


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JointNet that weighs regions."""
    folder = tmp_path_factory.mktemp("demo")
    return save(make_task("jointnet-ssp", folder), folder / "<b>.ckpt")


@pytest.fixture(scope="module")
def page(checkpoint: Path) -> TestClient:
    task = fl.load_model(checkpoint)
    return TestClient(demo.application(demo.Page(task, None, checkpoint.name)), f"http://{demo.HOST}")


def photograph(height: int = 60, width: int = 50) -> bytes:
    pixels = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_the_page_loads_nothing_from_elsewhere(page: TestClient) -> None:
    answer = page.get("/")
    assert answer.status_code == 200
    assert "JointNet of <code>&lt;b&gt;.ckpt</code>" in answer.text
    assert "$" not in answer.text and not re.search(r"https?://", answer.text)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_photograph_is_answered_as_python_does(page: TestClient, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(photograph())
    answer = page.post("/predict", content=photograph())
    (face,) = fl.load_model(checkpoint).predict(tmp_path / "face.png").faces
    rows = re.findall(r"<li( class=yes)?><span>(.*?)</span><i .*?></i><span>(\d+) %</span></li>", answer.text)
    assert {name: (bool(has), int(share)) for has, name, share in rows} == {
        name.replace("_", " "): (face.decisions[name], round(100 * likely)) for name, likely in face.attributes.items()
    }
    assert [int(share) for *_, share in rows] == sorted((int(share) for *_, share in rows), reverse=True)
    assert answer.text.count("data:image/png;base64,") == 2  # the picture, and the region weights
    assert "<h2>Attributes</h2>" in answer.text


def test_faces_that_are_found_are_numbered(checkpoint: Path) -> None:
    astronaut = pytest.importorskip("skimage.data").astronaut()[:256, 100:356]
    finder = FrontalCascade()
    finder.unsure = False  # else a network that has learned nothing decides what is a face
    page = demo.Page(fl.load_model(checkpoint), finder, "best.ckpt")
    assert "<h2>Face 1</h2>" in page.answer(cv2.imencode(".png", astronaut[..., ::-1])[1].tobytes())
    with pytest.raises(DataFormatError, match="above the limit of 128 megapixels"):
        page.answer(photograph()[:16] + b"\0\1\0\0" * 2 + photograph()[24:])  # 65,536 pixels wide and high
    nothing = page.answer(cv2.imencode(".png", np.zeros((50, 50), np.uint8))[1].tobytes())
    assert "<h2>" not in nothing and nothing.count("<img") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "Cannot decode the file: it is empty"),
        (b"<html>", "Cannot decode the file: it is a web page"),
        (b"words", "Cannot decode the file: its 5 bytes are not an image"),
        (photograph()[:-400], "Cannot decode the file: it is cut short"),
    ],
)
def test_what_is_no_image_is_refused(page: TestClient, content: bytes, sentence: str) -> None:
    answer = page.post("/predict", content=content)
    assert answer.status_code == 422
    assert answer.text.startswith(f'<p class="refused" role="alert">{sentence}')


def test_large_files_and_foreign_names_are_refused(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LIMIT", 1)
    assert page.post("/predict", content=bytes(2**20)).status_code == 422  # no image
    answer = page.post("/predict", content=bytes(2**20 + 1))
    assert (answer.status_code, "above the limit of 1 MB" in answer.text) == (413, True)
    assert page.get("/", headers={"host": "elsewhere.org"}).status_code == 400


def test_another_page_is_refused(page: TestClient) -> None:
    assert page.post("/predict", content=photograph(), headers={"Origin": "http://other.org"}).status_code == 403
    assert page.post("/predict", content=photograph(), headers={"Origin": f"http://{demo.HOST}"}).status_code == 200


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
def test_in_a_browser(page: TestClient, tmp_path: Path) -> None:
    """A photograph is chosen, a text is dropped, and at last the command is gone; nothing is wider than a phone."""
    (tmp_path / "face.png").write_bytes(photograph())
    expected = re.findall(r"<span>(.*?)</span>", page.post("/predict", content=photograph()).text)
    with socket.socket() as listening, Browser(tmp_path / "browser") as browser:
        listening.bind((demo.HOST, 0))
        server = uvicorn.Server(uvicorn.Config(page.app, log_level="warning"))
        serving = Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        try:
            browser.open(f"http://{demo.HOST}:{listening.getsockname()[1]}/")
            browser.run(
                "addEventListener('securitypolicyviolation', event => document.title = event.violatedDirective)"
            )
            browser.choose("input", tmp_path / "face.png")
            browser.wait_for("document.querySelectorAll('main img').length == 2")
            browser.wait_for("[...document.querySelectorAll('main img')].every(image => image.naturalWidth > 0)")
            shown = browser.run("[...document.querySelectorAll('li span')].map(word => word.textContent)")
            assert shown == expected
            browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
            assert browser.run("document.documentElement.scrollWidth") == 390
            browser.run(
                """{ const data = new DataTransfer(); data.items.add(new File(["words"], "a.png"));
                     dispatchEvent(new DragEvent("drop", { dataTransfer: data })); }"""
            )
            browser.wait_for("document.querySelector('main .refused')?.innerText.includes('5 bytes are not an image')")
            assert browser.run("document.title") == "facelightning: JointNet"  # nothing violates the page's own policy
        finally:
            server.should_exit = True
            serving.join()
        browser.choose("input", tmp_path / "face.png")
        browser.wait_for("document.querySelector('main .refused')?.innerText.includes('server does not answer')")


def test_it_listens_to_this_machine_alone_until_interrupted(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = []

    def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        addresses.append(sockets[0].getsockname())
        assert "<html" in TestClient(server.config.app, f"http://{demo.HOST}").get("/").text
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    assert main(["demo", str(checkpoint), "--port=0"]) == 0
    ((host, port),) = addresses
    assert host == "127.0.0.1"
    assert capsys.readouterr().out.startswith(f"open http://127.0.0.1:{port} in a browser")


def test_mistakes_are_sentences(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind((demo.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["demo", str(checkpoint), f"--port={port}"]) == 1
        assert f"port {port}: Address already in use; choose another --port" in capsys.readouterr().err
    assert main(["demo", str(checkpoint), "--port=70000"]) == 1
    assert "--port must lie in 0...65535, not 70000" in capsys.readouterr().err
    assert main(["demo", str(checkpoint), "--faces=boxes:faces.csv"]) == 1
    assert "a table of boxes names no photograph of the page" in capsys.readouterr().err
