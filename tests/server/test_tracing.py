"""Traces of a live server, as a collector gets them by OTLP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import httpx
import openai
import pytest

from corral.config import ServerConfig
from corral.errors import InvalidConfig
from corral.request import Request, Timings
from corral.server.exchange import Exchange, Generation
from corral.server.tracing.attributes import attributes_of
from corral.server.tracing.setup import check_tracing, endpoint_of, tracer_of
from tests.support.live_server import LiveServer, chat_body, live_server

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from corral.server.tracing.tracer import phases_of
from tests.support.collector import collector

CHAT = "/v1/chat/completions"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER = 2  # kind of a span


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


def ask(server: LiveServer, text: str, path: str = CHAT, **headers: str) -> httpx.Response:
    body = chat_body(text, temperature=0.5, max_tokens=50, top_p=0.9, stop=["zebra"])
    return httpx.post(server.url + path, json=body, headers=headers, timeout=60)


def test_a_span_a_request() -> None:
    with collector() as collected, live_server(otlp_traces_endpoint=collected.url) as server:
        reply = ask(server, "hello secret", traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=b")
        httpx.get(f"{server.url}/health")
        httpx.get(f"{server.url}/v1/models/nope")
        httpx.get(f"{server.url}/nowhere")
        client = openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0)
        client.embeddings.create(model="scripted", input="a b c", encoding_format="float")
        client.close()
    assert set(collected.paths) == {"/v1/traces"}
    [span] = collected.named(f"POST {CHAT}")
    assert (span.trace_id, span.parent_id, span.kind, span.service) == (TRACE, PARENT, SERVER, "corral")
    latency = {name: value for name, value in span.attributes.items() if name.startswith("gen_ai.latency.")}
    assert set(latency) >= {"gen_ai.latency.time_to_first_token", "gen_ai.latency.e2e"}
    assert all(value >= 0 for value in latency.values())
    assert {name: value for name, value in span.attributes.items() if name not in latency} == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "corral",
        "gen_ai.request.id": reply.headers["x-request-id"],
        "gen_ai.request.model": "scripted",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.n": 1,
        "gen_ai.response.id": reply.json()["id"],
        "gen_ai.response.model": "scripted",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.prompt_tokens": 2,
        "gen_ai.usage.completion_tokens": 2,
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    below = collected.below(span)
    assert set(below) >= {"prefill", "decode"}
    assert all(span.start <= each.start <= each.end <= span.end for each in below.values())
    [refused] = collected.named("GET /v1/models/{name:path}")
    assert (refused.attributes["http.response.status_code"], refused.is_error) == (404, False)
    assert refused.attributes["error.type"] == "model_not_found"
    assert refused.trace_id != TRACE
    [embedded] = collected.named("POST /v1/embeddings")
    assert (embedded.attributes["gen_ai.operation.name"], embedded.attributes["gen_ai.usage.input_tokens"]) == (
        "embeddings",
        3,
    )
    [unknown] = collected.named("GET")
    assert "http.route" not in unknown.attributes
    assert "/health" not in {each.attributes.get("http.route") for each in collected.spans}
    told = json.dumps([each.attributes for each in collected.spans])
    assert "secret" not in told.lower()
    assert "zebra" not in told


def test_what_the_worker_has_measured_is_told() -> None:
    """Of the answer that began first."""
    timings = Timings(queue_s=0.5, prefill_s=0.25)
    early = Generation(Request("r1"), 101.0, 102.0, 104.0, timings=timings)
    late = Generation(Request("r2"), 101.0, 103.0, 105.0, timings=Timings(9.0, 9.0))
    exchange = Exchange(started=100.0, load_s=0.75, generations=[late, early])
    told = attributes_of(exchange, CHAT, "")
    latency = {
        name.removeprefix("gen_ai.latency."): value
        for name, value in told.items()
        if name.startswith("gen_ai.latency.")
    }
    latency.pop("e2e")
    assert latency == {
        "time_to_first_token": 2.0,
        "time_in_queue": 0.5,
        "time_in_model_prefill": 0.25,
        "time_in_model_decode": 2.0,
        "time_in_model_inference": 2.25,
    }
    exchange.generations.remove(late)
    assert list(phases_of(exchange)) == [
        ("load", 100.25, 101.0),
        ("queue", 101.0, 101.75),
        ("prefill", 101.75, 102.0),
        ("decode", 102.0, 104.0),
    ]


def test_faults_and_replays_are_told() -> None:
    with collector() as collected, live_server(otlp_traces_endpoint=f"{collected.url}/v1/traces") as server:
        ask(server, "crash")
        ask(server, "die")
    crash, die = collected.named(f"POST {CHAT}")
    assert (crash.is_error, crash.attributes["error.type"]) == (True, "internal_error")
    assert (die.is_error, die.attributes["error.type"]) == (False, "poisonous_request")
    assert die.events == ["replay"] * die.attributes["corral.replays"]


def test_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "chats")
        with live_server() as server:
            ask(server, "hello")
    assert [span.service for span in collected.named(f"POST {CHAT}")] == ["chats"]
    assert {headers["x-team"] for headers in collected.headers} == {"blue"}
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracer_of(ServerConfig()) is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert tracer_of(ServerConfig()) is None


def test_a_collector_that_takes_nothing_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts connections, and never answers."""
    from corral.server.tracing import tracer

    monkeypatch.setattr(tracer, "CLOSE_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with live_server(otlp_traces_endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}") as server:
            assert ask(server, "hello").status_code == 200
            assert ask(server, "hello", traceparent="00-zz-xx", tracestate="x" * 5000).status_code == 200
        silent.accept()[0].close()  # the stop has not waited for an answer


def test_what_is_missing_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if it were not there
    with pytest.raises(InvalidConfig, match=r"pip install 'corral\[otel\]'"):
        check_tracing(ServerConfig(otlp_traces_endpoint="http://localhost:4318"))
    check_tracing(ServerConfig())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318")
    assert tracer_of(ServerConfig()) is None  # set for all programs of a machine
    assert "pip install" in caplog.text


@pytest.mark.parametrize(
    "text", ["localhost:4318", "grpc://localhost:4317", "http://", "http://h:99999999", "", "http://h:0"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="--otlp-traces-endpoint is"):
        endpoint_of(text)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://c.example/", "https://c.example/v1/traces"),
        ("http://c.example/api/otel", "http://c.example/api/otel"),
        ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
    ],
)
def test_the_path_is_otlps_where_none_is_given(given: str, used: str) -> None:
    assert endpoint_of(given) == used


def test_nothing_of_it_is_imported_unless_it_is_asked_for() -> None:
    code = """
import sys
from corral.config import ServerConfig
from corral.server.app import build_app
from corral.server.model_manager import ModelManager
from corral.server.model_names import NamedModels
build_app(ModelManager(NamedModels([])), ServerConfig())
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "google", "requests"))))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"


def test_help_imports_nothing_of_the_servers_log() -> None:
    code = "import sys, corral.cli.main; print([m for m in sys.modules if m.startswith(('corral.server', 'msgspec'))])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"
