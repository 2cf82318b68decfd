from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import corral.server.run
from corral.cli.main import app
from corral.cli.serve import split_keys
from corral.cli.serve_options import Address, parse_address, parse_keep_alive
from corral.config import EngineConfig, ServerConfig
from corral.errors import ModelNotFound
from corral.server.run import Serving
from corral.store.local_model import LocalModel


@dataclass
class Started:
    """What the server would be started with."""

    serving: Serving
    engine: EngineConfig
    server: ServerConfig


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Started]:
    """The servers that would be started; the store is empty, and nothing of Ollama's is set."""
    calls: list[Started] = []

    def serve(*arguments: Any) -> int:
        calls.append(Started(*arguments[:3]))
        return 3

    for name in list(os.environ):
        if name.startswith(("OLLAMA_", "CORRAL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CORRAL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    monkeypatch.setattr(corral.server.run, "serve", serve)
    return calls


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "my-model.gguf").touch()
    return tmp_path / "my-model.gguf"


def test_without_flags_the_defaults_hold(served: list[Started], model: Path) -> None:
    done = CliRunner().invoke(app, ["serve", str(model)])
    assert done.exit_code == 3
    [started] = served
    assert (started.engine, started.server) == (EngineConfig(), ServerConfig())
    local = LocalModel("my-model", model)
    assert started.serving.pinned == (local,)
    assert list(started.serving.names.all()) == [local]
    assert started.serving.names.lookup(str(model)) == local


FLAGS = {
    "--host": "0.0.0.0",
    "--port": "8000",
    "--api-key": "one,two",
    "--served-model-name": "team",
    "--max-model-len": "1000",
    "--max-num-seqs": "7",
    "--max-num-batched-tokens": "64",
    "--max-step-ms": "80.5",
    "--max-queue": "9",
    "--max-queue-per-key": "4",
    "--request-timeout": "10m",
    "--kv-cache-memory": "1G",
    "--kv-cache-dtype": "int8",
    "--kv-idle-release": "5",
    "--threads": "2",
    "--cache-max": "2G",
    "--max-body-size": "1M",
    "--max-connections": "77",
    "--max-connections-per-address": "11",
    "--head-timeout": "3",
    "--body-timeout": "4",
    "--min-body-rate": "5K",
    "--write-timeout": "6",
    "--origins": "https://a.example",
    "--uds": "/x/corral.sock",
    "--uds-mode": "660",
    "--ssl-certfile": "/x/cert.pem",
    "--ssl-keyfile": "/x/key.pem",
    "--ssl-ca-certs": "/x/ca.pem",
    "--ssl-cert-reqs": "optional",
    "--drain-delay": "3",
    "--drain-timeout": "10",
    "--keep-alive": "1h30m",
    "--max-memory": "12G",
    "--max-loaded-models": "3",
    "--load-timeout": "90",
    "--fair-wait": "2.5",
    "--database-url": "sqlite:////tmp/keys.db",
    "--step-timeout": "40",
    "--usage-retention": "90",
    "--log-level": "debug",
    "--log-format": "json",
    "--max-log-len": "80",
    "--otlp-traces-endpoint": "http://localhost:4318",
}
SWITCHES = ("--no-auth", "--no-prefix-caching", "--no-cache", "--lenient", "--no-access-log", "--log-requests")
ALIASES = ("--ctx-size", "--disable-uvicorn-access-log", "--enable-log-requests")
EXPECTED = (
    EngineConfig(
        max_model_len=1000,
        max_num_seqs=7,
        max_num_batched_tokens=64,
        max_step_ms=80.5,
        max_queue=9,
        max_queue_per_key=4,
        kv_cache_bytes=1 << 30,
        kv_cache_dtype="int8",
        kv_idle_release_s=5.0,
        enable_prefix_caching=False,
        num_threads=2,
        cache_weights=False,
        cache_max_bytes=2 << 30,
    ),
    ServerConfig(
        "0.0.0.0",
        8000,
        ("one", "two"),
        no_auth=True,
        origins=("https://a.example",),
        max_body_bytes=1 << 20,
        max_connections=77,
        max_connections_per_address=11,
        head_timeout_s=3.0,
        body_timeout_s=4.0,
        min_body_rate=5 << 10,
        write_timeout_s=6.0,
        uds="/x/corral.sock",
        uds_mode=0o660,
        ssl_certfile="/x/cert.pem",
        ssl_keyfile="/x/key.pem",
        ssl_ca_certs="/x/ca.pem",
        ssl_cert_reqs="optional",
        drain_delay_s=3.0,
        drain_timeout_s=10.0,
        keep_alive_s=5400.0,
        max_memory_bytes=12 << 30,
        max_loaded_models=3,
        max_pending=9,
        max_pending_per_key=4,
        load_timeout_s=90.0,
        fair_wait_s=2.5,
        request_timeout_s=600.0,
        step_timeout_s=40.0,
        log_level="debug",
        log_format="json",
        access_log=False,
        log_requests=True,
        max_log_len=80,
        otlp_traces_endpoint="http://localhost:4318",
        lenient=True,
        usage_retention_days=90,
        database_url="sqlite:////tmp/keys.db",
    ),
)


def check_all_arrived(served: list[Started], model: Path) -> None:
    [started] = served
    assert started.serving.pinned == (LocalModel("team", model),)
    assert (started.engine, started.server) == EXPECTED


def test_every_flag_arrives(served: list[Started], model: Path) -> None:
    arguments = [part for flag in FLAGS.items() for part in flag]
    CliRunner().invoke(app, ["serve", str(model), *arguments, *SWITCHES], catch_exceptions=False)
    check_all_arrived(served, model)


def test_every_flag_has_a_twin_in_the_environment(served: list[Started], model: Path) -> None:
    def twin(flag: str) -> str:
        return "CORRAL_" + flag.removeprefix("--").upper().replace("-", "_")

    environment = {twin(flag): value for flag, value in FLAGS.items()} | {twin(switch): "1" for switch in SWITCHES}
    CliRunner().invoke(app, ["serve", str(model)], env=environment, catch_exceptions=False)
    check_all_arrived(served, model)


def test_the_list_of_flags_is_whole(served: list[Started], model: Path) -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"]).output
    flags = {word.strip(",") for word in shown.split() if word.startswith("--")}
    assert flags == {*FLAGS, *SWITCHES, "--preload", "--pin", "--config", *ALIASES, "--help"}


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ([], ()),
        ([""], ()),
        (["a"], ("a",)),
        (["a", "b"], ("a", "b")),
        (["a,b", "c"], ("a", "b", "c")),
        ([" a , ,b,", "a"], ("a", "b")),
    ],
)
def test_keys_are_separated_by_commas_or_flags(values: list[str], keys: tuple[str, ...]) -> None:
    assert split_keys(values) == keys


