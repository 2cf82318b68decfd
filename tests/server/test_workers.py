"""Loading, keeping, evicting and refusing, with real worker processes whose model is scripted; time stands still."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from corral.errors import (
    CorralError,
    EngineDead,
    InsufficientMemory,
    InvalidModelFile,
    InvalidRequest,
    ModelNotFound,
)
from corral.store.local_model import LocalModel
from tests.support.manager_stage import ROOM_FOR_TWO, A, B, C, later, stage, use, waiting
from tests.support.scripted_models import FIXED_BYTES, MIB


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
            assert (await other.info()).name == "a"


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
