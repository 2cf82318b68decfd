from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.errors import DigestMismatch, DiskFull, DownloadError, InvalidConfig
from corral.store.transport.client import Patience, open_client
from corral.store.transport.download import Remote, Streams, download
from corral.store.transport.ranges import arrived_bytes, state_path
from tests.support.fake_hub import FileRoute, Handler, LocalServer

PATIENCE = Patience(connect_s=2.0, answer_s=2.0, stall_s=2.0, retries=3, backoff_s=0.001)
DATA = os.urandom(300_000)
STREAMS = Streams(count=4, part_bytes=32_000)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer().running() as server:
        yield server


@pytest.fixture
def route(server: LocalServer) -> FileRoute:
    route = FileRoute(DATA)
    server.routes["/file"] = route
    return route


def fetch(server: LocalServer, target: Path, patience: Patience = PATIENCE, streams: Streams = STREAMS) -> list[int]:
    told: list[int] = []
    remote = Remote(f"{server.url}/file", "file", len(DATA), hashlib.sha256(DATA).hexdigest())
    with open_client(patience) as client:
        download(client, remote, target, patience, lambda done, _total, _label: told.append(done), streams)
    return told


def ranges(server: LocalServer) -> list[str]:
    return [s.headers["range"] for s in server.seen if "range" in s.headers]


