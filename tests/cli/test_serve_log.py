"""What `corral serve` says besides serving has the form of its log."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import corral.server.run
from corral.cli.main import app
from corral.config import EngineConfig
from corral.errors import CorralError, InsufficientMemory


@pytest.fixture(autouse=True)
def nothing_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("OLLAMA_", "CORRAL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    monkeypatch.setattr(corral.server.run, "serve", lambda *_: 0)


def serve(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["serve", *arguments])


def lines(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_KV_CACHE_TYPE", "q4_0")
    monkeypatch.setenv("OLLAMA_FLASH_ATTENTION", "1")
    in_json = lines(serve("--log-format", "json"))
    assert [line["level"] for line in in_json] == ["warning", "warning"]
    assert "q4_0" in in_json[0]["message"]
    assert "OLLAMA_FLASH_ATTENTION" in in_json[1]["message"]
    in_text = serve().stderr.splitlines()
    assert [line[20:29] for line in in_text] == ["warning: ", "warning: "]
    assert not serve("--log-level", "error").stderr


def test_the_error_that_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = serve(str(tmp_path / "none.gguf"), "--log-format", "json")
    assert done.exit_code == 1
    [line] = lines(done)
    assert (line["level"], "none.gguf" in line["message"]) == ("error", True)
    with pytest.raises(CorralError):  # which main() tells in one line
        CliRunner().invoke(app, ["serve", str(tmp_path / "none.gguf")], catch_exceptions=False)

    def fail(*_: Any) -> int:
        raise InsufficientMemory("it needs\n12 GiB")

    monkeypatch.setattr(corral.server.run, "serve", fail)
    [line] = lines(serve("--log-format", "json"))
    assert line["message"] == "it needs\n12 GiB"


def test_an_error_that_nobody_has_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, engine: EngineConfig, *__: Any) -> int:
        raise ZeroDivisionError(f"{engine.max_num_seqs}")

    monkeypatch.setattr(corral.server.run, "serve", fail)
    done = serve("--log-format", "json")
    [line] = lines(done)
    assert (done.exit_code, line["level"]) == (1, "error")
    assert line["exception"].endswith("ZeroDivisionError: 128")


def test_an_exit_code_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corral.server.run, "serve", lambda *_: 7)
    for form in ("text", "json"):
        done = serve("--log-format", form)
        assert (done.exit_code, done.stderr) == (7, "")


def test_traces_without_opentelemetry_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    done = serve("--otlp-traces-endpoint", "http://localhost:4318", "--log-format", "json")
    [line] = lines(done)
    assert (done.exit_code, "pip install 'corral[otel]'" in line["message"]) == (1, True)
