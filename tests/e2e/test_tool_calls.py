"""A real model calls a tool, and uses what it gave."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from corral.config import EngineConfig
from corral.request import FinishReason, Request, RequestOutput
from corral.sampling_params import SamplingParams
from corral.worker.pipeline import Pipeline
from tests.support.models import model_path

pytestmark = pytest.mark.e2e
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "Get the current weather of a city", "parameters": CITY}
QUESTION = {"role": "user", "content": "What is the weather in Paris right now?"}


def answer(pipeline: Pipeline, messages: list[dict[str, Any]]) -> list[Any]:
    done = threading.Event()
    outputs: list[Any] = []

    def on_output(output: Any) -> None:
        outputs.append(output)
        if not isinstance(output, RequestOutput) or output.is_finished:
            done.set()

    tools = [{"type": "function", "function": WEATHER}]
    sampling = SamplingParams(temperature=0, max_tokens=60)
    request = Request(f"r{len(messages)}", messages=messages, tools=tools, sampling=sampling)
    pipeline.submit(request, on_output)
    assert done.wait(120)
    return [delta for output in outputs for delta in output.deltas]


def test_qwen_coder_calls_a_tool() -> None:
    pipeline = Pipeline.load(model_path("qwen2.5-coder-0.5b"), EngineConfig(max_model_len=1024))
    try:
        deltas = answer(pipeline, [QUESTION])
        calls = [call for delta in deltas for call in delta.tool_calls]
        arguments = "".join(call.arguments for call in calls)
        assert [call.name for call in calls if call.name] == ["get_weather"]
        assert json.loads(arguments) == {"city": "Paris"}
        assert deltas[-1].finish_reason is FinishReason.TOOL_CALLS
        assert "".join(delta.text for delta in deltas) == ""
        function = {"name": "get_weather", "arguments": arguments}
        turns: list[dict[str, Any]] = [
            QUESTION,
            {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "function": function}]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"temperature_celsius": 21}'},
        ]
        assert "21" in "".join(delta.text for delta in answer(pipeline, turns))
    finally:
        pipeline.close()
