"""The worker process: one model behind one Unix socket. Started by WorkerClient, ends with its connection."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar

from corral.config import EngineConfig
from corral.engine.watch import StepWatch
from corral.errors import (
    CorralError,
    DeadlineExceeded,
    EngineDead,
    InvalidRequest,
    QueueFull,
    ServerDraining,
    TenantQueueFull,
)
from corral.limits import MAX_LOOKUPS
from corral.logs import REQUESTS_LOGGER, WireFormatter, about
from corral.request import (
    Detokenized,
    DetokenizeRequest,
    EmbedRequest,
    EmbedResult,
    RenderedPrompt,
    Request,
    RequestOutput,
    RequestSize,
    Usage,
)
from corral.worker import protocol
from corral.worker.fair_pool import FairPool
from corral.worker.framing import read_payload
from corral.worker.info import ModelInfo, WorkerStats
from corral.worker.outbox import Item, Outbox
from corral.worker.step_record import StepRecord

EXIT_ORPHANED = 0
EXIT_LOAD_FAILED = 3
EXIT_ENGINE_DEAD = 4
EXIT_PROTOCOL = 5
CLOSE_TIMEOUT_S = 5.0
TEXT_THREADS = 2  # render and tokenise off the event loop
ADAPTER_THREADS = 2  # the same for requests with an adapter: nobody else waits while it is loaded

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")

_OfTexts = RenderedPrompt | Detokenized | RequestSize

logger = logging.getLogger("corral.worker")


class LoadedModel(Protocol):
    """What the process needs of a Pipeline; every method may be called from any thread."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def plan_text(self) -> str: ...
    def submit(self, request: Request, on_output: Callable[[RequestOutput | CorralError], None]) -> int: ...
    def embed(self, request: EmbedRequest, on_result: Callable[[EmbedResult | CorralError], None]) -> int: ...
    def measure(self, request: Request | EmbedRequest) -> RequestSize: ...
    def render(self, request: Request) -> RenderedPrompt: ...
    def detokenize(self, request: DetokenizeRequest) -> Detokenized: ...
    def abort(self, request_id: str) -> None: ...
    def stats(self) -> WorkerStats: ...
    def release_kv(self) -> None: ...
    def watch(self, watch: StepWatch) -> None: ...
    def close(self) -> None: ...


# (path, config, on_progress(done_bytes, total_bytes), on_plan(text)) -> model
Loader = Callable[[Path, EngineConfig, Callable[[int, int], None], Callable[[str], None]], LoadedModel]


