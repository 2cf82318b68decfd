"""Hours of mixed traffic on one `corral serve`: do its memory, its descriptors or its latency grow?

    python -m benchmarks.soak --model FILE [--minutes 60] [--rate 1.0]

Clients ask at random moments, --rate requests a second in all: chats (some with a schema, two answers, or a long shared
prompt), completions, embeddings, counts, stored responses, streams that are left half-way, requests that are refused.
Beside them one question is always the same; how long its first token and its answer take is the latency. Writes
benchmarks/results/<machine>-soak-<model>-<date>.json and .md after every minute.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from benchmarks import machine
from benchmarks.harness import RESULTS, say, unwind_on_sigterm, write_result

from corral import _native
from corral.compare.engines.corral import Corral
from corral.compare.engines.engine import HOST, Launch
from corral.compare.process import Server, free_port

MODEL_NAME = "bench"  # what clients call the model
SAMPLE_S = 10.0
WARM_UP = 1 / 6  # share of the run before growth counts: caches fill, threads and pools come to be
SHARED = "You are a patient teacher. " * 40
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}, "required": ["name"]}
QUESTION = [{"role": "user", "content": "Count to nine."}]
PROBE = {"temperature": 0, "max_tokens": 16, "stream": True, "messages": QUESTION}
FIGURES = ("front_mib", "worker_mib", "kv_mib", "front_fds", "worker_fds", "threads", "first_token_ms", "answer_ms")


@dataclass(slots=True)
class Sample:
    """At one moment.

    Memory is what a process has for itself (USS); the worker's without its KV cache, which keeps prefixes and so fills
    by and by, up to its limit: that is `kv_mib`.
    """

    at_s: float
    load: float
    front_mib: float
    worker_mib: float
    kv_mib: float
    front_fds: int
    worker_fds: int
    threads: int
    first_token_ms: float
    answer_ms: float


@dataclass
class Soak:
    """The run as it is written down."""

    model: str
    date: str
    minutes: float
    rate: float
    card: dict[str, str]
    command: str
    samples: list[Sample] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)


class Traffic:
    """Asks the server everything, at random."""

    def __init__(self, url: str, seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._client = httpx.Client(base_url=url, timeout=120, trust_env=False)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._last_response = ""
        self._kinds = {
            self._chat: 6,
            self._abandoned: 2,
            self._completion: 2,
            self._embedding: 1,
            self._tokens: 1,
            self._response: 1,
            self._refused: 1,
        }

    def next_ask(self) -> Any:
        """One of the kinds, with a number of its own."""
        [kind] = self._random.choices(list(self._kinds), list(self._kinds.values()))
        number = self._random.randrange(1 << 30)
        return lambda: self._count(kind, number)

    def _count(self, kind: Any, number: int) -> None:
        try:
            outcome = str(kind(number))
        except httpx.HTTPError as error:
            outcome = type(error).__name__
        with self._lock:
            self.outcomes[f"{kind.__name__.strip('_')} {outcome}"] += 1

    def _post(self, path: str, **body: Any) -> int:
        return self._client.post(path, json={"model": MODEL_NAME, **body}).status_code

    def _chat(self, number: int) -> int:
        extra: dict[str, Any] = {}
        if number % 4 == 1:
            extra["response_format"] = {"type": "json_schema", "json_schema": {"name": "name", "schema": SCHEMA}}
        if number % 7 == 1:
            extra["n"] = 2
        messages = [{"role": "system", "content": SHARED}] if number % 3 == 0 else []
        messages.append({"role": "user", "content": f"Tell me about the number {number}."})
        return self._post("/v1/chat/completions", messages=messages, max_tokens=16 + number % 64, **extra)

    def _abandoned(self, number: int) -> str:
        body = {"model": MODEL_NAME, "prompt": f"{number} is", "stream": True, "ignore_eos": True, "max_tokens": 500}
        with self._client.stream("POST", "/v1/completions", json=body) as response:
            for count, _ in enumerate(response.iter_lines()):
                if count > number % 20:
                    break
        return "left"

    def _completion(self, number: int) -> int:
        return self._post("/api/generate", prompt=f"Why is {number} so?", stream=False, options={"num_predict": 24})

    def _embedding(self, number: int) -> int:
        return self._post("/v1/embeddings", input=[f"text {number}", "another"])

    def _tokens(self, number: int) -> int:
        return self._post("/tokenize", prompt=f"{number} " * 50)

    def _response(self, number: int) -> int:
        previous = {"previous_response_id": self._last_response} if self._last_response and number % 8 else {}
        body = {"model": MODEL_NAME, "input": f"Say {number}.", "max_output_tokens": 8, **previous}
        reply = self._client.post("/v1/responses", json=body)
        self._last_response = reply.json().get("id", "") if reply.is_success else ""
        return reply.status_code

    def _refused(self, number: int) -> int:
        return self._post("/v1/chat/completions", messages=[], temperature=-number)


def sample(url: str, front: psutil.Process, started: float) -> Sample:
    workers = front.children(recursive=True)
    kv_mib = _kv_bytes(url) / 2**20
    sent = time.perf_counter()
    first = 0.0
    body = {"model": MODEL_NAME, **PROBE}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not first and '"content":"' in line and '"content":""' not in line:
                first = time.perf_counter()
    ended = time.perf_counter()
    return Sample(
        at_s=round(time.monotonic() - started, 1),
        load=os.getloadavg()[0],
        front_mib=front.memory_full_info().uss / 2**20,
        worker_mib=sum(process.memory_full_info().uss for process in workers) / 2**20 - kv_mib,
        kv_mib=kv_mib,
        front_fds=front.num_fds(),
        worker_fds=sum(process.num_fds() for process in workers),
        threads=front.num_threads() + sum(process.num_threads() for process in workers),
        first_token_ms=1000 * (first - sent),
        answer_ms=1000 * (ended - sent),
    )


def _kv_bytes(url: str) -> float:
    """What the KV cache has in memory, as /metrics tells it."""
    text = httpx.get(f"{url}/metrics", timeout=120, trust_env=False).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if 'kind="kv_used"' in line)


def page(soak: Soak) -> str:
    """Medians of the first and the last third after the warm-up, and their difference."""
    last_at = soak.samples[-1].at_s
    kept = [one for one in soak.samples if one.at_s >= WARM_UP * last_at] or soak.samples
    third = max(1, len(kept) // 3)
    lines = [
        f"# Soak: {soak.model}, {last_at / 60:.0f} of {soak.minutes:g} minutes",
        "",
        f"{soak.date}, `{soak.command}`, {soak.rate:g} requests a second at random moments.",
        "",
        "| figure | first third | last third | change | lowest - highest |",
        "|---|---|---|---|---|",
    ]
    for name in ("load", *FIGURES):
        values = [getattr(one, name) for one in kept]
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        change = f"{100 * (last / first - 1):+.1f} %" if first else "-"
        lines.append(f"| {name} | {first:.1f} | {last:.1f} | {change} | {min(values):.1f} - {max(values):.1f} |")
    lines += ["", f"Medians, without the first {WARM_UP:.0%} of the run; {len(kept)} samples. Answers by kind:", ""]
    lines += [f"- {kind}: {count}" for kind, count in sorted(soak.outcomes.items())]
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in soak.card.items())]
    return "\n".join(lines) + "\n"


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[Server]:
    """`corral serve` by this interpreter, ready, settings as they come; its home and its log are in `folder`."""
    port = free_port()
    command = (sys.executable, "-m", "corral", "serve", str(model), "--host", HOST, "--port", str(port))
    launch = Launch((*command, "--served-model-name", MODEL_NAME), {"CORRAL_HOME": str(folder)})
    server = Server(launch, port, folder / "log")
    try:
        server.start()
        asyncio.run(wait_ready(server))
        yield server
    finally:
        asyncio.run(server.stop())


async def wait_ready(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        await server.wait_ready(Corral(), client)


def run(options: argparse.Namespace) -> None:
    now = datetime.datetime.now(datetime.UTC)
    soak = Soak(
        model=options.model.name,
        date=now.strftime("%Y-%m-%d %H:%M UTC"),
        minutes=options.minutes,
        rate=options.rate,
        card=machine.machine_card(int(_native.cpu_info()["num_cpus"])),
        command="corral serve MODEL",
    )
    stem = f"soak-{options.model.stem.lower()}-{now:%Y-%m-%d}"
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(options.model.resolve(), Path(folder)) as server,
        ThreadPoolExecutor(32) as pool,
    ):
        front = psutil.Process(server.pid)
        traffic = Traffic(server.url, seed=1)
        arrivals = random.Random(2)
        started = time.monotonic()
        next_ask = next_sample = started
        while (at := time.monotonic()) < started + 60 * options.minutes:
            if at >= next_ask:
                pool.submit(traffic.next_ask())
                next_ask += arrivals.expovariate(options.rate)
            if at >= next_sample:
                soak.samples.append(sample(server.url, front, started))
                soak.outcomes = dict(traffic.outcomes)
                next_sample = max(next_sample + SAMPLE_S, time.monotonic())
                if len(soak.samples) % 6 == 0:
                    write_result(options.output, stem, soak, page(soak))
                    say(f"{(at - started) / 60:.0f} of {options.minutes:g} minutes: {soak.samples[-1]}")
            time.sleep(max(0.0, min(next_ask, next_sample) - time.monotonic()))
    write_result(options.output, stem, soak, page(soak))
    print(page(soak))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second (1)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    if not options.model.is_file():
        parser.error(f"--model {options.model} is not a file")
    unwind_on_sigterm()
    run(options)


if __name__ == "__main__":
    main()
