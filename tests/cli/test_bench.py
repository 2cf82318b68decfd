from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from click.testing import CliRunner

from corral.cli.bench import bench
from corral.compare.engines.simulated_server import Behaviour, SimulatedServer
from corral.errors import CorralError
from tests.cli.conftest import environment
from tests.support.simulated_engine import QUICK, simulated_in_thread

Corral = Callable[..., CompletedProcess[bytes]]

# Of a file that `vllm bench serve --save-result` writes.
VLLM_KEYS = {
    *("date", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness"),
    *("max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *(f"{kind}_{name}_ms" for kind in ("mean", "median", "std", "p99") for name in ("ttft", "tpot", "itl", "e2el")),
}


@pytest.fixture
def server() -> Iterator[tuple[SimulatedServer, str]]:
    simulated = SimulatedServer(QUICK)
    with simulated_in_thread(simulated) as url:
        yield simulated, url


def test_a_table_for_people_and_a_file_in_the_keys_of_vllm(
    corral: Corral, server: tuple[SimulatedServer, str], tmp_path: Path
) -> None:
    simulated, url = server
    path = tmp_path / "result.json"
    flags = ("--num-prompts", "6", "--concurrency", "2", "--output-len", "8", "--slo", "ttft=60s", "--ignore-eos")
    keys = ("--api-key", "secret", "--header", "X-Team: a", "--save-detailed")
    done = corral("bench", url, *flags, *keys, "--save-result", str(path))
    assert done.returncode == 0, done.stderr
    table = done.stdout.decode()
    for words in (
        "simulated",
        "6 requests, 2 at a time",
        "6, 0 failed",
        "First token (TTFT)",
        "100 % within ttft=60000ms",
    ):
        assert words in table
    assert "the server's usage" in table  # it says who counted
    result = json.loads(path.read_text())
    assert result.keys() >= VLLM_KEYS
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (6, 0, 48)
    assert [len(gaps) for gaps in result["itls"]] == [7] * 6
    assert len(simulated.served) == 7  # one is the warm-up
    assert {served.headers["authorization"] for served in simulated.served} == {"Bearer secret"}
    assert {served.headers["x-team"] for served in simulated.served} == {"a"}
    assert all(served.body["ignore_eos"] is True for served in simulated.served)
    prompts = [served.body["messages"][0]["content"] for served in simulated.served]
    assert len({prompt[:30] for prompt in prompts}) == 7


def test_whole_answers_of_completions_as_json(corral: Corral, server: tuple[SimulatedServer, str]) -> None:
    simulated, url = server
    flags = ("--num-prompts", "3", "--no-stream", "--endpoint", "completions", "--request-rate", "inf", "--json")
    done = corral("bench", url, *flags, "--model", "mine", "--warmup", "0", env={"OPENAI_API_KEY": "k"})
    result = json.loads(done.stdout)
    assert (result["completed"], result["model_id"], result["request_rate"]) == (3, "mine", "inf")
    assert "mean_e2el_ms" in result
    assert "mean_ttft_ms" not in result
    assert [served.body["stream"] for served in simulated.served] == [False] * 3
    assert simulated.served[0].headers["authorization"] == "Bearer k"


def test_failures_are_told_and_answers_that_ended_early_too(corral: Corral) -> None:
    with simulated_in_thread(SimulatedServer(Behaviour(ttft_s=0, gap_s=0, num_tokens=3, fail_every=3))) as url:
        done = corral("bench", url, "--num-prompts", "5")
    assert done.returncode == 0
    assert b"3, 2 failed" in done.stdout
    assert "Failed 2\N{MULTIPLICATION SIGN}: status 500".encode() in done.stderr
    assert b"ended before 64 tokens" in done.stderr


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("ftp://x",), "no address of a server"),
        (("URL", "--slo", "ttft=5"), "span of time"),
        (("URL", "--slo", "ttft=5s", "--goodput", "ttft:5"), "give one of them"),
        (("URL", "--goodput", "x:5"), "there are ttft, tpot, e2e"),
        (("URL", "--no-stream", "--slo", "ttft=5s"), "--no-stream"),
        (("URL", "--header", "x"), "NAME:VALUE"),
        (("URL", "--header", "a b: x"), "name of a header"),
        (("URL", "--percentile-metrics", "x"), "there are ttft"),
        (("URL", "--metric-percentiles", "101"), "from 0 to 100"),
        (("URL", "--request-rate", "0"), "not above 0"),
        (("http://127.0.0.1:1",), "does not answer"),
        (("http://127.0.0.1:1", "--model", "m"), "gave no answer to the warm-up"),
    ],
)
def test_bad_input_is_one_clear_error(server: tuple[SimulatedServer, str], flags: tuple[str, ...], why: str) -> None:
    done = CliRunner().invoke(bench, [server[1] if flag == "URL" else flag for flag in flags])
    assert isinstance(done.exception, CorralError | SystemExit)
    assert why in f"{done.exception} {done.stderr}"
    assert done.stdout == ""


class Hanging(SimulatedServer):
    """Answers the warm-up and two more, and then tells that it hangs."""

    def __init__(self) -> None:
        super().__init__(QUICK)
        self.hangs = threading.Event()

    async def _answer(self, served: Any, writer: asyncio.StreamWriter, *, is_chat: bool) -> None:
        if len(self.served) > 3:
            self.hangs.set()
            await asyncio.Event().wait()
        await super()._answer(served, writer, is_chat=is_chat)


def test_ctrl_c_prints_what_was_measured() -> None:
    hanging = Hanging()
    with simulated_in_thread(hanging) as url:
        argv = [sys.executable, "-m", "corral", "bench", url, "--num-prompts", "50"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        assert hanging.hangs.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"2, 0 failed, 1 cut off by the interruption" in out
    assert b"First token (TTFT)" in out
