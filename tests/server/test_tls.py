"""HTTPS with real clients: which certificates are taken, which clients are, and how both change in a running server."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from corral.cli.address import is_corral, parse_address
from corral.cli.native_client import NativeClient
from corral.config import ServerConfig
from corral.errors import CorralError, InvalidConfig
from corral.server.tls import client_certificates, read_certificates, signature
from tests.support.certificates import Authority, Pair
from tests.support.live_server import LiveServer, chat_body, live_server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def flags(pair: Pair, **more: Any) -> dict[str, Any]:
    return {"ssl_certfile": str(pair.certificate), "ssl_keyfile": str(pair.key), **more}


def trusting(authority: Authority, client: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


def serial(server: LiveServer, authority: Authority) -> int:
    """Of the certificate that a new connection is shown."""
    with (
        socket.create_connection(server.address, timeout=30) as raw,
        trusting(authority).wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        return int(str((sock.getpeercert() or {})["serialNumber"]), 16)


def test_https_with_the_openai_client(authority: Authority) -> None:
    with live_server(**flags(authority.issue())) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with openai.OpenAI(
            base_url=server.base_url, api_key="none", http_client=openai.DefaultHttpxClient(verify=trusting(authority))
        ) as client:
            stream = client.chat.completions.create(**chat_body("one two", stream=True))
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "ONE TWO"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{server.url}/health")
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http"))


def test_nothing_older_than_tls_1_2_is_spoken(authority: Authority) -> None:
    certificates = read_certificates(ServerConfig(**flags(authority.issue())))
    assert certificates is not None
    assert certificates.context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_clients_have_to_be_vouched_for(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    stranger = Authority(tmp_path / "others", "stranger").issue("client", is_client=True)
    known = authority.issue("client", is_client=True)
    with live_server(**flags(authority.issue(), ssl_ca_certs=str(authority.path))) as server:
        assert httpx.get(f"{server.url}/health", verify=trusting(authority, known)).status_code == 200
        for client in (None, stranger):
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{server.url}/health", verify=trusting(authority, client))


def test_a_server_that_would_like_certificates_takes_clients_without(authority: Authority) -> None:
    settings = flags(authority.issue(), ssl_ca_certs=str(authority.path), ssl_cert_reqs="optional")
    with live_server(**settings) as server:
        assert httpx.get(f"{server.url}/health", verify=trusting(authority)).status_code == 200


@pytest.mark.parametrize(
    ("given", "has_authority", "expected"),
    [(None, False, "none"), (None, True, "required"), ("none", True, "none"), ("optional", True, "optional")],
)
def test_whether_clients_are_asked(given: Any, has_authority: bool, expected: str) -> None:
    assert (
        client_certificates(ServerConfig(ssl_cert_reqs=given, ssl_ca_certs="x" if has_authority else None)) == expected
    )


def test_new_connections_get_the_new_certificate_and_old_ones_go_on(authority: Authority) -> None:
    first = authority.issue()
    with live_server(**flags(first)) as server, httpx.Client(verify=trusting(authority), timeout=60) as client:
        stream = client.stream("POST", f"{server.base_url}/chat/completions", json=chat_body("hold", stream=True))
        with stream as response:
            lines = response.iter_lines()
            while "held" not in next(lines):
                continue
            second = authority.issue()
            certificates = read_certificates(server.config)
            assert certificates is not None
            server.run(lambda: server.server.renew(certificates.context))
            assert serial(server, authority) == second.serial != first.serial
            assert httpx.post(
                f"{server.base_url}/chat/completions", json=chat_body("release"), verify=trusting(authority)
            )
            assert "data: [DONE]" in "".join(lines)
        assert client.get(f"{server.url}/health").status_code == 200


def test_an_authority_that_vouches_no_more_is_gone(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    other = Authority(tmp_path / "others", "other")
    of_first, of_other = authority.issue("client", is_client=True), other.issue("client", is_client=True)
    vouching = tmp_path / "vouching.pem"
    shutil.copy(authority.path, vouching)
    with live_server(**flags(authority.issue(), ssl_ca_certs=str(vouching))) as server:
        known = trusting(authority, of_first)
        assert httpx.get(f"{server.url}/health", verify=known).status_code == 200
        shutil.copy(other.path, vouching)
        certificates = read_certificates(server.config)
        assert certificates is not None
        server.run(lambda: server.server.renew(certificates.context))
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{server.url}/health", verify=known)  # also not by a session that it could resume
        assert httpx.get(f"{server.url}/health", verify=trusting(authority, of_other)).status_code == 200


def test_a_client_that_does_not_shake_hands_is_cut_off(authority: Authority) -> None:
    with live_server(**flags(authority.issue()), head_timeout_s=0.2) as server:
        with socket.create_connection(server.address, timeout=30) as silent:
            assert silent.recv(1) == b""
        assert serial(server, authority)


def broken(change: Callable[[Pair, Authority], dict[str, Any]]) -> Callable[[Authority], dict[str, Any]]:
    return lambda authority: change(authority.issue(), authority)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            broken(lambda pair, _: flags(pair, ssl_certfile="/nowhere/cert.pem")),
            r"--ssl-certfile /nowhere/cert.pem cannot",
        ),
        (broken(lambda pair, _: flags(pair, ssl_keyfile="/no/file")), "--ssl-keyfile /no/file cannot be read"),
        (broken(lambda pair, _: flags(pair, ssl_keyfile=None)), "holds no private key in PEM form"),
        (broken(lambda pair, _: flags(pair, ssl_certfile=str(pair.key))), "holds no certificate in PEM form"),
        (broken(lambda pair, a: flags(pair, ssl_keyfile=str(a.issue("other").key))), "is not that of certificate"),
        (broken(lambda _, a: flags(a.issue(password=b"x"))), "is encrypted"),
        (broken(lambda _, a: flags(a.issue(ends=timedelta(hours=-1)))), "certificate has expired"),
        (broken(lambda _, a: flags(a.issue(starts=timedelta(hours=1)))), "certificate is not yet valid"),
        (broken(lambda _, a: flags(a.issue(is_client=True))), "of no use to clients: .*purpose"),
        (broken(lambda pair, _: flags(pair, ssl_ca_certs=str(pair.key))), "--ssl-ca-certs .* holds no certificate"),
        (broken(lambda pair, _: flags(pair, ssl_cert_reqs="required")), "needs --ssl-ca-certs"),
        (broken(lambda pair, _: {"ssl_keyfile": str(pair.key)}), "means nothing without --ssl-certfile"),
        (broken(lambda pair, _: {"ssl_cert_reqs": "none"}), "--ssl-cert-reqs means nothing"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(authority: Authority, make: Any, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        read_certificates(ServerConfig(**make(authority)))


def test_damaged_files_are_refused(authority: Authority) -> None:
    pair = authority.issue()
    for path in (pair.certificate, pair.key):
        whole = path.read_text()
        path.write_text(whole.replace("M", "N", 3))
        with pytest.raises(InvalidConfig, match=r"cannot be used|no use"):
            read_certificates(ServerConfig(**flags(pair)))
        path.write_text(whole)
    assert read_certificates(ServerConfig(**flags(pair))) is not None


def test_one_file_may_hold_both_and_the_chain(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue()
    both = tmp_path / "both.pem"
    both.write_text("".join(path.read_text() for path in (pair.key, pair.certificate, authority.path)))
    certificates = read_certificates(ServerConfig(ssl_certfile=str(both)))
    assert certificates is not None
    assert certificates.ends.endswith("GMT")


def test_files_that_change_are_noticed(authority: Authority, tmp_path: Path) -> None:
    """A mounted secret is a link to a folder that is replaced as a whole."""
    config = ServerConfig(**flags(authority.issue()))
    before = signature(config)
    assert signature(config) == before
    authority.issue()
    after = signature(config)
    assert after != before
    link = tmp_path / "link.pem"
    link.symlink_to(authority.issue("a").certificate)
    linked = ServerConfig(ssl_certfile=str(link))
    before = signature(linked)
    link.unlink()
    link.symlink_to(authority.issue("b").certificate)
    assert signature(linked) != before
    link.unlink()
    assert signature(linked) != before


def test_the_command_line_trusts_whom_it_is_told_to(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with live_server(**flags(authority.issue())) as server:
        address = parse_address(server.url.replace("127.0.0.1", "localhost"))
        with pytest.raises(CorralError, match=r"certificate of https://localhost:\d+ is not trusted: .*SSL_CERT_FILE"):
            is_corral(address)
        with pytest.raises(CorralError, match="is not trusted"):
            NativeClient(address).call("GET", "/api/version")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
        assert is_corral(address)
        assert "version" in NativeClient(address).call("GET", "/api/version")


def test_other_authorities_stay_beside_those_of_the_environment(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "others").mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Authority(tmp_path / "others", "another").path))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    with live_server(**flags(authority.issue())) as server:
        assert is_corral(parse_address(server.url.replace("127.0.0.1", "localhost")))
