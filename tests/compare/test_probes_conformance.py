"""Each check of conformance passes on a server that is as it should be, and fails on one that is not."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from corral.compare.probes import comply
from corral.compare.probes.answered import answer_probes, is_of_schema
from corral.compare.probes.comply import comply_probes
from corral.compare.probes.protocols import protocol_probes
from corral.compare.probes.stream import read_stream
from corral.compare.probes.streamed import stream_probes
from tests.support.probed_server import ProbedServer
from tests.support.probing import check, checks_of


async def test_a_good_server_passes_all() -> None:
    for found in await checks_of([*stream_probes(), *answer_probes()], ProbedServer()):
        assert found.verdict == "pass", found


@pytest.mark.parametrize(
    ("name", "faults", "verdict", "words"),
    [
        ("stream: form", ["wrong content type"], "fail", "Content-Type is application/json"),
        ("stream: form", ["odd event"], "fail", "1 events are no JSON objects"),
        ("stream: form", ["wrong chunk object"], "fail", "object is chat.completion"),
        ("stream: role first", ["no role"], "fail", "the first delta is {'content': 'alpha0 '}"),
        ("stream: role first", ["role always"], "partly", "13 of 14 have a role"),
        ("stream: ids", ["ids change"], "fail", "id has 15 values"),
        ("stream: ids", ["created changes"], "partly", "created has 15 values"),
        ("stream: finish_reason", ["no finish_reason"], "fail", "finish_reason: none"),
        ("stream: finish_reason", ["text after the end"], "fail", "text comes after it"),
        ("stream: usage", ["no usage chunk"], "fail", "none in 14 chunks"),
        ("stream: usage", ["usage beside choices"], "partly", "not in a last chunk without choices"),
        ("stream: usage", ["usage is wrong"], "partly", "the total is not their sum"),
        ("stream: [DONE]", ["no [DONE]"], "fail", "no [DONE]"),
        ("stream: [DONE]", ["more after [DONE]"], "fail", "1 events come behind it"),
        ("stream: usage unasked", ["usage unasked"], "partly", "13 of 14 chunks have a usage"),
    ],
)
async def test_a_stream_that_breaks_clients_is_seen(name: str, faults: list[str], verdict: str, words: str) -> None:
    found = await check(stream_probes(), name, ProbedServer(*faults))
    assert (found.verdict, words in found.found) == (verdict, True), found


@pytest.mark.parametrize(
    ("name", "faults", "verdict", "words"),
    [
        ("chat: form", ["wrong object"], "fail", "object is other"),
        ("chat: form", ["usage is wrong"], "fail", "the total is not their sum"),
        ("max_tokens", ["knows no max_completion_tokens"], "partly", "max_completion_tokens is not kept"),
        ("n", ["one choice"], "fail", "choices with index 0"),
        ("n", ["refuses n"], "partly", "n must be 1"),
        ("stop", ["no stop"], "fail", "it is in the answer"),
        ("stop", ["stop is kept"], "fail", "it is in the answer"),
        ("logprobs", ["no logprobs"], "fail", "none in the choice"),
        ("logprobs", ["logprobs without bytes"], "partly", "bytes are missing"),
        ("JSON schema", ["no schema"], "fail", "json_schema: 200, alpha0"),
        ("tool call", ["no tools"], "fail", "tool_choice required: 200"),
        ("tool call", ["tools of no schema"], "fail", "'arguments': '{}'"),
        ("tool call", ["refuses tools"], "partly", "the model has no tools"),
        ("tool call, streamed", ["no tools"], "fail", "no call was streamed"),
        ("tool call, streamed", ["refuses tools"], "partly", "no call was streamed: 400"),
        ("tool call, streamed", ["name in each part"], "fail", "the name does not come just once"),
        ("error object", ["poor errors"], "partly", "without type, param; its code is no text"),
        ("error object", ["plain errors"], "fail", "messages 7: 400 no"),
        ("unknown model", ["any model"], "fail", "200"),
        ("unknown field", ["any field"], "partly", "left out without a word"),
        ("/v1/models", ["no models"], "fail", "GET /v1/models: 200"),
        ("/v1/models", ["poor models"], "partly", "without owned_by"),
    ],
)
async def test_an_answer_that_breaks_clients_is_seen(name: str, faults: list[str], verdict: str, words: str) -> None:
    found = await check(answer_probes(), name, ProbedServer(*faults))
    assert (found.verdict, words in found.found) == (verdict, True), found


async def test_protocols_that_are_not_there_cannot_be_tried() -> None:
    for found in await checks_of(protocol_probes(), ProbedServer()):
        assert (found.verdict, "no such route" in found.found) == ("unknown", True), found


GOOD: dict[str, bytes] = {
    "/v1/completions": json.dumps(
        {
            "object": "text_completion",
            "choices": [{"text": "three", "finish_reason": "length"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        }
    ).encode(),
    "/v1/responses": json.dumps(
        {
            "id": "resp_1",
            "object": "response",
            "output": [{"content": [{"type": "output_text", "text": "hello"}]}],
            "usage": {"output_tokens": 1},
        }
    ).encode(),
    "/v1/messages": json.dumps(
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "hello"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
    ).encode(),
    "/api/chat": b'{"message": {"content": "hi"}, "done": false}\n{"message": {"content": ""}, "done": true, '
    b'"done_reason": "stop", "total_duration": 5, "prompt_eval_count": 1, "eval_count": 1}\n',
}
_ANTHROPIC = "message_start content_block_start content_block_delta content_block_stop message_delta message_stop"
EVENTS = {
    "/v1/responses": ["response.created", "response.output_text.delta", "response.completed"],
    "/v1/messages": ["message_start", "ping", *_ANTHROPIC.split()[1:3], *_ANTHROPIC.split()[2:]],
}


class OtherProtocols(ProbedServer):
    """Has them too, as `pages` and `events` say."""

    def __init__(self, pages: dict[str, bytes], events: dict[str, list[str]]) -> None:
        super().__init__()
        self.pages, self.events = {**pages, "/api/tags": b'{"models": [{"name": "model:latest"}]}'}, events

    async def _answer(self, request: Any, writer: asyncio.StreamWriter) -> None:
        if request.path not in self.pages:
            await super()._answer(request, writer)
        elif request.body and request.json().get("stream"):
            events = [b'data: {"type": "%b"}\n\n' % kind.encode() for kind in self.events.get(request.path, [])]
            self._write(writer, 200, b"".join(events))
        else:
            self._write(writer, 200, self.pages[request.path])


async def test_good_protocols_pass() -> None:
    for found in await checks_of(protocol_probes(), OtherProtocols(GOOD, EVENTS)):
        assert found.verdict == "pass", found


@pytest.mark.parametrize(
    ("name", "route", "body", "words"),
    [
        ("/v1/completions", "/v1/completions", b"{}", "no text"),
        ("/v1/responses", "/v1/responses", b"{}", "it is no response object"),
        ("Anthropic's /v1/messages", "/v1/messages", b"{}", "stop_reason is None"),
        ("Ollama's /api/chat", "/api/chat", b"odd\n", "not answered in Ollama's lines"),
        ("Ollama's /api/chat", "/api/chat", b'{"done": true}\n', "the last line is without done_reason"),
    ],
)
async def test_protocols_that_break_clients_are_seen(name: str, route: str, body: bytes, words: str) -> None:
    found = await check(protocol_probes(), name, OtherProtocols({**GOOD, route: body}, EVENTS))
    assert (found.verdict, words in found.found) == ("fail", True), found


@pytest.mark.parametrize(
    ("name", "route", "events"),
    [
        ("/v1/responses", "/v1/responses", ["response.created"]),
        ("Anthropic's /v1/messages", "/v1/messages", _ANTHROPIC.split()[::-1]),
    ],
)
async def test_events_out_of_order_are_seen(name: str, route: str, events: list[str]) -> None:
    found = await check(protocol_probes(), name, OtherProtocols(GOOD, {**EVENTS, route: events}))
    assert (found.verdict, "events" in found.found) == ("fail", True), found


async def test_the_tester_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comply, "_is_installed", lambda: False)
    found = await check(comply_probes(), "OpenAI chat by llm-comply", ProbedServer())
    assert (found.verdict, "pip install llm-comply" in found.found) == ("unknown", True), found


WORKER = """
import json, sys, time
print(json.dumps({"version": "9", "planned": ["a", "b", "c"]}))
for name, status in (("a", "passed"), ("b", %r)):
    print(json.dumps({"id": name, "status": status, "errors": ["no id"] if status == "failed" else []}), flush=True)