def test_a_large_file_comes_in_ranges_that_cover_it_once(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    told = fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert sorted(ranges(server)) == sorted(
        f"bytes={b}-{min(b + 32_000, 300_000) - 1}" for b in range(0, 300_000, 32_000)
    )
    assert told == sorted(told)
    assert told[-1] == len(DATA)
    assert not state_path(tmp_path / "f").exists()


def test_a_small_file_comes_in_one_piece(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    fetch(server, tmp_path / "f", streams=Streams(count=4, part_bytes=200_000))
    assert ranges(server) == []


def test_breaks_of_ranges_are_mended_where_they_broke(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    route.break_after = deque([10_000, 0, 5_000, 31_999])
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert "bytes=10000-31999" in ranges(server)


def test_a_silent_range_is_given_up_and_resumed(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    route.stall_after = deque([10_000])
    fetch(server, tmp_path / "f", Patience(stall_s=0.2, backoff_s=0.001))
    assert (tmp_path / "f").read_bytes() == DATA


def test_what_an_earlier_try_has_noted_is_not_fetched_again(
    server: LocalServer, route: FileRoute, tmp_path: Path
) -> None:
    holes = bytearray(DATA)
    holes[100_000:150_000] = bytes(50_000)
    (tmp_path / "f").write_bytes(holes)
    parts = [[0, 100_000, 100_000], [100_000, 200_000, 0], [200_000, 300_000, 100_000]]
    state_path(tmp_path / "f").write_text(json.dumps({"size": 300_000, "parts": parts}))
    assert arrived_bytes(tmp_path / "f") == 200_000
    told = fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert ranges(server) == ["bytes=100000-199999"]
    assert told[0] == 200_000


def test_the_beginning_that_one_stream_has_left_is_kept(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA[:100_000])
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert min(int(r.removeprefix("bytes=").partition("-")[0]) for r in ranges(server)) == 100_000


@pytest.mark.parametrize(
    "state",
    [
        "",
        "{",
        "[]",
        '{"size": 300000, "parts": []}',
        '{"size": 300000, "parts": [[0, 300000, 300001]]}',
        '{"size": 300000, "parts": [[0, 100, 100], [200, 300000, 0]]}',
        '{"size": 5, "parts": [[0, 5, 5]]}',
        '{"size": 300000, "parts": [[0, 300000, -1]]}',
        '{"size": 300000, "parts": [[0, 300000, "x"]]}',
        '{"size": 300000, "parts": [[0, 300000, 300000]]}',  # a lie: the digest finds it
    ],
)
def test_a_torn_or_lying_note_costs_a_new_start_and_nothing_else(
    server: LocalServer, route: FileRoute, tmp_path: Path, state: str
) -> None:
    (tmp_path / "f").write_bytes(b"x" * len(DATA))
    state_path(tmp_path / "f").write_text(state)
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_server_without_ranges_sends_the_file_in_one_stream(
    server: LocalServer, route: FileRoute, tmp_path: Path
) -> None:
    route.has_ranges = False
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert [s.headers.get("range") for s in server.seen] == ["bytes=0-31999", None]


def test_a_server_that_wants_fewer_requests_gets_fewer(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    busy = 0

    def one_at_a_time(handler: Handler) -> None:
        nonlocal busy
        busy += 1
        if busy > 1 and len(server.seen) % 3 == 0:
            handler.reply(429, b"slow down", "text/plain", Retry_After="0")
        else:
            route(handler)
        busy -= 1

    server.routes["/file"] = one_at_a_time
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_breaks_without_end_are_an_error_that_keeps_what_came(
    server: LocalServer, route: FileRoute, tmp_path: Path
) -> None:
    route.break_after = deque([32_000, 10_000, *[0] * 100])
    with pytest.raises(DownloadError, match=r"gave up with .* of 300,000 bytes missing"):
        fetch(server, tmp_path / "f")
    kept = arrived_bytes(tmp_path / "f")
    assert kept > 0
    route.break_after.clear()
    assert fetch(server, tmp_path / "f")[0] == kept
    assert (tmp_path / "f").read_bytes() == DATA


def test_wrong_bytes_in_ranges_are_refused_and_removed(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    route.data = DATA[::-1]
    with pytest.raises(DigestMismatch, match="is expected"):
        fetch(server, tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [DATA + b"x", DATA[:-1]])
def test_a_file_of_another_size_is_refused(server: LocalServer, route: FileRoute, tmp_path: Path, data: bytes) -> None:
    route.data = data
    with pytest.raises(DigestMismatch):
        fetch(server, tmp_path / "f")


def test_a_range_that_was_not_asked_for_is_not_taken(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    def other(handler: Handler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Length", "10")
        handler.send_header("Content-Range", "bytes 5-14/300000")
        handler.end_headers()
        handler.wfile.write(b"0123456789")

    server.routes["/file"] = other
    with pytest.raises(DownloadError, match="not asked for"):
        fetch(server, tmp_path / "f")


def test_a_range_longer_than_asked_for_is_cut_off(server: LocalServer, tmp_path: Path) -> None:
    def endless(handler: Handler) -> None:
        asked = handler.headers["Range"].removeprefix("bytes=")
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {asked}/300000")
        handler.end_headers()
        handler.close_connection = True
        for _ in range(1000):
            try:
                handler.wfile.write(bytes(10_000))
            except ConnectionError:
                return

    server.routes["/file"] = endless
    with pytest.raises(DigestMismatch, match="more than the range"):
        fetch(server, tmp_path / "f")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_all_ranges(server: LocalServer, route: FileRoute, tmp_path: Path, status: int) -> None:
    route.statuses = deque([status] * 20)
    with pytest.raises(DownloadError, match=str(status)):
        fetch(server, tmp_path / "f")


def test_a_web_page_in_place_of_ranges_is_refused(server: LocalServer, tmp_path: Path) -> None:
    server.routes["/file"] = lambda handler: handler.reply(200, b"<html>log in</html>")
    with pytest.raises(DownloadError, match="web page"):
        fetch(server, tmp_path / "f")


def test_too_little_room_is_said_before_the_first_range(
    server: LocalServer, route: FileRoute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(DiskFull, match="CORRAL_MODELS"):
        fetch(server, tmp_path / "f")
    assert server.seen == []


def test_a_disk_that_fills_up_while_ranges_come_is_a_clear_error(
    server: LocalServer, route: FileRoute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    real = os.pwrite

    def pwrite(file: int, data: bytes, offset: int) -> int:
        nonlocal written
        if written > 50_000:
            raise OSError(28, "No space left on device")
        written += len(data)
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DiskFull, match="no room"):
        fetch(server, tmp_path / "f")
    monkeypatch.setattr(os, "pwrite", real)
    assert fetch(server, tmp_path / "f")[0] > 0
    assert (tmp_path / "f").read_bytes() == DATA


def test_what_a_listener_raises_ends_the_download_and_keeps_the_rest(
    server: LocalServer, route: FileRoute, tmp_path: Path
) -> None:
    route.piece_s = 0.001

    class EnoughError(Exception):
        pass

    def listener(done: int, _total: int | None, _label: str) -> None:
        if done > 50_000:
            raise EnoughError

    remote = Remote(f"{server.url}/file", "file", len(DATA), hashlib.sha256(DATA).hexdigest())
    with open_client(PATIENCE) as client, pytest.raises(EnoughError):
        download(client, remote, tmp_path / "f", PATIENCE, listener, STREAMS)
    assert arrived_bytes(tmp_path / "f") > 50_000
    assert fetch(server, tmp_path / "f")[0] > 50_000


@pytest.mark.parametrize("value", ["0", "65", "x", "-1", "²"])
def test_a_number_of_streams_that_cannot_be_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MAX_TRANSFER_STREAMS", value)
    with pytest.raises(InvalidConfig, match="OLLAMA_MAX_TRANSFER_STREAMS"):
        Streams()
    monkeypatch.setenv("CORRAL_MAX_TRANSFER_STREAMS", "8")
    assert Streams().count == 8
