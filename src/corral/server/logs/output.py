"""Where the log goes: to stderr, by a thread of its own, so that nobody waits for whoever reads it."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from corral.config import ServerConfig
from corral.logs import ACCESS_LOGGER, REQUESTS_LOGGER, SILENT, LogLine, line_of
from corral.server.exchange import http_id_of
from corral.server.logs.formats import encode_json, encode_text
from corral.server.logs.requests import Cut

MAX_WAITING = 4 << 20  # characters; what comes while so many wait to be written is lost, and counted
CLOSE_TIMEOUT_S = 2.0

Encode = Callable[[LogLine], str]


class StderrHandler(logging.Handler):
    """Lines that come while stderr takes none wait; beyond MAX_WAITING they are lost, and it is said how many."""

    def __init__(self, encode: Encode) -> None:
        super().__init__()
        self._encode = encode
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._num_waiting = 0  # characters
        self._num_lost = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="corral-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = line_of(record)
            # What a worker knows of a request is the name that its engine has for it.
            text = self._encode(msgspec.structs.replace(line, request_id=http_id_of(line.request_id)))
        except Exception:  # noqa: BLE001 - a broken line must not break who says it
            self.handleError(record)
            return
        with self._changed:
            if self._num_waiting + len(text) > MAX_WAITING:
                self._num_lost += 1
                return
            self._waiting.append(text)
            self._num_waiting += len(text)
            self._changed.notify()

    def close(self) -> None:
        """Writes what waits, for a bounded time."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(CLOSE_TIMEOUT_S)
        super().close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return
                texts, self._waiting = self._waiting, []
                num_lost, self._num_lost = self._num_lost, 0
            size = sum(map(len, texts))
            if num_lost:
                texts.append(self._encode(_lost(num_lost)))
            self._write("".join(texts))
            with self._changed:
                self._num_waiting -= size

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a terminal that was closed
            sys.stderr.write(text)  # looked up each time: progress bars stand in for it
            sys.stderr.flush()


def _lost(num_lines: int) -> LogLine:
    message = f"{num_lines} lines of the log are lost: they came faster than they could be written"
    return LogLine(time.time(), "warning", "corral.server", message)


@contextmanager
def log_to_stderr(config: ServerConfig) -> Iterator[None]:
    """Within the block all that this process logs goes to stderr as the settings say; within another such one, as that
    one says."""
    root = logging.getLogger()
    if any(isinstance(handler, StderrHandler) for handler in root.handlers):
        yield
        return
    level = logging.getLevelNamesMapping()[config.log_level.upper()]
    levels = {
        # Others' debugging tells headers and bodies of requests, and with them keys.
        "": max(level, logging.WARNING),
        "corral": level,
        REQUESTS_LOGGER: logging.INFO if config.log_requests else SILENT,
        ACCESS_LOGGER: level if config.access_log else SILENT,
    }
    cut = Cut(config.max_log_len)
    logging.getLogger(REQUESTS_LOGGER).addFilter(cut)
    handler = StderrHandler(encode_json if config.log_format == "json" else encode_text)
    before = {name: logging.getLogger(name).level for name in levels}
    for name, chosen in levels.items():
        logging.getLogger(name).setLevel(chosen)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)
        logging.getLogger(REQUESTS_LOGGER).removeFilter(cut)
        for name, former in before.items():
            logging.getLogger(name).setLevel(former)
        handler.close()
