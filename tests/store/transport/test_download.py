from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from corral.errors import DigestMismatch, DiskFull, DownloadError
from corral.store.transport.client import Patience, open_client
from corral.store.transport.download import AccessRefused, Remote, download
from tests.support.fake_hub import FileRoute, Handler, LocalServer, black_hole, refused_url

PATIENCE = Patience(connect_s=2.0, answer_s=2.0, stall_s=2.0, retries=2, backoff_s=0.001)
DATA = bytes(range(256)) * 200


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer().running() as server:
        yield server


@pytest.fixture
def route(server: LocalServer) -> FileRoute:
    route = FileRoute(DATA)
    server.routes["/file"] = route
    return route


def remote(server: LocalServer, data: bytes | None = DATA) -> Remote:
    digest = hashlib.sha256(data).hexdigest() if data is not None else None
    return Remote(f"{server.url}/file", "file", len(data) if data is not None else None, digest)


class Told(NamedTuple):
    done: int
    total: int | None
    label: str


def fetch(remote: Remote, target: Path, patience: Patience = PATIENCE) -> list[Told]:
    told: list[Told] = []
    with open_client(patience) as client:
        download(client, remote, target, patience, lambda *args: told.append(Told(*args)))
    return told


def test_a_file_arrives_whole_and_progress_ends_at_its_size(
    server: LocalServer, route: FileRoute, tmp_path: Path
) -> None:
    told = fetch(remote(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert [t.done for t in told] == sorted(t.done for t in told)
    assert told[0] == (0, len(DATA), "file")
    assert told[-1] == (len(DATA), len(DATA), "file")


def test_a_broken_connection_is_resumed_where_it_broke(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    route.break_after = deque([10_000, 5_000])
    fetch(remote(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert [s.headers.get("range") for s in server.seen] == [None, "bytes=10000-", "bytes=15000-"]
    assert server.seen[1].headers["if-range"] == route.etag


def test_a_silent_connection_is_given_up_and_resumed(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    route.stall_after = deque([10_000])
    fetch(remote(server), tmp_path / "f", Patience(stall_s=0.2, backoff_s=0.001))
    assert (tmp_path / "f").read_bytes() == DATA
    assert server.seen[1].headers["range"] == "bytes=10000-"


def test_an_earlier_process_part_is_continued(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA[:20_000])
    told = fetch(remote(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert server.seen[0].headers["range"] == "bytes=20000-"
    assert told[0].done == 20_000


def test_a_whole_part_needs_no_request(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    fetch(remote(server), tmp_path / "f")
    assert server.seen == []


@pytest.mark.parametrize("found", [b"x" * 20_000, b"x" * len(DATA), b"x" * (len(DATA) + 1)])
def test_a_part_of_another_file_is_thrown_away(
    server: LocalServer, route: FileRoute, tmp_path: Path, found: bytes
) -> None:
    (tmp_path / "f").write_bytes(found)
    fetch(remote(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_file_that_changes_between_the_tries_is_taken_from_its_start(
    server: LocalServer, route: FileRoute, tmp_path: Path
) -> None:
    route.break_after = deque([10_000])
    told: list[int] = []

    def change(done: int, _total: int | None, _label: str) -> None:
        told.append(done)
        route.data = DATA[::-1]

    with open_client(PATIENCE) as client:
        download(client, remote(server, None), tmp_path / "f", PATIENCE, change)
    assert (tmp_path / "f").read_bytes() == DATA[::-1]


def test_a_server_without_ranges_starts_over(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    route.has_ranges = False
    route.break_after = deque([10_000])
    fetch(remote(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_part_longer_than_the_file_is_thrown_away(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA + b"more")
    fetch(remote(server, None), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert len(server.seen) == 2  # the first one was answered with 416


def test_wrong_bytes_are_refused_and_removed(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    promised = remote(server)
    route.data = DATA[::-1]
    with pytest.raises(DigestMismatch, match=promised.sha256):
        fetch(promised, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert len(server.seen) == 1


@pytest.mark.parametrize("data", [DATA + b"x", DATA[:-1]])
def test_a_wrong_size_is_refused_before_the_body(
    server: LocalServer, route: FileRoute, tmp_path: Path, data: bytes
) -> None:
    route.data = data
    with pytest.raises(DigestMismatch, match=f"has {len(data)} bytes; {len(DATA)} are expected"):
        fetch(remote(server), tmp_path / "f")


def test_a_body_longer_than_promised_is_cut_off(server: LocalServer, tmp_path: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(ConnectionError):
            while True:
                handler.wfile.write(DATA)

    server.routes["/file"] = endless
    with pytest.raises(DigestMismatch, match="more than"):
        fetch(remote(server), tmp_path / "f")


def test_a_busy_server_is_asked_again(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    route.statuses = deque([503])
    fetch(remote(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_breaks_without_gain_end_it_and_keep_the_part(server: LocalServer, route: FileRoute, tmp_path: Path) -> None:
    route.break_after = deque([10_000, 0, 0, 0])
    with pytest.raises(DownloadError, match="gave up after 3 tries"):
        fetch(remote(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA[:10_000]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_final(server: LocalServer, route: FileRoute, tmp_path: Path, status: int) -> None:
    route.statuses = deque([status])
    with pytest.raises(AccessRefused, match=str(status)):
        fetch(remote(server), tmp_path / "f")
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_missing_file_is_final(server: LocalServer, route: FileRoute, tmp_path: Path, status: int) -> None:
    route.statuses = deque([status])
    with pytest.raises(DownloadError, match=str(status)):
        fetch(remote(server), tmp_path / "f")
    assert len(server.seen) == 1


def test_a_web_page_is_not_taken_for_the_file(server: LocalServer, tmp_path: Path) -> None:
    server.routes["/file"] = lambda handler: handler.reply(200, b"<html>Please log in</html>")
    with pytest.raises(DownloadError, match="web page"):
        fetch(remote(server, None), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b""


def test_an_unreachable_server_is_named(tmp_path: Path) -> None:
    url = refused_url()
    with pytest.raises(DownloadError, match=f"cannot connect to {httpx.URL(url).netloc.decode()}"):
        fetch(Remote(f"{url}/file", "file"), tmp_path / "f")


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with black_hole() as url, pytest.raises(DownloadError, match="did not answer in time"):
        fetch(Remote(f"{url}/file", "file"), tmp_path / "f", Patience(stall_s=0.1, backoff_s=0.001))


def test_secrets_of_an_address_stay_out_of_messages(server: LocalServer, tmp_path: Path) -> None:
    url = f"{server.url.replace('//', '//user:secret@')}/none?signature=secret"
    with pytest.raises(DownloadError, match="/none") as caught:
        fetch(Remote(url, "file"), tmp_path / "f")
    assert "secret" not in str(caught.value)


def test_too_little_room_is_said_before_the_first_byte(
    server: LocalServer, route: FileRoute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(DiskFull, match="CORRAL_MODELS"):
        fetch(remote(server), tmp_path / "f")
    assert server.seen == []


def test_a_disk_that_fills_up_is_a_clear_error_and_the_part_stays(
    server: LocalServer, route: FileRoute, tmp_path: Path
) -> None:
    def full(_done: int, _total: int | None, _label: str) -> None:
        if _done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_client(PATIENCE) as client, pytest.raises(DiskFull, match=r"no room in .* MB are free"):
        download(client, remote(server), tmp_path / "f", PATIENCE, full)
    assert DATA.startswith((tmp_path / "f").read_bytes())
    fetch(remote(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
