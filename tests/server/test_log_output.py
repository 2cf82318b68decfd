"""The log on its way to stderr: nobody waits for it, and what is lost is counted."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading

import pytest

from corral.config import ServerConfig
from corral.logs import ACCESS_LOGGER, shows_prompts
from corral.server.logs import output
from corral.server.logs.output import StderrHandler, log_to_stderr
from tests.support.logged import logged

logger = logging.getLogger("corral.server")


class SlowStream(io.StringIO):
    """Takes nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = threading.Event()
        self.may_go_on = threading.Event()

    def write(self, text: str) -> int:
        self.is_asked.set()
        assert self.may_go_on.wait(60)
        return super().write(text)


def test_nobody_waits_for_a_stderr_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SlowStream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "MAX_WAITING", 1000)
    with log_to_stderr(ServerConfig(log_format="json")):
        logger.info("first")
        assert stream.is_asked.wait(60)
        for number in range(100):
            logger.info("line %d", number)
        stream.may_go_on.set()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines[:3]] == ["first", "line 0", "line 1"]
    num_lost = 101 - (len(lines) - 1)
    told = f"{num_lost} lines of the log are lost: they came faster than they could be written"
    assert (lines[-1]["level"], lines[-1]["message"]) == ("warning", told)


def test_a_stderr_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with log_to_stderr(ServerConfig()):
        logger.info("into nothing")


def test_a_broken_line_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with logged() as log:
        logger.info("%d", "no number")
        logger.info("after it")
    assert [line["message"] for line in log.lines] == ["after it"]


def test_levels() -> None:
    for level, told in (("debug", 4), ("info", 3), ("warning", 2), ("error", 1)):
        with logged(log_level=level) as log:
            for name in ("debug", "info", "warning", "error"):
                logger.log(getattr(logging, name.upper()), name)
        assert len(log.lines) == told


def test_others_debugging_is_never_told() -> None:
    with logged(log_level="debug") as log:
        logging.getLogger("httpcore.http11").debug("headers: authorization: Bearer sk-1")
        logging.getLogger("httpx").info("GET https://user:password@x")
        logging.getLogger("httpx").warning("fit to be told")
    assert [line["message"] for line in log.lines] == ["fit to be told"]


def test_warnings_of_libraries_are_lines_too() -> None:
    import warnings

    with logged() as log, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("this will go", FutureWarning, stacklevel=1)
    [line] = log.lines
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "this will go" in line["message"]


def test_all_is_as_it_was_when_the_block_has_ended() -> None:
    names = ("", "corral", ACCESS_LOGGER)
    before = [logging.getLogger(name).level for name in names]
    with logged(log_level="error", log_requests=True, access_log=False), logged(log_requests=False):
        assert shows_prompts()  # the inner one changes nothing
        assert sum(isinstance(each, StderrHandler) for each in logging.getLogger().handlers) == 1
        assert not logging.getLogger(ACCESS_LOGGER).isEnabledFor(logging.ERROR)
    assert [logging.getLogger(name).level for name in names] == before
    assert not shows_prompts()
    assert not any(isinstance(each, StderrHandler) for each in logging.getLogger().handlers)
