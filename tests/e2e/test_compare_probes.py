"""All probes against real engines: what is known of them is what the checks find."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from corral.compare.engines.engine import EngineMissing, Setup
from corral.compare.engines.registry import engines
from corral.compare.probing import probe
from corral.compare.process import free_port
from corral.compare.results import Check
from corral.compare.turn import Entry
from tests.support.llama_server import find_llama_server
from tests.support.models import model_path

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


async def checks_of(name: str, folder: Path) -> dict[str, Check]:
    program = find_llama_server(folder) if name == "llama.cpp" else None
    paths = {name: program} if program else {}
    (engine,) = engines([name], paths, {})
    model = model_path("smollm2-135m")
    setup = Setup(model, hashlib.sha256(model.read_bytes()).hexdigest(), "model", 2048, 4, 2)
    said: list[str] = []
    try:
        port = free_port()
        entry = Entry(engine, setup, engine.launch(engine.find(), setup, port, folder), port)
    except EngineMissing as missing:
        pytest.skip(str(missing))
    checks = await probe(entry, folder / "log", said.append)
    assert not said
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    for check in checks:
        assert check.found
        assert check.wanted
        assert "the check itself failed" not in check.found, check
        assert "given up" not in check.found, check
        assert not re.search(r"key-[0-9a-f]{32}", check.found), check
    return found


async def test_corral(tmp_path: Path) -> None:
    """The losses are known: the report shows them like any other engine's."""
    found = await checks_of("corral", tmp_path)
    lost = {name: check.verdict for name, check in found.items() if check.verdict != "pass"}
    by_others = {name for name in lost if name.endswith("by llm-comply")}  # a small model does not always end by itself
    assert {name: verdict for name, verdict in lost.items() if name not in by_others} == {
        "models are managed without a key": "fail",
        "version told without a key": "partly",
        "tool call": "partly",  # SmolLM2's template has no tools
        "tool call, streamed": "partly",
    }
    assert {lost[name] for name in by_others} <= {"partly", "unknown"}
    assert "with a stream in flight: the stream had" in found["drain"].found
    assert "not tried" not in found["addresses that listen"].found


async def test_llama_server(tmp_path: Path) -> None:
    found = await checks_of("llama.cpp", tmp_path)
    for name in (
        "inference wants the key",
        "wrong keys",
        "health",
        "stream: [DONE]",
        "stream: usage",
        "JSON schema",
        "n",
    ):
        assert found[name].verdict == "pass", found[name]
    assert found["foreign pages read answers (CORS)"].verdict == "fail"
    assert found["drain"].verdict == "fail"
    assert found["crash of what computes"].verdict == "fail"
    assert found["metrics"].verdict == "partly"
    assert found["Ollama's /api/chat"].verdict == "unknown"
