from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.protocol.answer import Answers
from corral.protocol.openai.chat import parse_chat
from corral.protocol.openai.chat_answer import ChatStream, encode_chat_answer
from corral.request import Delta, FinishReason, RequestOutput, Usage
from corral.sampling_params import SamplingParams


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def events(raw: bytes) -> list[Any]:
    lines = [line for line in raw.decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def test_defaults_are_those_of_sampling_params() -> None:
    call = parse_chat(body())
    assert call.request.sampling == SamplingParams()
    assert call.request.messages == [{"role": "user", "content": "hi"}]
    assert (call.request.model, call.stream, call.include_usage) == ("m", False, False)
    assert call.request.request_id.startswith("chatcmpl-")


def test_every_sampling_field_arrives() -> None:
    call = parse_chat(
        body(
            n=2,
            temperature=0.5,
            top_k=3,
            top_p=0.25,
            min_p=0.125,
            repetition_penalty=1.5,
            presence_penalty=-1,
            frequency_penalty=2,
            seed=-7,
            stop=["a", "b"],
            stop_token_ids=[5, 6],
            max_completion_tokens=9,
            min_tokens=1,
            logit_bias={"42": -100, "7": 0.5},
            ignore_eos=True,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert call.request.sampling == SamplingParams(
        n=2,
        temperature=0.5,
        top_k=3,
        top_p=0.25,
        min_p=0.125,
        repetition_penalty=1.5,
        presence_penalty=-1,
        frequency_penalty=2,
        seed=-7,
        stop=("a", "b"),
        stop_token_ids=(5, 6),
        max_tokens=9,
        min_tokens=1,
        logit_bias={42: -100, 7: 0.5},
        ignore_eos=True,
    )
    assert call.stream
    assert call.include_usage


def test_nulls_mean_defaults() -> None:
    names = (
        "n",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "max_tokens",
        "logit_bias",
        "stream",
        "stream_options",
        "tools",
    )
    assert parse_chat(body(**dict.fromkeys(names))).request.sampling == SamplingParams()


def test_one_stop_string_and_equal_lengths() -> None:
    sampling = parse_chat(body(stop="x", max_tokens=4, max_completion_tokens=4)).request.sampling
    assert (sampling.stop, sampling.max_tokens) == (("x",), 4)


def test_roles_parts_and_names() -> None:
    messages = [
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "eve"},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "tool", "content": "42", "tool_call_id": "t1"},
    ]
    assert parse_chat(body(messages=messages)).request.messages == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "a\nb", "name": "eve"},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "42", "tool_call_id": "t1"},
    ]


def test_harmless_and_neutral_fields_are_accepted() -> None:
    parse_chat(
        body(
            user="u",
            metadata={"a": "b"},
            store=False,
            service_tier="auto",
            parallel_tool_calls=True,
            response_format={"type": "text"},
            logprobs=False,
            modalities=["text"],
            tool_choice="none",
        )
    )


