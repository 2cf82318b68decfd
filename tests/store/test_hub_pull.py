from __future__ import annotations

import json
from collections import deque
from pathlib import Path

import pytest
from huggingface_hub import constants

from corral.errors import DigestMismatch, DownloadError, ModelNotFound
from corral.model.gguf import open_gguf
from corral.store.library import Library
from corral.store.names import parse_name
from tests.store.conftest import tiny_gguf, use_hub
from tests.store.test_pull import is_whole, quick_pull, sha256
from tests.support.fake_hub import COMMIT, FakeHub, refused_url
from tests.support.gguf_writer import write_tiny_gguf


def test_a_repository_is_pulled_by_its_quantisation(hub: FakeHub) -> None:
    hub.publish("Org/Repo-GGUF", "Repo-Q4_K_M.gguf", tiny_gguf())
    hub.publish("Org/Repo-GGUF", "Repo-Q8_0.gguf", tiny_gguf(1))
    stored = quick_pull("hf.co/Org/Repo-GGUF:q8_0")
    assert str(stored.name) == "hf.co/Org/Repo-GGUF:q8_0"
    assert stored.to_local().path.read_bytes() == tiny_gguf(1)
    assert quick_pull("huggingface.co/Org/Repo-GGUF").to_local().path.read_bytes() == tiny_gguf()
    assert Library.open().find(parse_name("HF.co/org/repo-gguf:Q8_0")) is not None
    assert is_whole()


def test_small_files_of_the_repository_become_layers(hub: FakeHub) -> None:
    hub.publish("org/repo", "m.gguf", tiny_gguf())
    hub.publish("org/repo", "template", b"{{ .Prompt }}", is_large=False)
    hub.publish("org/repo", "system", "Sei höflich.".encode(), is_large=False)
    hub.publish("org/repo", "params", json.dumps({"stop": ["<end>"], "temperature": 0.1}).encode(), is_large=False)
    local = quick_pull("hf.co/org/repo").to_local()
    assert local.template == "{{ .Prompt }}"
    assert local.system == "Sei höflich."
    assert local.parameters == {"stop": ["<end>"], "temperature": 0.1}


@pytest.mark.parametrize("params", [b"{", b"[]", b"\xff"])
def test_parameters_that_are_none_are_refused(hub: FakeHub, params: bytes) -> None:
    hub.publish("org/repo", "m.gguf", tiny_gguf())
    hub.publish("org/repo", "params", params, is_large=False)
    with pytest.raises(DownloadError, match="params of org/repo"):
        quick_pull("hf.co/org/repo")


