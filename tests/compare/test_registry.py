"""Engines by name, and those that run already, by fake servers over real sockets."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from corral.compare.engines.attached import Attached
from corral.compare.engines.engine import EngineMissing, Setup
from corral.compare.engines.registry import NAMES, engines
from corral.compare.process import free_port
from corral.errors import InvalidConfig

REPLIES = Path(__file__).parent / "replies"
SETUP = Setup(Path("/models/m.gguf"), "ab" * 32, "m", 2048, 4, 2)


@contextmanager
def serving(replies: dict[str, Any]) -> Iterator[str]:
    """Address of a server that says this and no more."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = replies.get(self.path)
            body = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(404 if told is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def reply(name: str) -> Any:
    return json.loads((REPLIES / name).read_text())


def test_all_are_known_in_the_order_in_which_they_are_wanted() -> None:
    found = engines(["vllm", *[name for name in NAMES if name != "vllm"]], {}, {"mine": "http://127.0.0.1:1/v1/"})
    assert [engine.name for engine in found] == ["vllm", "corral", "llama.cpp", "ollama", "mine"]
    assert isinstance(found[-1], Attached)
    assert found[-1].url == "http://127.0.0.1:1"


def test_one_engine_takes_part_twice_under_two_names() -> None:
    found = engines(["old=corral", "corral", "Llama-Server"], {"old": Path("/old")}, {})
    assert [engine.name for engine in found] == ["old", "corral", "llama.cpp"]


@pytest.mark.parametrize(
    ("wanted", "paths", "attached", "says"),
    [
        (
            ["olama"],
            {},
            {},
            "unknown engine 'olama'; did you mean 'ollama'?; there are corral, llama.cpp, vllm, ollama",
        ),
        (["x=vlm"], {}, {}, "unknown engine 'vlm'; did you mean 'vllm'?"),
        ([""], {}, {}, "unknown engine ''; there are"),
        (["=corral"], {}, {}, "'=corral' has no label before the ="),
        (["corral", "corral"], {}, {}, "the engine 'corral' is given twice; name one of them anew, as in new=corral"),
        (["vllm"], {}, {"vllm": "http://x"}, "the engine 'vllm' is given twice"),
        (["corral"], {"coral": Path("/x")}, {}, "'coral', which is not compared; did you mean 'corral'?"),
    ],
)
def test_what_cannot_be_obeyed_is_named(
    wanted: list[str], paths: dict[str, Path], attached: dict[str, str], says: str
) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(says)):
        engines(wanted, paths, attached)


@pytest.mark.parametrize(
    ("replies", "kind", "more"),
    [
        ({"/limits": reply("corral_limits.json"), "/api/version": {"version": "0.1"}, "/version": {"version": "0.1"}},
         "corral 0.1", {"ignore_eos": True, "min_tokens": 9}),
        ({"/props": reply("llama_props.json")}, "llama.cpp b0-unknown", {"ignore_eos": True}),
        ({"/api/version": {"version": "0.33.0"}}, "ollama 0.33.0", {}),
        ({"/version": {"version": "0.32.0"}}, "vllm 0.32.0", {"ignore_eos": True, "min_tokens": 9}),
        ({"/version": "no JSON", "/props": [1]}, "unknown", {}),
    ],
    ids=["corral", "llama.cpp", "ollama", "vllm", "another"],
)  # fmt: skip
async def test_what_runs_already_is_told_by_its_routes(
    replies: dict[str, Any], kind: str, more: dict[str, Any], tmp_path: Path
) -> None:
    with serving({**replies, "/v1/models": {"object": "list", "data": [{"id": "m"}]}}) as url:
        engine = Attached("theirs", f"{url}/v1")
        found = engine.find()
        assert found.version.startswith(kind)
        launch = engine.launch(found, SETUP, 8123, tmp_path)
        assert launch.argv == ()
        assert launch.notes
        assert engine.body({"model": "m"}, min_tokens=9) == {"model": "m", **more}
        async with httpx.AsyncClient(base_url=engine.url, trust_env=False) as client:
            assert await engine.is_ready(client)
            assert (await engine.settings(client, SETUP)).model == "m"


def test_what_cannot_be_attached_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match="begins with http:// or https://"):
        Attached("theirs", "127.0.0.1:8000")
    with pytest.raises(EngineMissing, match="nobody answers at http"):
        Attached("theirs", f"http://127.0.0.1:{free_port()}").find()
    with serving({"/v1/models": {"data": []}}) as url, pytest.raises(EngineMissing, match="lists no model"):
        Attached("theirs", url).find()
    with serving({"/v1/models": {"data": [{"id": "other"}]}}) as url:
        engine = Attached("theirs", url)
        found = engine.find()
        with pytest.raises(EngineMissing, match="has no model 'm'; it has other"):
            engine.launch(found, SETUP, 8123, tmp_path)