IMAGE = [{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": "0.5"}, "temperature", "'0.5'; it must be a number"),
        ({"temperature": True}, "temperature", "true; it must be a number"),
        ({"temperature": 2.5}, "temperature", "2.5; it must be a number from 0 to 2"),
        ({"temperature": -1}, "temperature", "from 0 to 2"),
        ({"temperature": float("nan")}, "temperature", "finite number"),
        ({"top_p": float("inf")}, "top_p", "finite number"),
        ({"top_p": 0}, "top_p", "above 0"),
        ({"n": True}, "n", "whole number"),
        ({"n": 0}, "n", "from 1 to 64"),
        ({"n": 10**9}, "n", "from 1 to 64"),
        ({"n": 1.0}, "n", "whole number"),
        ({"n": "3"}, "n", "whole number"),
        ({"seed": 1 << 64}, "seed", "whole number"),
        ({"max_tokens": 0}, "max_tokens", "from 1"),
        ({"max_tokens": -5}, "max_tokens", "from 1"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens", "give one"),
        ({"min_tokens": 9, "max_tokens": 3}, "min_tokens", "at most max_tokens"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"stop": ["x"] * 100}, "stop", "at most"),
        ({"stop": "x" * 5000}, "stop", "5000 characters; at most 1024"),
        ({"stop": [1]}, "stop[0]", "a string"),
        ({"stop": 3}, "stop", "a list"),
        ({"stop_token_ids": ["a"] * 1000}, "stop_token_ids[0]", "a token id"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]", "-1; it must be a token id"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "keys must be token ids"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "keys must be token ids"),
        ({"logit_bias": {"5": 1000}}, "logit_bias", "-100 to 100"),
        ({"logit_bias": {"5": "a"}}, "logit_bias.5", "a number"),
        ({"logit_bias": {str(i): "bad" for i in range(5000)}}, "logit_bias", "at most 1024"),
        ({"logit_bias": [1]}, "logit_bias", "an object"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream": 1}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed when stream"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown field"),
        ({"modalities": ["audio"]}, "modalities", "not supported"),
        ({"temprature": 1}, "temprature", "did you mean temperature?"),
        ({"x" * 500: 1}, "x" * 60 + "...", "unknown field"),
        ({"model": None}, "model", "null; it must be a string"),
        ({"model": 5}, "model", "a string"),
        ({"messages": "hi"}, "messages", "a list"),
        ({"messages": []}, "messages", "0 entries"),
        ({"messages": ["hi"]}, "messages[0]", "an object"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "required"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "required"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "one of system"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "string or a list"),
        (
            {"messages": [{"role": "user", "content": IMAGE}]},
            "messages[0].content[0]",
            "'image_url', which is not supp",
        ),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "an object"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "required"),
        ({"messages": [{"role": "user", "content": "x", "nme": 1}]}, "messages[0].nme", "did you mean name?"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**fields))
    assert caught.value.param == param
    assert words in caught.value.message
    assert len(caught.value.message) < 300


def test_missing_fields_are_named() -> None:
    for name in ("model", "messages"):
        given = body()
        del given[name]
        with pytest.raises(InvalidRequest, match=f"{name} is required"):
            parse_chat(given)


def output(*deltas: Delta, finished: bool = False, usage: Usage | None = None) -> RequestOutput:
    return RequestOutput("r", deltas, usage or Usage(), finished)


def test_stream_has_role_then_text_then_reason_then_usage() -> None:
    call = parse_chat(body(n=2, stream=True, stream_options={"include_usage": True}))
    stream = ChatStream(call, "m", 123)
    assert stream.encode(0, output(Delta(0, ""))) == b""  # a step that only computed prompt tokens says nothing
    raw = stream.open()
    raw += stream.encode(0, output(Delta(0, "Hé"), Delta(1, "")))
    raw += stream.encode(0, output(Delta(1, "x", finish_reason=FinishReason.LENGTH)))
    raw += stream.encode(0, output(Delta(0, "", finish_reason=FinishReason.STOP), finished=True, usage=Usage(7, 3, 2)))
    raw += stream.close()
    chunks = events(raw)
    assert chunks.pop() == "[DONE]"
    usage = chunks.pop()
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert all(chunk["usage"] is None for chunk in chunks)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    seen = [(c["choices"][0]["index"], c["choices"][0]["delta"], c["choices"][0]["finish_reason"]) for c in chunks]
    assert seen == [
        (0, {"role": "assistant", "content": ""}, None),
        (1, {"role": "assistant", "content": ""}, None),
        (0, {"content": "Hé"}, None),
        (1, {"content": "x"}, None),
        (1, {}, "length"),
        (0, {}, "stop"),
    ]


def test_stream_without_usage_never_mentions_it() -> None:
    stream = ChatStream(parse_chat(body(stream=True)), "m", 123)
    raw = stream.open() + stream.encode(0, output(Delta(0, "a"))) + stream.close()
    assert b"usage" not in raw
    assert raw.endswith(b"data: [DONE]\n\n")


def test_line_breaks_in_text_stay_inside_one_event() -> None:
    stream = ChatStream(parse_chat(body(stream=True)), "m", 123)
    text = 'a\n\ndata: [DONE]\r\n\u2028"'
    [chunk] = events(stream.encode(0, output(Delta(0, text))))
    assert chunk["choices"][0]["delta"]["content"] == text


def test_whole_answer() -> None:
    call = parse_chat(body(n=2))
    answers = Answers(2)
    answers.add(output(Delta(1, "b"), Delta(0, "a")))
    answers.add(output(Delta(0, "c", finish_reason=FinishReason.STOP)))
    answers.add(
        output(Delta(1, "", finish_reason=FinishReason.LENGTH), finished=True, usage=Usage(4, 5, 0)),
    )
    reply = encode_chat_answer(call, answers, "served", 99)
    assert (reply["object"], reply["model"], reply["created"], reply["id"]) == (
        "chat.completion",
        "served",
        99,
        call.request.request_id,
    )
    found = [(c["index"], c["message"]["role"], c["message"]["content"], c["finish_reason"]) for c in reply["choices"]]
    assert found == [(0, "assistant", "ac", "stop"), (1, "assistant", "b", "length")]
    assert reply["usage"]["total_tokens"] == 9


def test_thinking_is_not_lost() -> None:
    call = parse_chat({"model": "m", "messages": [{"role": "user", "content": "x"}]})
    output = RequestOutput("r", (Delta(0, "Yes", (1,), FinishReason.STOP, thinking="hm"),), is_finished=True)
    streamed = ChatStream(call, "m", 1).encode(0, output)
    assert b'"delta":{"reasoning":"hm","reasoning_content":"hm"}' in streamed
    assert streamed.index(b"reasoning_content") < streamed.index(b'"content":"Yes"')
    answers = Answers(1)
    answers.add(output)
    message = encode_chat_answer(call, answers, "m", 1)["choices"][0]["message"]
    assert (message["reasoning"], message["reasoning_content"], message["content"]) == ("hm", "hm", "Yes")


def test_what_vllm_router_writes_into_every_request_asks_for_nothing() -> None:
    written = {
        "no_stop_trim": False,
        "separate_reasoning": True,
        "stream_reasoning": True,
        "return_hidden_states": False,
        "include_reasoning": True,
        "ignore_eos": False,
        "skip_special_tokens": True,
        "logprobs": False,
        "continue_final_message": False,
        "stream": False,
    }
    assert parse_chat(body(**written)).request.sampling == SamplingParams()
    for name in ("no_stop_trim", "separate_reasoning", "stream_reasoning", "return_hidden_states"):
        with pytest.raises(InvalidRequest, match=name):
            parse_chat(body(**{name: not written[name]}))
