"""Hostile requests, each made from a seed and a number alone, so that one that finds a fault can be sent again.

An `Attack` is the bytes that go onto the wire and how their sender behaves. Most are wrong in one way; some are valid
and only a nuisance. None is meant to be answered well, and none may disturb anybody else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.hostile_values import bomb, hostile_value, junk_text

ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 2},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 2},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/embeddings": {"input": "Hello"},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/tokenize": {"prompt": "Hello"},
    "/detokenize": {"tokens": [1, 2, 3]},
    "/v1/chat/completions/render": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions/render": {"prompt": "Hello"},
    "/v1/batches": {"input_file_id": "file-0", "endpoint": "/v1/completions", "completion_window": "24h"},
    "/api/chat": {"messages": [{"role": "user", "content": "Hello"}], "options": {"num_predict": 2}},
    "/api/generate": {"prompt": "Hello", "options": {"num_predict": 2}},
    "/api/embed": {"input": "Hello"},
    "/api/show": {},
    "/api/create": {"files": {"a.gguf": "sha256:" + "0" * 64}},
    "/api/copy": {"source": "nobody", "destination": "nobody2"},
}
PARTS = (
    "temperature",
    "n",
    "stop",
    "logit_bias",
    "tools",
    "tool_choice",
    "response_format",
    "seed",
    "stream",
    "options",
)
BRAKES = ("max_tokens", "max_output_tokens", "options")  # without them a valid request may take minutes
PATHS = (
    "/",
    "/v1",
    "/v1/models/",
    "/v1/files/",
    "/v1/batches/",
    "/v1/responses/",
    "/api/blobs/",
    "/limits",
    "/openapi.json",
)
METHODS = ("GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "CONNECT", "FOO", "get", "P\x00T")


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile request.

    Args:
        pieces: what is sent, one after another.
        pause_s: between the pieces.
        reads: bytes of the answer that are read before the connection is left; None reads all of it.
        leaves: how: "closes", "resets", or "waits" until the server has had enough.
        receive_buffer: of the socket; None is the system's.
    """

    kind: str
    pieces: tuple[bytes, ...]
    pause_s: float = 0.0
    reads: int | None = None
    leaves: str = "closes"
    receive_buffer: int | None = None


