from __future__ import annotations

from pathlib import Path

import pytest

from corral.config import EngineConfig
from corral.errors import InvalidModelFile, ModelNotFound
from corral.model.memory import MemoryStatus
from corral.server.model_needs import Needs, read_needs
from tests.support.random_models import write_zoo_model

GIB = 1 << 30


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zoo_model("llama", tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("context", [1, 256, 1000, 100_000])
def test_with_the_least_bytes_the_context_fits_and_not_with_fewer(path: Path, context: int) -> None:
    needs = read_needs(path, EngineConfig())
    least = needs.least_bytes(context)
    plan = needs.plan(MemoryStatus(GIB, least))
    wanted = min(context, plan.context_length)
    assert plan.max_model_len >= wanted
    assert plan.pool_bytes >= needs.kv_bytes(context)
    if context >= 256:
        assert plan.fits
        tokens = needs.plan(MemoryStatus(GIB, least - plan.kv_bytes_per_token * 32)).pool_tokens
        assert tokens < wanted


def test_a_longer_context_than_the_model_has_is_capped(path: Path) -> None:
    assert read_needs(path, EngineConfig(max_model_len=1 << 30)).engine.max_model_len == context_of(path)
    assert read_needs(path, EngineConfig(max_model_len=100)).engine.max_model_len == 100


def context_of(path: Path) -> int:
    return read_needs(path, EngineConfig()).plan(MemoryStatus(GIB, GIB)).context_length


def test_a_given_pool_is_needed_whole(path: Path) -> None:
    def kv(needs: Needs) -> int:
        return needs.least_bytes(1) - needs.fixed_bytes

    assert kv(read_needs(path, EngineConfig(kv_cache_bytes=1 << 28))) == (1 << 28) + 1


def test_a_file_is_read_again_when_it_has_changed(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.gguf"
    copy.write_bytes(path.read_bytes())
    assert read_needs(copy, EngineConfig()) is read_needs(copy, EngineConfig())
    copy.write_bytes(b"GGUF")
    with pytest.raises(InvalidModelFile):
        read_needs(copy, EngineConfig())
    copy.unlink()
    with pytest.raises(ModelNotFound, match="cannot be read"):
        read_needs(copy, EngineConfig())
