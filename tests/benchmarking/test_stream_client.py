"""What the benchmark's HTTP client makes of a server's stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from benchmarks.stream_client import Answer, EventParser, chat_body, stream_chat

ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}


def text(content: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}}]}


def stream_of(*payloads: object, done: bool = True) -> bytes:
    events = [json.dumps(payload) for payload in payloads] + ["[DONE]"] * done
    return "".join(f"data: {event}\n\n" for event in events).encode()


def ask(content: bytes, *, status: int = 200, wanted_tokens: int = 2) -> Answer:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=content))

    async def main() -> Answer:
        async with httpx.AsyncClient(transport=transport) as client:
            return await stream_chat(client, "http://server", {}, wanted_tokens, scheduled=0.0)

    return asyncio.run(main())


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_events_come_out_whole_however_the_bytes_are_cut(step: int) -> None:
    stream = ': keep-alive\n\ndata: {"a": "é"}\r\n\r\nevent: x\ndata: one\ndata: two\n\ndata:[DONE]\n\n'.encode()
    parser = EventParser()
    events = [event for i in range(0, len(stream), step) for event in parser.feed(stream[i : i + step])]
    assert events == ['{"a": "é"}', "one\ntwo", "[DONE]"]


def test_an_event_without_its_blank_line_is_not_given_out() -> None:
    parser = EventParser()
    assert parser.feed(b"data: half\n") == []
    assert parser.feed(b"\n") == ["half"]


def test_the_first_token_is_the_first_text_and_not_the_role() -> None:
    answer = Answer(scheduled=0.0)
    for now, payload in enumerate([ROLE, text("a"), text(""), {"choices": [{"delta": {"content": None}}]}, text("b")]):
        answer.take(json.dumps(payload), float(now))
    assert answer.content_times == [1.0, 4.0]


def test_a_whole_answer_has_its_tokens_from_the_usage() -> None:
    answer = ask(stream_of(ROLE, text("a"), text("b"), USAGE))
    assert answer.error is None
    assert (answer.prompt_tokens, answer.answer_tokens, len(answer.content_times)) == (5, 2, 2)
    assert answer.content_times[0] <= answer.ended


@pytest.mark.parametrize(
    ("content", "status", "wanted_tokens", "said"),
    [
        (stream_of(text("a"), USAGE), 200, 3, "2 tokens came, 3 were asked for"),
        (stream_of(text("a"), USAGE, done=False), 200, 2, "without"),
        (stream_of(ROLE, USAGE), 200, 2, "no chunk had text"),
        (stream_of({"error": {"message": "out of memory"}}), 200, 2, "out of memory"),
        (stream_of([1]), 200, 2, "the server sent [1]"),
        (b"data: no json\n\n", 200, 2, "JSONDecodeError"),
        (b'{"error": "busy"}', 503, 2, "status 503"),
    ],
)
def test_an_answer_that_does_not_count_says_why(content: bytes, status: int, wanted_tokens: int, said: str) -> None:
    error = ask(content, status=status, wanted_tokens=wanted_tokens).error
    assert error is not None
    assert said in error


def test_a_server_that_hangs_up_is_an_error_of_that_answer() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async def main() -> Sequence[Answer]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
            return [await stream_chat(client, "http://server", {}, 2, scheduled=0.0)]

    (answer,) = asyncio.run(main())
    assert answer.error == "ConnectError: refused"


def test_a_request_is_greedy_streamed_and_takes_the_servers_own_fields() -> None:
    body = chat_body("m", [{"role": "user", "content": "hi"}], 4, {"ignore_eos": True})
    assert body["temperature"] == 0.0
    assert body["stream"] is True
    assert body["max_tokens"] == 4
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}
