"""/api/generate and /api/chat on the wire: every field, every refusal, streamed and not."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from corral.request import Overflow
from tests.support.gguf_writer import write_tiny_gguf
from tests.support.native_api import NativeServer, native_server

CREATED_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
GENERATE, CHAT = "/api/generate", "/api/chat"
DURATIONS = {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}
COUNTS = {"prompt_eval_count", "eval_count"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeServer]:
    folder = tmp_path_factory.mktemp("native")
    with native_server(folder / "models", write_tiny_gguf(folder / "tiny.gguf")) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(server: NativeServer) -> None:
    server.manager.requests.clear()
    server.manager.leases.clear()
    server.manager.unloaded.clear()
    server.manager.lease_error = None


def body_of(path: str, script: str, **fields: Any) -> dict[str, Any]:
    prompt: dict[str, Any] = {"messages": [{"role": "user", "content": script}]} if path == CHAT else {"prompt": script}
    return {"model": "tiny", **prompt, **fields}


def content_of(path: str, line: dict[str, Any]) -> str:
    return str(line["message"]["content"] if path == CHAT else line["response"])


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_a_stream(server: NativeServer, path: str) -> None:
    lines = server.lines(path, body_of(path, "one two"))
    content = "message" if path == CHAT else "response"
    assert [set(line) for line in lines[:-1]] == [{"model", "created_at", content, "done"}] * 2
    assert [content_of(path, line) for line in lines] == ["ONE ", "TWO ", ""]
    assert all(CREATED_AT.fullmatch(line["created_at"]) for line in lines)
    assert [line["done"] for line in lines] == [False, False, True]
    last = lines[-1]
    context = {"context"} if path == GENERATE else set()
    ours = {"prompt_cached_count"}
    assert set(last) == {"model", "created_at", content, "done", "done_reason"} | DURATIONS | COUNTS | context | ours
    assert all(isinstance(last[name], int) and last[name] > 0 for name in DURATIONS)
    assert last["load_duration"] == 1_500_000_000
    assert (last["model"], last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("tiny", "stop", 3, 2)
    if path == GENERATE:
        assert last["context"] == [1, 2, 3, 11, 12]
    else:
        assert last["message"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_one_object(server: NativeServer, path: str) -> None:
    response = server.post(path, body_of(path, "one two", stream=False, options={"num_predict": 1}))
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    answer = response.json()
    assert (content_of(path, answer), answer["done"], answer["done_reason"]) == ("ONE ", True, "length")
    assert set(answer) > DURATIONS | COUNTS


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_thinking_is_apart(server: NativeServer, path: str) -> None:
    lines = server.lines(path, body_of(path, "think", think=True))
    holder = lines[0]["message"] if path == CHAT else lines[0]
    assert (holder["thinking"], content_of(path, lines[0])) == ("hm", "")
    whole = server.post(path, body_of(path, "think", think="high", stream=False)).json()
    assert (whole["message"] if path == CHAT else whole)["thinking"] == "hm"
    assert [request.think for request in server.manager.requests] == [True, "high"]


def test_what_did_not_fit_is_told(server: NativeServer) -> None:
    assert server.lines(CHAT, body_of(CHAT, "drops"))[-1]["dropped_messages"] == 2


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_nothing_to_say_only_loads(server: NativeServer, path: str) -> None:
    content = {"message": {"role": "assistant", "content": ""}} if path == CHAT else {"response": ""}
    loaded = server.post(path, {"model": "tiny", "keep_alive": "10m"}).json()
    assert CREATED_AT.fullmatch(loaded.pop("created_at"))
    assert loaded == {"model": "tiny", **content, "done": True, "done_reason": "load"}
    assert server.manager.leases == [("tiny:latest", 600.0, 2048)]
    unloaded = server.post(path, {"model": "tiny", "keep_alive": 0}).json()
    assert unloaded["done_reason"] == "unload"
    assert server.manager.unloaded == ["tiny:latest"]
    assert len(server.manager.leases) == 1


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(None, None), (0, 0.0), (300, 300.0), (1.5, 1.5), (-1, "inf"), ("1h30m", 5400.0), ("-1m", "inf")],
)
def test_keep_alive(server: NativeServer, given: Any, seconds: Any) -> None:
    server.post(GENERATE, body_of(GENERATE, "a", keep_alive=given, stream=False))
    [(_, keep_alive, _)] = server.manager.leases
    assert keep_alive == (float("inf") if seconds == "inf" else seconds)


def test_options_lie_over_the_modelfiles_parameters(server: NativeServer) -> None:
    server.post(CHAT, body_of(CHAT, "a", options={"temperature": 1.5, "num_ctx": 64, "num_predict": -1}))
    server.post(CHAT, {**body_of(CHAT, "a"), "model": "file"})
    first, second = server.manager.requests
    assert (first.sampling.temperature, first.sampling.stop, first.max_context) == (1.5, ("END", "FIN"), 64)
    assert first.sampling.max_tokens == 640
    assert (second.sampling.temperature, second.sampling.top_k, second.sampling.top_p) == (0.8, 40, 0.9)
    assert (second.sampling.penalty_window, second.sampling.max_tokens, second.max_context) == (64, None, None)
    assert [num_ctx for _, _, num_ctx in server.manager.leases] == [64, None]


def test_the_modelfiles_system_message_comes_first_unless_the_client_has_one(server: NativeServer) -> None:
    server.post(CHAT, body_of(CHAT, "a"))
    server.post(
        CHAT, {"model": "tiny", "messages": [{"role": "system", "content": "x"}, {"role": "USER", "content": "a"}]}
    )
    server.post(GENERATE, body_of(GENERATE, "a", system="y", template="{{ .Prompt }}"))
    server.post(GENERATE, body_of(GENERATE, "a", raw=True))
    systems = [(request.messages or [{}])[0].get("content") for request in server.manager.requests]
    assert systems == ["Be brief.", "x", "y", None]
    assert server.manager.requests[1].messages == [{"role": "system", "content": "x"}, {"role": "user", "content": "a"}]
    assert server.manager.requests[2].template == "{{ .Prompt }}"
    assert server.manager.requests[3].prompt == "a"


def test_truncate_says_what_happens_to_long_prompts(server: NativeServer) -> None:
    server.post(CHAT, body_of(CHAT, "a"))
    server.post(CHAT, body_of(CHAT, "a", truncate=False))
    assert [request.overflow for request in server.manager.requests] == [Overflow.DROP_OLDEST, Overflow.REFUSE]


def test_an_exchange_goes_on_from_its_ids(server: NativeServer) -> None:
    server.post(GENERATE, body_of(GENERATE, "a", context=[5, 6, 7]))
    assert server.manager.requests[0].context == (5, 6, 7)
    assert "context" not in server.lines(GENERATE, body_of(GENERATE, "a", raw=True))[-1]


def test_options_that_change_nothing_are_told(server: NativeServer, caplog: pytest.LogCaptureFixture) -> None:
    options = {"num_gpu": 99, "temprature": 1, "top_k": 3, "x\r\nSet-Cookie: a": 1}
    for stream in (False, True):
        response = server.post(CHAT, body_of(CHAT, "a", options=options, stream=stream))
        assert response.headers["x-corral-ignored"] == "num_gpu, temprature, ?"
    assert "temprature" in caplog.text
    assert "x-corral-ignored" not in server.post(CHAT, body_of(CHAT, "a", unknown_field=1)).headers


def test_a_body_may_call_itself_anything(server: NativeServer) -> None:
    """`curl -d` says that it is a form."""
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        response = server.post(CHAT, body_of(CHAT, "a"), headers={"Content-Type": kind})
        assert response.status_code == 200


REFUSED: list[tuple[str, Any, int, str]] = [
    (GENERATE, None, 400, "missing request body"),
    (CHAT, {}, 400, "model is required"),
    (CHAT, {"model": "a b"}, 400, "model is required"),
    (GENERATE, {}, 404, "model '' not found"),
    (GENERATE, {"model": "nope", "prompt": "a"}, 404, "model 'nope' not found"),
    (GENERATE, {"model": "a b", "prompt": "a"}, 404, "model 'a b' not found"),
    (CHAT, {"model": "nope"}, 404, "model 'nope' not found"),
    (
        *(CHAT, {"model": 5}, 400),
        "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
    ),
    (
        *(CHAT, {"model": "tiny", "messages": [{"role": "user", "content": ["a"]}]}, 400),
        "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
    ),
    (
        *(GENERATE, {"model": "tiny", "prompt": "a", "stream": "yes"}, 400),
        "json: cannot unmarshal string into Go struct field GenerateRequest.stream of type bool",
    ),
    (CHAT, {"options": {"num_ctx": "big"}}, 400, 'option "num_ctx" must be of type integer'),
    (CHAT, {"options": {"temperature": True}}, 400, 'option "temperature" must be of type float32'),
    (CHAT, {"options": {"stop": "END"}}, 400, 'option "stop" must be of type array'),
    (CHAT, {"options": {"stop": [1]}}, 400, 'option "stop" must be of an array of strings'),
    (CHAT, {"options": {"use_mmap": 1}}, 400, 'option "use_mmap" must be of type boolean'),
    (CHAT, {"keep_alive": "soon"}, 400, 'time: invalid duration "soon"'),
    (CHAT, {"keep_alive": "5"}, 400, 'time: missing unit in duration "5"'),
    (CHAT, {"keep_alive": True}, 400, "Unsupported type: 'bool'"),
    (CHAT, {"format": "xml"}, 400, 'invalid format: xml; expected "json" or a valid JSON Schema object'),
    (CHAT, {"tools": [{"type": "function"}]}, 400, "a tool has no function name"),
    (CHAT, {"tools": {}}, 400, "json: cannot unmarshal object into Go struct field ChatRequest.tools of type array"),
    (
        CHAT,
        {"messages": [{"role": "user", "images": ["aGk="]}]},
        400,
        '"tiny" does not support images; it takes text only',
    ),
    (GENERATE, {"images": ["aGk="]}, 400, '"tiny" does not support images; it takes text only'),
    (CHAT, {"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    (
        CHAT,
        {"think": "hard"},
        400,
        'invalid think value: "hard" (must be "high", "medium", "low", "max", true, or false)',
    ),
    (CHAT, {"script": "no thinking", "think": True}, 400, '"tiny" does not support thinking'),
    (GENERATE, {"raw": True, "system": "x"}, 400, "raw mode does not support template, system, or context"),
    (
        *(CHAT, {"script": "too long"}, 400),
        "the prompt is longer than the context length currently available to the model; "
        "the context holds 8 tokens; the messages came to 9",
    ),
    (CHAT, {"script": "full"}, 503, "server busy, please try again.  maximum pending requests exceeded"),
    (
        *(CHAT, {"script": "dies"}, 500),
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
        "check the server's log for details",
    ),
    (CHAT, {"script": "crash"}, 500, "internal error; the server's log says more"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "fields", "status", "text"), REFUSED)
def test_refusals(server: NativeServer, path: str, fields: Any, status: int, text: str, stream: bool) -> None:
    body = fields
    if fields and "model" not in fields:
        more = {name: value for name, value in fields.items() if name != "script"}
        body = {**body_of(path, fields.get("script", "a"), stream=stream), **more}
    response = server.post(path, body)
    [told] = response.json().values()
    assert (response.status_code, response.json().keys()) == (status, {"error"})
    assert told.removesuffix(f" (request {response.headers['x-request-id']})") == text
    assert response.headers["content-type"].startswith("application/json")
    if status == 503:
        assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"model": NaN}', b"[" * 100_000])
def test_bodies_that_are_no_objects(server: NativeServer, body: bytes) -> None:
    response = httpx.post(server.url + CHAT, content=body)
    assert response.status_code == 400
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_a_stream_that_breaks_off_ends_with_its_error(server: NativeServer, path: str) -> None:
    lines = server.lines(path, body_of(path, "dies later or so"))
    assert content_of(path, lines[0]) == "DIES "
    assert set(lines[-1]) == {"error"}
    assert "/secret" not in json.dumps(lines)
    assert not any(line.get("done") for line in lines)


def test_a_client_that_leaves_ends_its_answer(server: NativeServer) -> None:
    address = urlsplit(server.url)
    server.manager.ended.clear()
    body = json.dumps(body_of(CHAT, "forever")).encode()
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as sock:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        sock.sendall(head + body)
        assert sock.recv(1 << 16)
    assert server.manager.ended.wait(60)
