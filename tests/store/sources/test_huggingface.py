from __future__ import annotations

import hashlib
import time
from collections import deque
from pathlib import Path

import pytest
from huggingface_hub import constants

from corral.errors import DigestMismatch, DownloadError
from corral.store.catalog import Artifact, HubFile
from corral.store.sources import huggingface
from corral.store.transport.client import Patience
from corral.store.transport.download import AccessRefused
from tests.store.conftest import use_hub
from tests.support.fake_hub import FakeHub, black_hole, refused_url

DATA = b"GGUF" + bytes(range(256)) * 100
HUB_FILE = HubFile("org/model", "model.gguf", "main")
PATH = "/org/model/resolve/main/model.gguf"
ARTIFACT = Artifact("model.gguf", len(DATA), hashlib.sha256(DATA).hexdigest(), hub=HUB_FILE)


def fetch(target: Path, patience: Patience) -> list[tuple[int, int | None, str]]:
    told: list[tuple[int, int | None, str]] = []
    huggingface.fetch(ARTIFACT, HUB_FILE, target, patience, lambda *args: told.append(args))
    return told


def test_the_file_comes_from_where_the_hub_redirects_to(hub: FakeHub, patience: Patience, tmp_path: Path) -> None:
    hub.add("org/model", "model.gguf", DATA)
    told = fetch(tmp_path / "f", patience)
    assert (tmp_path / "f").read_bytes() == DATA
    assert told[0] == (0, None, f"pulling model.gguf from {hub.hub.url.removeprefix('http://')}")
    assert told[-1] == (len(DATA), len(DATA), "model.gguf")


def test_a_break_at_the_content_network_asks_the_hub_again_for_the_rest(
    hub: FakeHub, patience: Patience, tmp_path: Path
) -> None:
    route = hub.add("org/model", "model.gguf", DATA)
    route.break_after = deque([10_000])
    fetch(tmp_path / "f", patience)
    assert (tmp_path / "f").read_bytes() == DATA
    assert [s.headers.get("range") for s in hub.hub.gets(PATH)] == [None, "bytes=10000-"]
    assert hub.cdn.seen[-1].headers["range"] == "bytes=10000-"


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: FakeHub, patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", "model.gguf", DATA)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(tmp_path / "f", patience)
    assert {s.headers.get("authorization") for s in hub.hub.seen} == {"Bearer hf_secret"}
    assert all("authorization" not in s.headers for s in hub.cdn.seen)
    assert len(hub.cdn.seen) == 1


def test_without_a_token_none_is_sent(hub: FakeHub, patience: Patience, tmp_path: Path) -> None:
    hub.add("org/model", "model.gguf", DATA)
    fetch(tmp_path / "f", patience)
    assert all("authorization" not in s.headers for s in hub.hub.seen)


def test_a_renamed_repository_is_followed(hub: FakeHub, patience: Patience, tmp_path: Path) -> None:
    hub.add("org/new-name", "model.gguf", DATA)
    hub.hub.routes[PATH] = lambda h: h.reply(307, Location="/org/new-name/resolve/main/model.gguf")
    fetch(tmp_path / "f", patience)
    assert (tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize("claims", [{"X_Linked_ETag": f'"{"0" * 64}"'}, {"X_Linked_Size": "5"}])
def test_another_file_is_refused_before_its_first_byte(
    hub: FakeHub, patience: Patience, tmp_path: Path, claims: dict[str, str]
) -> None:
    hub.add("org/model", "model.gguf", DATA, **claims)
    with pytest.raises(DigestMismatch, match="expected"):
        fetch(tmp_path / "f", patience)
    assert hub.cdn.seen == []


def test_bytes_other_than_the_hub_claims_are_refused(hub: FakeHub, patience: Patience, tmp_path: Path) -> None:
    hub.add("org/model", "model.gguf", DATA).data = DATA[::-1]
    with pytest.raises(DigestMismatch, match=ARTIFACT.sha256):
        fetch(tmp_path / "f", patience)
    assert not (tmp_path / "f").exists()


def test_a_gated_repository_says_how_to_get_in(hub: FakeHub, patience: Patience, tmp_path: Path) -> None:
    hub.hub.routes[PATH] = lambda h: h.reply(
        401, b"", X_Error_Code="GatedRepo", X_Error_Message="Access to model org/model is restricted."
    )
    with pytest.raises(AccessRefused, match=r"is restricted.*HF_TOKEN"):
        fetch(tmp_path / "f", patience)


def test_a_missing_file_is_named(hub: FakeHub, patience: Patience, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"has no model\.gguf of org/model for us: 404"):
        fetch(tmp_path / "f", patience)


def test_a_hub_where_nobody_listens_is_named(
    patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(refused_url(), monkeypatch)
    with pytest.raises(DownloadError, match=r"cannot connect to 127\.0\.0\.1"):
        fetch(tmp_path / "f", patience)


def test_a_black_hole_is_noticed_by_the_deadline_of_one_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with black_hole() as url:
        use_hub(url, monkeypatch)
        started = time.monotonic()
        # Every other limit is far off: only the deadline can have ended it.
        with pytest.raises(DownloadError, match=r"did not answer within 0\.2 s"):
            fetch(tmp_path / "f", Patience(connect_s=600, answer_s=0.2, stall_s=600))
        assert time.monotonic() - started < 60


def test_the_default_deadlines_are_seconds() -> None:
    patience = Patience()
    assert patience.connect_s <= 5
    assert patience.answer_s <= 10


def test_an_offline_switch_is_obeyed(
    hub: FakeHub, patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", "model.gguf", DATA)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        fetch(tmp_path / "f", patience)
    assert hub.hub.seen == []