OLLAMA = {
    "OLLAMA_HOST": "0.0.0.0:9000",
    "OLLAMA_KEEP_ALIVE": "-1",
    "OLLAMA_MAX_LOADED_MODELS": "2",
    "OLLAMA_MAX_QUEUE": "7",
    "OLLAMA_LOAD_TIMEOUT": "1m",
    "OLLAMA_CONTEXT_LENGTH": "1024",
    "OLLAMA_KV_CACHE_TYPE": "q8_0",
}


def test_ollamas_environment_is_obeyed_and_ours_wins(served: list[Started], model: Path) -> None:
    ours = {"CORRAL_MAX_QUEUE": "8", "CORRAL_PORT": "9001"}
    for environment in (OLLAMA, OLLAMA | ours):
        arguments = ["serve", str(model), "--no-auth"]
        CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False)
    first, second = served
    assert (first.server.host, first.server.port, first.server.keep_alive_s) == ("0.0.0.0", 9000, math.inf)
    assert (first.server.max_loaded_models, first.server.load_timeout_s) == (2, 60.0)
    assert (first.engine.max_queue, first.server.max_pending) == (7, 7)
    assert (first.engine.max_model_len, first.engine.kv_cache_dtype) == (1024, "int8")
    assert (second.engine.max_queue, second.server.port) == (8, 9001)


