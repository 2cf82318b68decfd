from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral.errors import DownloadError, InvalidModelName, ModelNotFound
from corral.store.library import Library
from corral.store.manifest import MODEL, SYSTEM
from corral.store.names import parse_name
from corral.store.push import push
from corral.store.status import Status
from corral.store.transport.client import Patience
from tests.store.conftest import tiny_gguf
from tests.store.test_pull import quick_pull
from tests.support.fake_hub import Handler, refused_url
from tests.support.fake_registry import FakeRegistry

PATIENCE = Patience(connect_s=2.0, answer_s=5.0, stall_s=5.0, retries=3, backoff_s=0.001)
CHUNK = 100_000


def quick_push(name: str, told: list[Status] | None = None) -> None:
    push(name, told.append if told is not None else lambda _s: None, patience=PATIENCE, chunk_bytes=CHUNK)


@pytest.fixture
def model(registry: FakeRegistry, tmp_path: Path) -> str:
    """A model of the library whose name is of the registry, which does not have it."""
    (tmp_path / "m.gguf").write_bytes(tiny_gguf())
    stored = quick_pull(str(tmp_path / "m.gguf"))
    name = registry.name("me/mine:v1")
    Library.open().copy(stored.name, parse_name(name))
    return name


def test_a_pushed_model_can_be_pulled_again_the_same(
    model: str, registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Status] = []
    quick_push(model, told)
    statuses = list(dict.fromkeys(s.status for s in told))
    assert statuses[0] == "retrieving manifest"
    assert statuses[-2:] == ["pushing manifest", "success"]
    digest = hashlib.sha256(tiny_gguf()).hexdigest()
    steps = [s for s in told if s.digest == f"sha256:{digest}"]
    assert steps[0].status == f"pushing {digest[:12]}"
    assert steps[-1].completed == steps[-1].total == len(tiny_gguf())
    pushed = Library.open().find(parse_name(model))
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "other"))
    pulled = quick_pull(model)
    assert pushed is not None
    assert pulled.digest == pushed.digest
    assert pulled.to_local().path.read_bytes() == tiny_gguf()


def test_blobs_that_are_there_are_not_sent_again(model: str, registry: FakeRegistry) -> None:
    quick_push(model)
    sent = [s for s in registry.server.seen if s.method == "PATCH"]
    quick_push(model)
    assert [s for s in registry.server.seen if s.method == "PATCH"] == sent


def test_a_broken_chunk_goes_on_where_the_registry_says(model: str, registry: FakeRegistry) -> None:
    registry.break_uploads = 2
    quick_push(model)
    digest = f"sha256:{hashlib.sha256(tiny_gguf()).hexdigest()}"
    assert registry.blobs[digest].data == tiny_gguf()


def test_a_session_that_is_gone_is_begun_anew(
    model: str, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.break_uploads = 1
    real = registry._upload

    def forgetful(handler: Handler, repo: str, session: str, query: dict[str, list[str]]) -> None:
        if handler.command == "GET":
            registry.uploads.pop(session, None)
        real(handler, repo, session, query)

    monkeypatch.setattr(registry, "_upload", forgetful)
    quick_push(model)
    assert registry.blobs[f"sha256:{hashlib.sha256(tiny_gguf()).hexdigest()}"].data == tiny_gguf()


def test_breaks_without_end_are_an_error(model: str, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_chunk", lambda handler, *_: handler.hang_up())
    with pytest.raises(DownloadError, match="gave up after"):
        quick_push(model)
    assert "me/mine:v1" not in registry.manifests


def test_a_registry_that_wants_to_know_who_pushes_is_told(model: str, registry: FakeRegistry, tmp_path: Path) -> None:
    registry.user = "me:secret"
    with pytest.raises(DownloadError, match=r"refuses .*netrc.*for every push, are not supported"):
        quick_push(model)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    quick_push(model)
    assert "me/mine:v1" in registry.manifests


def test_what_is_not_here_cannot_be_pushed(registry: FakeRegistry) -> None:
    with pytest.raises(ModelNotFound, match=r"^model '.*/me/none' not found$"):
        quick_push(registry.name("me/none"))
    with pytest.raises(InvalidModelName):
        quick_push("a b")
    assert registry.server.seen == []


def test_a_registry_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(tiny_gguf())
    stored = quick_pull(str(tmp_path / "m.gguf"))
    url = refused_url()
    Library.open().copy(stored.name, parse_name(f"{url}/me/m"))
    with pytest.raises(DownloadError, match=f"cannot connect to {url.removeprefix('http://')}"):
        quick_push(f"{url}/me/m")


def test_a_registry_that_takes_no_uploads_is_an_error(
    model: str, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = b'{"errors":[{"message":"read only"}]}'
    monkeypatch.setattr(registry, "_upload", lambda handler, *_: handler.reply(405, message, "application/json"))
    with pytest.raises(DownloadError, match=r"405.*read only"):
        quick_push(model)


def test_a_manifest_that_is_refused_is_an_error(
    model: str, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handler: Handler, _model: str) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.reply(400, b'{"error":"bad manifest"}', "application/json")

    monkeypatch.setattr(registry, "_manifest", refuse)
    with pytest.raises(DownloadError, match=r"refuses the manifest: 400.*bad manifest"):
        quick_push(model)


def test_the_kinds_of_layers_stay(model: str) -> None:
    stored = Library.open().find(parse_name(model))
    assert stored is not None
    assert [layer.media_type for layer in stored.manifest.layers] == [MODEL]
    assert stored.manifest.of_type(SYSTEM) == ()
