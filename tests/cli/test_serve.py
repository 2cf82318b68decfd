from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import corral.server.run
from corral.cli.main import app
from corral.cli.serve import default_name, split_keys
from corral.config import EngineConfig, ServerConfig


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the server would be started with."""
    calls: list[tuple[Any, ...]] = []

    def serve(*arguments: Any) -> int:
        calls.append(arguments)
        return 3

    monkeypatch.setattr(corral.server.run, "serve", serve)
    return calls


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "my-model.gguf").touch()
    return tmp_path / "my-model.gguf"


def test_without_flags_the_defaults_hold(served: list[tuple[Any, ...]], model: Path) -> None:
    done = CliRunner().invoke(app, ["serve", str(model)])
    assert done.exit_code == 3
    assert served == [(model, "my-model", EngineConfig(), ServerConfig())]


FLAGS = {
    "--host": "0.0.0.0",
    "--port": "8000",
    "--api-key": "one,two",
    "--served-model-name": "team",
    "--max-model-len": "1000",
    "--max-num-seqs": "7",
    "--max-num-batched-tokens": "64",
    "--max-step-ms": "80.5",
    "--max-queue": "9",
    "--kv-cache-memory": "1G",
    "--kv-cache-dtype": "int8",
    "--kv-idle-release": "5",
    "--threads": "2",
    "--cache-max": "2G",
    "--max-body-size": "1M",
    "--drain-timeout": "10",
}
SWITCHES = ("--no-auth", "--no-prefix-caching", "--no-cache")
EXPECTED = (
    "team",
    EngineConfig(
        max_model_len=1000,
        max_num_seqs=7,
        max_num_batched_tokens=64,
        max_step_ms=80.5,
        max_queue=9,
        kv_cache_bytes=1 << 30,
        kv_cache_dtype="int8",
        kv_idle_release_s=5.0,
        enable_prefix_caching=False,
        num_threads=2,
        cache_weights=False,
        cache_max_bytes=2 << 30,
    ),
    ServerConfig("0.0.0.0", 8000, ("one", "two"), no_auth=True, max_body_bytes=1 << 20, drain_timeout_s=10.0),
)


def test_every_flag_arrives(served: list[tuple[Any, ...]], model: Path) -> None:
    arguments = [part for flag in FLAGS.items() for part in flag]
    CliRunner().invoke(app, ["serve", str(model), *arguments, *SWITCHES], catch_exceptions=False)
    assert served == [(model, *EXPECTED)]


def test_every_flag_has_a_twin_in_the_environment(served: list[tuple[Any, ...]], model: Path) -> None:
    def twin(flag: str) -> str:
        return "CORRAL_" + flag.removeprefix("--").upper().replace("-", "_")

    environment = {twin(flag): value for flag, value in FLAGS.items()} | {twin(switch): "1" for switch in SWITCHES}
    CliRunner().invoke(app, ["serve", str(model)], env=environment, catch_exceptions=False)
    assert served == [(model, *EXPECTED)]


def test_the_list_of_flags_is_whole(served: list[tuple[Any, ...]], model: Path) -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"]).output
    flags = {word.strip(",") for word in shown.split() if word.startswith("--")}
    assert flags == {*FLAGS, *SWITCHES, "--ctx-size", "--help"}


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ([], ()),
        ([""], ()),
        (["a"], ("a",)),
        (["a", "b"], ("a", "b")),
        (["a,b", "c"], ("a", "b", "c")),
        ([" a , ,b,", "a"], ("a", "b")),
    ],
)
def test_keys_are_separated_by_commas_or_flags(values: list[str], keys: tuple[str, ...]) -> None:
    assert split_keys(values) == keys


@pytest.mark.parametrize(
    ("model", "name"), [("smollm2", "smollm2"), ("smollm2:135m", "smollm2:135m"), ("/models/a.b.gguf", "a.b")]
)
def test_the_default_name_is_the_one_given(model: str, name: str) -> None:
    assert default_name(model) == name
