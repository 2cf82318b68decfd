"""A live app whose model answers by script, and what a stream of response events must be."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from corral.config import ServerConfig
from corral.request import Delta, FinishReason, Request, RequestOutput, TokenLogprob, Usage
from corral.server.app import build_app
from corral.server.database import Database
from corral.server.exchange import Exchange
from corral.store.local_model import LocalModel
from corral.tool_call import ToolCallDelta
from tests.support.fake_manager import FakeManager, FakeModel, script_of
from tests.support.live_app import live_app

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

TOOL: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


def _call(index: int, *parts: str) -> list[Delta]:
    deltas = [Delta(0, "", (1,), tool_calls=(ToolCallDelta(index, "weather"),))]
    deltas += [Delta(0, "", (1,), tool_calls=(ToolCallDelta(index, arguments=part),)) for part in parts]
    return [*deltas, Delta(0, "", (), tool_calls=(ToolCallDelta(index, is_whole=True),))]


_END = Delta(0, "", (), FinishReason.STOP)
LOGPROBS = (
    TokenLogprob(7, b"He", -0.5, ((b"He", -0.5), (b"\xff", float("-inf")))),
    TokenLogprob(8, b"y", -0.25),
)
SCRIPTS: dict[str, list[Delta]] = {
    "call": [*_call(0, '{"city": ', '"Rome"}'), Delta(0, "", (), FinishReason.TOOL_CALLS)],
    "two calls": [
        Delta(0, "Well. ", (1,)),
        *_call(0, '{"city": "Rome"}'),
        Delta(0, "\n", (1,)),
        *_call(1, '{"city": "Oslo"}'),
        Delta(0, "", (), FinishReason.TOOL_CALLS),
    ],
    "broken call": [
        *_call(0, '{"city"')[:-1],
        Delta(0, "", (), tool_calls=(ToolCallDelta(0, broken='<call>{"city"</call>'),)),
        _END,
    ],
    "cut call": [*_call(0, '{"city"')[:-1], Delta(0, "", (), FinishReason.LENGTH)],
    "reason": [Delta(0, "", (1, 2), thinking="hm, "), Delta(0, "", (3,), thinking="so"), Delta(0, "Yes.", (4,)), _END],
    "logprobs": [Delta(0, "He", (7,), logprobs=LOGPROBS[:1]), Delta(0, "y", (8,), logprobs=LOGPROBS[1:]), _END],
    "silence": [_END],
    "json": [Delta(0, '{"city": "Rome"}', (1,)), _END],
}


class ScriptedAnswers(FakeModel):
    """Answers by SCRIPTS, else as FakeModel does; a tool's output is repeated."""

    async def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        script = script_of(request)
        if script not in SCRIPTS:
            async for output in super().generate(request):
                yield output
            return
        self._manager.requests.append(request)
        yield RequestOutput(request.request_id, usage=Usage(5))
        num_tokens = 0
        for delta in SCRIPTS[script]:
            num_tokens += len(delta.token_ids)
            is_last = delta.finish_reason is not None
            yield RequestOutput(request.request_id, (delta,), Usage(5, num_tokens, 2), is_last)


class ScriptedManager(FakeManager):
    def model_of(self, local: LocalModel, exchange: Exchange | None = None) -> FakeModel:
        return ScriptedAnswers(self, local, exchange)


@contextlib.contextmanager
def responses_server(path: Path, **config: Any) -> Iterator[tuple[str, ScriptedManager]]:
    """The URL of an app that keeps its responses in the database at `path`."""
    manager = ScriptedManager()
    manager.add(LocalModel("scripted:latest", Path("scripted.gguf")))
    database = Database(f"sqlite:///{path}")
    server = ServerConfig(**config)

    with live_app(lambda: build_app(manager, server, database=database), database.close) as url:  # type: ignore[arg-type]
        yield url, manager
