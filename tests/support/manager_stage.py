"""A model manager over scripted workers, on a stage where time stands still and memory is as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from corral.config import EngineConfig, ServerConfig
from corral.request import Request, new_request_id
from corral.server.model_manager import ModelManager
from corral.server.model_names import NamedModels
from corral.server.served_model import ServedModel
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
