"""A walk over the table of limits: what is at a limit passes, what is beyond it is refused as the table says."""

from __future__ import annotations

import ast
import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from corral.cli.serve import serve
from corral.config import EngineConfig, ServerConfig
from corral.errors import QueueFull
from corral.server import batch_files
from corral.server.limits_table import limits_table
from corral.server.store_jobs import StoreJobs
from tests.support.live_server import LiveServer, chat_body, live_server

ROOT = Path(__file__).parent.parent.parent
ROWS = {row.name: row for row in itertools.chain(*limits_table(EngineConfig(), ServerConfig()).values())}
MODEL = "scripted"
JSON = {"Content-Type": "application/json"}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class Case:
    """A body of `size`, which the limit counts.

    Args:
        is_told: the refusal says how much was given; what counts on the way only knows that it is too much.
        only_beyond: what is at the limit is too much for a test, or nothing.
    """

    path: str
    body: Callable[[int], dict[str, Any]]
    is_told: bool = True
    only_beyond: bool = False


def chat(**fields: Any) -> dict[str, Any]:
    return {**chat_body("hi"), **fields}


def text(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "hi", "max_tokens": 1, **fields}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def function(number: int) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"f{number}", "parameters": {"type": "object"}}}


def messages(size: int) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": "hi"}] * size)


