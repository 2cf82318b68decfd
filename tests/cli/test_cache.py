from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from corral.model.packed_cache import PackedCache
from corral.model.packed_file import PackedFile
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

Corral = Callable[..., CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = TinyModel(extra={"general.name": "tiny \x1b[31mred"})
    return write_tiny_gguf(tmp_path_factory.mktemp("cache") / "tiny.gguf", tiny)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that packed files go to, of this process and those it starts."""
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path))
    return tmp_path / "packed"


def load(corral: Corral, model: Path, *flags: str, env: dict[str, str] | None = None) -> bytes:
    """What a load and nothing else says."""
    done = corral("run", str(model), "", *flags, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    return done.stderr


def test_an_empty_cache(corral: Corral, home: Path) -> None:
    assert corral("cache", "list").stdout == b""
    assert json.loads(corral("cache", "list", "--json").stdout) == []
    assert corral("cache", "clear").stdout == b"0 removed, 0 B freed\n"
    assert corral("cache", "verify").returncode == 0
    assert not home.exists()


def test_a_load_fills_it_and_it_is_listed_verified_and_cleared(corral: Corral, model: Path, home: Path) -> None:
    assert load(corral, model) == b""
    [path] = home.iterdir()
    [found] = json.loads(corral("cache", "list", "--json").stdout)
    assert found["path"] == str(path)
    assert found["num_bytes"] == path.stat().st_size
    head, line = corral("cache", "list").stdout.decode().splitlines()
    assert head.split() == ["MODEL", "SIZE", "LAST", "USED", "FILE"]
    assert line.split("  ")[0].startswith("tiny ?[31mred"), "a model's name steers no terminal"
    assert path.name in line
    assert "MiB" in line
    assert "just now" in line

    before = path.stat()
    assert load(corral, model) == b""
    assert path.stat().st_ino == before.st_ino, "it was written again"
    assert path.stat().st_mtime_ns > before.st_mtime_ns, "its use was not noted"
    done = corral("cache", "verify")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"good ")
    assert corral("cache", "clear").stdout.startswith(b"1 removed, ")
    assert list(home.iterdir()) == []


def test_verify_removes_what_is_damaged(corral: Corral, model: Path, home: Path) -> None:
    load(corral, model)
    [path] = home.iterdir()
    offset = PackedFile(path).tensors["attn_q", 0].offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    done = corral("cache", "verify")
    assert done.returncode == 1
    assert b"the bytes of attn_q of layer 0 have changed" in done.stdout
    assert done.stderr == b"Error: damaged and removed: 1\n"
    assert list(home.iterdir()) == []


def test_a_file_that_is_no_packed_file_is_listed_and_cleared(corral: Corral, home: Path) -> None:
    home.mkdir()
    (home / "old.packed").write_bytes(b"something else")
    assert b"(unusable)" in corral("cache", "list").stdout
    assert json.loads(corral("cache", "list", "--json").stdout)[0]["model"] is None
    assert corral("cache", "clear").stdout.startswith(b"1 removed")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(("flags", "env"), [(("--no-cache",), {}), ((), {"CORRAL_NO_CACHE": "1"})])
def test_without_the_cache_nothing_is_written_or_read(
    flags: tuple[str, ...], env: dict[str, str], corral: Corral, model: Path, home: Path
) -> None:
    assert load(corral, model, *flags, env=env) == b""
    assert not home.exists()
    load(corral, model)
    [entry] = PackedCache(home).entries()
    load(corral, model, *flags, env=env)
    assert PackedCache(home).entries() == [entry], "it was used"


def test_the_cap_holds(corral: Corral, model: Path, home: Path) -> None:
    assert b"more than the cap of the cache" in load(corral, model, "--cache-max", "64K")
    assert b"more than the cap of the cache" in load(corral, model, env={"CORRAL_CACHE_MAX": "0"})
    assert list(home.iterdir()) == []
    done = corral("run", str(model), "", "--cache-max", "much")
    assert done.returncode == 2
    assert b"is no size" in done.stderr
