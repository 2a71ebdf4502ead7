"""`Browser`: a headless Chromium that tests drive over its DevTools protocol, through a pipe.

with Browser.started(folder) as browser:
    browser.open(url)
    browser.wait("document.querySelectorAll('li').length === 3", "three items")
    browser.screenshot(file, width=480, dark=True)

Protocol: https://chromedevtools.github.io/devtools-protocol, of which a handful of commands is used. Over the
pipe each message is JSON that ends with a zero byte; Chromium reads from descriptor 3 and writes to 4.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rapp.fileio import atomic_path

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 60.0
"""For what takes a second on an idle machine."""
_POLL_S = 0.1
_MOVE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Puts the pipes where Chromium looks for them, and becomes Chromium."""


def chromium() -> str | None:
    """The program; None: there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in a browser of its own."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, out: int) -> None:
        self._process, self._to, self._out = process, to, out
        self._unread, self._number = b"", 0
        self._session: str | None = None
        self.problems: list[str] = []
        """What the page threw or logged as an error, answers of 4xx and 5xx included."""

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path) -> Iterator[Browser]:
        """A browser; its profile goes to `folder`. `chromium` must be there."""
        program = chromium()
        assert program is not None, "chromium is not there"
        theirs_in, to = os.pipe()
        out, theirs_out = os.pipe()
        # Away from 3 and 4, so that neither is overwritten before it is moved there.
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]
        command = [
            program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-sandbox",
            "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-ISc", _MOVE, *map(str, high), *command],
            pass_fds=high,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (theirs_in, theirs_out, *high):
            os.close(one)
        browser = cls(process, to, out)
        try:
            browser._attach()
            yield browser
        finally:
            with contextlib.suppress(OSError, AssertionError):
                browser._session = None
                browser._ask("Browser.close")
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to)
            os.close(out)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is read; its scripts may go on."""
        found = self._ask("Page.navigate", url=url)
        assert "errorText" not in found, found
        self.wait("document.readyState !== 'loading' && document.body !== null", f"{url} is read")

    def run(self, script: str) -> Any:
        """The value of an expression in the page, as JSON can hold it; a promise is waited for."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str = "body") -> str:
        """The visible text of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait(self, script: str, what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until an expression holds."""
        end_s = time.monotonic() + patience_s
        while not self.run(script):
            assert time.monotonic() < end_s, f"not in {patience_s:g} s: {what}; the page: {self.text()}"
            time.sleep(_POLL_S)

    def press(self, key: str) -> None:
        """Press and release a key, as `Tab`, `Enter`."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key)
        shared: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        self._ask("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {}))
        self._ask("Input.dispatchKeyEvent", type="keyUp", **shared)

    def resize(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """The window's size, px, and whether a dark look is preferred."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, file: Path, width: int = 1280, *, dark: bool = False, height: int = 0) -> None:
        """Write the page as a PNG.

        Args:
            width, height: px; height 0: the whole page. dark: whether a dark look is preferred.
        """
        self.resize(width, height or 900, dark=dark)
        # Charts are drawn anew for the new width.
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        if not height:
            self.resize(width, int(self.run("document.documentElement.scrollHeight")), dark=dark)
            self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        data = base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])
        with atomic_path(file) as path:
            path.write_bytes(data)

    # --- the protocol ---------------------------------------------------------------------------------------

    def _attach(self) -> None:
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._to, data) :]
        end_s = time.monotonic() + PATIENCE_S
        while True:
            answer = self._read(end_s)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _read(self, end_s: float) -> Any:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._out], [], [], max(end_s - time.monotonic(), 0.0))
            assert ready, f"chromium does not answer in {PATIENCE_S:g} s"
            data = os.read(self._out, 1 << 16)
            assert data, f"chromium ended with {self._process.poll()}"
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
