"""The verbs on a server, as scripts see them: CORRAL_HOST names it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from corral.cli.address import parse_address
from corral.cli.native_client import NativeClient
from corral.cli.remote_backend import RemoteBackend
from corral.errors import CorralError
from tests.cli.conftest import environment
from tests.cli.native_server import NativeServer, native_server
from tests.cli.terminal_session import CTRL_C, CTRL_D, ENTER, terminal_session

Corral = Callable[..., CompletedProcess[bytes]]
Remote = Callable[..., CompletedProcess[bytes]]


@pytest.fixture
def remote(corral: Corral, server: NativeServer) -> Remote:
    def run(*arguments: str, input: bytes = b"") -> CompletedProcess[bytes]:  # noqa: A002 - as subprocess calls it
        return corral(*arguments, env={"CORRAL_HOST": server.address}, input=input)

    return run


def test_list_is_the_servers(remote: Remote) -> None:
    done = remote("list")
    head, *rows = done.stdout.decode().splitlines()
    assert head.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert rows[0].startswith("smollm2:latest    0123456789ab    98 MB    ")
    assert rows[0].endswith(" ago")
    assert len(remote("ls", "MINI").stdout.splitlines()) == 2
    [model] = json.loads(remote("list", "mini", "--json").stdout)
    assert (model["name"], model["size"]) == ("minilm:latest", 98_362_432)
    assert model["modified_at"] == "2026-01-02T03:04:05.123456+00:00"


def test_show_is_the_servers(remote: Remote) -> None:
    shown = remote("show", "smollm2").stdout.decode()
    assert "    parameters        134.52M\n" in shown
    assert remote("show", "smollm2", "--modelfile").stdout == b"FROM smollm2:latest\n"
    assert json.loads(remote("show", "smollm2", "--json").stdout)["capabilities"] == ["completion"]
    done = remote("show", "nothing")
    assert (done.returncode, done.stderr) == (1, b"Error: model 'nothing' not found\n")


def test_pull_tells_each_step(remote: Remote, server: NativeServer) -> None:
    done = remote("pull", "qwen", "--insecure")
    assert done.returncode == 0
    assert done.stdout == b""
    assert done.stderr.decode().splitlines() == [
        "pulling manifest",
        "pulling abababababab: 2 KB",
        "pulling abababababab: 2 KB, done",
        "success",
    ]
    assert server.bodies("/api/pull") == [{"model": "qwen", "insecure": True, "stream": True}]
    done = remote("pull", "missing")
    assert done.returncode == 1
    assert done.stderr.endswith(b"Error: pull model manifest: file does not exist\n")


def test_push_cp_and_rm(remote: Remote, server: NativeServer) -> None:
    assert remote("push", "me/mine").returncode == 0
    assert remote("cp", "smollm2", "mine").stdout == b"copied 'smollm2' to 'mine'\n"
    done = remote("rm", "mine", "minilm")
    assert done.stdout == b"deleted 'mine'\ndeleted 'minilm'\n"
    assert set(server.models) == {"smollm2:latest"}
    done = remote("rm", "nothing")
    assert (done.returncode, done.stderr) == (1, b"Error: model 'nothing' not found\n")
    assert remote("cp", "nothing", "x").returncode == 1


def test_create_sends_files_that_the_server_lacks(remote: Remote, server: NativeServer, tmp_path: Path) -> None:
    data = b"GGUF and more"
    (tmp_path / "small.gguf").write_bytes(data)
    (tmp_path / "Modelfile").write_text("FROM ./small.gguf\nSYSTEM Be brief.\nPARAMETER temperature 0.5\n")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    done = remote("create", "mine", "-f", str(tmp_path / "Modelfile"), "-q", "q8_0")
    assert done.returncode == 0, done.stderr
    assert server.blobs == {digest: data}
    [body] = server.bodies("/api/create")
    assert body["model"] == "mine"
    assert list(body["files"].values()) == [digest]
    assert (body["system"], body["parameters"]["temperature"]) == ("Be brief.", 0.5)
    assert body["quantize"].lower() == "q8_0"
    server.requests.clear()
    assert remote("create", "again", "-f", str(tmp_path / "Modelfile")).returncode == 0
    assert server.blobs == {digest: data}


def test_create_without_its_modelfile_is_said(remote: Remote, tmp_path: Path) -> None:
    done = remote("create", "mine", "-f", str(tmp_path / "Modelfile"))
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: specified Modelfile wasn't found")


def test_ps_tells_what_is_loaded(remote: Remote) -> None:
    head, row = remote("ps").stdout.decode().splitlines()
    assert head.split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert row.split() == ["smollm2:latest", "0123456789ab", "98", "MB", "100%", "CPU", "8192", "Forever"]
    head, row = remote("ps", "-v").stdout.decode().splitlines()
    assert head.split() == [
        *("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "WEIGHTS"),
        *("KV", "CACHE", "KV", "LIMIT", "RUNNING", "WAITING", "UNTIL"),
    ]
    assert row.split()[7:] == ["90", "MB", "1.5", "MB", "2", "GB", "1", "3", "Forever"]
    assert json.loads(remote("ps", "--json").stdout)[0]["kv_limit_bytes"] == 2_000_000_000
    assert len(remote("ps", "other").stdout.splitlines()) == 1


def test_stop_unloads(remote: Remote, server: NativeServer) -> None:
    done = remote("stop", "smollm2")
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")
    assert server.bodies("/api/generate") == [{"model": "smollm2", "keep_alive": 0, "stream": False}]
    done = remote("stop", "nothing")
    assert done.returncode == 1
    assert done.stderr == b'Error: couldn\'t find model "nothing" to stop\n'


def test_run_asks_the_server(remote: Remote, server: NativeServer) -> None:
    done = remote("run", "smollm2", "hello", "--temperature", "0.5", "--keepalive", "10m", "--verbose", "--think")
    assert done.stdout == b"HELLO!\n"
    assert done.stderr.decode().splitlines() == [
        "total duration:       3.50s",
        "load duration:        1.00s",
        "prompt eval count:    110 token(s), 10 of them cached",
        "prompt eval duration: 500.0ms",
        "prompt eval rate:     200.00 tokens/s",
        "eval count:           20 token(s)",
        "eval duration:        2.00s",
        "eval rate:            10.00 tokens/s",
    ]
    assert server.bodies("/api/chat") == [
        {
            "model": "smollm2",
            "messages": [{"role": "user", "content": "hello"}],
            "options": {"temperature": 0.5},
            "think": True,
            "keep_alive": "10m",
            "truncate": False,
            "stream": True,
        }
    ]


def test_run_sends_system_format_and_context(remote: Remote, server: NativeServer) -> None:
    schema = '{"type": "object"}'
    remote(
        "run", "smollm2", "--system", "Be brief.", "--format", schema, "--ctx-size", "512", "--", "hi", input=b"text"
    )
    [body] = server.bodies("/api/chat")
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "text hi"}]
    assert body["format"] == {"type": "object"}
    assert body["options"] == {"num_ctx": 512}
    done = remote("run", "smollm2", "hi", "--format", "yaml")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: --format is 'yaml'")


def test_run_pulls_what_the_server_lacks(remote: Remote, server: NativeServer) -> None:
    done = remote("run", "qwen", "hi")
    assert done.stdout == b"HI!\n"
    assert b"pulling manifest" in done.stderr
    assert "qwen:latest" in server.models
    done = remote("run", "missing", "hi")
    assert done.returncode == 1
    assert done.stderr.endswith(b"Error: pull model manifest: file does not exist\n")


def test_run_shows_thinking_apart(remote: Remote) -> None:
    assert remote("run", "smollm2", "think").stdout == b"Thinking...\nlet me see\n...done thinking.\n\nTHINK!\n"
    assert remote("run", "smollm2", "think", "--hidethinking").stdout == b"THINK!\n"


def test_an_empty_prompt_only_loads(remote: Remote, server: NativeServer) -> None:
    done = remote("run", "smollm2", "", "--keepalive", "-1")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)
    assert server.bodies("/api/chat") == [{"model": "smollm2", "messages": [], "keep_alive": -1.0}]


def test_an_embedding_model_prints_one_array(remote: Remote, server: NativeServer) -> None:
    done = remote("run", "minilm", "some text", "--dimensions", "2", "--no-truncate")
    assert json.loads(done.stdout) == [0.6, -0.8]
    [body] = server.bodies("/api/embed")
    assert body == {"model": "minilm", "input": "some text", "truncate": False, "dimensions": 2}


@pytest.mark.parametrize(
    ("question", "error"),
    [("break off", b"ended the answer before it was complete"), ("fail", b"the engine has died")],
)
def test_an_answer_that_ends_badly_is_an_error(remote: Remote, question: str, error: bytes) -> None:
    done = remote("run", "smollm2", question)
    assert done.returncode == 1
    assert done.stdout == question.upper().encode() + b"!\n"
    assert error in done.stderr


def test_a_key_is_sent_and_a_missing_one_explained(corral: Corral, server: NativeServer) -> None:
    env = {"CORRAL_HOST": server.address, "CORRAL_API_KEY": "one, two"}
    assert corral("run", "smollm2", "hi", env=env).stdout == b"HI!\n"
    assert server.headers_seen[-1]["Authorization"] == "Bearer one"
    server.is_locked = True
    done = corral("run", "smollm2", "hi", env={"CORRAL_HOST": server.address})
    assert done.stderr == b"Error: no key, no answer; set CORRAL_API_KEY to a key of that server\n"


def test_ollamas_own_server_is_not_taken_for_ours(corral: Corral, tmp_path: Path) -> None:
    with native_server("Ollama") as other:
        env = {"CORRAL_HOST": other.address, "CORRAL_HOME": str(tmp_path), "OLLAMA_MODELS": str(tmp_path)}
        assert corral("list", env=env).stdout.splitlines() == [b"NAME    ID    SIZE    MODIFIED"]
        done = corral("ps", env=env)
        assert done.returncode == 1
        assert done.stderr.decode() == (
            f"Error: could not connect to a Corral server at http://{other.address}; run 'corral serve' to start it\n"
        )


@pytest.mark.parametrize("verb", [("ps",), ("stop", "x")])
def test_what_needs_a_server_says_so(corral: Corral, verb: tuple[str, ...]) -> None:
    done = corral(*verb)
    assert done.returncode == 1
    assert done.stderr == (
        b"Error: could not connect to a Corral server at http://127.0.0.1:1; run 'corral serve' to start it\n"
    )


@pytest.mark.parametrize("verb", [("list",), ("run", "smollm2", "hi"), ("rm", "smollm2")])
def test_another_machine_that_does_not_answer_is_an_error(corral: Corral, verb: tuple[str, ...]) -> None:
    done = corral(*verb, env={"CORRAL_HOST": "nowhere.invalid:11434"})
    assert done.returncode == 1
    assert b"could not connect to a Corral server at http://nowhere.invalid:11434" in done.stderr


def test_an_address_that_cannot_be_is_named(corral: Corral) -> None:
    done = corral("list", env={"CORRAL_HOST": "ftp://x"})
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: the server's address is 'ftp://x'")


def test_ctrl_c_stops_the_answer_on_the_server(server: NativeServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "corral", "run", "smollm2"]
    variables = environment(CORRAL_HOST=server.address, CORRAL_HOME=str(tmp_path))
    with terminal_session(command, variables) as chat:
        chat.expect(">>>")
        chat.press(f"forever{ENTER}")
        chat.expect("on on on")
        chat.press(CTRL_C)
        chat.expect(">>>")
        assert server.client_left.wait(60), "the connection stayed open"
        chat.press(f"/load minilm:latest{ENTER}")
        chat.expect("Loading model 'minilm:latest'")
        chat.expect(">>>")
        chat.press(f"/load smollm2:latest{ENTER}")
        chat.expect(">>>")
        chat.press(f"fail{ENTER}")
        chat.expect("Error: the engine has died")
        chat.expect(">>>")
        chat.press(f"still there{ENTER}")
        chat.expect("STILL THERE!")
        chat.expect(">>>")
        chat.press(CTRL_D)
        assert chat.wait() == 0
    assert server.bodies("/api/chat")[0]["messages"] == [], "it was not loaded before the first question"


def test_without_a_model_it_is_the_default_of_the_catalog(
    remote: Remote, server: NativeServer, corral: Corral, tmp_path: Path
) -> None:
    assert remote("run", input=b"hi").stdout == b"HI!\n"
    assert server.bodies("/api/chat")[-1]["model"].startswith("smollm2")
    assert b"smollm2 by default" in b" ".join(corral("run", "--help").stdout.split())
    variables = environment(CORRAL_HOST=server.address, CORRAL_HOME=str(tmp_path))
    with terminal_session([sys.executable, "-m", "corral", "run"], variables) as chat:
        chat.expect(">>>")
        chat.press(f"hello{ENTER}")
        chat.expect("HELLO!")
        chat.expect(">>>")
        chat.press(CTRL_D)
        assert chat.wait() == 0


def test_a_draft_is_not_dropped_in_silence(server: NativeServer) -> None:
    backend = RemoteBackend(NativeClient(parse_address(server.address)))
    spec: Any = SimpleNamespace(drafts={"draft.gguf": "/draft.gguf"})
    with pytest.raises(CorralError, match="DRAFT"):
        backend.create("mine", spec, lambda _status: None)
    assert server.requests == []