def calls(size: int) -> dict[str, Any]:
    made = [{"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in range(size)]
    spoken = [{"role": "assistant", "tool_calls": made}, {"role": "user", "content": "hi"}]
    return chat(messages=spoken)


def plain_tool(number: int) -> dict[str, Any]:
    return {"name": f"f{number}", "input_schema": {"type": "object"}}


def answers(size: int) -> dict[str, Any]:
    """Prompts times n."""
    num_prompts = next(count for count in range(200, 15, -1) if size % count == 0)
    return text(prompt=["hi"] * num_prompts, n=size // num_prompts)


def entries(size: int) -> dict[str, str]:
    return {f"k{i}": "v" for i in range(size)}


def images(size: int) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    return chat_body([*[part] * size, {"type": "text", "text": "hi"}])


CASES: dict[str, Case] = {
    "body_bytes": Case(CHAT, lambda size: sized(size)),
    "json_depth": Case(CHAT, lambda size: chat(metadata=nested(size - 1)), is_told=False, only_beyond=True),
    "json_containers": Case(CHAT, lambda size: chat(metadata=[[]] * size), is_told=False, only_beyond=True),
    "json_values": Case(CHAT, lambda size: chat(metadata=[1] * (size + 2)), is_told=False, only_beyond=True),
    "messages": Case(CHAT, messages),
    "content_parts": Case(CHAT, lambda size: chat_body([{"type": "text", "text": "x"}] * size, max_tokens=1)),
    "tool_calls": Case(CHAT, calls),
    "images": Case(CHAT, images, is_told=False),
    "openai_tools": Case(CHAT, lambda size: chat(tools=[function(i) for i in range(size)])),
    "tools": Case("/v1/messages", lambda size: chat(max_tokens=1, tools=[plain_tool(i) for i in range(size)])),
    "prompts": Case(TEXT, lambda size: text(prompt=["hi"] * size)),
    "answers": Case(TEXT, lambda size: answers(size), is_told=False),
    "embedding_inputs": Case("/v1/embeddings", lambda size: {"model": MODEL, "input": ["hi"] * size}),
    "scored_texts": Case("/v1/rerank", lambda size: {"model": MODEL, "query": "hi", "documents": ["hi"] * size}),
    "documents": Case(CHAT, lambda size: chat(documents=[{"text": "x"}] * size)),
    "chat_template_kwargs": Case(CHAT, lambda size: chat(chat_template_kwargs={f"k{i}": 1 for i in range(size)})),
    "metadata": Case("/v1/responses", lambda size: {"model": MODEL, "input": "hi", "metadata": entries(size)}),
    "n": Case(CHAT, lambda size: chat(n=size)),
    "logprobs": Case(CHAT, lambda size: chat(logprobs=True, top_logprobs=size)),
    "stop": Case(CHAT, lambda size: chat(stop=[f"s{i}" for i in range(size)])),
    "stop_length": Case(CHAT, lambda size: chat(stop="s" * size)),
    "stop_token_ids": Case(CHAT, lambda size: chat(stop_token_ids=list(range(size)))),
    "logit_bias": Case(CHAT, lambda size: chat(logit_bias={str(i): 1 for i in range(size)})),
    "bad_words": Case(CHAT, lambda size: chat(bad_words=[f"w{i}" for i in range(size)])),
    "bad_word_length": Case(CHAT, lambda size: chat(bad_words=["w" * size])),
    "allowed_token_ids": Case(CHAT, lambda size: chat(allowed_token_ids=list(range(size)))),
    "cache_salt": Case(CHAT, lambda size: chat(cache_salt="s" * size)),
    "request_id": Case(CHAT, lambda size: chat(request_id="r" * size)),
    "grammar_choices": Case(CHAT, lambda size: chat(guided_choice=[f"c{i}" for i in range(size)])),
    "grammar_length": Case(CHAT, lambda size: chat(guided_regex="x" * size)),
}  # fmt: skip
# What takes a connection, a real model, a clock or gigabytes: the tests that hold it.
ELSEWHERE = {
    "connections": "tests/server/test_slow_clients.py::test_connections_are_bounded_and_probes_still_answered",
    "connections_per_address": "tests/server/test_slow_clients.py::test_one_address_does_not_take_all",
    "head_bytes": "tests/server/test_hostile.py::test_a_head_just_too_long_is_told_so",
    "head_time": "tests/server/test_slow_clients.py::test_a_slow_head_is_cut",
    "idle_time": "tests/server/test_slow_clients.py::test_empty_lines_between_requests_hold_no_connection",
    "pipelined": "tests/server/test_slow_clients.py::test_pipelines_are_bounded",
    "write_time": "tests/server/test_slow_clients.py::test_a_client_that_does_not_read_its_stream_is_cut_off",
    "linger_time": "tests/server/test_slow_clients.py::test_a_body_that_nobody_reads_is_not_awaited_for_ever",
    "body_time": "tests/server/test_slow_clients.py::test_a_slow_body_is_told_so",
    "body_rate": "tests/server/test_slow_clients.py::test_a_body_that_keeps_its_rate_may_take_its_time",
    "file_bytes": "tests/server/test_limits.py::test_files_are_bounded",
    "stored_file_bytes": "tests/server/test_limits.py::test_files_are_bounded",
    "context": "tests/engine/test_core.py::test_a_prompt_that_fills_the_context_is_refused_with_the_numbers",
    "schema_depth": "tests/text/test_grammar_limits.py::test_what_cannot_be_used_is_refused_with_its_reason",
    "schema_values": "tests/text/test_grammar_limits.py::test_what_cannot_be_used_is_refused_with_its_reason",
    "compile_time": "tests/text/test_grammar_limits.py::test_a_grammar_that_takes_too_long_is_refused_and_others_go_on",
    "compiling": "tests/text/test_grammar_limits.py::test_a_grammar_that_takes_too_long_is_refused_and_others_go_on",
    "grammar_cache": "tests/text/test_grammar_limits.py::test_the_cache_keeps_what_was_used_last_under_its_cap",
    "template_length": "tests/text/test_go_template.py::test_what_is_outside_the_subset_is_refused_with_its_line",
    "template_time": "tests/text/test_chat_template.py::test_a_hostile_template_is_stopped",
    "rendered_length": "tests/text/test_chat_template.py::test_a_prompt_beyond_the_limit_is_refused_with_it",
    "rendered_total": "tests/text/test_chat_template.py::test_a_hostile_template_is_stopped",
    "rendered_items": "tests/text/test_chat_template.py::test_a_hostile_template_is_stopped",
    "running": "tests/engine/test_scheduler.py::test_requests_are_served_in_order_of_arrival",
    "waiting": "tests/engine/test_loop.py::test_a_full_queue_refuses_and_says_when_to_come_back",
    "loading": "tests/server/test_workers_races.py::test_the_queue_is_bounded",
    "looking": "tests/worker/test_client.py::test_prompts_that_are_looked_at_are_bounded",
    "store_jobs": "tests/server/test_limits.py::test_jobs_of_the_store_are_bounded",
    "batch_lines": "tests/server/test_limits.py::test_batches_are_bounded",
    "batch_line_bytes": "tests/server/test_limits.py::test_batches_are_bounded",
    "stored_responses": "tests/server/test_responses_store.py::test_the_oldest_go_when_there_are_too_many",
    "stored_response_bytes": "tests/server/test_responses_store.py::test_the_oldest_go_when_they_are_too_large",
}


def sized(size: int) -> dict[str, Any]:
    """A chat whose body has so many bytes, as httpx writes it."""
    body = chat(user="")
    return chat(user="x" * (size - len(encoded(body))))


def encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def server() -> Any:
    with live_server(max_body_bytes=8 << 20) as running:
        yield running


def send(server: LiveServer, name: str, size: int) -> httpx.Response:
    case = CASES[name]
    return httpx.post(server.url + case.path, content=encoded(case.body(size)), headers=JSON, timeout=60)


def value_of(server: LiveServer, name: str) -> int:
    [row] = [row for row in httpx.get(f"{server.url}/limits").json()["data"] if row["name"] == name]
    return int(row["value"])


@pytest.mark.parametrize("name", CASES)
def test_beyond_a_limit_is_refused_and_at_it_is_not(server: LiveServer, name: str) -> None:
    row, case, most = ROWS[name], CASES[name], value_of(server, name)
    if not case.only_beyond:
        at = send(server, name, most)
        assert at.status_code == 200, at.text[:300]
    refused = send(server, name, most + 1)
    error = refused.json()["error"]
    assert refused.status_code == row.status
    assert error.get("code", row.code) == row.code  # Anthropic's errors have none
    assert len(error["message"]) < 300
    figures = {int(figure) for figure in re.findall(r"\d+", error["message"])}
    if name != "images":
        assert most in figures
    if case.is_told:
        assert most + 1 in figures


def test_every_limit_is_held_by_a_test() -> None:
    assert set(ROWS) == {*CASES, *ELSEWHERE}
    for held in ELSEWHERE.values():
        file, _, name = held.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}, held


def test_the_table_tells_what_the_flags_say() -> None:
    engine = EngineConfig(max_queue=3, max_model_len=77)
    with live_server(engine=engine, max_body_bytes=1234, max_connections=5) as small:
        payload = httpx.get(f"{small.url}/limits").json()
    rows = {row["name"]: row for row in payload["data"]}
    assert set(rows) == set(ROWS)
    assert (rows["waiting"]["value"], rows["context"]["value"]) == (3, 77)
    assert (rows["body_bytes"]["value"], rows["connections"]["value"]) == (1234, 5)
    assert rows["body_bytes"]["refusal"] == {"status": 413, "code": "body_too_large"}
    assert rows["body_bytes"]["flag"] == "--max-body-size"
    assert rows["head_time"]["refusal"] is None
    assert rows["head_time"]["beyond"]


def test_every_flag_is_one() -> None:
    flags = {flag for parameter in serve.params for flag in parameter.opts}
    assert {row.flag for row in ROWS.values() if row.flag} <= flags


def test_files_are_bounded(server: LiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    monkeypatch.setattr("corral.server.routes.openai_files.MAX_FILE_BYTES", 100)
    monkeypatch.setattr("corral.server.file_store.MAX_STORED_FILE_BYTES", 150)

    def upload(size: int) -> httpx.Response:
        return httpx.post(
            f"{server.base_url}/files", files={"file": ("a", b"x" * size)}, data={"purpose": "user_data"}, timeout=30
        )

    assert upload(100).status_code == 200
    for size, row in ((101, ROWS["file_bytes"]), (51, ROWS["stored_file_bytes"])):
        refused = upload(size)
        assert (refused.status_code, refused.json()["error"]["code"]) == (row.status, row.code)
    assert upload(50).status_code == 200


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(batch_files, "MAX_BATCH_LINES", 2)
    monkeypatch.setattr("corral.protocol.openai.batches.MAX_BATCH_LINE_BYTES", 200)

    def codes(*lines: bytes) -> list[str]:
        (tmp_path / batch_files.INPUT).write_bytes(b"".join(lines))
        return [error["code"] for error in batch_files.validate(tmp_path, CHAT)[1]]

    def line(number: int, more: int = 0) -> bytes:
        body = {"model": "m", "messages": [], "user": "x" * more}
        return encoded({"custom_id": str(number), "method": "POST", "url": CHAT, "body": body}) + b"\n"

    assert codes(line(1), line(2)) == []
    assert codes(line(1), line(2), line(3)) == ["too_many_tasks"]
    assert codes(line(1), line(2, 200)) == ["line_too_long"]


async def test_jobs_of_the_store_are_bounded() -> None:
    jobs, may_end = StoreJobs(2), threading.Event()
    started = [jobs.start(lambda _: may_end.wait(30)) for _ in range(2)]
    with pytest.raises(QueueFull, match="2 pulls"):
        jobs.start(lambda _: None)
    may_end.set()
    for job in started:
        assert await job.result()
    assert await jobs.start(lambda _: "again").result() == "again"
