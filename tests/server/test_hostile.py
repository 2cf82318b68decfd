"""Bodies, heads and sockets that mean no good: the right refusal, and everybody else goes on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from corral.limits import MAX_HEAD_BYTES
from tests.support.live_server import (
    LiveServer,
    chat_body,
    connect,
    error_of,
    live_server,
    raw_request,
    read_response,
    read_to_end,
)


@pytest.fixture(autouse=True)
def others_are_untouched(server: LiveServer) -> Iterator[None]:
    """A stream that is open across each test still works after it, and nothing is left behind."""
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=chat_body("hold", stream=True)) as response:
        lines = response.iter_lines()
        while "held" not in next(lines):
            continue
        yield
        assert httpx.post(f"{server.base_url}/chat/completions", json=chat_body("release")).status_code == 200
        assert "RELEASED" in "".join(lines)
    server.wait_until(lambda stats: stats.num_used_blocks == 0)


def deep(levels: int) -> str:
    return '{"model": "scripted", "messages": ' + "[" * levels + "]" * levels + "}"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"null", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b"\xff\xfe\x00", 400, "invalid_json"),
        (b'{"model": "\xc3\x28"}', 400, "invalid_json"),
        (b'{"model": "scripted", "temperature": NaN}', 400, "invalid_json"),
        (b'{"model": "scripted", "temperature": 1e999}', 400, "invalid_json"),
        (b"[" * 900_000, 400, "invalid_json"),
        (deep(500).encode(), 400, "invalid_json"),
        (json.dumps(chat_body(temperature="hot")).encode(), 400, "invalid_type"),
        (json.dumps(chat_body(n=10**12)).encode(), 400, "invalid_value"),
        (json.dumps(chat_body(frobnicate=1)).encode(), 400, "unknown_parameter"),
        (json.dumps(chat_body(tools=[{"type": "function"}])).encode(), 400, "missing_required_parameter"),
        (json.dumps({**chat_body(), "model": ["scripted"]}).encode(), 400, "invalid_type"),
        (json.dumps({**chat_body(), "model": "x" * 900_000}).encode(), 404, "model_not_found"),
        (b'{"a": "' + b"x" * (2 << 20) + b'"}', 413, "body_too_large"),
    ],
)
def test_bodies(server: LiveServer, body: bytes, status: int, code: str | None) -> None:
    headers = {"Content-Type": "application/json"}
    response = httpx.post(f"{server.base_url}/chat/completions", content=body, headers=headers)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code)
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 1000


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_other_types_are_415(server: LiveServer, headers: dict[str, str]) -> None:
    body = json.dumps(chat_body())
    response = httpx.post(f"{server.base_url}/chat/completions", content=body, headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


def test_charset_is_welcome(server: LiveServer) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    url = f"{server.base_url}/chat/completions"
    assert httpx.post(url, content=json.dumps(chat_body()), headers=headers).status_code == 200


def test_100_mb_bodies_are_refused_by_their_length(server: LiveServer) -> None:
    with connect(server) as sock:
        sock.sendall(raw_request(server, b"", headers={"Content-Length": str(100 << 20)}))
        status, payload = read_response(sock)  # before a byte of the body was sent
        assert (status, payload["error"]["code"]) == (413, "body_too_large")


def test_100_mb_bodies_are_refused_while_they_stream(server: LiveServer) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * (1 << 20)

    headers = {"Content-Type": "application/json"}
    response = httpx.post(f"{server.base_url}/chat/completions", content=chunks(), headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")


def test_heads_are_limited(server: LiveServer) -> None:
    endless = b"GET /health HTTP/1.1\r\nX-Long: " + b"a" * (4 << 20)
    many = b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(100_000))
    for head in (endless, many, b"GET /" + b"a" * (4 << 20)):
        with connect(server) as sock:
            try:
                sock.sendall(head)
            except (ConnectionResetError, BrokenPipeError):
                continue  # refused before all of it was sent
            answer = read_to_end(sock)
            assert answer == b"" or answer.split()[1] in (b"431", b"400")


def test_a_head_just_too_long_is_told_so(server: LiveServer) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nX-Long: " + b"a" * MAX_HEAD_BYTES)
        status, payload = read_response(sock)
    assert (status, payload["error"]["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HELLO\r\n\r\n", b"\x00" * 100])
def test_what_is_no_http_is_400(server: LiveServer, junk: bytes) -> None:
    with connect(server) as sock:
        sock.sendall(junk)
        status, payload = read_response(sock)
    assert (status, payload["error"]["code"]) == (400, "invalid_http")


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: -1",
        "Content-Length: 5x",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
    ],
)
def test_bodies_framed_in_two_ways_are_refused(server: LiveServer, framing: str) -> None:
    request = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    with connect(server) as sock:
        sock.sendall(request.encode() + b"zz\r\n{}\r\n")
        sock.shutdown(socket.SHUT_WR)
        answer = read_to_end(sock)
    assert b" 200 " not in answer.split(b"\r\n")[0]


def test_half_closed_and_torn_requests(server: LiveServer) -> None:
    whole = raw_request(server, json.dumps(chat_body("forever", stream=True)))
    for cut in (1, 20, len(whole) - 5, len(whole)):
        for _ in range(5):
            sock = connect(server)
            sock.sendall(whole[:cut])
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
            sock.close()
    server.wait_until(lambda stats: stats.num_used_blocks == 1)  # the stream that is held open


def test_resets(server: LiveServer) -> None:
    linger: Any = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # close() sends RST
    for text in ("forever", "hello"):
        sock = connect(server)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        sock.sendall(raw_request(server, json.dumps(chat_body(text, stream=True))))
        sock.close()
    server.wait_until(lambda stats: stats.num_used_blocks == 1)


def test_pipelined_requests_are_answered_in_order(server: LiveServer) -> None:
    with connect(server) as sock:
        sock.sendall(raw_request(server, json.dumps(chat_body("first"))) + raw_request(server, b"{"))
        assert read_response_twice(sock) == [200, 400]


def read_response_twice(sock: socket.socket) -> list[int]:
    file = sock.makefile("rb")
    statuses = []
    for _ in range(2):
        statuses.append(int(file.readline().split()[1]))
        length = 0
        while (line := file.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        file.read(length)
    return statuses


def test_the_body_limit_is_configured() -> None:
    with live_server(max_body_bytes=100) as small:
        response = httpx.post(f"{small.base_url}/chat/completions", json=chat_body("x" * 100))
        assert response.status_code == 413
        assert "100 bytes" in error_of(response)["message"]
