from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.protocol.answer import Answers
from corral.protocol.openai.completion_answer import CompletionStream, encode_completion_answer
from corral.protocol.openai.completions import DEFAULT_MAX_TOKENS, parse_completion
from corral.request import Delta, FinishReason, RequestOutput, Usage


def body(prompt: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": prompt, **fields}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("text", ["text"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ("", [""]),  # refused later, by the tokenizer's count: a prompt may still get a BOS
    ],
)
def test_prompt_forms(prompt: Any, expected: list[Any]) -> None:
    call = parse_completion(body(prompt))
    assert [request.prompt for request in call.requests] == expected
    assert len({request.request_id for request in call.requests}) == len(expected)
    assert all(request.request_id.startswith(call.response_id) for request in call.requests)
    assert call.requests[0].sampling.max_tokens == DEFAULT_MAX_TOKENS == 16


def test_priority_is_the_requests() -> None:
    for given, priority in ((None, 0), (-3, -3), (7, 7)):
        assert {each.priority for each in parse_completion(body(["a", "b"], priority=given)).requests} == {priority}
    with pytest.raises(InvalidRequest, match=f"priority is {1 << 40}; it must be from") as caught:
        parse_completion(body(priority=1 << 40))
    assert caught.value.param == "priority"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": None}, "prompt", "null; it must be a string"),
        ({"prompt": []}, "prompt", "a list of 0"),
        ({"prompt": 5}, "prompt", "must be a string"),
        ({"prompt": {}}, "prompt", "must be a string"),
        ({"prompt": ["a", 1]}, "prompt", "a list of 2"),
        ({"prompt": [1, "a"]}, "prompt", "prompt[1] is the string 'a'"),
        ({"prompt": [1, True]}, "prompt", "prompt[1] is true"),
        ({"prompt": [[1], [2.5]]}, "prompt", "prompt[1][0] is 2.5"),
        ({"prompt": [-1]}, "prompt", "prompt[0] is -1"),
        ({"prompt": [1 << 40]}, "prompt", "token id"),
        ({"prompt": ["a"] * 1000}, "prompt", "at most 256"),
        ({"prompt": ["a"] * 200, "n": 60}, "n", "more than 1024"),
        ({"best_of": 4}, "best_of", "must be n"),
        ({"echo": 1}, "echo", "true or false"),
        ({"max_completion_tokens": 3}, "max_completion_tokens", "unknown field"),
        ({"messages": []}, "messages", "unknown field"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_completion({**body(), **fields})
    assert caught.value.param == param
    assert words in caught.value.message


def finished(text: str, usage: Usage, index: int = 0) -> RequestOutput:
    return RequestOutput("r", (Delta(index, text, finish_reason=FinishReason.STOP),), usage, True)


def test_indexes_run_over_prompts_then_answers() -> None:
    call = parse_completion(body(["P", "Q"], n=2, echo=True))
    answers = [Answers(2), Answers(2)]
    for prompt_index, answer in enumerate(answers):
        for j in range(2):
            answer.add(finished(f"{prompt_index}{j}", Usage(3, 2 * j + 1, 1), j))
    reply = encode_completion_answer(call, answers, "m", 5)
    assert [(c["index"], c["text"]) for c in reply["choices"]] == [(0, "P00"), (1, "P01"), (2, "Q10"), (3, "Q11")]
    assert reply["usage"]["prompt_tokens"] == 6
    assert reply["usage"]["completion_tokens"] == 6
    assert reply["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert (reply["object"], reply["id"]) == ("text_completion", call.response_id)


def test_stream_indexes_echo_and_usage() -> None:
    call = parse_completion(body(["P", "Q"], n=2, echo=True, stream=True, stream_options={"include_usage": True}))
    stream = CompletionStream(call, "m", 5)
    raw = stream.open()
    raw += stream.encode(1, RequestOutput("r", (Delta(0, ""), Delta(1, "z")), Usage(2, 0, 0)))
    raw += stream.encode(0, finished("y", Usage(0, 2, 0), 1))
    raw += stream.close()
    lines = [line[6:] for line in raw.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert chunks.pop()["usage"]["total_tokens"] == 4
    found = [(c["choices"][0]["index"], c["choices"][0]["text"], c["choices"][0]["finish_reason"]) for c in chunks]
    assert found == [
        (0, "P", None),
        (1, "P", None),
        (2, "Q", None),
        (3, "Q", None),
        (3, "z", None),
        (1, "y", "stop"),
    ]
