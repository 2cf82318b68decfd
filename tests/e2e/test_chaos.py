"""Forty streams over two real models while their workers are killed thirty times: every answer as if nothing were."""

from __future__ import annotations

import itertools
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.support.models import model_path
from tests.support.serve_process import serving

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

NUM_STREAMS = 40
NUM_KILLS = 30
MAX_TOKENS = 120
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
SCHEMA = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": {"type": "string"}, "minItems": 20}},
    "required": ["names"],
}
KINDS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"seed": 7, "temperature": 1.0},
    {"seed": 8, "temperature": 0.8, "frequency_penalty": 0.5, "n": 2},
    {"temperature": 0, "logprobs": True, "top_logprobs": 2},
    {"seed": 9, "response_format": {"type": "json_schema", "json_schema": {"name": "names", "schema": SCHEMA}}},
]


class Killer:
    """Kills a worker whenever the streams together have got some more chunks."""

    def __init__(self, front: psutil.Process, seed: int) -> None:
        self._front = front
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._left = 100
        self.num_kills = 0
        self.is_on = False

    def got_chunk(self) -> None:
        with self._lock:
            self._left -= 1
            if not self.is_on or self._left > 0 or self.num_kills == NUM_KILLS:
                return
            workers = [child for child in self._front.children() if child.status() != psutil.STATUS_ZOMBIE]
            if workers:
                self._random.choice(workers).send_signal(signal.SIGKILL)
                self.num_kills += 1
                self._left = self._random.randrange(20, 120)


def ask(client: openai.OpenAI, name: str, number: int, on_chunk: Callable[[], None]) -> list[Any]:
    """Texts, finish reasons and log-probabilities of all answers of the stream, and the count of tokens."""
    kind = KINDS[number % len(KINDS)]
    messages: Any = [
        {"role": "user", "content": f"Tell me {number} facts about animals, and count from 1 to {number}."}
    ]
    answers = [["", "", []] for _ in range(kind.get("n", 1))]
    usage = None
    stream = client.chat.completions.create(
        model=name,
        messages=messages,
        max_tokens=MAX_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": "response_format" not in kind},
        **kind,
    )
    with closing(stream):
        for chunk in stream:
            on_chunk()
            usage = chunk.usage or usage
            for choice in chunk.choices:
                answer = answers[choice.index]
                answer[0] += choice.delta.content or ""
                answer[1] = choice.finish_reason or answer[1]
                if choice.logprobs is not None and choice.logprobs.content:
                    answer[2] += [(score.token, score.logprob) for score in choice.logprobs.content]
    assert usage is not None
    return [*answers, usage.completion_tokens, usage.prompt_tokens]


@pytest.fixture(scope="module")
def url_and_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    paths = [str(model_path(name)) for name in MODELS]
    with serving(*paths, folder=tmp_path_factory.mktemp("home")) as server:
        yield server.url(), psutil.Process(server.process.pid)


def test_every_stream_survives_thirty_kills(url_and_front: tuple[str, psutil.Process]) -> None:
    url, front = url_and_front
    names = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
    killer = Killer(front, seed=1)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600) as client:

        def run_all() -> list[list[Any]]:
            with ThreadPoolExecutor(NUM_STREAMS) as pool:
                jobs = [
                    pool.submit(ask, client, names[number % 2], number, killer.got_chunk)
                    for number in range(NUM_STREAMS)
                ]
                return [job.result() for job in jobs]

        undisturbed = run_all()
        killer.is_on = True
        disturbed = run_all()
    assert killer.num_kills == NUM_KILLS
    for before, after in zip(undisturbed, disturbed, strict=True):
        assert after == before


def test_deadly_faults_of_the_core_cost_no_stream(url_and_front: tuple[str, psutil.Process]) -> None:
    """Faults that are laid upon whoever was being computed: all go on, one at a time until they are cleared."""
    url, front = url_and_front
    name = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
    faults = {150: signal.SIGSEGV, 450: signal.SIGABRT}  # after so many chunks
    chunks = itertools.count(1)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600) as client:

        def on_chunk() -> None:
            if (fault := faults.pop(next(chunks), None)) is not None:
                for worker in front.children():  # the one that computes is among them
                    worker.send_signal(fault)

        def run_all(on_chunk: Callable[[], None]) -> list[list[Any]]:
            with ThreadPoolExecutor(8) as pool:
                return list(pool.map(lambda number: ask(client, name, number, on_chunk), range(8)))

        undisturbed = run_all(lambda: None)
        assert run_all(on_chunk) == undisturbed
    assert not faults
