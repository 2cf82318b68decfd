"""/metrics and /load of a live server: what each kind of request moves, and that a stuck worker holds up no scrape."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from corral.histogram import Histogram
from corral.server.metrics.books import MAX_KEYS, OTHER_KEYS, Books, cumulated
from corral.server.metrics.collector import ServerCollector
from corral.store.local_model import LocalModel
from tests.support.live_server import LiveServer, chat_body, live_server
from tests.support.metrics import full_books, full_state

CHAT: Final = "/v1/chat/completions"
Sample = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The samples of one scrape, to be asked by name and some of their labels."""

    def __init__(self, text: str) -> None:
        self.samples: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for family in parse(text):
            for sample in family.samples:
                self.samples[sample.name].append((sample.labels, sample.value))

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of those that match; 0 where there are none."""
        return sum(value for has, value in self.samples[name] if labels.items() <= has.items())


def generate(collector: ServerCollector) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry).decode()


def scrape(server: LiveServer) -> Scrape:
    response = httpx.get(f"{server.url}/metrics", timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Scrape(response.text)


def ask(server: LiveServer, path: str = CHAT, **body: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


@pytest.mark.parametrize("stream", [False, True])
def test_what_an_answer_moves(stream: bool) -> None:
    with live_server() as server:
        assert ask(server, **chat_body("one two three", stream=stream, n=2, max_tokens=50)).status_code == 200
        told = scrape(server)
        of = {"model_name": "scripted", "engine": "0"}
        assert told("vllm:prompt_tokens_total", **of) == 3
        assert told("vllm:generation_tokens_total", **of) == 6
        assert told("vllm:request_success_total", finished_reason="stop", **of) == 2
        assert told("vllm:request_success_total", finished_reason="abort", **of) == 0
        for name, value in {
            "vllm:time_to_first_token_seconds": None,
            "vllm:e2e_request_latency_seconds": None,
            "vllm:request_time_per_output_token_seconds": None,
            "vllm:request_decode_time_seconds": None,
            "vllm:request_prompt_tokens": 3,
            "vllm:request_generation_tokens": 6,
            "vllm:request_max_num_generation_tokens": 3,
            "vllm:request_params_max_tokens": 50,
            "vllm:request_params_n": 2,
        }.items():
            assert told(f"{name}_count", **of) == told(f"{name}_bucket", le="+Inf", **of) == 1, name
            assert value is None or told(f"{name}_sum", **of) == value, name
        assert told("corral:model_load_seconds_count", **of) == 1
        assert told("http_requests_total", handler=CHAT, method="POST", status="2xx") == 1
        assert told("http_request_duration_seconds_count", handler=CHAT, method="POST") == 1
        assert told("corral:key_requests_total", key="") == 1
        assert told("corral:key_tokens_total", key="", kind="generated") == 6
        assert told("corral:model_state", model_name="scripted", state="ready") == 1
        assert told("corral:model_memory_bytes", model_name="scripted", kind="resident") > 0
        assert not told.samples["corral:requests_failed_total"]


def test_what_a_refusal_moves() -> None:
    with live_server() as server:
        assert ask(server, **chat_body("hi", model="none")).status_code == 404
        assert ask(server, **chat_body("full")).status_code == 503
        for path in ("/v1/nothing", "/v1/other%0a"):
            assert ask(server, path).status_code == 404
        assert httpx.request("PROPFIND", f"{server.url}{CHAT}").status_code == 405
        told = scrape(server)
        assert told("corral:requests_failed_total", cause="model_not_found") == 1
        assert told("corral:requests_failed_total", cause="queue_full", protocol="openai") == 1
        assert told("corral:requests_failed_total", cause="not_found") == 2
        assert told("http_requests_total", handler="none", method="POST", status="4xx") == 2
        assert told("http_requests_total", method="other") == 1
        assert told("http_requests_total", handler=CHAT, status="5xx") == 1
        assert told("vllm:request_success_total", finished_reason="error") == 1
        assert told("vllm:generation_tokens_total") == 0


def test_a_client_that_goes_is_an_abort() -> None:
    with live_server() as server:
        with httpx.stream("POST", server.url + CHAT, json=chat_body("forever", stream=True), timeout=60) as response:
            next(response.iter_lines())
        server.wait_until(lambda stats: stats.num_requests == 0)
        while not (told := scrape(server))("vllm:request_success_total", finished_reason="abort"):
            continue
        assert told("corral:requests_failed_total", cause="client_gone") == 1
        assert told("vllm:e2e_request_latency_seconds_count") == 0


def test_embeddings_count_as_prompts() -> None:
    with live_server() as server:
        assert ask(server, "/v1/embeddings", model="scripted", input=["a b c", "d"]).status_code == 200
        told = scrape(server)
        assert told("vllm:prompt_tokens_total") == 4
        assert told("vllm:e2e_request_latency_seconds_count") == 1
        assert told("vllm:request_success_total") == 0


def test_a_stream_that_outlives_its_worker_is_counted_once() -> None:
    with live_server() as server:
        url, body = server.url + CHAT, chat_body("hold", stream=True)
        with httpx.stream("POST", url, json=body, timeout=60) as response:
            lines = response.iter_lines()
            while "held" not in next(lines):
                continue
            before = scrape(server)
            assert (before("vllm:prompt_tokens_total"), before("vllm:generation_tokens_total")) == (1, 1)
            os.kill(server.worker_pid(), signal.SIGKILL)
            server.wait_until(lambda stats: stats.num_requests == 1)
            assert ask(server, **chat_body("release")).status_code == 200
            assert any("RELEASED" in line for line in lines)
        while (told := scrape(server))("vllm:request_success_total", finished_reason="stop") < 2:
            continue
        assert told("vllm:prompt_tokens_total") == told("vllm:request_prompt_tokens_sum") == 2
        assert told("vllm:generation_tokens_total") == told("vllm:request_generation_tokens_sum") == 3
        assert told("vllm:time_to_first_token_seconds_count") == told("vllm:e2e_request_latency_seconds_count") == 2
        assert told("vllm:inter_token_latency_seconds_count") == 1
        assert told("corral:key_tokens_total", kind="generated") == 3
        assert told("corral:worker_deaths_total", kind="killed") == 1
        assert told("corral:request_replays_total") == 1


def test_a_batchs_requests_are_counted_as_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    with live_server() as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=60)
        fields = {"method": "POST", "url": CHAT}
        texts = ("one", "two words", "too long")
        lines = [json.dumps({**fields, "custom_id": text, "body": chat_body(text)}) for text in texts]
        file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        while batch.status != "completed":
            batch = client.batches.retrieve(batch.id)
        told = scrape(server)
        assert told("vllm:prompt_tokens_total") == told("vllm:generation_tokens_total") == 3
        assert told("vllm:request_success_total", finished_reason="stop") == 2
        assert told("vllm:request_success_total", finished_reason="error") == 1
        assert told("corral:key_requests_total") == 3
        assert told("corral:requests_failed_total", cause="context_length_exceeded", protocol="openai") == 1
        assert told("http_requests_total", handler="/v1/batches/{id}") >= 1


def test_a_replay_and_the_death_before_it_are_told() -> None:
    with live_server() as server:
        with httpx.stream("POST", server.url + CHAT, json=chat_body("wait", stream=True), timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            os.kill(server.worker_pid(), signal.SIGKILL)
            server.wait_until(lambda stats: stats.num_requests == 1)
        while not (told := scrape(server))("corral:request_replays_total", model_name="scripted"):
            continue
        assert told("corral:worker_deaths_total", model_name="scripted") == 1
        assert told("corral:model_load_seconds_count", model_name="scripted") == 2


def test_a_stuck_worker_holds_up_no_scrape() -> None:
    with live_server() as server:
        pid = server.worker_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            assert scrape(server)("corral:model_state", state="ready") == 1
            age = scrape(server)("corral:stats_age_seconds", model_name="scripted")
            assert scrape(server)("corral:stats_age_seconds", model_name="scripted") > age
        finally:
            os.kill(pid, signal.SIGCONT)


def test_openmetrics_is_for_those_who_name_it() -> None:
    with live_server() as server:

        def told(accept: str) -> tuple[str, str]:
            response = httpx.get(f"{server.url}/metrics", headers={"Accept": accept})
            return response.headers["content-type"], response.text

        for accept in (
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5",
            "text/plain, APPLICATION/OpenMetrics-Text",
        ):
            media_type, text = told(accept)
            assert media_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
            assert text.endswith("# EOF\n")
            families = list(parse_open(text))  # type: ignore[no-untyped-call]
            names = {sample.name for family in families for sample in family.samples}
            assert "vllm:num_requests_running" in names
            # The first scrape has no HTTP request before it.
            assert names | {name for name in scrape(server).samples if name.startswith("http_request")} == {
                *scrape(server).samples
            }
        for accept in ("", "*/*", "text/plain;version=0.0.4", ";;,,=", "text/html, x/openmetrics-text"):
            media_type, text = told(accept)
            assert media_type == "text/plain; version=0.0.4; charset=utf-8"
            assert "\nvllm:num_requests_running{" in text


def adapters_in_use(server: LiveServer) -> tuple[str, ...]:
    async def ask() -> tuple[str, ...]:
        return server.manager.running()[0].adapters_in_use

    return server.run(ask)


def test_routers_learn_which_adapters_are_in_use() -> None:
    plain = LocalModel("scripted", Path("/models/scripted.gguf"))
    tuned = LocalModel("tuned", plain.path, adapters=(Path("/models/tuned.gguf"),))
    with live_server(plain, tuned) as server:
        body = chat_body("forever", model="tuned", stream=True)
        with httpx.stream("POST", server.url + CHAT, json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            assert adapters_in_use(server) == ("tuned",)
            assert scrape(server)("vllm:prompt_tokens_total", model_name="tuned") == 1
        while adapters_in_use(server):
            continue
    state = full_state()
    models = [replace(state.models[0], adapters_in_use=("a", "b"))]
    told = Scrape(generate(ServerCollector(full_books(), replace(state, models=models))))
    [(labels, value)] = told.samples["vllm:lora_requests_info"]
    assert (labels["max_lora"], labels["running_lora_adapters"], labels["waiting_lora_adapters"]) == ("8", "a,b", "")
    assert value > 1e9


def test_it_asks_for_a_key() -> None:
    with live_server(api_keys=("secret",)) as server:
        for path in ("/metrics", "/load"):
            assert httpx.get(server.url + path).status_code == 401
            assert httpx.get(server.url + path, headers={"Authorization": "Bearer secret"}).status_code == 200


def test_load_is_what_uses_a_model() -> None:
    with live_server() as server:
        assert httpx.get(f"{server.url}/load").json() == {"server_load": 0}
        with httpx.stream("POST", server.url + CHAT, json=chat_body("forever", stream=True), timeout=60) as response:
            lines = response.iter_lines()  # which ends the stream when it is forgotten
            next(lines)
            assert httpx.get(f"{server.url}/load").json() == {"server_load": 1}


def test_keys_beyond_a_number_are_one() -> None:
    books = Books()
    for number in range(MAX_KEYS + 5):
        books.of_key(f"key {number}").requests += 1
    assert len(books.keys) == MAX_KEYS + 1
    assert books.keys[OTHER_KEYS].requests == 5


def test_a_histogram_counts_what_is_not_above_a_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.add(value)
    assert list(cumulated(histogram)) == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]
    assert histogram.total == 14
    other = histogram.copy()
    other.add(1, times=3)
    assert (histogram.num_values, other.num_values) == (5, 8)
