from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from corral.errors import DownloadError, InvalidConfig
from corral.store.sources.pip_settings import Pip, PipSettings
from corral.store.sources.simple_index import WheelLink, find_wheel
from corral.store.transport.client import Patience, Transport, open_client
from corral.store.transport.download import AccessRefused
from tests.support.fake_hub import FakeIndex, LocalServer, black_hole, make_wheel, refused_url

NAME, DATA = make_wheel("some-model", "1.0", {"some_model/m.gguf": b"GGUF"})
DIGEST = hashlib.sha256(DATA).hexdigest()


def settings(*index_urls: str, find_links: tuple[str, ...] = ()) -> PipSettings:
    return PipSettings(Pip(sys.executable), index_urls, find_links, Transport())


def find(settings: PipSettings, patience: Patience, requirement: str = "some-model==1.0") -> WheelLink:
    with open_client(patience) as client:
        return find_wheel(client, settings, requirement, patience)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("has_digests", [True, False])
def test_html_and_json_lead_to_the_same_wheel(
    index: FakeIndex, patience: Patience, as_json: bool, has_digests: bool
) -> None:
    index.as_json, index.has_digests = as_json, has_digests
    index.add("some-model", "some_model-0.9-py3-none-any.whl", b"")
    index.add("some-model", "some_model-1.0.tar.gz", b"")
    index.add("some-model", NAME, DATA)
    link = find(settings(index.url), patience)
    assert link == WheelLink(NAME, f"{index.server.url}/files/{NAME}", DIGEST if has_digests else None)


@pytest.mark.parametrize("requirement", ["Some_Model==1.0", "some.model==1.0"])
def test_names_are_compared_as_the_standard_says(index: FakeIndex, patience: Patience, requirement: str) -> None:
    index.add("some-model", NAME, DATA)
    assert find(settings(f"{index.url}/"), patience, requirement).filename == NAME


def test_an_anchor_is_relative_to_the_base_of_its_page(index: FakeIndex, patience: Patience) -> None:
    page = f'<html><head><base href="{index.server.url}/elsewhere/"></head><a href="{NAME}">x</a>'.encode()
    index.server.routes["/simple/some-model/"] = lambda h: h.reply(200, page)
    assert find(settings(index.url), patience).url == f"{index.server.url}/elsewhere/{NAME}"


def test_the_next_index_is_asked_when_one_has_it_not_or_is_down(index: FakeIndex, patience: Patience) -> None:
    index.add("some-model", NAME, DATA)
    with LocalServer().running() as empty:
        assert find(settings(refused_url(), f"{empty.url}/simple", index.url), patience).filename == NAME


@pytest.mark.parametrize("as_url", [True, False])
def test_a_folder_of_find_links_comes_first(index: FakeIndex, patience: Patience, tmp_path: Path, as_url: bool) -> None:
    (tmp_path / NAME).write_bytes(DATA)
    place = tmp_path.as_uri() if as_url else str(tmp_path)
    link = find(settings(index.url, find_links=(place,)), patience)
    assert link.path == tmp_path / NAME
    assert index.server.seen == []


def test_a_folder_can_be_an_index(patience: Patience, tmp_path: Path) -> None:
    (tmp_path / "some-model").mkdir()
    (tmp_path / "some-model" / "index.html").write_text(f'<a href="../w/{NAME}#sha256={DIGEST}">{NAME}</a>')
    link = find(settings(tmp_path.as_uri()), patience)
    assert link.path == tmp_path / "w" / NAME
    assert link.sha256 == DIGEST


def test_a_page_of_find_links_is_read(index: FakeIndex, patience: Patience) -> None:
    index.server.routes["/links"] = lambda h: h.reply(200, f'<a href="/w/{NAME}">x</a>'.encode())
    link = find(settings(find_links=(f"{index.server.url}/links",)), patience)
    assert link.url == f"{index.server.url}/w/{NAME}"


def test_credentials_of_the_index_serve_its_files(index: FakeIndex, patience: Patience) -> None:
    index.credentials = ("user", "p@ss")
    index.add("some-model", NAME, DATA)
    link = find(settings(index.url.replace("//", "//user:p%40ss@")), patience)
    assert link.auth is not None


def test_credentials_come_from_netrc(index: FakeIndex, patience: Patience, tmp_path: Path) -> None:
    index.credentials = ("user", "word")
    index.add("some-model", NAME, DATA)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password word\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert find(settings(index.url), patience).filename == NAME


def test_a_demand_for_credentials_is_told_apart(index: FakeIndex, patience: Patience) -> None:
    index.credentials = ("user", "word")
    index.add("some-model", NAME, DATA)
    with pytest.raises(AccessRefused, match="401"):
        find(settings(index.url), patience)


def test_a_wheel_that_is_nowhere_is_named(index: FakeIndex, patience: Patience) -> None:
    index.add("some-model", NAME, DATA)
    with pytest.raises(DownloadError, match=r"no wheel of some-model==2\.0"):
        find(settings(index.url), patience, "some-model==2.0")


def test_an_index_that_cannot_be_reached_is_named_without_its_password(patience: Patience) -> None:
    url = f"{refused_url()}/simple".replace("//", "//user:secret@")
    with pytest.raises(DownloadError, match=r"cannot connect to 127\.0\.0\.1:\d+") as caught:
        find(settings(url), patience)
    assert "secret" not in str(caught.value)


def test_an_index_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with black_hole() as url, pytest.raises(DownloadError, match="did not answer"):
        find(settings(url), Patience(connect_s=600, answer_s=0.1, stall_s=600))


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"files": [{"url": 1}]}', b'{"files": 3}'])
def test_json_that_is_no_index_page_is_refused(index: FakeIndex, patience: Patience, body: bytes) -> None:
    index.server.routes["/simple/some-model/"] = lambda h: h.reply(200, body, "application/vnd.pypi.simple.v1+json")
    with pytest.raises(DownloadError, match="no page of the simple API"):
        find(settings(index.url), patience)


@pytest.mark.parametrize("source", ["pip", "environment"])
def test_a_proxy_is_used(source: str, patience: Patience, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalServer().running() as proxy:
        page = f'<a href="/w/{NAME}">x</a>'.encode()
        proxy.routes["http://index.invalid/simple/some-model/"] = lambda h: h.reply(200, page)
        if source == "environment":
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
        transport = Transport(proxy=proxy.url if source == "pip" else None)
        index = PipSettings(Pip(sys.executable), ("http://index.invalid/simple",), (), transport)
        with open_client(patience, transport) as client:
            link = find_wheel(client, index, "some-model==1.0", patience)
    assert link.url == f"http://index.invalid/w/{NAME}"


def test_a_certificate_file_that_is_none_is_named(patience: Patience, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(InvalidConfig, match=r"ca\.pem"):
        open_client(patience, Transport(cert=str(tmp_path / "ca.pem")))


@pytest.mark.parametrize("as_json", [True, False])
def test_a_name_that_leaves_the_folder_is_no_wheel(index: FakeIndex, patience: Patience, as_json: bool) -> None:
    name = "some_model-1.0-py3-none-any/../../x.whl"
    index.as_json = as_json
    index.add("some-model", name if as_json else name.replace("/", "%2F"), DATA)
    with pytest.raises(DownloadError, match="no wheel"):
        find(settings(index.url), patience)


@pytest.mark.parametrize("url", ["https://exa mple/simple", "http://user@[::1/simple", "https://host:port/simple"])
def test_an_index_address_that_is_none_is_said(url: str, patience: Patience) -> None:
    with pytest.raises(DownloadError, match="no wheel of some-model"):
        find(settings(url), patience)
