"""What the worker sends: filled by any thread, emptied by the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from corral.request import RequestOutput
from corral.worker.protocol import FromWorker, Outputs, encode_frame

Item = RequestOutput | FromWorker


class Outbox:
    """A queue that never blocks whoever posts.

    It needs no cap of its own: while the front is slow to read, it holds at most what the live requests may still
    generate, and those are bounded by the engine's queue.
    """

    def __init__(self, writer: asyncio.StreamWriter, on_sent: Callable[[Item], None]) -> None:
        self._writer = writer
        self._on_sent = on_sent
        self._loop = asyncio.get_running_loop()
        self._items: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._is_woken = False

    def post(self, item: Item) -> None:
        """Adds an item, from any thread; the outputs of one step share one wake-up and one frame."""
        self._items.append(item)
        if not self._is_woken:
            self._is_woken = True
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                return  # the loop has closed: the process is on its way out

    async def run(self) -> None:
        """Sends for ever; ends with ConnectionError when the front has gone."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            # Before the items are taken: whoever posts later sees False and wakes us again.
            self._is_woken = False
            sent = [self._items.popleft() for _ in range(len(self._items))]
            self._writer.write(b"".join(map(encode_frame, _frames(sent))))
            await self._writer.drain()
            for item in sent:
                self._on_sent(item)


def _frames(items: list[Item]) -> list[FromWorker]:
    """Items in order, with neighbouring outputs joined into one frame."""
    frames: list[FromWorker] = []
    outputs: list[RequestOutput] = []
    for item in items:
        if isinstance(item, RequestOutput):
            outputs.append(item)
            continue
        if outputs:
            frames.append(Outputs(outputs))
            outputs = []
        frames.append(item)
    if outputs:
        frames.append(Outputs(outputs))
    return frames
