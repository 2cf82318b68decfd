"""The client of `corral bench`, against a server whose delays are known and against bytes cut anywhere."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest

from corral.compare.answer import Answer
from corral.compare.chunks import Reading
from corral.compare.engines.simulated_server import Behaviour
from corral.compare.events import EventParser
from corral.compare.exchange import check_header, parse_origin
from corral.errors import InvalidConfig
from tests.support.simulated_engine import CALL, QUICK, ask, client_of, simulated

STREAM = b': hello\r\n\r\nevent: x\r\ndata: {"a":\r\ndata: 1}\r\n\r\nid: 3\ndata:two\n\ndata: three\r\rdata: [DONE]\n\n'
EVENTS = [b'{"a":\n1}', b"two", b"three", b"[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_network_cuts_them(size: int) -> None:
    parser = EventParser()
    found = [event for at in range(0, len(STREAM), size) for event in parser.feed(STREAM[at : at + size])]
    assert found == EVENTS


def test_an_event_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.compare.events.MAX_EVENT", 100)
    answer = reading_of(b"data: " + b"x" * 200)
    assert "an event of more than 100 bytes" in answer.error


def reading_of(*parts: bytes, status: int = 200, content_type: str = "text/event-stream") -> Answer:
    """Each part comes a second after the one before."""
    answer = Answer(scheduled=0.0)
    reading = Reading(answer, is_streamed=True)
    reading.head(status, content_type, 0.5)
    for second, part in enumerate(parts, 1):
        reading.take(part, float(second))
    reading.finish()
    return answer


def event(delta: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta, **more}]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def test_the_first_token_is_the_first_chunk_with_text_and_not_the_one_with_a_role() -> None:
    """Measuring bug 2: a role comes at once, whatever the prompt costs."""
    answer = reading_of(event({"role": "assistant", "content": ""}), event({"content": "Hi"}), DONE)
    assert answer.content_times == [2.0]
    assert answer.first_token_s == 2.0


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_text_and_stands_first(name: str) -> None:
    """Measuring bug 2, its other half: a reasoning model writes long before its content."""
    answer = reading_of(event({name: "Hm."}), event({"content": "Hi"}, finish_reason="stop"), DONE)
    assert (answer.content_times, answer.text, answer.finish_reason) == ([1.0, 2.0], "Hm.Hi", "stop")


def test_arguments_of_tools_are_text() -> None:
    call = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}
    answer = reading_of(event({"role": "assistant", "content": None}), event(call), DONE)
    assert (answer.content_times, answer.text, answer.error) == ([2.0], "f{}", "")


def test_usage_of_the_last_chunk() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    answer = reading_of(event({"content": "Hi"}), last, DONE)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (7, 3, 5)
    assert answer.is_good


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([event({"content": "Hi"})], "without [DONE]"),
        ([event({"content": "Hi"}), b'data: {"error": {"message": "boom"}}\n\n', DONE], "boom"),
        ([b"data: {oops\n\n", DONE], "not of the protocol"),
        ([b'data: {"choices": [{"delta": {"content": 3}}]}\n\n', DONE], "not of the protocol"),
        ([b"data: " + b"[" * 100_000 + b"\n\n", DONE], "not of the protocol"),
        ([b'data: {"choices": null}\n\n', DONE], "no text came"),
    ],
)
def test_what_is_no_answer_says_why(parts: list[bytes], why: str) -> None:
    assert why in reading_of(*parts).error


def test_refusals_are_kept_as_they_came() -> None:
    refused = reading_of(b'{"error": "too many"}', status=429, content_type="application/json")
    assert (refused.error, refused.status) == ('status 429: {"error": "too many"}', 429)
    whole = reading_of(b'{"choices": [{"message": {"content": "x"}}]}', content_type="application/json")
    assert "no stream of events came" in whole.error


async def test_the_client_reads_gaps_of_20_ms_as_20_ms() -> None:
    """Within 1 ms of when the server really wrote: a busy machine makes the server late, and the client tells so."""
    async with simulated(Behaviour(ttft_s=0.05, gap_s=0.02)) as (server, url):
        answer = await ask(client_of(url), replace(CALL, max_tokens=41))
    written = server.served[0].written
    assert len(answer.content_times) == len(written) == 41
    true_gap_s = (written[-1] - written[0]) / 40
    assert true_gap_s >= 0.0199
    assert fmean(answer.gaps_s) == pytest.approx(true_gap_s, abs=0.001)
    assert answer.token_time_s(41) == pytest.approx(true_gap_s, abs=0.001)


async def test_several_tokens_in_a_chunk_are_not_taken_for_one() -> None:
    async with simulated(Behaviour(ttft_s=0.0, gap_s=0.02, tokens_per_chunk=4)) as (server, url):
        answer = await ask(client_of(url), replace(CALL, max_tokens=40))
    written = server.served[0].written
    assert (len(answer.content_times), answer.completion_tokens) == (10, 40)
    assert answer.token_time_s(40) == pytest.approx((written[-1] - written[0]) / 39, abs=0.001)


async def test_completions_and_whole_answers() -> None:
    async with simulated() as (server, url):
        streamed = await ask(client_of(url, endpoint="completions"))
        whole = await ask(client_of(url), is_streamed=False)
        whole_text = await ask(client_of(url, endpoint="completions"), is_streamed=False)
    assert [a.error for a in (streamed, whole, whole_text)] == ["", "", ""]
    assert server.served[0].body["prompt"] == "Hello there"
    assert streamed.text == whole.text == whole_text.text == " word" * 5
    assert (whole.content_times, whole.completion_tokens, whole.finish_reason) == ([], 5, "length")
    assert "stream_options" not in server.served[1].body


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cut_after": 2}, "in the middle of the answer"),
        ({"error_after": 2}, "simulated failure in the middle"),
        ({"has_done": False}, "without [DONE]"),
        ({"fail_every": 1}, "status 500"),
    ],
)
async def test_broken_streams_are_errors_and_keep_what_came(change: dict[str, Any], why: str) -> None:
    async with simulated(replace(QUICK, **change)) as (_, url):
        answer = await ask(client_of(url))
    assert why in answer.error
    assert answer.ended >= answer.sent >= answer.scheduled
    if "after" in next(iter(change)):
        assert answer.text == " word word"


async def test_crlf_and_a_server_that_says_nothing() -> None:
    async with simulated(replace(QUICK, newline="\r\n", has_usage=False, has_role_chunk=False)) as (_, url):
        answer = await ask(client_of(url))
    assert (answer.text, answer.error, answer.completion_tokens) == (" word" * 5, "", None)
    async with simulated(Behaviour(ttft_s=60.0)) as (_, url):
        silent = await ask(client_of(url, patience_s=0.05))
    assert silent.error == "nothing came for 0.05 s"


async def test_no_server_and_no_http() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert "no HTTP came" in (await ask(client_of(url))).error
    server.close()
    await server.wait_closed()
    assert "no connection" in (await ask(client_of(url))).error


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("localhost:9", "http://localhost:9"),
        ("https://host/prefix", "https://host:443/prefix"),
        ("http://[::1]:5", "http://[::1]:5"),
    ],
)
def test_addresses(given: str, wanted: str) -> None:
    assert str(parse_origin(given)) == wanted


@pytest.mark.parametrize(
    "given", ["", "ftp://x", "http://", "http://a b", "http://x:99999", "http://u:p@x", "http://x?y"]
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_origin(given)


def test_headers_that_would_break_a_request_apart() -> None:
    check_header("X-Request-ID", "a b")
    for name, value in (("a b", "x"), ("", "x"), ("a", "x\r\nHost: y")):
        with pytest.raises(InvalidConfig):
            check_header(name, value)
