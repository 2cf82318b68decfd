"""The simulated engine, started as a comparison starts any, reads as what it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import httpx

from corral.compare.answer import Answer
from corral.compare.client import Client, Now, Target
from corral.compare.engines.engine import Engine, Setup
from corral.compare.engines.simulated import Simulated
from corral.compare.exchange import parse_origin
from corral.compare.load import Load
from corral.compare.process import Server, free_port
from corral.compare.profiles import Make, unique
from corral.compare.rates import find_greatest_rate
from corral.compare.statistics import summarize
from corral.compare.workload import Call, Message
from tests.support.simulated_engine import count_words


async def test_a_load_reads_the_delays_of_a_simulated_engine(tmp_path: Path) -> None:
    engine: Engine = Simulated(ttft_s=0.1, gap_s=0.02)
    setup = Setup(tmp_path / "none.gguf", "", "m", context=2048, slots=4, threads=1)
    port = free_port()
    launch = engine.launch(engine.find(), setup, port, tmp_path)
    url = f"http://127.0.0.1:{port}"
    async with (
        Server(launch, port, tmp_path / "log") as server,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        await server.wait_ready(engine, http)
        client = Client(Target(parse_origin(url), "m", shape=engine.body))
        load = Load(unique(Make(count_words), clients=4, num_calls=4, prompt=20, answer=16), 0, client.ask)
        await load.run()
    found = summarize(load.result(engine.name, count_words), {}, is_streamed=True)
    assert (found.completed, found.output_tokens, found.failed) == (4, 64, 0)
    # A busy machine can only make them later; that they are not earlier is what the clock owes.
    assert min(found.times["ttft"]) >= 0.0995
    assert median(found.times["tpot"]) >= 0.0195
    assert min(found.times["e2el"]) >= 0.1 + 15 * 0.02 - 0.001


async def test_the_greatest_rate_is_the_one_that_the_server_can_bear() -> None:
    """One that answers up to 100 requests a second, and refuses beyond."""
    rates: list[float] = []
    prompts: list[str] = []

    async def ask(call: Call, before: Sequence[Message], answer: Answer, now: Now, *, is_streamed: bool = True) -> None:
        prompts.append(call.messages[0]["content"])
        answer.error = "" if rates[-1] <= 100 else "status 503"
        answer.text = "word"
        answer.ended = now()

    make, limits = Make(count_words), {"e2e": 60.0}
    found = await find_greatest_rate(
        "e", 0, ask, make, limits, prompt=8, answer=2, window_s=0.05, first=40.0, progress=rates.append
    )
    assert [rate for rate, _ in found.tried] == rates
    assert 100 / 1.1 <= found.rate <= 100
    assert rates[-2:] == [found.rate] * 2  # asked again
    assert len(set(prompts)) == len(prompts)  # no cache helps a later try
