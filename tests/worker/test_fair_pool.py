from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from corral.worker.fair_pool import FairPool

PATIENCE_S = 30.0


class Work:
    """Pieces of work that wait for the test, and note when they are done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = threading.Event()

    def hold(self) -> None:
        assert self.go.wait(PATIENCE_S)

    def __call__(self, name: str) -> None:
        self.done.append(name)


async def test_one_with_many_does_not_hold_up_another() -> None:
    pool, work = FairPool(1, "test"), Work()
    held = asyncio.ensure_future(pool.run("a", 1.0, work.hold))
    await asyncio.sleep(0)
    many = [asyncio.ensure_future(pool.run("a", 1.0, partial(work, f"a{i}"))) for i in range(50)]
    await asyncio.sleep(0)
    one = asyncio.ensure_future(pool.run("b", 1.0, partial(work, "b")))
    await asyncio.sleep(0)
    work.go.set()
    await asyncio.gather(held, one, *many)
    assert work.done.index("b") == 0
    assert [name for name in work.done if name != "b"] == [f"a{i}" for i in range(50)]


async def test_what_work_raises_is_raised_and_its_place_is_free_again() -> None:
    pool = FairPool(1, "test")

    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await pool.run("", 1.0, fail)
    assert await pool.run("", 1.0, lambda: 5) == 5


async def test_whoever_leaves_the_line_gives_no_place_away() -> None:
    pool, work = FairPool(1, "test"), Work()
    held = asyncio.ensure_future(pool.run("a", 1.0, work.hold))
    await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(pool.run(name, 1.0, partial(work, name))) for name in "bcd"]
    await asyncio.sleep(0)
    waiting[0].cancel()
    work.go.set()
    await held
    waiting[1].cancel()  # the place may be its own already
    await asyncio.wait(waiting)
    assert waiting[2].exception() is None
    assert work.done[-1] == "d"
    await asyncio.wait_for(asyncio.gather(*(pool.run("e", 1.0, lambda: None) for _ in range(5))), PATIENCE_S)