class Hostility:
    """Makes the attacks on one server.

    Args:
        model: the name of one that it serves.
        key: one that opens it.
    """

    def __init__(self, model: str, key: str, seed: int) -> None:
        self._model = model
        self._key = key
        self._seed = seed

    def attack(self, number: int) -> Attack:
        rng = random.Random(self._seed * 1_000_003 + number)
        make, _ = rng.choices(_KINDS, weights=[weight for _, weight in _KINDS])[0]
        return make(self, rng)

    def request(
        self,
        path: str,
        body: bytes,
        *,
        method: str = "POST",
        length: str | None = None,
        key: str | None = None,
        more: str = "",
    ) -> bytes:
        """A request's bytes; `more` are further header lines."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Authorization: Bearer {self._key if key is None else key}\r\n"
        if "content-type" not in more.lower():
            head += "Content-Type: application/json\r\n"
        if "transfer-encoding" not in more.lower():
            head += f"Content-Length: {len(body) if length is None else length}\r\n"
        return f"{head}{more}\r\n".encode("utf-8", "surrogateescape") + body

    def valid(self, rng: random.Random) -> tuple[str, dict[str, Any]]:
        path = rng.choice(list(ROUTES))
        return path, {"model": self._model, **ROUTES[path]}

    def stream(self, words: str, **fields: Any) -> bytes:
        messages = [{"role": "user", "content": words}]
        body = {
            "model": self._model,
            "messages": messages,
            "stream": True,
            "max_tokens": 300,
            "ignore_eos": True,
            **fields,
        }
        return self.request("/v1/chat/completions", json.dumps(body).encode())

    # ---- kinds ----------------------------------------------------------------------------------------------------

    def fuzzed_field(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        for _ in range(rng.choice((1, 1, 2, 4))):
            name = rng.choice([*body, *PARTS, junk_text(rng)[:50]])
            body[name] = hostile_value(rng)
        if rng.random() < 0.3:
            body.pop(rng.choice(list(body)))
        if path != "/v1/messages":  # which demands max_tokens
            body.update({name: value for name, value in ROUTES[path].items() if name in BRAKES and not body.get(name)})
        return Attack("fuzzed_field", (self.request(path, _encode(body)),))

    def fuzzed_bytes(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        data = bytearray(json.dumps(body).encode())
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = bytes(rng.randrange(256) for _ in range(8))
                case 3:
                    data[at:at] = rng.choice((b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b"\x00", b"1e999", b"NaN"))
            data = data or bytearray(b"{")
        return Attack("fuzzed_bytes", (self.request(path, bytes(data)),))

    def deep(self, rng: random.Random) -> Attack:
        levels = rng.choice((60, 64, 65, 100, 1000, 200_000))
        opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
        inner = opening * levels + "1" + closing * levels
        path, body = self.valid(rng)
        text = json.dumps(body)[:-1] + f', "{rng.choice(PARTS)}": {inner}}}'
        return Attack("deep", (self.request(path, text.encode()[: 1 << 20]),))

    def strange_path(self, rng: random.Random) -> Attack:
        tail = rng.choice(
            (
                "..",
                "../../etc/passwd",
                "%2e%2e%2f",
                "%00",
                "%ff%fe",
                "a" * 9000,
                "sha256:" + "0" * 64,
                "//",
                ";x",
                "%",
                "é",
            )
        )
        path = rng.choice(PATHS) + tail
        method = rng.choice(("GET", "POST", "DELETE", "HEAD"))
        return Attack("strange_path", (self.request(path, b"", method=method),))

    def strange_method(self, rng: random.Random) -> Attack:
        path = rng.choice([*ROUTES, *PATHS])
        return Attack("strange_method", (self.request(path, b"{}", method=rng.choice(METHODS)),))

    def strange_header(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        more = rng.choice(
            (
                "X-Long: " + "a" * rng.choice((8_000, 60_000, 70_000, 300_000)),
                "".join(f"X-{i}: {i}\r\n" for i in range(rng.choice((100, 3000)))).rstrip(),
                "Content-Type: text/html",
                "Content-Type: multipart/form-data; boundary=" + "x" * rng.choice((0, 10, 500)),
                "Content-Encoding: gzip",
                "Expect: 100-continue",
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x",
                "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings",
                "Origin: https://evil.example",
                "X-Request-Id: " + "é\t" * 200,
                "X-Request-Timeout: " + rng.choice(("-1", "nan", "1e999", "0", "x")),
                "Authorization: Bearer other",
                "X-Api-Key: other",
                "Bad Header\x01: x",
                "anthropic-version: 2023-06-01\r\nanthropic-beta: " + "x," * 1000,
                "Content-Length: 5",
                "Content-Length: -5",
                "Range: bytes=0-99999999999999999999",
            )
        )
        return Attack("strange_header", (self.request(path, json.dumps(body).encode(), more=f"{more}\r\n"),))

    def broken_chunks(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        data = json.dumps(body).encode()
        chunks = rng.choice(
            (
                b"zz\r\n" + data,
                b"-1\r\n" + data,
                b"ffffffffffffffffff\r\n" + data,
                b"5\r\n" + data + b"\r\n0\r\n\r\n",
                b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(data), b"x" * 70_000, data),
                b"%x\r\n%s\r\n0\r\nX-Trailer: %s\r\n\r\n" % (len(data), data, b"y" * 70_000),
                b"1\r\n{\r\n" * 5000 + b"0\r\n\r\n",
                b"%x\n%s\n0\n\n" % (len(data), data),
                b"0\r\n\r\n" + data,
            )
        )
        request = self.request(
            path,
            chunks,
            more=rng.choice(("Transfer-Encoding: chunked\r\n", "transfer-encoding: identity, chunked\r\n")),
        )
        return Attack("broken_chunks", (request,), leaves=rng.choice(("closes", "waits")))

    def bad_key(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        key = rng.choice(("", "x", "sk-" + "0" * 40, "\xff" * 10, self._key[:-1], self._key + " ", "a" * 10_000))
        return Attack("bad_key", (self.request(path, json.dumps(body).encode(), key=key),))

    def early_leave(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        whole = self.request(path, json.dumps(body).encode())
        cut = whole[: rng.randrange(1, len(whole) + 1)]
        return Attack("early_leave", (cut,), reads=0, leaves=rng.choice(("closes", "resets")))

    def aborted_stream(self, rng: random.Random) -> Attack:
        request = self.stream(f"Count from {rng.randrange(10**6)} upwards.", n=rng.choice((1, 1, 2)))
        return Attack(
            "aborted_stream", (request,), reads=rng.choice((0, 1, 300, 2000)), leaves=rng.choice(("closes", "resets"))
        )

    def slow_sender(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        whole = self.request(path, json.dumps(body).encode())
        cut = rng.choice((10, whole.index(b"\r\n\r\n") + 6))
        rest = tuple(whole[i : i + 1] for i in range(cut, len(whole)))
        return Attack("slow_sender", (whole[:cut], *rest), pause_s=0.2)

    def silent(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        whole = self.request(path, json.dumps(body).encode())
        return Attack("silent", (whole[: rng.choice((0, 0, 20, len(whole) - 1))],), leaves="waits")

    def non_reader(self, rng: random.Random) -> Attack:
        request = self.stream("Say much.", n=8, logprobs=True, top_logprobs=20, max_tokens=60)
        return Attack("non_reader", (request,), reads=0, leaves="waits", receive_buffer=4096)

    def large(self, rng: random.Random) -> Attack:
        path, _ = self.valid(rng)
        size = rng.choice((900_000, (1 << 20) + 1, 3 << 20))
        if rng.random() < 0.3:
            return Attack("large", (self.request(path, b"", length=str(rng.choice((100 << 20, 1 << 62, 1 << 70)))),))
        return Attack("large", (self.request(path, b'{"model": "' + b"x" * size + b'"}'),))

    def bombed(self, rng: random.Random) -> Attack:
        path, fields = bomb(rng)
        body = {"model": self._model, **fields}
        return Attack("bomb", (self.request(path, _encode(body)),), reads=rng.choice((None, None, 0)))

    def pipelined(self, rng: random.Random) -> Attack:
        path, body = self.valid(rng)
        one = self.request(path, json.dumps(body).encode())
        return Attack("pipelined", (one * rng.choice((2, 5, 40)),), reads=rng.choice((None, 0)))

    def no_http(self, rng: random.Random) -> Attack:
        junk = rng.choice(
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HELO x\r\n\r\n")
        )
        return Attack(
            "no_http", (junk if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 3000)),), leaves="waits"
        )

    def upload(self, rng: random.Random) -> Attack:
        boundary = "x" * rng.choice((1, 30))
        name = rng.choice(("file", "purpose", junk_text(rng)[:40]))
        filename = rng.choice(("../../x", "a", "\\x", "é" * 100))
        part = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
        body = part.encode("utf-8", "replace") * rng.choice((1, 2, 50)) + rng.randbytes(1000)
        body += f"\r\n--{boundary}--\r\n".encode() * rng.choice((0, 1))
        more = f"Content-Type: multipart/form-data; boundary={boundary}\r\n"
        return Attack("upload", (self.request("/v1/files", body, more=more),))


_KINDS: list[tuple[Callable[[Hostility, random.Random], Attack], float]] = [
    (Hostility.fuzzed_field, 24),
    (Hostility.fuzzed_bytes, 12),
    (Hostility.deep, 4),
    (Hostility.strange_path, 8),
    (Hostility.strange_method, 5),
    (Hostility.strange_header, 10),
    (Hostility.broken_chunks, 6),
    (Hostility.bad_key, 6),
    (Hostility.early_leave, 8),
    (Hostility.aborted_stream, 4),
    (Hostility.slow_sender, 1),
    (Hostility.silent, 2),
    (Hostility.non_reader, 0.1),
    (Hostility.large, 1),
    (Hostility.bombed, 2),
    (Hostility.pipelined, 2),
    (Hostility.no_http, 3),
    (Hostility.upload, 2),
]


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, default=str).encode("utf-8", "replace")
