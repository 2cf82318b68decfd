"""Waits that end, cancellations, deaths and memory that runs out, as in test_workers."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path

import pytest

from corral.errors import (
    CorralError,
    PoisonousRequest,
    QueueFull,
    ServerDraining,
)
from corral.request import Request
from corral.server.memory_budget import ProcessMemory
from corral.server.workers import BUSY, LOOK_S
from corral.store.local_model import LocalModel
from tests.support import scripted_worker
from tests.support.manager_stage import ROOM_FOR_TWO, A, B, C, ask, later, stage, use, waiting
from tests.support.scripted_models import MIB


async def test_the_queue_is_bounded() -> None:
    async with stage(max_loaded_models=1, max_pending=2) as on:
        async with on.manager.lease(A):
            others = [later(use(on, local)) for local in (B, C)]
            await waiting(on, 2)
            with pytest.raises(QueueFull) as caught:
                await use(on, B)
            assert str(caught.value) == BUSY
            assert await use(on, A) == "HI"  # who need not wait is not counted
        assert await asyncio.gather(*others) == ["HI", "HI"]


async def test_a_wait_ends() -> None:
    async with stage(max_loaded_models=1, load_timeout_s=30.0) as on:
        async with on.manager.lease(A):
            other = later(use(on, B))
            await waiting(on, 1)
            on.clock.advance(30)
            with pytest.raises(QueueFull, match="b could not be loaded within 30 s"):
                await other
        assert await use(on, B) == "HI"


async def test_a_load_without_progress_is_given_up() -> None:
    async with stage(load_timeout_s=30.0) as on:
        other = later(use(on, LocalModel("endless", Path("endless.gguf"))))
        await on.until(lambda: on.states().get("endless") == "loading")
        await on.settle()  # the task that loads has begun
        on.clock.advance(30)
        with pytest.raises(CorralError, match="within 30 s"):
            await other
        await on.gone("endless")
        assert "endless made no progress for 30 s" in on.said[-1]


async def test_cancelled_while_loading() -> None:
    async with stage() as on:
        other = later(use(on, A))
        await on.until(lambda: "a" in on.states())
        other.cancel()
        await on.until_said("loaded a")
        assert on.manager.num_pending == 0
        on.clock.advance(300)  # nobody came, and so it goes
        await on.gone("a")


async def test_cancelled_in_the_moment_of_the_grant() -> None:
    async with stage(max_loaded_models=1) as on:
        other = later(use(on, A))

        def cancel(line: str) -> None:
            on.said.append(line)
            asyncio.get_running_loop().call_soon(other.cancel)  # runs before the task that has the lease now

        on.manager._life._say = cancel
        with pytest.raises(asyncio.CancelledError):
            await other
        await on.until(lambda: on.manager.running()[0].num_leases == 0)
        assert await use(on, B) == "HI"


async def test_an_abandoned_load_gives_way() -> None:
    async with stage(max_loaded_models=1) as on:
        other = later(use(on, LocalModel("endless", Path("endless.gguf"))))
        await on.until(lambda: "endless" in on.states())
        other.cancel()
        assert await use(on, B) == "HI"
        assert any("evicted endless" in line for line in on.said)


async def test_closed_while_loading_and_while_waiting() -> None:
    async with stage(max_loaded_models=1) as on:
        loading = later(use(on, LocalModel("endless", Path("endless.gguf"))))
        await on.until(lambda: "endless" in on.states())
        other = later(use(on, B))
        await waiting(on, 2)
        await on.manager.close()
        for work in (loading, other):
            with pytest.raises(ServerDraining):
                await work
        with pytest.raises(ServerDraining):
            await use(on, A)
        await on.manager.close()


async def test_death_while_leased() -> None:
    async with stage() as on, on.manager.lease(A) as model:
        os.kill(model.pid, signal.SIGKILL)
        assert await ask(model, "back again") == "BACK AGAIN"
        assert sum("loaded a" in line for line in on.said) == 2


async def test_an_on_demand_model_that_died_is_loaded_by_the_next_request() -> None:
    async with stage() as on:
        with pytest.raises(PoisonousRequest):
            await use(on, A, "die")
        await on.gone("a")
        await on.settle()
        assert sum("loaded" in line for line in on.said) == 2
        with pytest.raises(PoisonousRequest):
            await use(on, A, "die")
        assert sum("loaded" in line for line in on.said) == 3
        assert await use(on, A) == "HI"
        assert sum("loaded" in line for line in on.said) == 3


async def test_a_pinned_model_that_dies_is_restarted_ever_more_slowly() -> None:
    async with stage() as on:
        await on.manager.load(A, pin=True)
        for num_loads, delay_s in ((2, 0.0), (3, 1.0), (4, 5.0)):
            async with on.manager.lease(A) as model:
                os.kill(model.pid, signal.SIGKILL)
            await on.gone("a")
            if delay_s:
                on.clock.advance(delay_s / 2)
                await on.settle()
                assert on.states() == {}
                on.clock.advance(delay_s / 2)
            await on.until_said("loaded a", times=num_loads)


async def test_an_idle_models_kv_cache_goes_before_the_model() -> None:
    async with stage(max_memory_bytes=ROOM_FOR_TWO + 40 * MIB) as on:
        for _ in range(4):
            await use(on, A)
        await on.settle()
        [running] = on.manager.running()
        assert running.kv_used_bytes == 4 * scripted_worker.KV_BYTES
        assert await use(on, B) == "HI"
        assert set(on.states()) == {"a", "b"}
        assert min(model.kv_used_bytes for model in on.manager.running()) == 0


async def test_when_workers_outgrow_the_machine_idle_ones_give_way() -> None:
    async with stage() as on:
        await use(on, A)
        async with on.manager.lease(B) as busy:
            on.probe.processes[busy.pid] = ProcessMemory(resident=50 << 30, private=50 << 30)
            on.probe.free = 0
            async with on.manager.lease(A) as idle:
                on.probe.processes[idle.pid] = ProcessMemory(resident=20 << 30, private=10 << 30)
            await on.settle()
            on.clock.advance(LOOK_S)
            await on.gone("a")
            assert on.states() == {"b": "ready"}
            assert any(line.startswith("evicted a: the others have grown") for line in on.said)


async def test_what_is_running() -> None:
    async with stage(keep_alive_s=300.0) as on:
        await use(on, A)
        await use(on, B, keep_alive=1000.0)
        await use(on, C, keep_alive=-1.0)
        on.clock.advance(10)
        async with on.manager.lease(A) as model:
            on.probe.processes[model.pid] = ProcessMemory(resident=123 * MIB, private=100 * MIB)
            await on.manager.refresh()
            running = on.manager.running()
        assert [model.local.name for model in running] == ["c", "b", "a"]
        assert running[0].expires_at is None
        times = [model.expires_at for model in running[1:]]
        assert times[0] is not None
        assert times[1] is not None
        assert (times[0] - times[1]).total_seconds() == pytest.approx(690.0)
        assert running[2].memory_bytes == 123 * MIB
        assert (running[2].num_leases, running[2].weights_bytes, running[2].state) == (1, 123, "ready")


async def test_a_context_that_is_too_long_is_told_and_reloads_nothing() -> None:
    async with stage() as on:
        await use(on, A, num_ctx=100)
        await use(on, A, num_ctx=1_000_000)
        assert on.said[-1] == (
            "a was asked for a context of 1,000,000 tokens; it has 4,096, as memory, the model or --max-model-len "
            "(OLLAMA_CONTEXT_LENGTH) allow"
        )
        assert sum("loaded" in line for line in on.said) == 1


async def test_a_stream_holds_its_lease() -> None:
    async with stage(max_loaded_models=1) as on:
        async with on.manager.lease(A) as model, aclosing(model.generate(Request("r", prompt="forever"))) as outputs:
            other = later(use(on, B))
            async for output in outputs:
                if output.usage.completion_tokens > 20:
                    break
            assert not other.done()
        assert await other == "HI"
