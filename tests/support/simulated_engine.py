"""A simulated server in this loop, and a client that asks it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future

from corral.compare.answer import Answer
from corral.compare.client import Client, Endpoint, Target
from corral.compare.engines.simulated_server import Behaviour, SimulatedServer
from corral.compare.exchange import parse_origin
from corral.compare.workload import Call, CountTokens


def count_words(text: str) -> int:
    return len(text.split())


COUNT: CountTokens = count_words
QUICK = Behaviour(ttft_s=0.0, gap_s=0.0)
CALL = Call(({"role": "user", "content": "Hello there"},), 5)


@contextlib.asynccontextmanager
async def simulated(behaviour: Behaviour = QUICK) -> AsyncIterator[tuple[SimulatedServer, str]]:
    """The server and its address."""
    server = SimulatedServer(behaviour)
    url = await server.start()
    try:
        yield server, url
    finally:
        await server.stop()


def client_of(url: str, *, endpoint: Endpoint = "chat", patience_s: float = 30.0) -> Client:
    return Client(Target(parse_origin(url), "simulated", endpoint=endpoint, patience_s=patience_s))


async def ask(client: Client, call: Call = CALL, *, is_streamed: bool = True) -> Answer:
    """One call, due now; its times are of time.perf_counter()."""
    answer = Answer(scheduled=time.perf_counter())
    await client.ask(call, (), answer, time.perf_counter, is_streamed=is_streamed)
    return answer


@contextlib.contextmanager
def simulated_in_thread(server: SimulatedServer) -> Iterator[str]:
    """Its address; it runs on a loop of its own, for programs that ask it from outside."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        stop = asyncio.Event()
        started.set_result((await server.start(), asyncio.get_running_loop(), stop))
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    url, loop, stop = started.result(30)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