def test_a_split_model_comes_whole_and_opens_whole(hub: FakeHub, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", split_max_tensors=6)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    for part in parts:
        hub.publish("org/repo", f"Q8_0/{part.name.replace('m-', 'm-Q8_0-')}", part.read_bytes())
    local = quick_pull("hf.co/org/repo:Q8_0").to_local()
    with open_gguf(local.path) as found, open_gguf(parts[0]) as expected:
        assert list(found.tensors) == list(expected.tensors)
        assert found.content_digest() == expected.content_digest()
    assert is_whole()


def test_a_private_repository_wants_the_token_and_the_content_network_does_not_get_it(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    hub.publish("org/private", "m.gguf", tiny_gguf())
    with pytest.raises(ModelNotFound, match=r"no repository org/private, or it is private and HF_TOKEN is not set"):
        quick_pull("hf.co/org/private")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(ModelNotFound, match="may not read it"):
        quick_pull("hf.co/org/private")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    quick_pull("hf.co/org/private")
    assert all("authorization" not in seen.headers for seen in hub.cdn.seen)


def test_a_gated_repository_is_refused_with_what_to_do(hub: FakeHub) -> None:
    hub.token = "hf_secret"
    hub.gated.add("org/gated")
    hub.publish("org/gated", "m.gguf", tiny_gguf())
    with pytest.raises(DownloadError, match=r"agree to their terms at http://.*/org/gated, then set HF_TOKEN"):
        quick_pull("hf.co/org/gated")


def test_a_repository_that_does_not_exist_is_not_found(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFound, match="no repository org/none"):
        quick_pull("hf.co/org/none")


def test_a_quantisation_that_is_not_there_is_answered_with_those_that_are(hub: FakeHub) -> None:
    hub.publish("org/repo", "m-Q4_0.gguf", tiny_gguf())
    hub.publish("org/repo", "m-Q8_0.gguf", tiny_gguf())
    with pytest.raises(ModelNotFound, match="Q4_0, Q8_0"):
        quick_pull("hf.co/org/repo:Q5_K_M")


def test_a_break_on_the_way_is_mended_and_a_later_pull_goes_on(hub: FakeHub) -> None:
    data = tiny_gguf()
    route = hub.publish("org/repo", "m.gguf", data)
    route.break_after = deque([100_000, 0, 0, 0, 0, 0])
    with pytest.raises(DownloadError, match="gave up"):
        quick_pull("hf.co/org/repo")
    assert is_whole()
    route.break_after.clear()
    assert quick_pull("hf.co/org/repo").to_local().path.read_bytes() == data
    assert hub.cdn.seen[-1].headers["range"] == "bytes=100000-"


def test_other_bytes_than_the_hub_promises_are_refused(hub: FakeHub) -> None:
    hub.publish("org/repo", "m.gguf", tiny_gguf()).data = tiny_gguf()[::-1]
    with pytest.raises(DigestMismatch):
        quick_pull("hf.co/org/repo")
    assert Library.open().models() == []


def test_a_hub_that_contradicts_itself_is_not_believed(hub: FakeHub) -> None:
    hub.publish("org/repo", "m.gguf", tiny_gguf())
    hub.add("org/repo", "m.gguf", tiny_gguf(1), COMMIT)
    with pytest.raises(DownloadError, match="which SHA-256"):
        quick_pull("hf.co/org/repo")


def test_where_the_listing_has_no_digest_the_files_answer_has(hub: FakeHub) -> None:
    data = tiny_gguf()
    hub.publish("org/repo", "m.gguf", data)
    del hub.listings["org/repo"][0]["lfs"], hub.listings["org/repo"][0]["size"]
    assert quick_pull("hf.co/org/repo").manifest.layers[0].digest == f"sha256:{sha256(data)}"


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"<html>log in</html>", "text/html", "no JSON but text/html"),
        (b"{}", "application/json", "not the hub's"),
        (b"[]", "application/json", "not the hub's"),
        (b'{"sha": "x", "siblings": [{"rfilename": 5}]}', "application/json", "not the hub's"),
        (b'{"sha": "x", "siblings": 5}', "application/json", "not the hub's"),
        (b"[" * 100_000, "application/json", "no JSON"),
    ],
)
def test_a_listing_that_is_none_is_a_clear_error(hub: FakeHub, body: bytes, kind: str, text: str) -> None:
    hub.hub.routes["/api/models/org/repo?blobs=true"] = lambda handler: handler.reply(200, body, kind)
    with pytest.raises(DownloadError, match=text):
        quick_pull("hf.co/org/repo")


def test_a_hub_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    url = refused_url()
    use_hub(url, monkeypatch)
    with pytest.raises(DownloadError, match=f"cannot connect to {url.removeprefix('http://')}"):
        quick_pull("hf.co/org/repo")


def test_a_hub_that_is_switched_off_is_not_asked(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        quick_pull("hf.co/org/repo")
    assert hub.hub.seen == []


def test_a_busy_hub_is_asked_again_when_it_says(hub: FakeHub) -> None:
    route = hub.publish("org/repo", "m.gguf", tiny_gguf())
    route.statuses = deque([429, 503, 429])
    route.statuses_headers = {"Retry_After": "0"}
    real = hub.hub.routes["/api/models/org/repo?blobs=true"]
    answers = deque([503])
    hub.hub.routes["/api/models/org/repo?blobs=true"] = lambda h: (
        h.reply(answers.popleft(), b"") if answers else real(h)
    )
    with pytest.raises(
        DownloadError, match="gave up"
    ):  # without a time to come back, one more try before the first byte
        quick_pull("hf.co/org/repo")
    quick_pull("hf.co/org/repo")
