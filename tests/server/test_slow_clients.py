"""Clients that send slowly, read nothing, or only hold connections: each is cut within its time, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from corral.limits import MAX_PIPELINED
from corral.server import http_protocol
from corral.server.connections import NUM_REFUSALS, Connections, HttpLimits, Verdict
from tests.support.live_server import (
    LiveServer,
    chat_body,
    connect,
    live_server,
    raw_request,
    read_response,
    read_to_end,
)


@pytest.fixture(scope="module")
def hasty() -> Iterator[LiveServer]:
    """A server that waits for nobody."""
    with live_server(head_timeout_s=0.2, body_timeout_s=0.2, write_timeout_s=0.3) as running:
        yield running


@pytest.fixture(autouse=True)
def short_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_S", 0.2)


def trickle(sock: socket.socket, piece: bytes) -> None:
    """Sends it again and again, until the server has had enough."""
    sock.settimeout(0.02)
    with contextlib.suppress(ConnectionError):
        while True:
            sock.sendall(piece)
            with contextlib.suppress(TimeoutError):
                if sock.recv(1 << 16) == b"":
                    return


def test_a_slow_head_is_cut(hasty: LiveServer) -> None:
    for start in (b"", b"POST /v1/chat/comp"):
        with connect(hasty) as sock:
            sock.sendall(start)
            assert read_to_end(sock) == b""
    with connect(hasty) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        trickle(sock, b"a")


def test_empty_lines_between_requests_hold_no_connection(hasty: LiveServer) -> None:
    with connect(hasty) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_response(sock)[0] == 200
        trickle(sock, b"\r\n")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files", "/api/chat"])
def test_a_slow_body_is_told_so(hasty: LiveServer, path: str) -> None:
    of_form = {"Content-Type": "multipart/form-data; boundary=x"} if path == "/v1/files" else {}
    with connect(hasty) as sock:
        sock.sendall(raw_request(hasty, b"-", path, {"Content-Length": "1000", **of_form}))
        status, payload = read_response(sock)
    assert status == 408
    assert "1 bytes" in str(payload["error"])


def test_a_body_that_keeps_its_rate_may_take_its_time() -> None:
    body = json.dumps(chat_body("x" * 2000)).encode()
    with live_server(body_timeout_s=0.3, min_body_rate=1) as patient, connect(patient) as sock:
        sock.sendall(raw_request(patient, body[:1000], headers={"Content-Length": str(len(body))}))
        sock.settimeout(0.6)
        with pytest.raises(TimeoutError):  # twice the time, and nothing happens
            sock.recv(1)
        sock.settimeout(30)
        sock.sendall(body[1000:])
        assert read_response(sock)[0] == 200


def test_a_body_that_nobody_reads_is_not_awaited_for_ever(hasty: LiveServer) -> None:
    with connect(hasty) as sock:
        sock.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert read_response(sock)[0] == 404
        trickle(sock, b"1\r\nx\r\n")


def test_a_client_that_does_not_read_its_stream_is_cut_off(hasty: LiveServer) -> None:
    request = raw_request(hasty, json.dumps(chat_body("forever", stream=True, n=64)))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(hasty.address)
        sock.sendall(request)
        hasty.wait_until(lambda stats: stats.num_requests == 1)
        hasty.wait_until(lambda stats: stats.num_requests == 0)  # not one byte of the answer was read until now
        assert b"[DONE]" not in read_to_end(sock)


def test_pipelines_are_bounded(hasty: LiveServer) -> None:
    first = raw_request(hasty, json.dumps(chat_body("forever", stream=True)))
    with connect(hasty) as sock:
        sock.sendall(first + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * (MAX_PIPELINED + 1))
        read_to_end(sock)
    hasty.wait_until(lambda stats: stats.num_requests == 0)


def test_who_goes_away_with_requests_in_line_is_missed(hasty: LiveServer) -> None:
    first = raw_request(hasty, json.dumps(chat_body("forever", stream=True)))
    with connect(hasty) as sock:
        sock.sendall(first + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        hasty.wait_until(lambda stats: stats.num_requests == 1)
    hasty.wait_until(lambda stats: stats.num_requests == 0)


def test_connections_are_bounded_and_probes_still_answered() -> None:
    with live_server(max_connections=2) as small, contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(connect(small))
        response = httpx.post(f"{small.base_url}/chat/completions", json=chat_body())
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "too_many_connections"
        assert int(response.headers["Retry-After"]) >= 1
        assert httpx.get(f"{small.url}/health").status_code == 200
        held.close()
        small.run(small.first_stats)  # a turn of the loop, in which it sees them go
        assert httpx.post(f"{small.base_url}/chat/completions", json=chat_body()).status_code == 200


def test_one_address_does_not_take_all() -> None:
    with live_server(max_connections_per_address=1) as small, connect(small):
        response = httpx.get(f"{small.base_url}/models")
        assert (response.status_code, response.json()["error"]["code"]) == (429, "too_many_connections")


def test_what_is_counted() -> None:
    connections = Connections(HttpLimits(4, 2, 1.0, 1.0))
    networks = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
    assert [connections.enter(address) for address in networks] == [Verdict.OPEN, Verdict.OPEN, Verdict.CROWDED]
    assert connections.enter("::ffff:10.0.0.1") is Verdict.OPEN
    assert connections.enter("10.0.0.1") is Verdict.FULL
    for address in [*networks, "::ffff:10.0.0.1", "10.0.0.1"]:
        connections.leave(address)
    assert connections.num_open == 0
    assert [connections.enter(None) for _ in range(5)] == [Verdict.OPEN] * 4 + [Verdict.FULL]
    for _ in range(NUM_REFUSALS - 1):
        assert connections.enter(None) is Verdict.FULL
    assert connections.enter(None) is Verdict.CLOSED
