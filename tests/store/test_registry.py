from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path

import pytest

from corral.errors import DigestMismatch, DownloadError, InvalidConfig, InvalidManifest, ModelNotFound, UnsupportedModel
from corral.store.library import Library
from corral.store.manifest import MODEL, PARAMS, SYSTEM, TEMPLATE
from corral.store.names import parse_name
from corral.store.status import Status
from tests.store.conftest import tiny_gguf
from tests.store.test_pull import is_whole, quick_pull
from tests.support.fake_hub import refused_url
from tests.support.fake_registry import FakeRegistry

LAYERS = [(MODEL, tiny_gguf()), (TEMPLATE, b"{{ .Prompt }}"), (SYSTEM, b"Be kind."), (PARAMS, b'{"num_ctx":4096}')]


def test_a_model_of_a_registry_is_what_the_registry_says_to_the_last_byte(registry: FakeRegistry) -> None:
    registry.add("ns/model:1b", LAYERS)
    told: list[Status] = []
    stored = quick_pull(registry.name("ns/model:1b"), told)
    assert str(stored.name) == f"{registry.host}/ns/model:1b"
    assert stored.digest == hashlib.sha256(registry.manifests["ns/model:1b"]).hexdigest()
    local = stored.to_local()
    assert local.path.read_bytes() == tiny_gguf()
    assert (local.template, local.system, local.parameters) == ("{{ .Prompt }}", "Be kind.", {"num_ctx": 4096})
    statuses = list(dict.fromkeys(s.status for s in told))
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    assert all(s.startswith("pulling ") for s in statuses[1:-3])
    assert registry.server.gets("/v2/ns/model/manifests/1b")[0].headers["accept"].endswith("manifest.v2+json")
    assert is_whole()


def test_what_is_here_is_not_fetched_again(registry: FakeRegistry) -> None:
    registry.add("ns/model:1b", LAYERS)
    registry.add("ns/model:latest", [*LAYERS[:1], (SYSTEM, b"Be brief.")])
    quick_pull(registry.name("ns/model:1b"))
    before = len(registry.cdn.seen)
    quick_pull(registry.name("ns/model"))
    assert len(registry.cdn.seen) == before + 1


