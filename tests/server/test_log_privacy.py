"""Neither a prompt nor an answer nor a key is ever in the log, at any level, unless the user asks for prompts."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.live_server import LiveServer, chat_body, live_server
from tests.support.logged import logged

KEY = "sk-corral-0123456789abcdef"
WORD = "zebra"  # the scripted model says it back in capitals
TEXT = f"{WORD} crossing"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"

BODIES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat_body(TEXT)),
    (CHAT, chat_body(TEXT, stream=True)),
    (CHAT, chat_body(TEXT, temperature=f"{WORD}")),
    (CHAT, chat_body(TEXT, stop=[WORD], user=WORD, logprobs=True)),
    (CHAT, chat_body(TEXT, response_format={"type": "json_schema", "json_schema": {"schema": {"enum": [WORD]}}})),
    (CHAT, chat_body(TEXT, cache_salt=KEY)),
    ("/v1/completions", {"model": "scripted", "prompt": [TEXT, TEXT]}),
    ("/v1/responses", {"model": "scripted", "input": TEXT, "store": False}),
    (MESSAGES, {"model": "scripted", "max_tokens": 9, "messages": [{"role": "user", "content": TEXT}]}),
    ("/v1/embeddings", {"model": "scripted", "input": TEXT}),
    ("/api/chat", {"model": "scripted", "messages": [{"role": "user", "content": TEXT}]}),
    ("/api/generate", {"model": "scripted", "prompt": TEXT, "system": WORD}),
    ("/tokenize", {"model": "scripted", "prompt": TEXT}),
]
# What goes wrong with a prompt in hand: the last text is the scripted model's order.
ORDERS = ("crash", "full", "too long")


def ask_all(server: LiveServer, *orders: str) -> None:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=20) as client:
        for path, body in BODIES:
            client.post(path, json=body)
            client.post(path, content=json.dumps(body)[:-1])
        for order in orders:
            told = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]
            body = chat_body(order)
            client.post(CHAT, json={**body, "messages": [*told, *body["messages"]]})
        client.post(CHAT, json=chat_body(TEXT), headers={"Authorization": f"Bearer {KEY}x"})
        client.get("/v1/models", headers={"X-Api-Key": KEY})


def test_at_the_lowest_level_no_prompt_no_answer_and_no_key() -> None:
    with logged(log_level="debug") as log, live_server(api_keys=(KEY,), lenient=True) as server:
        ask_all(server, *ORDERS, "die")
    assert f"POST {CHAT} 200" in log.text  # it has been written
    assert "ZeroDivisionError" in log.text
    assert "ZeroDivisionError: not" not in log.text  # an error's own text may quote what it stumbled over
    assert WORD not in log.text.lower()
    assert KEY not in log.text


def test_prompts_are_logged_when_they_are_asked_for() -> None:
    with logged(log_requests=True) as log, live_server(api_keys=(KEY,)) as server:
        ask_all(server, *ORDERS)
    told = log.of("corral.requests")
    assert all(line["request_id"].startswith("req_") for line in told)
    [chat, *_] = [line for line in told if line["engine_id"].startswith("chatcmpl-")]
    assert json.loads(chat["prompt"]) == [{"role": "user", "content": TEXT}]
    assert (chat["model"], TEXT in chat["message"]) == ("scripted", True)
    completions = [line["prompt"] for line in told if line["engine_id"].startswith("cmpl-")]
    assert completions[:2] == [TEXT, TEXT]
    assert [line["prompt"] for line in told if line["prompt"] == json.dumps([TEXT])]  # embedded
    assert "ZeroDivisionError: not raised on purpose" in log.text  # errors may quote what is logged anyway
    assert KEY not in log.text
    assert WORD.upper() not in log.text  # answers are not


@pytest.mark.parametrize(("max_len", "text", "ids"), [(5, "zebra", [1, 2, 3, 4, 5]), (0, "", []), (None, TEXT, None)])
def test_prompts_are_cut(max_len: int | None, text: str, ids: list[int] | None) -> None:
    numbers = list(range(1, 100))
    with logged(log_requests=True, max_log_len=max_len) as log, live_server() as server:
        url = f"{server.url}/v1/completions"
        httpx.post(url, json={"model": "scripted", "prompt": TEXT, "temperature": 0.5, "stop": ["x" * 50]}, timeout=60)
        httpx.post(url, json={"model": "scripted", "prompt": numbers, "max_tokens": 3}, timeout=60)
    first, second = log.of("corral.requests")
    assert (first["prompt"], first["temperature"]) == (text, 0.5)
    assert max_len is None or len(first["stop"]) == max_len
    assert len(first["engine_id"]) > 20  # names stay whole
    assert second["prompt"] == (numbers if ids is None else ids)
    assert second["max_tokens"] == 3
    assert "temperature" not in second
