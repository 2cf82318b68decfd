"""Resident memory of a worker process: its weights when idle, KV in proportion to the tokens, and all of it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil
import pytest

from corral.config import BLOCK_SIZE, EngineConfig
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.request import Request
from corral.sampling_params import SamplingParams
from corral.worker.client import WorkerClient
from corral.worker.info import WorkerStats
from tests.support.models import MODEL_PARAMS, model_path

NEVER = 86_400.0  # kv_idle_release_s beyond any test
NUM_REQUESTS = 24
PROMPT_TOKENS = 100
ANSWER_TOKENS = 28  # 128 tokens in all; the last one is never computed, so 127 have KV, in 8 blocks
FULL_BLOCKS = 7
BLOCKS_PER_REQUEST = 8

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@asynccontextmanager
async def running_worker(name: str, **settings: float) -> AsyncIterator[WorkerClient]:
    config = EngineConfig(max_num_seqs=64, max_model_len=2048, **settings)  # type: ignore[arg-type]
    worker = await WorkerClient.start(model_path(name), config)
    try:
        yield worker
    finally:
        await worker.close()


def resident_bytes(worker: WorkerClient) -> int:
    return int(psutil.Process(worker.pid).memory_info().rss)


def allowed_bytes(worker: WorkerClient) -> int:
    """Packed weights and a tenth, and 100 MB for everything else."""
    return int(worker.info.weights_bytes * 1.1) + 100_000_000


def block_bytes(name: str) -> int:
    with open_gguf(model_path(name)) as gguf:
        return read_config(gguf).kv_bytes_per_token("f16") * BLOCK_SIZE


async def ask(worker: WorkerClient, first: int, count: int) -> None:
    """`count` different requests at once, the first of them number `first`."""

    async def answer(number: int) -> None:
        # Every prompt begins with a token of its own, so no two share a block.
        prompt = [1000 + number, *range(500, 499 + PROMPT_TOKENS)]
        sampling = SamplingParams(temperature=0.0, max_tokens=ANSWER_TOKENS, ignore_eos=True)
        async for _ in worker.generate(Request(f"r{number}", prompt=prompt, sampling=sampling)):
            pass

    await asyncio.gather(*(answer(number) for number in range(first, first + count)))


async def wait_for(worker: WorkerClient, condition: Callable[[WorkerStats], bool]) -> WorkerStats:
    """The first statistics that meet the condition; the test's own timeout ends a wait in vain."""
    while not condition(stats := await worker.stats()):
        pass
    return stats


@pytest.mark.parametrize("name", MODEL_PARAMS)
async def test_idle_worker_holds_its_weights_and_little_else(name: str) -> None:
    async with running_worker(name) as worker:
        resident = resident_bytes(worker)
        print(f"{name}: {resident / 1e6:.0f} MB resident, {worker.info.weights_bytes / 1e6:.0f} MB of weights")
        assert resident <= allowed_bytes(worker)  # far less where packed weights are mapped and not read yet
        assert (await worker.stats()).kv_resident_bytes == 0


async def test_kv_grows_with_the_tokens() -> None:
    name = "smollm2-135m"
    async with running_worker(name, kv_idle_release_s=NEVER) as worker:
        per_block = block_bytes(name)
        page_slack = 1.05  # blocks need not begin on a page
        for first, count in ((0, 10), (10, NUM_REQUESTS - 10)):
            await ask(worker, first, count)
            asked = first + count
            stats = await wait_for(worker, lambda stats: stats.num_used_blocks == 0 and stats.num_running == 0)
            # What stays are the full blocks, as cached prefixes.
            assert stats.num_cached_blocks == asked * FULL_BLOCKS
            assert stats.kv_resident_bytes >= asked * FULL_BLOCKS * per_block
            assert stats.kv_resident_bytes <= asked * BLOCKS_PER_REQUEST * per_block * page_slack
        assert stats.kv_resident_bytes < stats.num_blocks * per_block / 2


async def test_kv_is_given_back_when_idle() -> None:
    async with running_worker("smollm2-135m", kv_idle_release_s=0.1) as worker:
        await ask(worker, 0, NUM_REQUESTS)
        stats = await wait_for(worker, lambda stats: stats.kv_resident_bytes == 0)
        assert stats.num_used_blocks == 0
        assert stats.num_cached_blocks == 0
        assert stats.generated_tokens == NUM_REQUESTS * ANSWER_TOKENS
        assert resident_bytes(worker) <= allowed_bytes(worker)
