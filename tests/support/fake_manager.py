"""A model manager without workers: names are real, models say their script. For tests of routes.

The last user text (or the prompt) is the script: "too long", "full", "dies", "crash", "no such grammar" are refused as
they say; "dies later" breaks off after a word; "forever" says "on " without end; "think" thinks first; all else is
echoed by words.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from corral.errors import ContextLengthExceeded, EngineDead, InvalidRequest, ModelNotFound, QueueFull
from corral.request import Delta, EmbedRequest, EmbedResult, FinishReason, Request, RequestOutput, Usage
from corral.server.exchange import Exchange
from corral.server.metrics.books import Books
from corral.server.quotas import QuotaBook
from corral.store.local_model import LocalModel
from corral.store.names import parse_name
from corral.worker.info import ModelInfo, WorkerStats

REFUSALS: dict[str, Exception] = {
    "too long": ContextLengthExceeded("the context holds 8 tokens; the messages came to 9", param="messages"),
    "full": QueueFull("the queue is full", retry_after_s=7),
    "dies": EngineDead("the engine died: signal 11, /secret/log"),
    "crash": ZeroDivisionError("not raised on purpose"),
    "no such grammar": InvalidRequest("the JSON Schema is too deep", param="grammar"),
    "no thinking": InvalidRequest('"tiny" does not support thinking', param="think"),
}


def script_of(request: Request) -> str:
    if request.messages is not None:
        return str(request.messages[-1]["content"])
    return str(request.prompt)


class FakeModel:
    """One lease."""

    def __init__(self, manager: FakeManager, local: LocalModel, exchange: Exchange | None = None) -> None:
        self._manager = manager
        self.exchange = exchange or Exchange()
        self.local = local
        self.load_s = 1.5
        self.info = ModelInfo(local.name, "llama", 8192, 4096, 1000, "none", 1, 123, 0.0)

    async def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        request = self.exchange.on_account(request)
        self._manager.requests.append(request)
        script = script_of(request)
        if script in REFUSALS:
            raise REFUSALS[script]
        yield RequestOutput(request.request_id, usage=Usage(3))
        try:
            async for output in self._say(request, script):
                yield output
        finally:
            self._manager.ended.set()

    async def _say(self, request: Request, script: str) -> AsyncGenerator[RequestOutput, None]:
        words = ["on "] if script == "forever" else [f"{word} " for word in script.upper().split()]
        words = words[: request.sampling.max_tokens]
        num_said = 0
        if script == "think":
            yield RequestOutput(request.request_id, (Delta(0, "", (99,), thinking="hm"),), Usage(3, 1))
        prompt_ids = (1, 2, 3) if request.with_prompt_ids else ()
        while script == "forever" or num_said < len(words):
            await asyncio.sleep(0)
            num_said += 1
            is_last = script != "forever" and num_said == len(words)
            reason = None
            if is_last:
                reason = FinishReason.LENGTH if request.sampling.max_tokens == num_said else FinishReason.STOP
            usage = Usage(3, num_said, 1, dropped_messages=2 if script == "drops" else 0)
            delta = Delta(0, words[(num_said - 1) % len(words)], (10 + num_said,), reason)
            yield RequestOutput(request.request_id, (delta,), usage, is_last, prompt_ids)
            prompt_ids = ()
            if script.startswith("dies later"):
                raise EngineDead("the engine died: signal 11, /secret/log")

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        self._manager.embeds.append(request)
        if "too long" in request.inputs and not request.truncate:
            raise InvalidRequest("the input length exceeds the context length", param="input")
        size = request.dimensions or 4
        vectors = [struct.pack(f"<{size}f", 1.0, *[0.0] * (size - 1)) for _ in request.inputs]
        return EmbedResult(request.request_id, vectors, 2 * len(vectors))

    async def stats(self) -> WorkerStats:
        return WorkerStats()


@dataclass
class FakeManager:
    """Remembers what was asked of it."""

    locals: dict[str, LocalModel] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    embeds: list[EmbedRequest] = field(default_factory=list)
    leases: list[tuple[str, float | None, int | None]] = field(default_factory=list)
    unloaded: list[str] = field(default_factory=list)
    running_models: list[Any] = field(default_factory=list)
    quotas: QuotaBook = field(default_factory=QuotaBook)
    books: Books = field(default_factory=Books)
    lease_error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def add(self, local: LocalModel) -> None:
        self.locals[local.name] = local

    def lookup(self, name: str) -> LocalModel:
        key = str(parse_name(name)).lower()
        for local in self.served_names:
            if local.name.lower() == key:
                return local
        raise ModelNotFound(f"model '{name}' not found")

    @property
    def served_names(self) -> list[LocalModel]:
        return list(self.locals.values())

    @asynccontextmanager
    async def lease(
        self,
        local: LocalModel,
        exchange: Exchange | None = None,
        *,
        keep_alive: float | None = None,
        num_ctx: int | None = None,
    ) -> AsyncIterator[FakeModel]:
        self.leases.append((local.name, keep_alive, num_ctx))
        if self.lease_error is not None:
            raise self.lease_error
        yield self.model_of(local, exchange)

    def model_of(self, local: LocalModel, exchange: Exchange | None = None) -> FakeModel:
        return FakeModel(self, local, exchange)

    async def unload(self, local: LocalModel) -> None:
        self.unloaded.append(local.name)

    def running(self) -> list[Any]:
        return self.running_models

    def stalled(self) -> list[str]:
        return []

    async def refresh(self) -> None:
        pass
