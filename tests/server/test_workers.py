"""Every rule of loading and unloading, with real worker processes whose model is scripted; time stands still."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from corral.config import EngineConfig, ServerConfig
from corral.errors import (
    CorralError,
    EngineDead,
    InsufficientMemory,
    InvalidModelFile,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    ServerDraining,
)
from corral.request import Request, new_request_id
from corral.server.memory_budget import ProcessMemory
from corral.server.model_manager import ModelManager
from corral.server.model_names import NamedModels
from corral.server.served_model import ServedModel
from corral.server.workers import BUSY, LOOK_S
from corral.store.local_model import LocalModel
from tests.support import scripted_worker
from tests.support.scripted_models import FIXED_BYTES, MIB, ManualClock, ScriptedProbe, read_scripted_needs

A, B, C = (LocalModel(name, Path(f"{name}.gguf")) for name in ("a", "b", "c"))
ROOM_FOR_TWO = 2 * FIXED_BYTES + 30 * MIB


class Stage:
    """A manager, and what it is surrounded by."""

    def __init__(self, **config: Any) -> None:
        self.clock = ManualClock()
        self.probe = ScriptedProbe()
        self.said: list[str] = []
        self._said_more = asyncio.Event()
        self.manager = ModelManager(
            NamedModels([A, B, C]),
            EngineConfig(),
            ServerConfig(**config),
            say=self._say,
            command=scripted_worker.COMMAND,
            read_needs=read_scripted_needs,
            probe=self.probe,
            clock=self.clock,
        )

    def _say(self, line: str) -> None:
        self.said.append(line)
        self._said_more.set()

    async def until_said(self, words: str, times: int = 1) -> None:
        while sum(words in line for line in self.said) < times:
            self._said_more.clear()
            await self._said_more.wait()

    async def until(self, is_reached: Callable[[], bool]) -> None:
        """Lets the loop and its threads work until it is so."""
        while not is_reached():
            await self.manager.refresh()

    async def settle(self) -> None:
        """Lets everything that can happen without time passing happen, as far as a few decisions go."""
        for _ in range(3):
            await self.manager.refresh()

    def states(self) -> dict[str, str]:
        return {model.local.name: model.state for model in self.manager.running()}

    async def gone(self, name: str) -> None:
        await self.until(lambda: name not in self.states())


@asynccontextmanager
async def stage(**config: Any) -> AsyncIterator[Stage]:
    made = Stage(**config)
    try:
        async with asyncio.timeout(60):
            yield made
    finally:
        await made.manager.close()


async def ask(model: ServedModel, text: str) -> str:
    request = Request(new_request_id("r"), prompt=text)
    return "".join([delta.text async for output in model.generate(request) for delta in output.deltas])


async def use(on: Stage, local: LocalModel, text: str = "hi", **lease: Any) -> str:
    async with on.manager.lease(local, **lease) as model:
        return await ask(model, text)


def later(work: Awaitable[Any]) -> asyncio.Future[Any]:
    return asyncio.ensure_future(work)


async def waiting(on: Stage, num: int) -> None:
    """Until so many requests wait for their model."""
    await on.until(lambda: on.manager.num_pending == num)


async def test_names_and_unknown_ones() -> None:
    async with stage() as on:
        assert on.manager.lookup("A:latest") is on.manager.lookup("a") is A
        assert list(on.manager.served_names) == [A, B, C]
        with pytest.raises(ModelNotFound, match=r"^model 'nobody' not found$"):
            on.manager.lookup("nobody")


async def test_a_model_is_loaded_on_demand_and_shared() -> None:
    async with stage() as on:
        assert await asyncio.gather(*(use(on, A, f"n{i}") for i in range(5))) == [f"N{i}" for i in range(5)]
        assert await use(on, LocalModel("another name", A.path)) == "HI"
        assert len(on.said) == 1
        assert on.said[0].startswith("loaded a in ")


async def test_the_share_of_the_load() -> None:
    async with stage() as on, on.manager.lease(A) as model:
        on.clock.advance(2)
        assert model.load_s == 0.0  # the clock stood still
        async with on.manager.lease(A) as other:
            assert other.load_s == 0.0
            assert other.info.name == "a"


async def test_keep_alive_runs_from_the_last_lease() -> None:
    async with stage(keep_alive_s=300.0) as on:
        await use(on, A)
        on.clock.advance(299)
        await use(on, A)
        on.clock.advance(299)
        assert on.states() == {"a": "ready"}
        async with on.manager.lease(A):
            on.clock.advance(1000)
            assert on.states() == {"a": "ready"}
        on.clock.advance(300)
        await on.gone("a")
        assert on.said[-1].startswith("unloaded a: idle for 300 s; ")


async def test_a_keep_alive_overwrites_and_none_leaves_it() -> None:
    async with stage(keep_alive_s=300.0) as on:
        await use(on, A, keep_alive=10.0)
        await use(on, A)
        on.clock.advance(10)
        await on.gone("a")
        await use(on, A)
        on.clock.advance(10)
        assert on.states() == {"a": "ready"}  # a new load begins with the default


@pytest.mark.parametrize("forever", [-1.0, math.inf])
async def test_for_ever(forever: float) -> None:
    async with stage() as on:
        await use(on, A, keep_alive=forever)
        on.clock.advance(1e9)
        [running] = on.manager.running()
        assert running.expires_at is None


async def test_keep_alive_0_unloads_when_the_last_lease_ends() -> None:
    async with stage() as on:
        async with on.manager.lease(A):
            await use(on, A, keep_alive=0.0)
            on.clock.advance(1)
            assert on.states() == {"a": "ready"}
        on.clock.advance(0)
        await on.gone("a")


async def test_unload() -> None:
    async with stage() as on:
        await on.manager.unload(A)  # there is nothing to do
        async with on.manager.lease(A):
            await on.manager.unload(A)
            assert on.states() == {"a": "ready"}
        on.clock.advance(0)
        await on.gone("a")
        await use(on, A)
        await on.manager.unload(A)
        assert on.states() == {"a": "stopping"}


async def test_leaving_with_an_error_gives_the_lease_back() -> None:
    async with stage() as on:
        with pytest.raises(ZeroDivisionError):
            async with on.manager.lease(A, keep_alive=0.0):
                raise ZeroDivisionError
        on.clock.advance(0)
        await on.gone("a")


async def test_pinned_models_stay() -> None:
    async with stage(max_memory_bytes=ROOM_FOR_TWO) as on:
        await on.manager.load(A, pin=True)
        await use(on, A, keep_alive=0.0)
        on.clock.advance(1e6)
        with pytest.raises(InvalidRequest, match="a is pinned"):
            await on.manager.unload(A)
        await use(on, B)
        await use(on, C)
        assert [line.partition(" to make")[0] for line in on.said if "evicted" in line] == ["evicted b"]
        [running] = [model for model in on.manager.running() if model.local is A]
        assert (running.is_pinned, running.expires_at) == (True, None)


async def test_the_least_recently_used_is_evicted() -> None:
    async with stage(max_memory_bytes=ROOM_FOR_TWO) as on:
        await use(on, A)
        on.clock.advance(1)
        await use(on, B)
        on.clock.advance(1)
        await use(on, A)
        await use(on, C)
        [line] = [line for line in on.said if "evicted" in line]
        assert line.startswith("evicted b to make room for c; ")
        assert set(on.states()) == {"a", "c"}


async def test_max_loaded_models() -> None:
    async with stage(max_loaded_models=1) as on:
        assert [await use(on, local) for local in (A, B, C, A)] == ["HI"] * 4
        assert sum("evicted" in line for line in on.said) == 3


async def test_the_pool_is_what_the_budget_leaves() -> None:
    async with stage(max_memory_bytes=FIXED_BYTES + 100 * MIB) as on:
        await use(on, A)
        [running] = on.manager.running()
        assert running.kv_limit_bytes == pytest.approx(80 * MIB, abs=16 * 1024)


async def test_a_model_that_never_fits_is_refused_with_numbers() -> None:
    async with stage(max_memory_bytes=ROOM_FOR_TWO) as on:
        await use(on, A)
        with pytest.raises(InsufficientMemory, match=r"needs 500.0 MiB for weights.*230.0 MiB are free"):
            await use(on, LocalModel("big", Path("big-500.gguf")))
        assert on.states() == {"a": "ready"}  # nobody was evicted for it


async def test_a_model_that_fits_beside_the_pinned_ones_only_if_they_went_is_refused() -> None:
    async with stage(max_memory_bytes=ROOM_FOR_TWO) as on:
        await on.manager.load(A, pin=True)
        with pytest.raises(InsufficientMemory):
            await use(on, LocalModel("big", Path("big-200.gguf")))


@pytest.mark.parametrize(
    ("file", "error"), [("huge", InsufficientMemory), ("broken", CorralError), ("deadly", EngineDead)]
)
async def test_a_load_that_fails_is_the_answer_of_all_who_wait(file: str, error: type[CorralError]) -> None:
    async with stage() as on:
        local = LocalModel(file, Path(f"{file}.gguf"))
        answers = await asyncio.gather(use(on, local), use(on, local), return_exceptions=True)
        assert [type(answer) for answer in answers] == [error, error]
        assert on.states() == {}
        assert await use(on, A) == "HI"


async def test_a_damaged_file_is_refused_from_its_header() -> None:
    async with stage(max_memory_bytes=ROOM_FOR_TWO) as on:
        for _ in range(2):
            with pytest.raises(InvalidModelFile):
                await use(on, LocalModel("damaged", Path("damaged.gguf")))


async def test_a_loading_model_holds_up_no_loaded_one_and_no_other_load() -> None:
    async with stage(max_memory_bytes=10 * ROOM_FOR_TWO) as on:
        await use(on, A)
        stuck = later(use(on, LocalModel("endless", Path("endless.gguf"))))
        await on.until(lambda: on.states().get("endless") == "loading")
        assert await use(on, A) == "HI"
        assert await use(on, B) == "HI"
        stuck.cancel()


async def test_memory_short_a_waiting_load_holds_up_no_loaded_model() -> None:
    async with stage(max_memory_bytes=ROOM_FOR_TWO) as on:
        async with on.manager.lease(A), on.manager.lease(B):
            third = later(use(on, C))
            await waiting(on, 1)
            assert await use(on, A) == "HI"
            assert not third.done()
        assert await third == "HI"


async def test_a_busy_model_starves_no_load() -> None:
    async with stage(max_loaded_models=1, fair_wait_s=5.0) as on, AsyncExitStack() as held:
        await held.enter_async_context(on.manager.lease(A))
        other = later(use(on, B, "b"))
        await waiting(on, 1)
        assert await use(on, A) == "HI"  # for a while, everybody who asks for A is served
        on.clock.advance(5)
        await on.settle()
        mine = later(use(on, A, "a"))
        await waiting(on, 2)
        await on.settle()
        assert not mine.done()  # but not for ever
        await held.aclose()
        assert await other == "B"
        assert await mine == "A"
        assert [line.split()[:2] for line in on.said] == [
            ["loaded", "a"],
            ["evicted", "a"],
            ["loaded", "b"],
            ["evicted", "b"],
            ["loaded", "a"],
        ]


async def test_a_closed_model_is_open_again_when_who_waited_has_gone() -> None:
    async with stage(max_loaded_models=1, fair_wait_s=5.0) as on, on.manager.lease(A):
        other = later(use(on, B))
        await waiting(on, 1)
        on.clock.advance(5)
        await on.settle()
        mine = later(use(on, A))
        await waiting(on, 2)
        other.cancel()
        assert await mine == "HI"


async def test_loads_are_served_in_the_order_of_arrival() -> None:
    async with stage(max_loaded_models=1) as on:
        async with on.manager.lease(A):
            others = []
            for number, local in enumerate((C, B), 1):
                others.append(later(use(on, local)))
                await waiting(on, number)
                on.clock.advance(1)
        await asyncio.gather(*others)
        assert [line.split()[1] for line in on.said if "loaded" in line] == ["a", "c", "b"]


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
        with pytest.raises(EngineDead):
            await ask(model, "die")
        await on.until_said("loaded a", times=2)  # it is replaced for whoever still holds it
        assert await ask(model, "back again") == "BACK AGAIN"


async def test_an_on_demand_model_that_died_is_loaded_by_the_next_request() -> None:
    async with stage() as on:
        with pytest.raises(EngineDead):
            await use(on, A, "die")
        await on.gone("a")
        await on.settle()
        assert sum("loaded" in line for line in on.said) == 1
        assert await use(on, A) == "HI"


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
        assert on.said[-1] == "a was asked for a context of 1,000,000 tokens; it has 4,096"
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
