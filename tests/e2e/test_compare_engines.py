"""Real engines through their adapters: started, settings read back, asked, stopped."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import httpx
import pytest

from corral.compare.engines.engine import Engine, EngineMissing, Settings, Setup
from corral.compare.engines.registry import engines
from corral.compare.process import Server, free_port
from corral.compare.resources import Sampler
from tests.support.llama_server import find_llama_server
from tests.support.models import model_path

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CONTEXT, SLOTS, TOKENS = 1024, 2, 12

VLLM = os.environ.get("CORRAL_COMPARE_VLLM")  # read before tests/conftest.py takes it away


async def turn(engine: Engine, folder: Path) -> Settings:
    """One start with one request."""
    model = model_path("smollm2-135m")
    setup = Setup(model, hashlib.sha256(model.read_bytes()).hexdigest(), "model", CONTEXT, SLOTS, 2)
    try:
        found = engine.find()
        port = free_port()
        launch = engine.launch(found, setup, port, folder)
    except EngineMissing as missing:
        pytest.skip(str(missing))
    async with (
        Server(launch, port, folder / "log") as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=120) as client,
    ):
        with Sampler(server.tree, server.began) as sampler:
            await server.wait_ready(engine, client)
            await engine.prepare(client, setup)
            fields = {
                "model": "model",
                "messages": [{"role": "user", "content": "Say hi."}],
                "max_tokens": TOKENS,
                "temperature": 0,
            }
            response = await client.post("/v1/chat/completions", json=engine.body(fields, min_tokens=TOKENS))
            assert response.json()["usage"]["completion_tokens"] == TOKENS
            assert sampler.sample().resident_bytes > model.stat().st_size // 2
        settings = await engine.settings(client, setup)
        assert await server.stop() is not None
        assert server.tree() == []
    return settings


@pytest.mark.parametrize("name", ["corral", "llama.cpp"])
async def test_it_runs_as_it_was_asked_to(name: str, tmp_path: Path) -> None:
    program = find_llama_server(tmp_path) if name == "llama.cpp" else None
    (engine,) = engines([name], {name: program} if program else {}, {})
    settings = await turn(engine, tmp_path)
    assert (settings.model, settings.context, settings.slots) == ("model", CONTEXT, SLOTS)


@pytest.mark.timeout(1200)  # it compiles for minutes at each start
async def test_vllm_runs_on_weights_of_the_same_file(tmp_path: Path) -> None:
    (engine,) = engines(["vllm"], {"vllm": Path(VLLM)} if VLLM else {}, {})
    settings = await turn(engine, tmp_path)
    assert (settings.model, settings.context, settings.kv_type) == ("model", CONTEXT, "bf16")
    assert settings.kv_reserved_bytes