if %r:
    time.sleep(60)
print(json.dumps({"id": "c", "status": "passed", "errors": []}))
"""


@pytest.mark.parametrize(
    ("status", "hangs", "verdict", "words"),
    [
        ("passed", False, "pass", "llm-comply 9: 3 of 3 passed"),
        ("failed", False, "partly", "2 of 3 passed; b: no id"),
        ("skipped", False, "pass", "2 of 2 passed; 1 not for this model"),
        ("passed", True, "partly", "1 were not run in 1 s"),
    ],
)
async def test_what_the_tester_says_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str, hangs: bool, verdict: str, words: str
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER % (status, hangs))
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(comply, "_PYTHON", str(program))
    monkeypatch.setattr(comply, "_is_installed", lambda: True)
    monkeypatch.setattr(comply, "_ALL_S", 1.0)
    found = await check(comply_probes(), "OpenAI chat by llm-comply", ProbedServer())
    assert (found.verdict, words in found.found) == (verdict, True), found


def test_events_may_be_anything() -> None:
    stream = read_stream(
        b'data: [1]\n\ndata: {"choices": 7}\n\ndata: {"choices": [{"delta": 3}, 4]}\n\ndata: {"error": "x"}\n\n'
    )
    assert (stream.odd, stream.text, stream.finish_reasons, stream.error) == ([b"[1]"], "", [], "x")
    assert stream.end() == "an error event: x"
    assert not is_of_schema("[" * 100_000)
    assert not is_of_schema('{"colour": "red", "is_big": 1}')
