"""The front's end of a worker: starts the process, sends requests, hands their outputs back."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from corral.config import EngineConfig
from corral.errors import CorralError, EngineDead
from corral.request import (
    Detokenized,
    DetokenizeRequest,
    EmbedRequest,
    EmbedResult,
    RenderedPrompt,
    Request,
    RequestOutput,
    RequestSize,
)
from corral.worker import protocol
from corral.worker.death import Death, DeathKind
from corral.worker.framing import read_payload
from corral.worker.info import ModelInfo, WorkerStats
from corral.worker.merge import merge
from corral.worker.process import WORKER_COMMAND, WorkerProcess
from corral.worker.step_record import Doing

logger = logging.getLogger("corral.worker")

OnProgress = Callable[[int, int], None]
OnPlan = Callable[[str], None]
OnRest = Callable[[RequestOutput | None], None]

_Result = TypeVar("_Result")


class WorkerClient:
    """One running worker. Make it with `start`; it is closed by `close`, or by its process's death."""

    info: ModelInfo
    plan: str

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._streams: dict[str, asyncio.Queue[RequestOutput | CorralError]] = {}
        self._left: dict[str, OnRest] = {}  # requests that were given up and have not ended
        self._asked: dict[str, asyncio.Future[Any]] = {}  # request id -> its one result
        self._calls: dict[int, asyncio.Future[WorkerStats | None]] = {}
        self._call_ids = itertools.count(1)
        self._drained: asyncio.Future[None] | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._death: Death | None = None
        self.has_answered = False  # with a token, or a vector
        self._hung = ""  # why we have killed it, if it made no progress
        self._on_progress: OnProgress | None = None
        self._on_plan: OnPlan | None = None
        self._receiver: asyncio.Task[None] | None = None
        self.died = asyncio.Event()  # set by death and by close

    @classmethod
    async def start(
        cls,
        path: Path,
        config: EngineConfig,
        *,
        on_progress: OnProgress | None = None,
        on_plan: OnPlan | None = None,
        on_spawn: Callable[[int], None] | None = None,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> WorkerClient:
        """Starts a process and loads a model into it.

        Args:
            on_progress: called with (done_bytes, total_bytes) while the weights load.
            on_plan: called with the memory plan before they do.
            on_spawn: called with the id of the process.

        Raises:
            CorralError: whatever refused the load, of the class it was raised with; EngineDead if the process died.
        """
        self = cls(await WorkerProcess.spawn(command))
        self._on_progress, self._on_plan = on_progress, on_plan
        if on_spawn is not None:
            on_spawn(self.pid)
        self._receiver = asyncio.ensure_future(self._receive())
        try:
            self._send(protocol.Load(str(path), config))
            await self._ready
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def pid(self) -> int:
        return self._process.process.pid

    @property
    def is_alive(self) -> bool:
        return self._death is None

    @property
    def death(self) -> Death | None:
        """How it ended; None while it lives."""
        return self._death

    def doing(self) -> Doing:
        """What it computes at this moment."""
        return self._process.doing()

    async def kill_hung(self, why: str) -> None:
        """Ends a process that makes no progress; its death says why."""
        self._hung = why
        await self._process.kill()

    async def generate(
        self, request: Request, on_left: Callable[[], OnRest] | None = None
    ) -> AsyncGenerator[RequestOutput, None]:
        """Yields outputs until the request is finished; the first may have no deltas and says: accepted.

        Leaving early (break, cancellation, aclose) aborts the request.

        Args:
            on_left: called when it is left early; what it gives hears of the outputs that still come, and of their end,
                which is None.

        Raises:
            CorralError: of the class the worker raised it with; EngineDead when the process dies.
        """
        self._check_alive()
        request_id = request.request_id
        queue: asyncio.Queue[RequestOutput | CorralError] = asyncio.Queue()
        self._streams[request_id] = queue
        is_over = False
        try:
            self._send(protocol.Submit(request))
            while not is_over:
                output = await queue.get()
                # Whoever cannot keep up with the engine gets larger pieces, not a longer queue.
                error: CorralError | None = None
                while isinstance(output, RequestOutput) and not queue.empty() and error is None:
                    following = queue.get_nowait()
                    if isinstance(following, CorralError):
                        error = following
                    else:
                        output = merge(output, following)
                if isinstance(output, CorralError):
                    is_over = True
                    raise output
                is_over = output.is_finished or error is not None
                yield output
                if error is not None:
                    raise error
        finally:
            del self._streams[request_id]
            if not is_over:
                self._leave(request_id, queue, None if on_left is None else on_left())

    def _leave(
        self, request_id: str, unread: asyncio.Queue[RequestOutput | CorralError], on_rest: OnRest | None
    ) -> None:
        self.abort(request_id)
        if on_rest is None:
            return
        self._left[request_id] = on_rest
        while not unread.empty():
            self._deliver(request_id, unread.get_nowait())
        if not self.is_alive:
            self._end_left(request_id)

    def _end_left(self, request_id: str) -> None:
        on_rest = self._left.pop(request_id, None)
        if on_rest is not None:
            on_rest(None)

    async def measure(self, request: Request | EmbedRequest) -> RequestSize:
        """What the request would come to. Raises as `embed`."""
        frame = protocol.Measure(request) if isinstance(request, Request) else protocol.MeasureEmbed(request)
        return await self._ask(request.request_id, frame, RequestSize)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """The vectors of the request's inputs. Cancelling aborts it.

        Raises:
            CorralError: of the class the worker raised it with; EngineDead when the process dies.
        """
        return await self._ask(request.request_id, protocol.SubmitEmbed(request), EmbedResult)

    async def render(self, request: Request) -> RenderedPrompt:
        """What the request's prompt would be. Raises as `embed`."""
        return await self._ask(request.request_id, protocol.Render(request), RenderedPrompt)

    async def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """The texts of token ids. Raises as `embed`."""
        return await self._ask(request.request_id, protocol.Detokenize(request), Detokenized)

    async def _ask(self, request_id: str, frame: protocol.ToWorker, kind: type[_Result]) -> _Result:
        self._check_alive()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[request_id] = future
        try:
            self._send(frame)
            result = await future
        except asyncio.CancelledError:
            self.abort(request_id)
            raise
        finally:
            del self._asked[request_id]
        if not isinstance(result, kind):
            raise EngineDead(f"the worker answered {type(frame).__name__} with {type(result).__name__}")
        return result

    def abort(self, request_id: str) -> None:
        """Gives a request up; its blocks are free after the engine's next step. Idempotent."""
        if self.is_alive:
            self._send(protocol.Abort(request_id))

    async def stats(self) -> WorkerStats:
        """Raises EngineDead when there is no worker any more."""
        answer = await self._call(protocol.GetStats)
        if answer is None:
            raise EngineDead("the worker answered a question about its state with nothing")
        return answer

    async def ping(self) -> None:
        """Returns when the worker's event loop has answered; raises EngineDead."""
        await self._call(protocol.Ping)

    async def release_kv(self) -> None:
        """Returns when the worker has given back the memory of KV blocks that no request holds; raises EngineDead."""
        await self._call(protocol.ReleaseKV)

    async def drain(self) -> None:
        """Lets the worker take nothing new and returns when its last request has finished; raises EngineDead."""
        self._check_alive()
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
            self._send(protocol.Drain())
        await asyncio.shield(self._drained)

    async def close(self) -> None:
        """Ends the process: by closing its connection, and by force if it does not end within seconds. Idempotent."""
        self._end(Death(DeathKind.CLOSED, "it has been closed"))
        await self._process.stop()
        if self._receiver is not None:
            await asyncio.wait({self._receiver})

    def _send(self, frame: protocol.ToWorker) -> None:
        if not self._process.writer.is_closing():
            self._process.writer.write(protocol.encode_frame(frame))

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineDead(f"there is no worker: {self._death.cause}")

    async def _call(self, frame: type[protocol.GetStats | protocol.Ping | protocol.ReleaseKV]) -> WorkerStats | None:
        self._check_alive()
        call_id = next(self._call_ids)
        future: asyncio.Future[WorkerStats | None] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = future
        try:
            self._send(frame(call_id))
            return await future
        finally:
            self._calls.pop(call_id, None)

    async def _receive(self) -> None:
        fault = ""
        try:
            while (payload := await read_payload(self._process.reader)) is not None:
                self._handle(protocol.decode_from_worker(payload))
        except Exception as error:  # without its reader every waiter would hang for ever
            logger.exception("what the worker sent could not be handled")
            fault = f"{type(error).__name__}: {error}; "
        if self._death is None:
            death = await self._process.autopsy(was_hung=bool(self._hung))
            words = f"{self._hung}; " if self._hung else fault
            self._end(replace(death, cause=words + death.cause))
        self._process.writer.close()

    def _handle(self, frame: protocol.FromWorker) -> None:
        match frame:
            case protocol.Outputs(outputs=outputs):
                for output in outputs:
                    self.has_answered |= bool(output.deltas)
                    self._deliver(output.request_id, output)
            case (
                protocol.Embedded(result=result)
                | protocol.Measured(result=result)
                | protocol.Rendered(result=result)
                | protocol.Texts(result=result)
            ):
                self._end_asked(result.request_id, result)
            case protocol.Failure(request_id="") if not self._ready.done():
                self._ready.set_exception(protocol.error_of(frame))
            case protocol.Failure(request_id=request_id) if request_id in self._asked:
                self._end_asked(request_id, protocol.error_of(frame))
            case protocol.Failure(request_id=request_id):
                self._deliver(request_id, protocol.error_of(frame))
            case protocol.Stats(call_id=call_id, stats=stats):
                self._answer(call_id, stats)
            case protocol.Pong(call_id=call_id):
                self._answer(call_id, None)
            case protocol.Progress(done_bytes=done, total_bytes=total):
                if self._on_progress is not None:
                    self._on_progress(done, total)
            case protocol.Planned(text=text):
                if self._on_plan is not None:
                    self._on_plan(text)
            case protocol.Ready(info=info, plan=plan) if not self._ready.done():
                self.info, self.plan = info, plan
                self._ready.set_result(None)
            case protocol.Drained() if self._drained is not None:
                if not self._drained.done():
                    self._drained.set_result(None)
            case _:
                raise protocol.FrameError(f"{type(frame).__name__} is out of order")

    def _deliver(self, request_id: str, output: RequestOutput | CorralError) -> None:
        # A request that its reader has left may still have outputs on the way.
        if (queue := self._streams.get(request_id)) is not None:
            queue.put_nowait(output)
        elif (on_rest := self._left.get(request_id)) is not None:
            if isinstance(output, RequestOutput):
                on_rest(output)
            if isinstance(output, CorralError) or output.is_finished:
                self._end_left(request_id)

    def _end_asked(
        self, request_id: str, result: EmbedResult | RequestSize | RenderedPrompt | Detokenized | CorralError
    ) -> None:
        future = self._asked.get(request_id)  # none if its caller was cancelled
        if future is None or future.done():
            return
        if isinstance(result, CorralError):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _answer(self, call_id: int, answer: WorkerStats | None) -> None:
        future = self._calls.get(call_id)
        if future is not None and not future.done():
            future.set_result(answer)

    def _end(self, death: Death) -> None:
        """Wakes every waiter with EngineDead; later calls get it at once."""
        if self._death is not None:
            return
        self._death = death
        cause = death.cause
        for queue in self._streams.values():
            queue.put_nowait(EngineDead(f"the worker has ended: {cause}"))
        for request_id in list(self._left):
            self._end_left(request_id)
        for request_id in list(self._asked):
            self._end_asked(request_id, EngineDead(f"the worker has ended: {cause}"))
        waiting: list[asyncio.Future[None] | asyncio.Future[WorkerStats | None]] = [self._ready, *self._calls.values()]
        if self._drained is not None:
            waiting.append(self._drained)
        for future in waiting:
            if not future.done():
                future.set_exception(EngineDead(f"the worker has ended: {cause}"))
                future.exception()  # it may have no waiter; then its silence is no mistake
        self.died.set()
