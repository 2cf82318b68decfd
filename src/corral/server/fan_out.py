"""The outputs of one call, which may be several requests, as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from corral.errors import InvalidRequest, ServerDraining
from corral.request import FinishReason, Request, RequestOutput
from corral.server.served_model import ServedModel

Indexed = tuple[int, RequestOutput]  # (which request, its output)


async def fan_out(model: ServedModel, requests: Sequence[Request]) -> AsyncGenerator[Indexed, None]:
    """Runs the requests side by side; ends when all have ended, or with the first error, which aborts the others."""
    if len(requests) == 1:
        async with aclosing(_outputs(model, requests[0])) as outputs:
            async for output in outputs:
                yield 0, output
        return
    queue: asyncio.Queue[Indexed | Exception | None] = asyncio.Queue()
    tasks = [asyncio.ensure_future(_run(model, index, request, queue)) for index, request in enumerate(requests)]
    num_running = len(tasks)
    try:
        while num_running:
            item = await queue.get()
            if item is None:
                num_running -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _run(
    model: ServedModel, index: int, request: Request, queue: asyncio.Queue[Indexed | Exception | None]
) -> None:
    try:
        async with aclosing(_outputs(model, request)) as outputs:
            async for output in outputs:
                queue.put_nowait((index, output))
        queue.put_nowait(None)
    except Exception as error:  # noqa: BLE001 - raised again by whoever reads the queue
        queue.put_nowait(error)


async def _outputs(model: ServedModel, request: Request) -> AsyncGenerator[RequestOutput, None]:
    try:
        async with aclosing(model.generate(request)) as outputs:
            async for output in outputs:
                yield _checked(output)
    except InvalidRequest as error:
        if error.param != "grammar" or request.grammar is None:
            raise
        # The worker knows grammars; what the client knows is the field that it wrote one in.
        where = request.grammar.where
        raise InvalidRequest(f"{where}: {error.message}", param=where, code=error.code) from error


def _checked(output: RequestOutput) -> RequestOutput:
    # We abort only what nobody reads any more; an abort that is read comes from an engine that is being closed.
    if any(delta.finish_reason is FinishReason.ABORT for delta in output.deltas):
        raise ServerDraining("the server stopped before this answer was whole")
    return output


async def wait_until_accepted(outputs: AsyncGenerator[Indexed, None], num_requests: int) -> list[Indexed]:
    """The outputs up to the one by which every request has been taken, so that a refusal is still an HTTP status."""
    seen: list[Indexed] = []
    accepted: set[int] = set()
    while len(accepted) < num_requests:
        index, output = await anext(outputs)
        seen.append((index, output))
        accepted.add(index)
    return seen