class Worker:
    """Serves one connection until it closes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, load: Loader, record: StepRecord
    ) -> None:
        self._reader = reader
        self._load = load
        self._record = record
        self._outbox = Outbox(writer, self._sent)
        self._text_pool = FairPool(TEXT_THREADS, "corral-text")
        self._adapter_pool = FairPool(ADAPTER_THREADS, "corral-adapter")
        self._model: LoadedModel | None = None
        self._live: dict[str, str] = {}  # requests taken and not yet answered to the end, and their tenants
        self._num_live_of: Counter[str] = Counter()  # by tenant
        self._submitting: dict[str, bool] = {}  # request id -> aborted while still being tokenised
        self._max_live = self._max_live_of_key = 0
        self._num_lookups = 0  # renders and detokenizations under way
        self._num_measured = 0  # requests that are measured
        self._is_draining = False
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Returns the exit code, when the connection or the engine has ended."""
        sender = asyncio.ensure_future(self._send())
        receiver = asyncio.ensure_future(self._receive())
        try:
            code = await self._exit_code
        finally:
            sender.cancel()
            receiver.cancel()
        if self._model is not None:
            closing = asyncio.get_running_loop().run_in_executor(None, self._model.close)
            await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        return code

    def _exit(self, code: int) -> None:
        if not self._exit_code.done():
            self._exit_code.set_result(code)

    async def _send(self) -> None:
        try:
            await self._outbox.run()
        except ConnectionError:
            self._exit(EXIT_ORPHANED)

    async def _receive(self) -> None:
        try:
            while (payload := await read_payload(self._reader)) is not None:
                self._handle(protocol.decode_to_worker(payload))
        except Exception as error:  # without its reader the worker would hang for ever
            logger.exception("a frame of the front process could not be handled: %s", error)
            self._exit(EXIT_PROTOCOL)
        self._exit(EXIT_ORPHANED)

    def _handle(self, frame: protocol.ToWorker) -> None:
        match frame:
            case protocol.Load(path=path, config=config) if self._model is None and self._max_live == 0:
                # Running and waiting sequences, and as many again on their way through the tokenizer.
                self._max_live = 2 * (config.max_queue + config.max_num_seqs)
                self._max_live_of_key = 2 * (config.max_queue_of_key + config.max_num_seqs)
                self._start(self._load_model(Path(path), config))
            case protocol.Submit(request=request) | protocol.SubmitEmbed(request=request) if self._model is not None:
                self._submit(self._model, request)
            case protocol.Measure(request=request) | protocol.MeasureEmbed(request=request) if self._model is not None:
                self._start(self._measure(self._model, request))
            case protocol.Render(request=request) if self._model is not None:
                self._start(self._look_up(request.request_id, partial(self._model.render, request)))
            case protocol.Detokenize(request=detokenize) if self._model is not None:
                self._start(self._look_up(detokenize.request_id, partial(self._model.detokenize, detokenize)))
            case protocol.Abort(request_id=request_id):
                if request_id in self._submitting:
                    self._submitting[request_id] = True
                elif self._model is not None:
                    self._model.abort(request_id)
                self._forget(request_id)
            case protocol.Drain():
                self._is_draining = True
                self._check_drained()
            case protocol.Ping(call_id=call_id):
                self._outbox.post(protocol.Pong(call_id))
            case protocol.ReleaseKV(call_id=call_id) if self._model is not None:
                self._start(self._release_kv(self._model, call_id))
            case protocol.GetStats(call_id=call_id) if self._model is not None:
                self._outbox.post(protocol.Stats(call_id, self._model.stats()))
            case _:
                raise protocol.FrameError(f"{type(frame).__name__} is out of order")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _load_model(self, path: Path, config: EngineConfig) -> None:
        def on_progress(done_bytes: int, total_bytes: int) -> None:
            self._outbox.post(protocol.Progress(done_bytes, total_bytes))

        def on_plan(text: str) -> None:
            self._outbox.post(protocol.Planned(text))

        loop = asyncio.get_running_loop()
        try:
            self._model = await loop.run_in_executor(None, self._load, path, config, on_progress, on_plan)
        except CorralError as error:
            self._outbox.post(protocol.failure_of("", error))
        except Exception as error:
            logger.exception("loading failed")
            self._outbox.post(protocol.failure_of("", CorralError(f"loading {path.name} failed: {error}")))
        else:
            self._model.watch(self._record)
            self._outbox.post(protocol.Ready(self._model.info, self._model.plan_text))

    def _submit(self, model: LoadedModel, request: Request | EmbedRequest) -> None:
        request_id = request.request_id
        if self._is_draining:
            self._fail(request_id, ServerDraining("the model finishes what it has and takes nothing new"))
        elif request_id in self._live or request_id in self._submitting:
            self._fail(request_id, InvalidRequest(f"the request id {request_id} is in use"))
        elif len(self._live) + len(self._submitting) >= self._max_live:
            self._fail(request_id, QueueFull(f"{len(self._live)} requests are waiting already; try again later"))
        elif request.tenant and self._num_live_of[request.tenant] >= self._max_live_of_key:
            waiting = f"{self._num_live_of[request.tenant]} requests of this key are waiting already"
            self._fail(request_id, TenantQueueFull(f"{waiting}; try again later"))
        else:
            self._live[request_id] = request.tenant
            self._num_live_of[request.tenant] += 1
            self._submitting[request_id] = False
            self._start(self._submit_text(model, request))

    async def _submit_text(self, model: LoadedModel, request: Request | EmbedRequest) -> None:
        request_id = request.request_id

        def on_output(output: RequestOutput | EmbedResult | CorralError) -> None:  # on the engine's thread
            if isinstance(output, CorralError):
                self._fail(request_id, output)
            else:
                self._outbox.post(protocol.Embedded(output) if isinstance(output, EmbedResult) else output)

        def prepare() -> int:
            if self._submitting[request_id]:
                raise CorralError("the request was given up before its text was prepared")
            if request.deadline is not None and time.monotonic() >= request.deadline:
                raise DeadlineExceeded("the time that the request was given is over")
            if isinstance(request, EmbedRequest):
                return model.embed(request, on_output)
            return model.submit(request, on_output)

        has_adapter = isinstance(request, Request) and request.adapter is not None
        pool = self._adapter_pool if has_adapter else self._text_pool
        try:
            num_tokens = await pool.run(request.tenant, request.weight, self._recorded(request_id, prepare))
            if isinstance(request, EmbedRequest):
                return
            # No deltas: it says that the request was taken, before a long prompt is computed.
            self._outbox.post(RequestOutput(request_id, usage=Usage(prompt_tokens=num_tokens)))
        except CorralError as error:
            self._fail(request_id, error)
        except Exception:
            logger.exception("request %s failed", request_id, extra={"request_id": request_id})
            self._fail(request_id, CorralError("the request could not be prepared; the worker's log says why"))
        finally:
            if self._submitting.pop(request_id):
                model.abort(request_id)

    async def _look_up(self, request_id: str, work: Callable[[], _OfTexts]) -> None:
        """Work on texts alone: it joins no queue and no drain waits for it."""
        if self._num_lookups >= MAX_LOOKUPS:
            self._fail(request_id, QueueFull(f"{self._num_lookups} prompts are looked at already; try again later"))
            return
        self._num_lookups += 1
        try:
            await self._tell(request_id, "", 1.0, work)
        finally:
            self._num_lookups -= 1

    async def _measure(self, model: LoadedModel, request: Request | EmbedRequest) -> None:
        """In the turns of the requests' own texts, of which it is one."""
        if self._num_measured >= self._max_live:
            self._fail(request.request_id, QueueFull(f"{self._num_measured} requests wait already; try again later"))
            return
        self._num_measured += 1
        try:
            await self._tell(request.request_id, request.tenant, request.weight, partial(model.measure, request))
        finally:
            self._num_measured -= 1

    async def _tell(
        self,
        request_id: str,
        tenant: str,
        weight: float,
        work: Callable[[], _OfTexts],
    ) -> None:
        """Does the work when it is the tenant's turn, and sends its result."""
        try:
            result = await self._text_pool.run(tenant, weight, self._recorded(request_id, work))
        except CorralError as error:
            self._fail(request_id, error)
        except Exception:
            logger.exception("request %s failed", request_id, extra={"request_id": request_id})
            self._fail(request_id, CorralError("the texts could not be prepared; the worker's log says why"))
        else:
            match result:
                case RenderedPrompt():
                    self._outbox.post(protocol.Rendered(result))
                case Detokenized():
                    self._outbox.post(protocol.Texts(result))
                case RequestSize():
                    self._outbox.post(protocol.Measured(result))

    def _recorded(self, request_id: str, work: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
        """`work` on a request's text, which the record names while it goes on."""

        def run(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
            with about(request_id), self._record.preparing(request_id):
                return work(*args, **kwargs)

        return run

    async def _release_kv(self, model: LoadedModel, call_id: int) -> None:
        # On a thread: the engine does it after its step.
        await asyncio.get_running_loop().run_in_executor(None, model.release_kv)
        self._outbox.post(protocol.Pong(call_id))

    def _fail(self, request_id: str, error: CorralError) -> None:
        self._outbox.post(protocol.failure_of(request_id, error))

    def _sent(self, item: Item) -> None:
        if isinstance(item, RequestOutput) and item.is_finished:
            self._forget(item.request_id)
        elif isinstance(item, protocol.Embedded):
            self._forget(item.result.request_id)
        elif isinstance(item, protocol.Failure):
            self._forget(item.request_id)
            if not item.request_id:
                self._exit(EXIT_LOAD_FAILED)
            elif item.kind == EngineDead.__name__:
                self._exit(EXIT_ENGINE_DEAD)

    def _forget(self, request_id: str) -> None:
        if (tenant := self._live.pop(request_id, None)) is not None:
            self._num_live_of[tenant] -= 1
            if not self._num_live_of[tenant]:
                del self._num_live_of[tenant]
        self._check_drained()

    def _check_drained(self) -> None:
        if self._is_draining and not self._live:
            self._outbox.post(protocol.Drained())


async def _serve(socket_path: str, record: StepRecord, load: Loader) -> NoReturn:
    reader, writer = await asyncio.open_unix_connection(socket_path)
    code = await Worker(reader, writer, load, record).run()
    logging.shutdown()
    os._exit(code)  # a load that is still running in its thread would hold a normal exit up


def run(load: Loader) -> NoReturn:
    """The whole life of the process: connects to the front, serves it, exits."""
    parser = argparse.ArgumentParser(
        prog="corral.worker", description="Serves one model to the process that started it."
    )
    parser.add_argument("--socket", required=True, help="Unix socket that the front process listens on")
    parser.add_argument("--record-fd", required=True, type=int, help="memory that the front process reads steps from")
    parser.add_argument("--log-level", default="WARNING", help="what is less than this is not said")
    parser.add_argument("--log-requests", action="store_true", help="what is said may hold prompts")
    arguments = parser.parse_args()
    record = StepRecord(arguments.record_fd)
    faulthandler.enable()  # a crash in native code leaves its stack in the log
    # A Ctrl-C in the terminal reaches the whole process group; the front decides when we stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _log_to_front(arguments.log_level, with_prompts=arguments.log_requests)
    asyncio.run(_serve(arguments.socket, record, load))


def _log_to_front(level: str, *, with_prompts: bool) -> None:
    """Lets the front process write what is logged here, in its own form."""
    handler = logging.StreamHandler()
    handler.setFormatter(WireFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])  # others' debugging is of no use
    logging.getLogger("corral").setLevel(level)
    if with_prompts:
        logging.getLogger(REQUESTS_LOGGER).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


def main() -> None:
    from corral.worker.loading import load_pipeline  # the native core; tests run this module without it

    run(load_pipeline)


if __name__ == "__main__":
    main()
