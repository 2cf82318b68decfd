"""A server of Anthropic's API over models that say what a test has written for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from corral.config import ServerConfig
from corral.errors import ContextLengthExceeded, EngineDead
from corral.request import Delta, FinishReason, RenderedPrompt, Request, RequestOutput, Usage
from corral.server.app import build_app
from corral.server.exchange import Exchange
from corral.server.model_manager import ModelManager
from corral.server.store_access import StoreAccess
from corral.store.library import Library
from corral.store.local_model import LocalModel
from corral.tool_call import ToolCallDelta
from tests.support.fake_manager import FakeManager, FakeModel, script_of
from tests.support.live_app import live_app

PROMPT_TOKENS, CACHED_TOKENS = 12, 5


def call_deltas(index: int, name: str, *arguments: str) -> list[Delta]:
    """A tool call that parses, in as many deltas as there are parts of its arguments."""
    last = len(arguments) - 1
    return [
        Delta(0, "", tool_calls=(ToolCallDelta(index, name if i == 0 else "", part, is_whole=i == last),))
        for i, part in enumerate(arguments)
    ]


def end(reason: FinishReason = FinishReason.STOP, stop: str | int | None = None) -> Delta:
    return Delta(0, "", finish_reason=reason, stop_reason=stop)


class WrittenModel(FakeModel):
    """Says the deltas that the manager has for the script; of all else what FakeModel says."""

    def __init__(self, manager: WritingManager, local: LocalModel, exchange: Exchange | None = None) -> None:
        super().__init__(manager, local, exchange)
        self._scripts = manager.scripts

    async def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        if script_of(request) == "no room" and request.sampling.max_tokens is not None:
            raise ContextLengthExceeded("the context holds 4096 tokens; more were asked for", param="max_tokens")
        async with aclosing(super().generate(request)) as outputs:
            async for output in outputs:
                yield output

    async def _say(self, request: Request, script: str) -> AsyncGenerator[RequestOutput, None]:
        if script not in self._scripts:
            async for output in super()._say(request, script):
                yield output
            return
        for number, delta in enumerate(self._scripts[script]):
            await asyncio.sleep(0)
            usage = Usage(PROMPT_TOKENS, number, CACHED_TOKENS)
            yield RequestOutput(request.request_id, (delta,), usage, delta.finish_reason is not None)
        if self._scripts[script][-1].finish_reason is None:
            raise EngineDead("the engine died: signal 11, /secret/log")

    async def render(self, request: Request) -> RenderedPrompt:
        script = script_of(request)
        if script == "too long":
            raise ContextLengthExceeded("the prompt is too long", param="messages")
        return RenderedPrompt(request.request_id, script, list(range(len(script.split()))))


@dataclass
class WritingManager(FakeManager):
    """Has an answer for each script that a test writes."""

    scripts: dict[str, Sequence[Delta]] = field(default_factory=dict)

    def model_of(self, local: LocalModel, exchange: Exchange | None = None) -> FakeModel:
        return WrittenModel(self, local, exchange)


@dataclass
class WrittenServer:
    url: str
    manager: WritingManager

    def write(self, script: str, *deltas: Delta) -> None:
        self.manager.scripts[script] = deltas

    @property
    def last(self) -> Request:
        """The last request that came to a model."""
        return self.manager.requests[-1]


@contextlib.contextmanager
def written_server(root: Path, *models: LocalModel, **config: Any) -> Iterator[WrittenServer]:
    """Serves `models`, whose answers are written by the test."""
    manager = WritingManager()
    for local in models:
        manager.add(local)

    def make_app() -> Any:
        return build_app(cast(ModelManager, manager), ServerConfig(**config), store=StoreAccess(Library(root)))

    with live_app(make_app) as url:
        yield WrittenServer(url, manager)
