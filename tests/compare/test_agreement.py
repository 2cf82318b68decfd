"""Whether answers agree, and where they part; with a scripted server over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from corral.compare.agreement import PROMPTS, SAME_START, agree, first_difference, greedy_answers, is_other_work
from corral.compare.engines.engine import EngineFailed, Setup

SETUP = Setup(Path("m.gguf"), "0" * 64, "m", 2048, 4, 2)


class Plain:
    """An engine that takes OpenAI's fields as they are."""

    name = "plain"

    def body(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
        assert min_tokens is None
        return fields


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


@pytest.mark.parametrize(
    ("ours", "theirs", "place"),
    [("abc", "abc", None), ("abc", "abd", 2), ("ab", "abc", 2), ("", "", None), ("", "a", 0), ("xbc", "abc", 0)],
)
def test_where_answers_part(ours: str, theirs: str, place: int | None) -> None:
    assert first_difference(encode(ours), encode(theirs)) == place


def test_white_space_at_the_ends_is_the_templates_not_the_models() -> None:
    answers = [f" {prompt}\n" for prompt in PROMPTS]
    assert agree("a", answers, "b", list(PROMPTS), encode).first_difference == [None] * len(PROMPTS)


def test_answers_that_part_at_once_are_other_work() -> None:
    said = ["the same words"] * len(PROMPTS)
    late = ["the same thing"] * len(PROMPTS)
    other = ["xxx"] * len(PROMPTS)
    assert not is_other_work(agree("a", late, "b", said, encode))
    assert agree("a", late, "b", said, encode).first_difference[0] == len("the same ")
    assert is_other_work(agree("a", other, "b", said, encode))
    half = other[: len(PROMPTS) // 2] + said[len(PROMPTS) // 2 :]
    assert not is_other_work(agree("a", half, "b", said, encode))
    assert len("the same ") > SAME_START


async def test_every_prompt_is_asked_greedily_and_alone() -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        message = {"role": "assistant", "reasoning_content": "hm ", "content": asked[-1]["messages"][0]["content"]}
        return httpx.Response(200, json={"choices": [{"message": message}]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://x") as client:
        assert await greedy_answers(client, Plain(), SETUP) == [f"hm {prompt}" for prompt in PROMPTS]  # type: ignore[arg-type]
    assert {body["temperature"] for body in asked} == {0.0}
    assert {body["model"] for body in asked} == {"m"}


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500, text="no"),
        httpx.Response(200, text="no JSON"),
        httpx.Response(200, json={"choices": []}),
        httpx.Response(200, json=[]),
    ],
)
async def test_what_is_no_answer_is_said(response: httpx.Response) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response), base_url="http://x") as client:
        with pytest.raises(EngineFailed, match="plain gave no answer to"):
            await greedy_answers(client, Plain(), SETUP)  # type: ignore[arg-type]
