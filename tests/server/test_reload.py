"""SIGHUP: keys, certificates and settings of a running server; and certificates whose files change."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from corral.config import ServerConfig
from corral.server import reload as reload_module
from corral.server.live_settings import LIVE_FIELDS, Given, SettingsSource, change_of
from corral.server.reload import Reload
from corral.server.tls import read_certificates
from tests.support.certificates import Authority
from tests.support.live_server import LiveServer, chat_body, error_of, live_server
from tests.support.scripted_serve import ScriptedServe, scripted_serve


def ask(server: ScriptedServe, key: str = "one", text: str = "hello") -> httpx.Response:
    body = {**chat_body(text), "model": "scripted"}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})


def test_settings_and_keys_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('api-key = "one"\nport = 0\nkeep-alive = "1m"\n')
    file.chmod(0o600)
    with scripted_serve(tmp_path, port=None) as server:
        server.wait_ready()
        assert ask(server).status_code == 200
        file.write_text('api-key = ["two"]\nport = 1\nmax-num-seqs = 3\nkeep-alive = "1m"\nmax-body-size = 1000\n')
        said = server.hang_up()
        assert "(api-key, max-body-size)" in said
        assert "a restart is needed for port, max-num-seqs" in said
        assert error_of(ask(server))["code"] == "invalid_api_key"
        assert ask(server, "two").status_code == 200
        assert ask(server, "two", "x" * 2000).status_code == 413
        limits = httpx.get(f"{server.url}/limits", headers={"X-Api-Key": "two"}).json()["data"]
        assert next(row["value"] for row in limits if row["name"] == "body_bytes") == 1000

        for faulty, words in (("banana = 1", "there is no setting 'banana'"), ("port = [", "is not TOML")):
            file.write_text(faulty)
            said = server.hang_up()
            assert "nothing is reloaded, all stays as it was" in said
            assert words in said
        assert ask(server, "two").status_code == 200
        assert server.end() == 0


def test_a_flag_stays_what_it_is_and_an_open_server_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('api-key = "one"\nmax-body-size = "1M"')
    file.chmod(0o600)
    with scripted_serve(tmp_path, "--host", "0.0.0.0", "--max-body-size", "2M", "--drain-delay", "0") as server:
        server.wait_ready()
        file.write_text("max-body-size = 1000")
        assert "reachable from other machines" in server.hang_up()
        assert error_of(ask(server, "wrong"))["code"] == "invalid_api_key"
        file.write_text('api-key = "one"\nmax-body-size = 1000')
        assert "(nothing is new)" in server.hang_up()
        assert ask(server, text="x" * 2000).status_code == 200


def test_certificates_are_read_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = authority.issue()
    trusting = ssl.create_default_context(cafile=str(authority.path))
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT

    def serial(server: ScriptedServe) -> int:
        url = httpx.URL(server.url)
        with (
            socket.create_connection((url.host, url.port or 0), timeout=30) as raw,
            trusting.wrap_socket(raw, server_hostname=url.host) as sock,
        ):
            return int(str((sock.getpeercert() or {})["serialNumber"]), 16)

    flags = ("--ssl-certfile", str(first.certificate), "--ssl-keyfile", str(first.key))
    with scripted_serve(tmp_path, *flags) as server:
        server.wait_ready()
        assert serial(server) == first.serial
        second = authority.issue()
        assert "the certificate, which ends" in server.hang_up()
        assert serial(server) == second.serial
        second.key.write_text("damaged")
        assert "holds no private key" in server.hang_up()
        assert serial(server) == second.serial
        assert server.end() == 0


def test_whoever_closes_the_terminal_ends_the_server(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with scripted_serve(tmp_path, stderr=slave) as server:
        os.close(slave)
        said = b""
        while b"Corral serves" not in said:
            said += os.read(master, 1 << 16)
        os.close(master)
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(60) == 0


class Watched:
    """A reload over a running server with certificates; what it says."""

    def __init__(self, server: LiveServer, source: SettingsSource | None = None) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()
        certificates = read_certificates(server.config)
        self.reload = Reload(
            server.app, server.server, server.manager, server.sockets, source, certificates, self.said.put_nowait
        )


def test_files_of_certificates_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload_module, "LOOK_S", 0.001)
    authority = Authority(tmp_path)
    pair = authority.issue()
    with live_server(ssl_certfile=str(pair.certificate), ssl_keyfile=str(pair.key)) as server:

        async def check() -> None:
            watched = Watched(server)
            watching = asyncio.ensure_future(watched.reload.watch())
            whole = pair.key.read_text()
            pair.key.write_text("half-written")
            async with asyncio.timeout(30):
                assert "stays as it was" in await watched.said.get()
                pair.key.write_text(whole)
                assert "reloaded the certificate" in await watched.said.get()  # the fault was said once
            watching.cancel()
            await asyncio.wait({watching})
            assert watched.said.empty()

        server.run(check)


def test_what_can_change_at_once_does() -> None:
    """Every field of the table is one, and reaches the settings in force."""
    now = ServerConfig(ssl_certfile="a")
    different: dict[str, Any] = {
        "api_keys": ("k",),
        "ssl_cert_reqs": "optional",
        "lenient": True,
        **dict.fromkeys(("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"), "b"),
    }
    for flag, field in LIVE_FIELDS.items():
        given = ServerConfig(**{"ssl_certfile": "a", field: different.get(field, 7)})
        change = change_of(now, Given(now, {}), Given(given, {flag: "new"}))
        assert (change.config, change.changed, change.waiting) == (given, (flag,), ())


def test_what_cannot_change_waits_for_a_restart() -> None:
    plain = ServerConfig()
    with_tls = Given(ServerConfig(ssl_certfile="a"), {"ssl-certfile": "a", "port": 2})
    change = change_of(plain, Given(plain, {"ssl-certfile": None, "port": 1}), with_tls)
    assert (change.config, change.waiting) == (plain, ("ssl-certfile", "port"))
    open_to_all = ServerConfig(no_auth=True)
    with_key = Given(ServerConfig(no_auth=True, api_keys=("k",)), {"api-key": ("k",)})
    assert change_of(open_to_all, Given(open_to_all, {"api-key": ()}), with_key).waiting == ("api-key",)


def test_new_settings_reach_whom_they_concern() -> None:
    with live_server() as server:
        new = ServerConfig(
            port=0, keep_alive_s=5.0, max_connections=3, head_timeout_s=9.0, max_loaded_models=2, lenient=True
        )
        first = Given(server.config, {})
        watched = Watched(server, SettingsSource(first, lambda: Given(new, {})))
        server.run(watched.reload.reload)
        assert "(keep-alive, max-loaded-models, max-connections, head-timeout, lenient)" in watched.said.get_nowait()
        assert server.app.state.settings.config == new
        assert server.server._connections.limits.max_connections == 3
        assert server.manager._workers.config == new
        [slot] = server.manager._workers.slots
        assert (slot.keep_alive_s, slot.default_keep_alive_s) == (5.0, 5.0)
        strange = {**chat_body("hello"), "banana": 1}
        assert httpx.post(f"{server.base_url}/chat/completions", json=strange).headers["x-corral-ignored"] == "banana"
