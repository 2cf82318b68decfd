"""The memory plan: its figures, what it lowers and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from corral.config import EngineConfig
from corral.errors import InsufficientMemory, InvalidConfig
from corral.model.architectures import read_config
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile, open_gguf
from corral.model.memory import MemoryStatus
from corral.model.plan import POOL_SHARE, Plan, estimate, make_plan
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

GIB = 1 << 30
TINY = TinyModel()
KV_BYTES = 2 * 2 * 64 * 2 * 2  # layers, kv heads, head size, K and V, f16


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GGUFFile, ModelConfig]]:
    with open_gguf(write_tiny_gguf(tmp_path_factory.mktemp("plan") / "tiny.gguf", TINY)) as file:
        yield file, read_config(file)


def plan_with(tiny: tuple[GGUFFile, ModelConfig], free: int, settings: EngineConfig | None = None) -> Plan:
    return estimate(*tiny, settings or EngineConfig(), MemoryStatus(16 * GIB, free))


def test_with_plenty_of_memory_every_sequence_gets_the_full_context(tiny: tuple[GGUFFile, ModelConfig]) -> None:
    plan = plan_with(tiny, 8 * GIB)
    assert plan.fits
    assert (plan.max_model_len, plan.context_length, plan.kv_bytes_per_token) == (2048, 2048, KV_BYTES)
    assert plan.num_blocks == 128 * 2048 // 16
    assert plan.pool_bytes == 128 * 2048 * KV_BYTES
    assert (plan.max_users(2048), plan.max_users(1024), plan.max_users(17)) == (128, 128, 128)
    assert plan.notes == ()


def test_the_pool_is_capped_by_its_share_of_what_is_left(tiny: tuple[GGUFFile, ModelConfig]) -> None:
    settings = EngineConfig(max_num_seqs=100_000)
    plan = plan_with(tiny, 2 * GIB, settings)
    left = 2 * GIB - plan.weights_bytes - plan.work_bytes
    assert plan.num_blocks == int(left * POOL_SHARE) // (16 * KV_BYTES)
    assert plan.max_users(1024) == plan.num_blocks // 64


def test_a_context_that_does_not_fit_is_lowered_with_a_note(tiny: tuple[GGUFFile, ModelConfig]) -> None:
    needed = plan_with(tiny, GIB)
    free = needed.weights_bytes + needed.work_bytes + 1_000_000
    plan = plan_with(tiny, free)
    assert plan.fits
    assert 256 < plan.max_model_len < 2048
    assert plan.max_model_len * KV_BYTES <= 800_000 < (plan.max_model_len + 16) * KV_BYTES
    assert plan.max_users(plan.max_model_len) == 1
    assert "the context is lowered to" in plan.notes[0]
    assert "the context is lowered to" in plan.describe()
    with pytest.raises(InsufficientMemory):  # a length that was asked for is not lowered
        make_plan(*tiny, EngineConfig(max_model_len=2048), MemoryStatus(16 * GIB, free))


@pytest.mark.parametrize("spare", [-(1 << 28), 0, 100_000])
def test_what_does_not_fit_is_refused_with_the_numbers(tiny: tuple[GGUFFile, ModelConfig], spare: int) -> None:
    needed = plan_with(tiny, GIB)
    memory = MemoryStatus(16 * GIB, max(0, needed.weights_bytes + needed.work_bytes + spare))
    assert not estimate(*tiny, EngineConfig(), memory).fits
    with pytest.raises(InsufficientMemory) as caught:
        make_plan(*tiny, EngineConfig(), memory)
    for part in ("tiny llama does not fit", "1.5 MiB for weights", "are free", "of 16.0 GiB", "users at once"):
        assert part in str(caught.value)


def test_a_pool_that_was_asked_for_is_taken_or_refused(tiny: tuple[GGUFFile, ModelConfig]) -> None:
    settings = EngineConfig(kv_cache_bytes=1_000_000)
    plan = plan_with(tiny, GIB, settings)
    assert plan.num_blocks == 1_000_000 // (16 * KV_BYTES)
    assert plan.max_model_len == plan.num_blocks * 16
    assert plan.fits
    assert not plan_with(tiny, GIB, replace(settings, kv_cache_bytes=GIB)).fits
    assert not plan_with(tiny, GIB, replace(settings, max_model_len=2048)).fits


def test_a_context_beyond_the_models_is_refused(tiny: tuple[GGUFFile, ModelConfig]) -> None:
    with pytest.raises(InvalidConfig, match="max_model_len is 2049; tiny llama was made for contexts of up to 2048"):
        plan_with(tiny, GIB, EngineConfig(max_model_len=2049))
    assert plan_with(tiny, GIB, EngineConfig(max_model_len=100)).max_model_len == 100


def test_the_table_names_everything_a_user_asks_for(tiny: tuple[GGUFFile, ModelConfig]) -> None:
    text = plan_with(tiny, 8 * GIB).describe()
    for part in (
        "tiny llama (llama)",
        "1.5 MiB packed, 1.4 MiB in the file",
        "1.0 KiB a token as f16, a pool of 256.0 MiB for 262,144 tokens",
        "2,048 tokens; the model's own limit is 2,048",
        "128 with 1,024 tokens each, 128 with the full context",
        "8.0 GiB free of 16.0 GiB",
    ):
        assert part in text


def test_int8_holds_about_twice_the_tokens(tiny: tuple[GGUFFile, ModelConfig]) -> None:
    settings = EngineConfig(kv_cache_bytes=10_000_000)
    half = plan_with(tiny, GIB, settings)
    bytes_ = plan_with(tiny, GIB, replace(settings, kv_cache_dtype="int8"))
    assert bytes_.kv_bytes_per_token == KV_BYTES * (64 + 4) // 128
    assert half.pool_tokens * 1.8 < bytes_.pool_tokens < half.pool_tokens * 2
    assert "a token as int8" in bytes_.describe()


def test_this_machine_has_a_plan(tiny: tuple[GGUFFile, ModelConfig]) -> None:
    plan = make_plan(*tiny, EngineConfig(max_num_seqs=1))
    assert 0 < plan.memory.free <= plan.memory.total
    assert plan.max_model_len == 2048
