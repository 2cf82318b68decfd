"""Tokenize, detokenize and render over a real socket. A scripted token is a word's length."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import corral
from tests.support.live_server import LiveServer, chat_body, error_of


def post(server: LiveServer, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def test_tokenize_a_text_and_a_chat(server: LiveServer) -> None:
    wanted = {"count": 2, "max_model_len": 4096, "tokens": [3, 5], "token_strs": None}
    assert post(server, "/tokenize", model="echo", prompt="one three").json() == wanted
    assert post(server, "/tokenize", prompt="one three").json() == wanted  # the only model need not be named
    body = chat_body("one three", return_token_strs=True)
    assert post(server, "/tokenize", **body).json() == {**wanted, "token_strs": ["xxx", "xxxxx"]}


def test_detokenize(server: LiveServer) -> None:
    assert post(server, "/detokenize", tokens=[1, 2]).json() == {"prompt": "x xx"}
    refused = post(server, "/detokenize", tokens=[1, -2])
    assert (refused.status_code, error_of(refused)["param"]) == (400, "tokens[1]")


def test_render(server: LiveServer) -> None:
    chat = post(server, "/v1/chat/completions/render", **chat_body("one three", max_tokens=5)).json()
    assert (chat["prompt"], chat["token_ids"], chat["model"]) == ("one three", [3, 5], "scripted")
    assert chat["sampling_params"] == {"max_tokens": 5, "n": 1}
    several = post(server, "/v1/completions/render", model="echo", prompt=["one", "three"]).json()
    assert [entry["token_ids"] for entry in several] == [[3], [5]]


@pytest.mark.parametrize("path", ["/tokenize", "/v1/chat/completions/render"])
def test_refusals(server: LiveServer, path: str) -> None:
    assert post(server, path, **chat_body("too long")).status_code == 400
    assert post(server, path, **chat_body("hi", model="none")).status_code == 404
    refused = post(server, path, **chat_body("hi", chat_template="x"))
    assert (refused.status_code, error_of(refused)["param"]) == (400, "chat_template")


def test_version(server: LiveServer) -> None:
    assert httpx.get(f"{server.url}/version").json() == {"version": corral.__version__}
