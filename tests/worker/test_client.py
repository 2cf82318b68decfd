"""WorkerClient against a real process whose model is scripted."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from corral.config import EngineConfig
from corral.errors import (
    ContextLengthExceeded,
    CorralError,
    EngineDead,
    InsufficientMemory,
    QueueFull,
    ServerDraining,
)
from corral.limits import MAX_LOOKUPS
from corral.request import (
    DetokenizeRequest,
    EmbedRequest,
    EmbedResult,
    FinishReason,
    Request,
    RequestOutput,
    new_request_id,
)
from corral.sampling_params import SamplingParams
from corral.worker import protocol
from corral.worker.client import OnRest, WorkerClient
from tests.support.scripted_worker import COMMAND

MODEL = Path("scripted.gguf")


@pytest.fixture
async def client() -> AsyncIterator[WorkerClient]:
    worker = await WorkerClient.start(MODEL, EngineConfig(max_model_len=77), command=COMMAND)
    yield worker
    await worker.close()


def ask(text: str, **sampling: object) -> Request:
    return Request(new_request_id("r"), prompt=text, sampling=SamplingParams(**sampling))  # type: ignore[arg-type]


async def collect(client: WorkerClient, request: Request) -> list[RequestOutput]:
    return [output async for output in client.generate(request)]


def text_of(outputs: list[RequestOutput], index: int = 0) -> str:
    return "".join(delta.text for output in outputs for delta in output.deltas if delta.index == index)


async def used_blocks(client: WorkerClient) -> int:
    return (await client.stats()).num_used_blocks


async def until_unused(client: WorkerClient) -> None:
    async with asyncio.timeout(20):
        while await used_blocks(client):
            await client.ping()


async def test_start_tells_plan_progress_and_info() -> None:
    plans: list[str] = []
    steps: list[tuple[int, int]] = []
    worker = await WorkerClient.start(
        MODEL,
        EngineConfig(max_model_len=77),
        on_plan=plans.append,
        on_progress=lambda done, total: steps.append((done, total)),
        command=COMMAND,
    )
    try:
        assert plans == ["scripted plan"]
        assert steps == [(1, 2), (2, 2)]
        assert (worker.info.name, worker.info.max_model_len, worker.plan) == ("scripted", 77, "scripted plan")
    finally:
        await worker.close()
    assert not psutil.pid_exists(worker.pid)


async def test_outputs_arrive_in_order_and_end(client: WorkerClient) -> None:
    outputs = await collect(client, ask("one two three", n=2))
    assert text_of(outputs, 0) == text_of(outputs, 1) == "ONE TWO THREE"
    assert [output.is_finished for output in outputs].count(True) == 1
    assert outputs[-1].is_finished
    assert outputs[-1].deltas[0].finish_reason is FinishReason.STOP
    assert (outputs[-1].usage.prompt_tokens, outputs[-1].usage.completion_tokens) == (3, 6)


async def test_many_at_once(client: WorkerClient) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = {i: group.create_task(collect(client, ask(f"a b{i} c"))) for i in range(100)}
    assert all(text_of(task.result()) == f"A B{i} C" for i, task in tasks.items())
    await until_unused(client)


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("full", QueueFull, "full"),
        ("too long", ContextLengthExceeded, "too long by far"),
        ("crash", CorralError, "could not be prepared"),
    ],
)
async def test_errors_of_one_request(client: WorkerClient, script: str, error: type[CorralError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        await collect(client, ask(script))
    assert type(caught.value) is error
    assert "not raised on purpose" not in str(caught.value)
    assert text_of(await collect(client, ask("still here"))) == "STILL HERE"


async def test_leaving_the_loop_aborts(client: WorkerClient) -> None:
    async with aclosing(client.generate(ask("forever"))) as outputs:
        async for output in outputs:
            if output.deltas:
                break
    await until_unused(client)


async def test_cancelling_the_reader_aborts(client: WorkerClient) -> None:
    tasks = [asyncio.ensure_future(collect(client, ask("forever"))) for _ in range(20)]
    async with asyncio.timeout(20):
        while await used_blocks(client) < len(tasks):
            await client.ping()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await until_unused(client)


async def test_abort_before_the_text_is_ready_is_not_lost(client: WorkerClient) -> None:
    for _ in range(50):
        generator = client.generate(ask("forever"))
        waiting = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)  # the request goes out, nothing has come back
        waiting.cancel()
        await asyncio.wait({waiting})
    await until_unused(client)


async def test_abort_of_unknown_ids_is_no_error(client: WorkerClient) -> None:
    client.abort("never heard of")
    assert text_of(await collect(client, ask("fine"))) == "FINE"


async def test_drain_finishes_what_runs_and_refuses_the_rest(client: WorkerClient) -> None:
    held = client.generate(ask("hold"))
    while not (await anext(held)).deltas:
        continue
    draining = asyncio.ensure_future(client.drain())
    await client.ping()
    with pytest.raises(ServerDraining):
        await collect(client, ask("anything"))
    assert not draining.done()
    await held.aclose()
    await asyncio.wait_for(draining, 20)


async def test_death_wakes_every_waiter_and_says_how(client: WorkerClient) -> None:
    waiters = [asyncio.ensure_future(collect(client, ask("forever"))) for _ in range(5)]
    with pytest.raises(EngineDead, match=r"(?s)SIGSEGV.*scripted last words"):
        await collect(client, ask("die"))
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(type(result) is EngineDead for result in results)
    assert not client.is_alive
    assert client.died.is_set()
    for call in (client.stats(), client.ping(), client.drain(), collect(client, ask("x"))):
        with pytest.raises(EngineDead):
            await call


async def test_a_dead_engine_ends_the_process(client: WorkerClient) -> None:
    with pytest.raises(EngineDead, match="scripted engine has died"):
        await collect(client, ask("engine dies"))
    await asyncio.wait_for(client.died.wait(), 20)


async def test_signals_are_the_fronts_business(client: WorkerClient) -> None:
    os.kill(client.pid, signal.SIGINT)
    os.kill(client.pid, signal.SIGTERM)
    assert text_of(await collect(client, ask("still here"))) == "STILL HERE"
    assert os.getsid(client.pid) != os.getsid(0)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("huge.gguf", InsufficientMemory, "huge does not fit"),
        ("broken.gguf", CorralError, "loading broken.gguf failed"),
        ("deadly.gguf", EngineDead, "SIGSEGV"),
    ],
)
async def test_a_load_that_fails(name: str, error: type[CorralError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        await WorkerClient.start(Path(name), EngineConfig(), command=COMMAND)
    assert type(caught.value) is error


async def test_a_worker_that_never_connects() -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('no such luck')")
    with pytest.raises(EngineDead, match=r"(?s)before it connected.*no such luck"):
        await WorkerClient.start(MODEL, EngineConfig(), command=command)


async def test_a_cancelled_start_leaves_no_process() -> None:
    seen = asyncio.Event()
    starting = asyncio.ensure_future(
        WorkerClient.start(Path("endless.gguf"), EngineConfig(), on_plan=lambda _: seen.set(), command=COMMAND)
    )
    await asyncio.wait_for(seen.wait(), 30)
    children = psutil.Process().children()
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


async def test_no_orphans_when_the_front_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from corral.config import EngineConfig\n"
        "from corral.worker.client import OnRest, WorkerClient\n"
        "async def main():\n"
        "    client = await WorkerClient.start(Path('m.gguf'), EngineConfig(), command=tuple(sys.argv[1:]))\n"
        "    print(client.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    front = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *COMMAND, stdout=asyncio.subprocess.PIPE)
    assert front.stdout is not None
    worker = psutil.Process(int(await front.stdout.readline()))
    front.kill()
    await front.wait()
    await asyncio.to_thread(psutil.wait_procs, [worker], timeout=20)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


async def test_a_callback_that_fails_ends_the_start_and_the_process() -> None:
    def fail(_: str) -> None:
        raise ZeroDivisionError("by the caller")

    with pytest.raises(EngineDead, match="by the caller"):
        await WorkerClient.start(MODEL, EngineConfig(), on_plan=fail, command=COMMAND)


async def test_frames_out_of_order_end_the_worker(client: WorkerClient) -> None:
    client._send(protocol.Load("again", EngineConfig()))
    await asyncio.wait_for(client.died.wait(), 20)
    assert client.death is not None
    assert "exit code 5" in client.death.cause
    assert "Load is out of order" in client.death.cause


def embed_of(*inputs: str | list[int]) -> EmbedRequest:
    return EmbedRequest(new_request_id("e"), "m", list(inputs))


async def test_embeddings_come_back_in_order(client: WorkerClient) -> None:
    request = embed_of("one two", [1, 2, 3], "")
    result = await client.embed(request)
    vectors = [struct.pack("<2f", *pair) for pair in ((2, 7), (3, 5), (0, 0))]
    assert result == EmbedResult(request.request_id, vectors, 5)


async def test_embeddings_beside_an_answer(client: WorkerClient) -> None:
    async with aclosing(client.generate(ask("forever"))) as stream:
        await anext(stream)
        results = await asyncio.gather(*(client.embed(embed_of("a b " * i)) for i in range(20)))
    assert [result.prompt_tokens for result in results] == [2 * i for i in range(20)]


async def test_an_error_of_an_embedding_keeps_its_class(client: WorkerClient) -> None:
    with pytest.raises(ContextLengthExceeded, match="the input length exceeds the context length") as caught:
        await client.embed(embed_of("too long"))
    assert caught.value.param == "input"
    await client.embed(embed_of("and on it goes"))


async def test_a_cancelled_embedding_is_aborted(client: WorkerClient) -> None:
    task = asyncio.ensure_future(client.embed(embed_of("forever")))
    async with asyncio.timeout(20):
        while not await used_blocks(client):
            await client.ping()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_unused(client)
    await client.drain()


async def test_the_death_of_the_worker_ends_embeddings(client: WorkerClient) -> None:
    waiting = asyncio.ensure_future(client.embed(embed_of("forever")))
    with pytest.raises(EngineDead):
        await client.embed(embed_of("die"))
    with pytest.raises(EngineDead):
        await waiting
    with pytest.raises(EngineDead):
        await client.embed(embed_of("too late"))


async def test_draining_waits_for_embeddings_and_refuses_new_ones(client: WorkerClient) -> None:
    waiting = asyncio.ensure_future(client.embed(embed_of("forever")))
    await client.ping()
    draining = asyncio.ensure_future(client.drain())
    await client.ping()
    with pytest.raises(ServerDraining):
        await client.embed(embed_of("too late"))
    assert not draining.done()
    waiting.cancel()
    await draining


async def test_an_adapter_that_loads_keeps_nobody_else_waiting(client: WorkerClient) -> None:
    slow = [asyncio.create_task(collect(client, replace(ask("slow one"), adapter="slow"))) for _ in range(6)]
    await client.ping()  # by then their frames are sent
    assert text_of(await collect(client, ask("one two"))) == "ONE TWO"
    assert not any(task.done() for task in slow)
    await collect(client, ask("adapters have loaded"))
    assert [text_of(outputs) for outputs in await asyncio.gather(*slow)] == ["SLOW ONE"] * 6


async def test_prompts_that_are_looked_at_are_bounded(client: WorkerClient) -> None:
    slow = [asyncio.create_task(client.render(replace(ask("a b"), adapter="slow"))) for _ in range(MAX_LOOKUPS)]
    await client.ping()  # by then their frames are sent
    with pytest.raises(QueueFull, match=f"{MAX_LOOKUPS} prompts"):
        await client.render(ask("one more"))
    with pytest.raises(QueueFull):
        await client.detokenize(DetokenizeRequest("d", "", [1]))
    await collect(client, replace(ask("adapters have loaded"), adapter="quick"))
    assert {tuple(rendered.token_ids) for rendered in await asyncio.gather(*slow)} == {(1, 1)}
    assert (await client.render(ask("one more"))).text == "one more"


@pytest.mark.parametrize("num_read", [0, 1, 5])
async def test_who_leaves_early_hears_of_the_rest(client: WorkerClient, num_read: int) -> None:
    rest: list[RequestOutput | None] = []
    is_over = asyncio.Event()

    def on_rest(output: RequestOutput | None) -> None:
        rest.append(output)
        if output is None:
            is_over.set()

    async with aclosing(client.generate(ask("forever"), lambda: on_rest)) as outputs:
        for _ in range(num_read):
            last = await anext(outputs)
        if not num_read:
            leaving = asyncio.ensure_future(anext(outputs))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait({leaving})
    await asyncio.wait_for(is_over.wait(), 60)
    assert rest.count(None) == 1
    *told, end = rest
    assert end is None
    if num_read:
        final = told[-1]
        assert final is not None
        assert final.is_finished
        assert final.usage.completion_tokens >= last.usage.completion_tokens
    await until_unused(client)


async def test_who_has_left_hears_of_the_workers_death(client: WorkerClient) -> None:
    rest: list[RequestOutput | None] = []
    async with aclosing(client.generate(ask("forever"), lambda: rest.append)) as outputs:
        await anext(outputs)
        os.kill(client.pid, signal.SIGKILL)
    await client.died.wait()
    assert rest[-1] is None
    assert rest.count(None) == 1


async def test_who_reads_to_the_end_has_not_left(client: WorkerClient) -> None:
    def on_left() -> OnRest:
        pytest.fail("nobody has left")

    outputs = [output async for output in client.generate(ask("one two"), on_left)]
    assert outputs[-1].is_finished
