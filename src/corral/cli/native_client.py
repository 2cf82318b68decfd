"""Ollama's native HTTP API as a client speaks it: JSON there, JSON or lines of JSON back.

http.client rather than httpx: `corral run` and `corral list` must start at once, and need no more than this.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from corral.cli.address import ServerAddress, connect_error, connect_unix, tls_context
from corral.config import client_api_key
from corral.errors import CorralError, DownloadError, InvalidRequest, ModelNotFound

_CONNECT_TIMEOUT_S = 10.0
_MAX_LINE_BYTES = 64 << 20  # an answer without a stream, or a model's card with all its tensors
_ERRORS: dict[int, type[CorralError]] = {400: InvalidRequest, 404: ModelNotFound}


class ServerError(CorralError):
    """The server refused or broke off; `status` is HTTP's, 200 for an error in a stream."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_CONNECT_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = connect_unix(self._path, _CONNECT_TIMEOUT_S)


class NativeClient:
    """One server. Every call has a connection of its own, so that closing a stream ends its work there."""

    def __init__(self, address: ServerAddress) -> None:
        self.address = address

    def call(self, method: str, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer as one object; {} if it is empty.

        Raises:
            NotConnected: nobody answers.
            ModelNotFound, InvalidRequest, ServerError: what the server says.
        """
        connection, response = self._send(method, route, _encoded(body))
        try:
            data = response.read(_MAX_LINE_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error
        finally:
            connection.close()
        return self._object(data) if data.strip() else {}

    def stream(self, route: str, body: dict[str, Any]) -> Generator[dict[str, Any]]:
        """The answer line by line; leaving the iterator ends the request. Raises as `call`."""
        connection, response = self._send("POST", route, _encoded(body))
        try:
            while line := self._line(response):
                if line.strip():
                    yield self._part(line, response.status)
        finally:
            connection.close()

    def has_blob(self, digest: str) -> bool:
        connection, response = self._open("HEAD", f"/api/blobs/{digest}", None, {})
        connection.close()
        return response.status == http.client.OK

    def upload(self, digest: str, path: Path, chunks: Iterator[bytes]) -> None:
        """Sends the bytes of `path`; `chunks` are read from it, so that progress can be seen."""
        headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
        connection, response = self._send("POST", f"/api/blobs/{digest}", chunks, headers)
        response.read(1 << 16)
        connection.close()

    def has_route(self, route: str) -> bool:
        """Whether POST to `route` is known there, whatever it thinks of an empty object."""
        connection, response = self._open("POST", route, b"{}", {"Content-Type": "application/json"})
        connection.close()
        return response.status not in (http.client.NOT_FOUND, http.client.METHOD_NOT_ALLOWED)

    def _send(
        self, method: str, route: str, body: bytes | Iterator[bytes] | None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection, response = self._open(method, route, body, headers or {"Content-Type": "application/json"})
        if response.status < 300:
            return connection, response
        data = response.read(1 << 20)
        connection.close()
        raise _refusal(data, response.status, self.address)

    def _open(
        self, method: str, route: str, body: bytes | Iterator[bytes] | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connection()
        if key := client_api_key():
            headers = headers | {"Authorization": f"Bearer {key}"}
        try:
            connection.connect()
        except OSError as error:
            raise connect_error(self.address, error) from error
        try:
            connection.sock.settimeout(None)  # a model may take its time to load and to think
            connection.request(method, quote(self.address.path + route, safe="/:"), body, headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._broken(error) from error

    def _connection(self) -> http.client.HTTPConnection:
        if self.address.uds:
            return _UnixConnection(self.address.uds)
        host, port = self.address.host, self.address.port
        if self.address.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_CONNECT_TIMEOUT_S)
        return http.client.HTTPSConnection(host, port, timeout=_CONNECT_TIMEOUT_S, context=tls_context())

    def _line(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.readline(_MAX_LINE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _part(self, line: bytes, status: int) -> dict[str, Any]:
        part = self._object(line)
        if isinstance(part.get("error"), str):
            raise ServerError(part["error"], status)
        return part

    def _object(self, data: bytes) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DownloadError(f"{self.address} sent what is no JSON: {data[:80]!r}") from error
        if not isinstance(value, dict):
            raise DownloadError(f"{self.address} sent {data[:80]!r}; a JSON object is expected")
        return value

    def _broken(self, error: Exception) -> DownloadError:
        return DownloadError(f"the connection to {self.address} broke off: {error or type(error).__name__}")


def _encoded(body: dict[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _refusal(data: bytes, status: int, address: ServerAddress) -> CorralError:
    """The server's own words, in Ollama's or OpenAI's form, as one of our errors."""
    try:
        found = json.loads(data).get("error")
        message = found["message"] if isinstance(found, dict) else found
    except (ValueError, AttributeError, KeyError, RecursionError):
        message = None
    if not isinstance(message, str) or not message:
        message = f"{address} answered with HTTP status {status}"
    if status in (401, 403) and client_api_key() is None:
        message += "; set CORRAL_API_KEY to a key of that server"
    kind = _ERRORS.get(status)
    return kind(message) if kind is not None else ServerError(message, status)
