"""The books and the state of the models as Prometheus' families of samples: vLLM's names, and Corral's own beside them.

vLLM's mean what they mean there, so that its dashboards, autoscalers and routers read them. Made anew for each scrape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from corral import __version__
from corral.config import BLOCK_SIZE
from corral.histogram import Histogram
from corral.server.metrics.books import Books, ModelBook, cumulated
from corral.server.metrics.state import ServerState
from corral.server.served_model import RunningModel
from corral.worker.death import DeathKind

# Told from the start, since to Prometheus a counter that was not there has not risen.
_DEATHS = [kind.value for kind in DeathKind if kind is not DeathKind.CLOSED]
ENGINE = "0"  # vLLM's label for one of several engines; a model has one here

# name, meaning, histogram of a model's book
_BY_REQUEST = (
    ("vllm:time_to_first_token_seconds", "From a request's first byte to its first token.", "first_token_s"),
    ("vllm:inter_token_latency_seconds", "Between outputs of a stream.", "gap_s"),
    ("vllm:time_per_output_token_seconds", "The same, by the name that older dashboards ask for.", "gap_s"),
    ("vllm:request_time_per_output_token_seconds", "Mean of each answer's tokens but the first.", "token_s"),
    ("vllm:e2e_request_latency_seconds", "From a request's first byte to its answer's last.", "latency_s"),
    ("vllm:request_queue_time_seconds", "Wait for a turn in the engine.", "queue_s"),
    ("vllm:request_prefill_time_seconds", "From the turn to the first token.", "prefill_s"),
    ("vllm:request_decode_time_seconds", "From the first token to the last.", "decode_s"),
    ("vllm:request_inference_time_seconds", "From the turn to the last token.", "inference_s"),
    ("vllm:request_prompt_tokens", "Tokens of prompts.", "request_prompt_tokens"),
    ("vllm:request_prefill_kv_computed_tokens", "Tokens of prompts but the cached ones.", "computed_prompt_tokens"),
    ("vllm:request_generation_tokens", "Tokens of answers.", "request_generated_tokens"),
    ("vllm:request_max_num_generation_tokens", "Tokens of a request's longest answer.", "max_generated_tokens"),
    ("vllm:request_params_max_tokens", "max_tokens, where requests give it.", "asked_max_tokens"),
    ("vllm:request_params_n", "Answers that requests ask for.", "num_answers"),
    ("corral:model_load_seconds", "Loads of the model.", "load_s"),
)


class ServerCollector(Collector):
    """Everything but the process's own figures, which the library has."""

    def __init__(self, books: Books, state: ServerState) -> None:
        self._books = books
        self._state = state

    def describe(self) -> list[Metric]:
        """Nothing: names are looked at by tests alone."""
        return []

    def collect(self) -> Iterator[Metric]:
        state = self._state
        yield from _of_server(state)
        yield from _of_engines(state)
        yield from self._of_requests()
        yield from self._of_http()
        yield from self._of_keys()

    def _of_requests(self) -> Iterator[Metric]:
        books = list(self._books.models.items())
        yield _counter("vllm:prompt_tokens", "Tokens of prompts.", books, lambda b: b.prompt_tokens)
        yield _counter("vllm:prompt_tokens_cached", "Of these, found in the cache.", books, lambda b: b.cached_tokens)
        yield _counter("vllm:generation_tokens", "Tokens of answers.", books, lambda b: b.generated_tokens)
        yield _counter("vllm:prefix_cache_queries", "Tokens looked for in the cache.", books, lambda b: b.prompt_tokens)
        yield _counter("vllm:prefix_cache_hits", "Tokens found in the cache.", books, lambda b: b.cached_tokens)
        yield _counter(
            "corral:request_replays", "Requests that went on in another worker.", books, lambda b: b.num_replays
        )
        sources = CounterMetricFamily(
            "vllm:prompt_tokens_by_source",
            "Tokens of prompts, by where their KV is from.",
            labels=["model_name", "engine", "source"],
        )
        for name, book in books:
            sources.add_metric([name, ENGINE, "local_compute"], book.prompt_tokens - book.cached_tokens)
            sources.add_metric([name, ENGINE, "local_cache_hit"], book.cached_tokens)
        yield sources
        ends = CounterMetricFamily(
            "vllm:request_success", "Answers by why they ended.", labels=["model_name", "engine", "finished_reason"]
        )
        deaths = CounterMetricFamily("corral:worker_deaths", "Workers that died.", labels=["model_name", "kind"])
        for name, book in books:
            for reason in sorted({"abort", "error", "length", "stop", *book.ends}):
                ends.add_metric([name, ENGINE, reason], book.ends[reason])
            for kind in sorted({*_DEATHS, *book.deaths}):
                deaths.add_metric([name, kind], book.deaths[kind])
        yield ends
        yield deaths
        for metric, meaning, attribute in _BY_REQUEST:
            yield _histogram(metric, meaning, [(name, getattr(book, attribute)) for name, book in books])

    def _of_http(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("http_requests", "HTTP requests.", labels=["handler", "method", "status"])
        for (route, method, status), count in sorted(self._books.requests.items()):
            requests.add_metric([route, method, status], count)
        durations = HistogramMetricFamily(
            "http_request_duration_seconds", "Until the answer's last byte.", labels=["handler", "method"]
        )
        for (route, method), histogram in sorted(self._books.durations.items()):
            durations.add_metric([route, method], buckets=list(cumulated(histogram)), sum_value=histogram.total)
        refusals = CounterMetricFamily(
            "corral:requests_failed", "Requests that were refused or broke off.", labels=["cause", "protocol"]
        )
        for (cause, protocol), count in sorted(self._books.refusals.items()):
            refusals.add_metric([cause, protocol], count)
        yield requests
        yield durations
        yield refusals

    def _of_keys(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("corral:key_requests", "Requests that used a model.", labels=["key"])
        tokens = CounterMetricFamily("corral:key_tokens", "Tokens; cached ones are prompt's.", labels=["key", "kind"])
        for name, book in sorted(self._books.keys.items()):
            requests.add_metric([name], book.requests)
            for kind in ("prompt", "cached", "generated"):
                tokens.add_metric([name, kind], getattr(book, f"{kind}_tokens"))
        yield requests
        yield tokens


def _counter(
    name: str, meaning: str, books: Sequence[tuple[str, ModelBook]], value: Callable[[ModelBook], int]
) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=["model_name", "engine"])
    for model, book in books:
        family.add_metric([model, ENGINE], value(book))
    return family


def _histogram(name: str, meaning: str, of_models: Sequence[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=["model_name", "engine"])
    for model, histogram in of_models:
        family.add_metric([model, ENGINE], buckets=list(cumulated(histogram)), sum_value=histogram.total)
    return family


def _gauge(name: str, meaning: str, samples: Sequence[tuple[Sequence[str], float]], labels: Sequence[str]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _of_server(state: ServerState) -> Iterator[Metric]:
    yield _gauge("corral:build_info", "Always 1.", [([__version__], 1.0)], ["version"])
    yield _gauge("corral:requests_in_flight", "HTTP requests but probes.", [([], state.num_in_flight)], [])
    yield _gauge("corral:requests_pending", "Requests that wait for a model.", [([], state.num_pending)], [])
    yield _gauge("corral:connections", "Open connections.", [([], state.num_connections)], [])
    yield _gauge("corral:draining", "1 from SIGTERM on.", [([], float(state.is_draining))], [])
    yield _gauge("corral:loading", "1 until the first models are loaded.", [([], float(state.is_loading))], [])


def _of_engines(state: ServerState) -> Iterator[Metric]:
    ready = [model for model in state.models if model.state == "ready"]

    def gauge(name: str, meaning: str, value: Callable[[RunningModel], float]) -> Metric:
        samples = [([model.local.name, ENGINE], float(value(model))) for model in ready]
        return _gauge(name, meaning, samples, ["model_name", "engine"])

    def counter(name: str, meaning: str, value: Callable[[RunningModel], float]) -> Metric:
        """Of the model's worker: it begins anew with the next one."""
        family = CounterMetricFamily(name, meaning, labels=["model_name", "engine"])
        for model in ready:
            family.add_metric([model.local.name, ENGINE], float(value(model)))
        return family

    yield gauge("vllm:num_requests_running", "Sequences that are computed.", lambda m: m.stats.num_running)
    yield gauge("vllm:num_requests_waiting", "Sequences that wait for their turn.", lambda m: m.stats.num_waiting)
    yield _gauge(
        "vllm:num_requests_waiting_by_reason",
        "The same by what they wait for: here, it is always a place or blocks.",
        [
            ([m.local.name, ENGINE, reason], count)
            for m in ready
            for reason, count in (("capacity", m.stats.num_waiting), ("deferred", 0))
        ],
        ["model_name", "engine", "reason"],
    )
    yield gauge(
        "vllm:kv_cache_usage_perc",
        "Share of the KV blocks that requests hold, from 0 to 1.",
        lambda m: m.stats.num_used_blocks / max(1, m.stats.num_blocks),
    )
    yield _gauge(
        "vllm:cache_config_info",
        "Always 1; num_gpu_blocks is what routers read: here, blocks in memory.",
        [([m.local.name, ENGINE, str(BLOCK_SIZE), str(m.stats.num_blocks)], 1.0) for m in ready],
        ["model_name", "engine", "block_size", "num_gpu_blocks"],
    )
    yield counter("vllm:num_preemptions", "Sequences that gave up their blocks.", lambda m: m.stats.num_preemptions)
    yield _histogram(
        "vllm:iteration_tokens_total", "Tokens of a step.", [(m.local.name, m.stats.step_tokens) for m in ready]
    )
    yield _histogram("corral:step_seconds", "Steps.", [(m.local.name, m.stats.step_seconds) for m in ready])
    yield counter("corral:decode_steps", "Steps without a prompt's tokens.", lambda m: m.stats.num_decode_steps)
    yield counter("corral:decode_step_seconds", "That these took.", lambda m: m.stats.decode_s)
    yield gauge("corral:weights_bytes", "Packed weights.", lambda m: m.weights_bytes)
    yield gauge("corral:step_weights_bytes", "Of these, what every step reads.", lambda m: m.info.step_bytes)
    yield gauge(
        "corral:cached_blocks", "KV blocks with prefixes that can be shared.", lambda m: m.stats.num_cached_blocks
    )
    yield counter("corral:cache_evictions", "Of these, given to others.", lambda m: m.stats.num_evictions)
    yield gauge("corral:stats_age_seconds", "Since the worker has told its figures.", lambda m: m.stats_age_s)
    yield gauge("corral:quarantined_requests", "Refused, as they have ended workers.", lambda m: m.num_quarantined)
    yield gauge("corral:adapters", "LoRA adapters in memory.", lambda m: m.stats.num_adapters)
    yield from _of_adapters(ready, state.adapter_max_bytes)
    yield from _of_limit(ready)
    yield from _of_memory(state.models)


def _of_adapters(ready: Sequence[RunningModel], max_bytes: int) -> Iterator[Metric]:
    """What routers read to send a request where its adapter is. They take the newest of several by its value."""
    now = time.time()
    samples = [
        (
            [
                m.local.name,
                ENGINE,
                str(max_bytes * m.stats.num_adapters // max(1, m.stats.adapter_bytes)),
                ",".join(m.adapters_in_use),
                "",
            ],
            now,
        )
        for m in ready
        if m.stats.num_adapters
    ]
    yield _gauge(
        "vllm:lora_requests_info",
        "Seconds since 1970; the labels tell which models with LoRA adapters are in use, and how many have room.",
        samples,
        ["model_name", "engine", "max_lora", "running_lora_adapters", "waiting_lora_adapters"],
    )


def _of_limit(ready: Sequence[RunningModel]) -> Iterator[Metric]:
    """Not there before it is measured, which is in a worker's first idle moment."""
    measured = [model for model in ready if model.stats.read_bandwidth]
    labels = ["model_name", "engine"]
    yield _gauge(
        "corral:read_bandwidth_bytes_per_second",
        "At which this machine reads the weights.",
        [([m.local.name, ENGINE], m.stats.read_bandwidth) for m in measured],
        labels,
    )
    shares = [
        (m, m.info.step_bytes * m.stats.num_decode_steps / m.stats.decode_s / m.stats.read_bandwidth)
        for m in measured
        if m.stats.decode_s
    ]
    yield _gauge(
        "corral:decode_limit_share",
        "Of the read bandwidth, what decode steps have come to: 1 is as fast as memory allows.",
        [([m.local.name, ENGINE], share) for m, share in shares],
        labels,
    )


def _of_memory(models: Sequence[RunningModel]) -> Iterator[Metric]:
    memory = GaugeMetricFamily("corral:model_memory_bytes", "Measured.", labels=["model_name", "kind"])
    states = GaugeMetricFamily("corral:model_state", "1 for the state it is in.", labels=["model_name", "state"])
    for model in models:
        name = model.local.name
        memory.add_metric([name, "resident"], model.memory_bytes)
        memory.add_metric([name, "private"], model.private_bytes)
        memory.add_metric([name, "kv_used"], model.kv_used_bytes)
        memory.add_metric([name, "kv_limit"], model.kv_limit_bytes)
        memory.add_metric([name, "adapters"], model.stats.adapter_bytes)
        for state in ("loading", "ready", "stopping"):
            states.add_metric([name, state], float(model.state == state))
    yield memory
    yield states
