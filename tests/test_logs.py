"""Lines of the log as plain values, in one process and from a worker to the front."""

from __future__ import annotations

import asyncio
import logging

import pytest

from corral.errors import CorralError, InvalidRequest
from corral.logs import (
    MAX_CAUSES,
    REQUESTS_LOGGER,
    WIRE_MARK,
    WireFormatter,
    about,
    about_no_request,
    line_of,
    record_of_wire,
    shows_prompts,
    stack_of,
)

SECRET = "the client's own words"


def record(message: str, error: BaseException | None = None, **extra: object) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("corral.x", logging.ERROR, "f.py", 1, message, None, info)
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - its stack is what is wanted
        return caught


def test_a_line_names_the_request_under_way() -> None:
    assert line_of(record("x")).request_id == ""
    with about("req_1"):
        assert line_of(record("x")).request_id == "req_1"
        assert line_of(record("x", request_id="other")).request_id == "other"
    assert line_of(record("x")).request_id == ""


async def test_tasks_are_about_the_request_that_starts_them_unless_they_outlive_it() -> None:
    async def name() -> str:
        return line_of(record("x")).request_id

    with about("req_1"):
        own = asyncio.ensure_future(name())
        others = asyncio.get_running_loop().create_task(name(), context=about_no_request())
        thread = asyncio.to_thread(lambda: line_of(record("x")).request_id)
        assert (await own, await others, await thread) == ("req_1", "", "req_1")


@pytest.mark.parametrize("error", [ValueError(SECRET), InvalidRequest(SECRET), KeyError(SECRET)])
def test_while_a_request_is_under_way_no_error_quotes_it(error: Exception) -> None:
    with about("req_1"):
        told = line_of(record("it failed", raised(error))).exception
    assert SECRET not in told
    assert told.endswith(type(error).__name__)
    assert "test_logs.py" in told
    assert SECRET in line_of(record("it failed", raised(error))).exception


def test_errors_that_cannot_quote_a_client_tell_their_text() -> None:
    for error in (OSError(28, "No space left on device", "/x"), CorralError("the file is damaged")):
        assert str(error) in stack_of(raised(error), with_text=False)


def test_what_led_to_an_error_is_told_first() -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise RuntimeError(SECRET) from error
    except RuntimeError as error:
        told = stack_of(error, with_text=False)
    assert SECRET not in told
    assert told.index("KeyError") < told.index("which led to") < told.rindex("RuntimeError")


def test_groups_and_circles_come_to_an_end() -> None:
    told = stack_of(raised(BaseExceptionGroup("two", [raised(ValueError(SECRET)), OSError(1, "b")])), with_text=False)
    assert "ExceptionGroup" in told
    assert "ValueError" in told
    assert SECRET not in told
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert stack_of(first, with_text=True).count("ValueError") == 2
    error: BaseException = ValueError("deepest")
    for _ in range(1000):
        outer = ValueError("x")
        outer.__cause__ = error
        error = outer
    assert stack_of(error, with_text=True).count("ValueError") == MAX_CAUSES


def test_a_workers_record_arrives_as_it_was() -> None:
    before = line_of(record("two\nlines \x1e", raised(ValueError("v")), fields={"a": [1]}))
    sent = WireFormatter().format(record("two\nlines \x1e", raised(ValueError("v")), fields={"a": [1]})).encode()
    assert b"\n" not in sent
    got = record_of_wire(sent)
    assert got is not None
    assert (got.levelname, got.name, got.getMessage()) == ("ERROR", "corral.x", "two\nlines \x1e")
    after = line_of(got)
    assert (after.message, after.exception, after.fields) == (before.message, before.exception, before.fields)


@pytest.mark.parametrize("line", [b"", b"plain words", WIRE_MARK, WIRE_MARK + b"{", WIRE_MARK + b'{"time": "x"}'])
def test_other_words_of_a_worker_are_no_records(line: bytes) -> None:
    assert record_of_wire(line) is None


def test_prompts_are_not_shown_however_much_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "corral"):
        assert not shows_prompts()
    with caplog.at_level(logging.INFO, REQUESTS_LOGGER):
        assert shows_prompts()
