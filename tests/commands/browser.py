"""A real browser without a window, driven through a pipe: what a page looks like, and what it does."""

import json
import os
import select
import shutil
import signal
from base64 import b64decode
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
"""The program; ``None`` if none is installed."""


class Browser:
    """One tab, which speaks Chrome's DevTools protocol.

    Args:
        profile: An empty folder for the browser's own files.
        size: Width and height of the tab, in pixels.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 1000)) -> None:
        assert BROWSER is not None
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]
        flags += [f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}", "--hide-scrollbars"]
        # the browser reads from its descriptor 3 and writes to 4; ours are moved out of their way
        pipes = [*os.pipe(), *os.pipe()]
        theirs_in, self._to, self._from, theirs_out = (fcntl(each, F_DUPFD_CLOEXEC, 10) for each in pipes)
        for each in pipes:
            os.close(each)
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs_in, 3),
            (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)),
        ]
        self._process = os.posix_spawn(BROWSER, [BROWSER, *flags, "about:blank"], os.environ, file_actions=actions)
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._rest, self._session = 0, b"", ""
        self._events: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._to)
        os.close(self._from)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol, and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:  # an event
            self._events.append(answer.get("method", ""))
        assert "error" not in answer, answer
        return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._from], [], [], 60)[0], "the browser is silent"
            more = os.read(self._from, 1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        line, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(line))

    def run(self, script: str) -> Any:
        """The value of a script's expression in the page; a promise is waited for."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a script's condition holds, for 20 seconds at most."""
        assert self.run(
            f"""new Promise(done => {{
                const until = Date.now() + 20000;
                const look = () => ({condition}) ? done(true) : Date.now() > until ? done(false) : setTimeout(look, 30);
                look();
            }})"""
        ), condition

    def open(self, address: str) -> None:
        """Show a page."""
        self.ask("Page.enable")
        self._events.clear()
        self.ask("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._events.append(self._read().get("method", ""))

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in an input of the page, as its user would."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def picture(self, path: Path) -> None:
        """Write the whole page as a PNG file."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(b64decode(answer["data"]))
