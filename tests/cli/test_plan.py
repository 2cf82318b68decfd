from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support.gguf_writer import TinyModel, write_tiny_gguf

Corral = Callable[..., CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("plan") / "tiny.gguf", TinyModel(context_length=2048))


def test_the_table_is_data(corral: Corral, model: Path) -> None:
    done = corral("plan", str(model))
    assert done.returncode == 0
    assert done.stderr == b""
    table = done.stdout.decode()
    assert "tiny llama (llama)" in table
    assert "2,048 tokens" in table


def test_json_holds_the_same_in_bytes(corral: Corral, model: Path) -> None:
    done = corral("plan", str(model), "--json", "--max-model-len", "512", "--kv-cache-memory", "8M")
    found = json.loads(done.stdout)
    assert found["max_model_len"] == 512
    assert found["context_length"] == 2048
    assert found["fits"] is True
    assert 0 < found["num_blocks"] * 16 * found["kv_bytes_per_token"] <= 8 << 20


def test_flags_have_twins_in_the_environment(corral: Corral, model: Path) -> None:
    done = corral("plan", str(model), "--json", env={"CORRAL_MAX_MODEL_LEN": "256"})
    assert json.loads(done.stdout)["max_model_len"] == 256


def test_the_form_of_the_kv_cache_is_shown_and_checked(corral: Corral, model: Path) -> None:
    found = json.loads(corral("plan", str(model), "--json", "--kv-cache-dtype", "int8").stdout)
    assert found["kv_dtype"] == "int8"
    refused = corral("plan", str(model), env={"CORRAL_KV_CACHE_DTYPE": "fp8"})
    assert refused.returncode == 2
    for part in (b"fp8", b"auto", b"f16", b"int8"):
        assert part in refused.stderr


def test_what_does_not_fit_is_shown_and_exits_with_1(corral: Corral, model: Path) -> None:
    done = corral("plan", str(model), "--kv-cache-memory", "1000T")
    assert done.returncode == 1
    assert b"tiny llama" in done.stdout
    assert done.stderr.decode() == "Error: tiny llama does not fit into the memory that is free\n"


def test_a_context_beyond_the_models_own_is_refused_with_both(corral: Corral, model: Path) -> None:
    done = corral("plan", str(model), "--ctx-size", "4096")
    assert done.returncode == 1
    assert "4096" in done.stderr.decode()
    assert "2048" in done.stderr.decode()


def test_a_damaged_file_is_one_line(corral: Corral, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(7))
    done = corral("plan", str(tmp_path / "bad.gguf"))
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: ")
    assert "bad.gguf" in line