def test_a_name_without_host_is_asked_of_the_mirror(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_REGISTRY", registry.server.url)
    registry.add("library/some-model:latest", LAYERS)
    assert str(quick_pull("some-model").name) == "some-model:latest"


@pytest.mark.parametrize("mirror", ["ftp://x", "https://", "http://[::1"])
def test_a_mirror_that_is_no_address_is_refused(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_REGISTRY", mirror)
    with pytest.raises(InvalidConfig, match="CORRAL_REGISTRY"):
        quick_pull("some-model")


def test_a_model_that_is_not_there_is_told_in_ollamas_words(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelNotFound, match=r"^pull model manifest: file does not exist"):
        quick_pull(registry.name("ns/none"))
    monkeypatch.setenv("CORRAL_REGISTRY", registry.server.url)
    with pytest.raises(ModelNotFound, match=r"^pull model manifest: file does not exist.*Did you mean 'smollm2"):
        quick_pull("smolm2")


def test_a_registry_that_is_not_there_is_named_with_what_the_catalog_has(monkeypatch: pytest.MonkeyPatch) -> None:
    url = refused_url()
    monkeypatch.setenv("CORRAL_REGISTRY", url)
    with pytest.raises(DownloadError, match=rf"cannot connect to {url.removeprefix('http://')}.*Did you mean 'smollm2"):
        quick_pull("smolm2")


def test_a_pinned_digest_is_held_to(registry: FakeRegistry) -> None:
    registry.add("ns/model:latest", LAYERS)
    digest = hashlib.sha256(registry.manifests["ns/model:latest"]).hexdigest()
    stored = quick_pull(f"{registry.name('ns/model')}@sha256:{digest[:12]}")
    assert stored.digest == digest
    with pytest.raises(DigestMismatch, match="was asked for"):
        quick_pull(f"{registry.name('ns/model')}@sha256:{'0' * 12}")


def test_whoever_asks_gets_a_token_where_one_is_wanted(registry: FakeRegistry) -> None:
    registry.user = ""
    registry.add("ns/model:latest", LAYERS)
    quick_pull(registry.name("ns/model"))
    assert any(seen.path.startswith("/token?service=registry&scope=repository") for seen in registry.server.seen)
    assert all("authorization" not in seen.headers for seen in registry.cdn.seen)


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_a_private_registry_gets_what_netrc_has_for_it(registry: FakeRegistry, scheme: str, tmp_path: Path) -> None:
    registry.user, registry.scheme = "me:secret", scheme
    registry.add("ns/model:latest", LAYERS)
    with pytest.raises(DownloadError, match=r"refuses .*401.*netrc"):
        quick_pull(registry.name("ns/model"))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    quick_pull(registry.name("ns/model"))
    assert all("authorization" not in seen.headers for seen in registry.cdn.seen)


@pytest.mark.parametrize("realm", ["http://localhost:1/token", "https://auth.example/token", "http://[::1"])
def test_signing_in_elsewhere_is_refused(registry: FakeRegistry, realm: str) -> None:
    registry.user, registry.realm = "", realm
    registry.add("ns/model:latest", LAYERS)
    with pytest.raises(DownloadError, match=r"sign in at"):
        quick_pull(registry.name("ns/model"))


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"token": 5}', b'{"token": "a\\nb"}', b"<html>"])
def test_a_token_that_is_none_is_an_error(registry: FakeRegistry, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.user = ""
    registry.add("ns/model:latest", LAYERS)
    monkeypatch.setattr(registry, "_token", lambda handler: handler.reply(200, body, "application/json"))
    with pytest.raises(DownloadError, match=r"sent no (token|JSON)"):
        quick_pull(registry.name("ns/model"))


def test_breaks_and_busy_answers_are_mended(registry: FakeRegistry) -> None:
    route = registry.add("ns/model:latest", LAYERS)[MODEL]
    route.break_after = deque([100_000, 50_000])
    route.statuses = deque([503])
    quick_pull(registry.name("ns/model"))
    assert [seen.headers.get("range") for seen in registry.cdn.seen][-2:] == ["bytes=100000-", "bytes=150000-"]
    assert is_whole()


@pytest.mark.parametrize("change", [lambda d: d[::-1], lambda d: d + b"x", lambda d: d[:-1]])
def test_other_bytes_than_the_manifest_names_are_refused(registry: FakeRegistry, change: object) -> None:
    route = registry.add("ns/model:latest", LAYERS)[MODEL]
    route.data = change(route.data)  # type: ignore[operator]
    with pytest.raises(DigestMismatch):
        quick_pull(registry.name("ns/model"))
    assert Library.open().find(parse_name(registry.name("ns/model"))) is None
    assert is_whole()


@pytest.mark.parametrize(
    "manifest", [b"<html>log in</html>", b"{}", b"[1", b'{"schemaVersion":2,"layers":[{"digest":"../../x","size":1}]}']
)
def test_a_manifest_that_is_none_is_an_error(registry: FakeRegistry, manifest: bytes) -> None:
    registry.manifests["ns/model:latest"] = manifest
    with pytest.raises(InvalidManifest):
        quick_pull(registry.name("ns/model"))


def test_a_manifest_without_end_is_cut_off(registry: FakeRegistry) -> None:
    registry.manifests["ns/model:latest"] = b" " * (9 << 20)
    with pytest.raises(DownloadError, match="sends more than"):
        quick_pull(registry.name("ns/model"))


def test_what_cannot_be_run_here_is_refused_before_its_bytes_come(registry: FakeRegistry) -> None:
    tensor = "application/vnd.ollama.image.tensor"
    registry.add("ns/mlx:latest", [(tensor, b"x" * 1000)])
    with pytest.raises(UnsupportedModel, match=r"no GGUF weights \(its layers: tensor\)"):
        quick_pull(registry.name("ns/mlx"))
    registry.add("ns/st:latest", LAYERS, b'{"model_format":"safetensors"}')
    with pytest.raises(UnsupportedModel, match="'safetensors'"):
        quick_pull(registry.name("ns/st"))
    assert len(registry.cdn.seen) < len(LAYERS) + 2
    assert not any(hashlib.sha256(LAYERS[0][1]).hexdigest() in seen.path for seen in registry.cdn.seen)


def test_plain_http_is_spoken_only_where_it_is_meant(registry: FakeRegistry) -> None:
    registry.add("ns/model:latest", LAYERS)
    with pytest.raises(DownloadError):
        quick_pull(f"{registry.host}/ns/model")
    assert quick_pull(f"{registry.host}/ns/model", insecure=True).to_local().system == "Be kind."