def test_a_zero_of_ollamas_is_our_default(served: list[Started], model: Path) -> None:
    zeros = {"OLLAMA_MAX_LOADED_MODELS": "0", "OLLAMA_CONTEXT_LENGTH": "0", "OLLAMA_LOAD_TIMEOUT": "0"}
    CliRunner().invoke(app, ["serve", str(model)], env=zeros, catch_exceptions=False)
    assert served[0].server.max_loaded_models is served[0].engine.max_model_len is None
    assert served[0].server.load_timeout_s == math.inf


def test_what_means_nothing_here_is_told_in_one_line(served: list[Started], model: Path) -> None:
    unused = {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_VULKAN": "1", "OLLAMA_FLASH_ATTENTION": "1", "OLLAMA_MODELS": "/none"}
    said = CliRunner().invoke(app, ["serve", str(model)], env=unused, catch_exceptions=False).stderr
    assert len(said.splitlines()) == 2
    assert "OLLAMA_NUM_PARALLEL is not needed" in said
    assert "mean nothing here: OLLAMA_FLASH_ATTENTION, OLLAMA_VULKAN" in said


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", None),
        ("example.org:1234", "example.org", 1234),
        (":1234", "127.0.0.1", 1234),
        ("", "127.0.0.1", None),
        ("http://1.2.3.4", "1.2.3.4", 80),
        ("http://1.2.3.4:99/", "1.2.3.4", 99),
        ("[::1]:1234", "::1", 1234),
        ("[::1]", "::1", None),
        ("::1", "::1", None),
        ("'1.2.3.4'", "1.2.3.4", None),
    ],
)
def test_addresses(text: str, host: str, port: int | None) -> None:
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize("text", ["ftp://a", "a:b", "a:99999", "[::1", "http://a/b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_address(text)


def test_a_port_by_the_nearest_word(served: list[Started], model: Path) -> None:
    serve = ["serve", str(model), "--no-auth"]
    for arguments, port in (
        (["--host", "0.0.0.0:1"], 1),
        (["--host", "0.0.0.0:1", "--port", "2"], 2),
        (["--host", "0.0.0.0"], 3),
        ([], 3),
    ):
        environment = {"CORRAL_PORT": "3", "OLLAMA_HOST": "127.0.0.1:4"}
        CliRunner().invoke(app, [*serve, *arguments], env=environment, catch_exceptions=False)
        assert served[-1].server.port == port


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300.0), ("90", 90.0), ("1.5", 1.5), ("0", 0.0), ("-1", math.inf), ("-5m", math.inf)]
)
def test_keep_alive(text: str, seconds: float) -> None:
    assert parse_keep_alive(text) == seconds


@pytest.mark.parametrize("text", ["soon", "5 minutes", "", "5x"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="for instance 5m"):
        parse_keep_alive(text)


def test_several_models_are_served_under_their_own_names(served: list[Started], tmp_path: Path) -> None:
    paths = [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    for path in paths:
        path.touch()
    CliRunner().invoke(app, ["start", *map(str, paths)], catch_exceptions=False)
    assert [local.name for local in served[0].serving.pinned] == ["one", "two"]


def test_without_a_model_the_store_is_served(served: list[Started], model: Path) -> None:
    CliRunner().invoke(app, ["serve", "--pin", str(model)], catch_exceptions=False)
    serving = served[0].serving
    assert (serving.pinned, serving.preloaded) == ((LocalModel("my-model", model),), ())
    assert [local.name for local in serving.names.all()] == ["my-model"]
    for name in ("nobody", "no body", "", "../x"):
        with pytest.raises(ModelNotFound, match=re.escape(f"model '{name}' not found")):
            serving.names.lookup(name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--served-model-name", "x"], "exactly one MODEL"),
        (["a.gguf", "b.gguf", "--served-model-name", "x"], "exactly one MODEL"),
        (["a.gguf", "--pin", "b.gguf"], "for a server without MODEL"),
        (["--keep-alive", "soon"], "no length of time"),
        (["--host", "https://a"], "needs --ssl-certfile"),
        (["--uds-mode", "060"], "is no mode"),
        (["--ssl-cert-reqs", "3"], "is not one of"),
    ],
)
def test_flags_that_do_not_go_together(served: list[Started], arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["serve", *arguments])
    assert done.exit_code == 2
    assert words in done.output
    assert served == []
