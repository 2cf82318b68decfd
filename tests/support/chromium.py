"""Debian's headless Chromium, driven by the DevTools protocol over a WebSocket: no more of it than a page needs."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

_PROGRAM = "chromium"
_MAX_MESSAGE = 64 << 20  # bytes; a picture of a long page comes in one


class Chromium:
    """One tab. Every call returns when the browser has answered."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._session = ""
        self._events: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setScriptExecutionDisabled", value=True)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; what happens meanwhile is kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        self._connection.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, path: Path, *, scheme: str, width: int, is_phone: bool = False) -> list[str]:
        """Loads a file in a colour scheme; returns the addresses that it reached for and what the browser logged."""
        self._events.clear()
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": 800, "deviceScaleFactor": 2 if is_phone else 1, "mobile": is_phone}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=path.as_uri())
        while "loaded" not in self._events:
            self._receive()
        return [event for event in self._events if event not in ("loaded", path.as_uri())]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, though the page's own scripts are off."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def photograph(self, path: Path, top: float, width: float, height: float) -> None:
        """A stretch of the page as PNG."""
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        picture = self.send("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def print_pdf(self, path: Path) -> None:
        """The page as it would be printed."""
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"]))

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=60))
        match message.get("method"):
            case "Page.loadEventFired":
                self._events.append("loaded")
            case "Network.requestWillBeSent":
                self._events.append(str(message["params"]["request"]["url"]))
            case "Log.entryAdded":
                self._events.append(str(message["params"]["entry"]["text"]))
        return message


@contextmanager
def chromium(home: Path) -> Iterator[Chromium]:
    """A browser with an empty profile in `home`.

    Raises:
        FileNotFoundError: there is no Chromium on the path.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise FileNotFoundError("no program called chromium on the path: apt-get install chromium")
    flags = ["--headless", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={home}"]
    if os.getuid() == 0:
        flags.append("--no-sandbox")  # it refuses to run as root with one
    with subprocess.Popen([program, *flags], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = (re.search(r"DevTools listening on (ws://\S+)", line) for line in process.stderr)
            found = next((match for match in lines if match), None)
            assert found is not None, "Chromium ended before it listened"
            with connect(found[1], max_size=_MAX_MESSAGE, compression=None) as connection:
                yield Chromium(connection)
        finally:
            process.kill()
