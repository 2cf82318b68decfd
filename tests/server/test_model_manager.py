from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from corral.config import EngineConfig
from corral.errors import EngineDead, InsufficientMemory, InvalidConfig, ModelNotFound
from corral.request import Request, new_request_id
from corral.server.model_manager import ModelManager, ModelSpec, ServedModel
from tests.support import scripted_worker
from tests.support.live_server import chat_body, error_of, live_server


@pytest.fixture
async def manager() -> AsyncIterator[ModelManager]:
    made = ModelManager(scripted_worker.COMMAND)
    yield made
    await made.close()


def spec(name: str, file: str = "scripted.gguf", aliases: tuple[str, ...] = ()) -> ModelSpec:
    return ModelSpec(name, Path(file), EngineConfig(), aliases)


async def ask(model: ServedModel, text: str) -> str:
    request = Request(new_request_id("r"), prompt=text)
    return "".join([delta.text async for output in model.generate(request) for delta in output.deltas])


async def test_models_by_name_and_alias(manager: ModelManager) -> None:
    one = await manager.load(spec("one", aliases=("uno", "eins")))
    two = await manager.load(spec("two"))
    assert manager.find("eins") is manager.find("one") is one
    assert manager.models == [one, two]
    assert [model.card.name for model in manager.models] == ["one", "two"]
    assert list(await asyncio.gather(ask(one, "a"), ask(two, "b"))) == ["A", "B"]
    with pytest.raises(ModelNotFound, match="served: eins, one, two, uno"):
        manager.find("three")
    with pytest.raises(InvalidConfig, match="uno already"):
        await manager.load(spec("three", aliases=("uno",)))


async def test_a_refused_load_leaves_no_model(manager: ModelManager) -> None:
    with pytest.raises(InsufficientMemory):
        await manager.load(spec("one", "huge.gguf"))
    with pytest.raises(ModelNotFound, match="served: none"):
        manager.find("one")
    assert await ask(await manager.load(spec("one")), "a") == "A"


async def test_a_dead_worker_is_replaced(manager: ModelManager) -> None:
    model = await manager.load(spec("one"))
    with pytest.raises(EngineDead):
        await ask(model, "die")
    async with asyncio.timeout(60):
        while True:
            try:
                assert await ask(model, "back again") == "BACK AGAIN"
                break
            except EngineDead:
                await asyncio.sleep(0)


def test_death_in_mid_stream_is_an_error_event() -> None:
    with live_server() as server:
        body = chat_body("hold", stream=True)
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body) as response:
            lines = response.iter_lines()
            while "held" not in next(lines):
                continue
            model = server.manager.find("scripted")
            os.kill(model.pid, signal.SIGKILL)
            rest = [line for line in lines if line]
        assert len(rest) == 1
        assert '"code":"engine_dead"' in rest[0]
        assert "SIGKILL" not in rest[0]  # how it died is the operator's business


def test_death_before_the_first_word_is_503() -> None:
    with live_server() as server:
        for stream in (False, True):
            url = f"{server.base_url}/chat/completions"
            response = httpx.post(url, json=chat_body("die", stream=stream))
            assert (response.status_code, error_of(response)["code"]) == (503, "engine_dead")
            assert int(response.headers["retry-after"]) > 0
            while httpx.post(url, json=chat_body("alive?")).status_code == 503:
                continue
